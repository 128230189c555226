"""Scripts as processes that are sent signals at given moments, and how they ended."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LAUNCH = Path(__file__).with_name("launch.py")
ROOT = LAUNCH.parents[2]
OURS = ("slivit", "tests", "bb_train", "finetune", "evaluate", "__main__", "__mp_main__")
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
TICK = 0.002  # seconds between two looks at a process


@dataclass(frozen=True)
class Shot:
    """A signal and its moment.

    Attributes:
        number: of the signal.
        after: seconds after the script's first line, the last shot, or the writing of `file`.
        file: wait until this one has been written; None: do not.
        group: whether the processes that the script started get it too, as from a terminal.
    """

    number: int
    after: float
    file: Path | None = None
    group: bool = False

    def __str__(self) -> str:
        since = f"after {self.file.name} is written" if self.file else "later"
        return (f"{signal.Signals(self.number).name} {self.after:.3f} s {since}"
                + (" to the group" if self.group else ""))


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: exit code; minus a signal's number; None where it hung and was killed.
        out, err: what it printed.
        seconds: from the script's first line to the end.
        shots: that reached it, with the seconds after the script's first line.
    """

    code: int | None
    out: str
    err: str
    seconds: float
    shots: tuple[tuple[Shot, float], ...] = ()

    @property
    def wait(self) -> float:
        """Seconds from the first shot to the end."""
        return self.seconds - self.shots[0][1]


@dataclass(frozen=True)
class Process:
    """A running script; `poll` gives its exit code, None while it runs."""

    pid: int
    poll: Callable[[], int | None]
    log: Path

    def send(self, shot: Shot) -> None:
        """Send a signal."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if shot.group else os.kill)(self.pid, shot.number)

    def clear(self) -> None:
        """Kill what is left of it, with all processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


class Launcher:
    """Starts scripts, anew or as copies of a process that has imported their packages."""

    def __init__(self) -> None:
        self.environment = {**os.environ, "GOMP_SPINCOUNT": "1000", **ONE_THREAD}
        self.copier: subprocess.Popen | None = None

    def start(self, words: Sequence[str], log: Path, fresh: bool = False,
              memory: int | None = None) -> Process:
        """Start a script in the repository's root.

        Args:
            words: its command line, after `python`.
            log: path without suffix: .out, .err and .mark are written.
            fresh: anew, imports and all.
            memory: most bytes of address space; of copies alone.
        """
        paths = {name: f"{log}.{name}" for name in ("mark", "out", "err")}
        if fresh:
            with open(paths["out"], "wb") as out, open(paths["err"], "wb") as err:
                started = subprocess.Popen(
                    [sys.executable, str(LAUNCH), paths["mark"], *words], cwd=ROOT, stdout=out,
                    stderr=err, stdin=subprocess.DEVNULL, env=self.environment,
                    start_new_session=True)
            return Process(started.pid, started.poll, log)
        pid = self._ask({"words": list(words), "memory": memory, **paths})
        while os.getsid(pid) != pid:  # its own session, as a new one has from the start
            time.sleep(TICK)
        return Process(pid, lambda: self._ask({"poll": pid}), log)

    def _ask(self, request: dict) -> int | None:
        if self.copier is None:
            self.copier = subprocess.Popen(
                [sys.executable, str(LAUNCH)], cwd=ROOT, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True, env=self.environment, start_new_session=True)
            threads = self._ask({"preload": [name for name in list(sys.modules)
                                             if name.partition(".")[0] not in OURS]})
            if threads > 1:
                print(f"note: {threads} threads run in the process that is copied")
        print(json.dumps(request), file=self.copier.stdin, flush=True)
        return json.loads(self.copier.stdout.readline())

    def close(self) -> None:
        """End the process that is copied."""
        if self.copier is not None:
            self.copier.stdin.close()
            self.copier.wait()


class _Watch:
    """Looks at a process until it ends or its time is over."""

    def __init__(self, process: Process, limit: float) -> None:
        self.process, self.deadline = process, time.monotonic() + limit
        self.code: int | None = None

    @property
    def over(self) -> bool:
        return self.code is not None or time.monotonic() > self.deadline

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait until a condition holds, or no longer than the process runs."""
        while not self.over and not reached():
            self.code = self.process.poll()
            if self.code is None:
                time.sleep(TICK)


def finish(process: Process, shots: Sequence[Shot] = (), limit: float = 90.0) -> Ended:
    """Send signals at their moments and wait for the end, `limit` seconds at most."""
    watch = _Watch(process, limit)
    before = {shot: _stamp(shot.file) for shot in shots}
    watch.until(Path(f"{process.log}.mark").exists)
    first, sent = time.monotonic(), []
    for shot in shots:
        if shot.file is not None:
            watch.until(lambda shot=shot: _stamp(shot.file) != before[shot])
        due = time.monotonic() + shot.after
        watch.until(lambda due=due: time.monotonic() >= due)
        if watch.over:
            break
        process.send(shot)
        sent.append((shot, time.monotonic() - first))
    watch.until(lambda: False)
    seconds = time.monotonic() - first
    process.clear()
    while watch.code is None and process.poll() is None:  # it hung
        time.sleep(TICK)
    out, err = (Path(f"{process.log}.{name}").read_text(encoding="utf-8", errors="replace")
                for name in ("out", "err"))
    return Ended(watch.code, out, err, seconds, tuple(sent))


def _stamp(file: Path | None) -> tuple[int, int] | None:
    """Return what tells a file from the one that replaces it."""
    with contextlib.suppress(OSError):
        if file is not None:
            found = file.stat()
            return found.st_ino, found.st_mtime_ns
    return None
