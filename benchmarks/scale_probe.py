"""A training script as it is, in a process of its own that notes when it gets where.

Started by benchmarks.scale_runs as

    python -m benchmarks.scale_probe SCRIPT MARKS STOP_AFTER OPTIONS...

MARKS gets a line for each event: its name, the seconds since 1970, and the CPU seconds of this
process. After STOP_AFTER steps (0: never) the script is stopped as by SIGTERM.
"""

import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

from slivit.training import train_step
from slivit.utils.errors import run_script


class Marks:
    """The file of events, and how many steps have been taken."""

    def __init__(self, path: Path, stop_after: int) -> None:
        self.path, self.stop_after, self.steps = path, stop_after, 0

    def note(self, event: str) -> None:
        """Add an event that is now."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{event} {time.time()} {time.process_time()}\n")

    def after(self, work: Callable, event: str) -> Callable:
        """Return a function that does the same and then notes the event."""
        def noted(*args, **kwargs) -> object:
            result = work(*args, **kwargs)
            self.note(event)
            return result

        return noted

    def after_step(self, work: Callable) -> Callable:
        """Return a step's last function, which notes the first step and stops after the last."""
        def noted(*args, **kwargs) -> None:
            work(*args, **kwargs)
            self.steps += 1
            if self.steps == 1:
                self.note("step")
            if self.steps == self.stop_after:
                self.note("stop")
                os.kill(os.getpid(), signal.SIGTERM)

        return noted


def main(argv: list[str]) -> None:
    """Let the script's own functions leave marks, and run it."""
    script, path, stop_after, *options = argv
    marks = Marks(Path(path), int(stop_after))
    module = importlib.import_module(script)
    marks.note("imports")
    module.load_scans = marks.after(module.load_scans, "table")
    module.check_headers = marks.after(module.check_headers, "headers")
    train_step.update_weights = marks.after_step(train_step.update_weights)
    run_script(lambda: module.main(options))
    marks.note("end")


if __name__ == "__main__":
    main(sys.argv[1:])
