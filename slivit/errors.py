"""The ways in which a run may end early, and how a script reports them."""

import difflib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

MAX_LISTED = 100
TRAINING = ("bb_train.py", "finetune.py")  # scripts that can go on where they stopped


class UserError(Exception):
    """Bad input (exit code 2): the message says what was found, what was expected, what to do.

    Of several processes all find the same fault, and the first one says it; where `by_one` is True,
    the process that finds it does.
    """

    by_one = False


class RunError(Exception):
    """A failure while running that is not the input's fault (exit code 1)."""


class Stopped(Exception):
    """The user, or the machine, has asked the run to stop; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def listing(offenders: Iterable[object], limit: int = MAX_LISTED) -> str:
    """Return offenders as indented lines; past `limit`, the rest is counted."""
    rows = [str(offender) for offender in offenders]
    shown = [f"  {row}" for row in rows[:limit]]
    if len(rows) > limit:
        shown.append(f"  ... and {len(rows) - limit} more")
    return "\n".join(shown)


def nearest(name: str, known: Sequence[str], count: int = 3) -> str:
    """Return the `count` known names closest to `name`, comma-separated."""
    by_lower = {item.lower(): item for item in known}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=count, cutoff=0.0)
    return ", ".join(by_lower[item] for item in close)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its kind where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main`; turn the errors above into one message on stderr and an exit code."""
    try:
        main()
    except UserError as error:
        if error.by_one or int(os.environ.get("RANK", 0)) == 0:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except (Stopped, KeyboardInterrupt) as stop:
        number = getattr(stop, "number", signal.SIGINT)
        text = f"\nstopped by {signal.Signals(number).name}"
        if Path(sys.argv[0]).name in TRAINING:
            words = [word for word in sys.argv if word not in ("--overwrite", "--resume")]
            text += f". To go on:\n  python {shlex.join([*words, '--resume'])}"
        if int(os.environ.get("RANK", 0)) == 0:
            print(text, file=sys.stderr)
        sys.exit(128 + number)
