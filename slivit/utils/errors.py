"""The ways in which a run may end early, and how a script reports them."""

import contextlib
import difflib
import multiprocessing
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from slivit.utils.log import wrapped
from slivit.utils.ranks import global_rank
from slivit.utils.signals import Stopped, ignore_at_end, stop_signals

T = TypeVar("T")
MAX_LISTED = 100
TRAINING = ("bb_train.py", "finetune.py")  # scripts that can go on where they stopped


class UserError(Exception):
    """Bad input (exit code 2): the message says what was found, what was expected, what to do.

    With several processes all find the same fault, and rank 0 reports it; where `by_one` is True,
    the process that finds it does.
    """

    by_one = False


class RunError(Exception):
    """A failure while running that is not the input's fault (exit code 1).

    With several processes the one that fails reports it; where `by_one` is False, all fail alike,
    and rank 0 does.
    """

    by_one = True


class NotWritten(RunError):
    """A file could not be written; the one that was there is intact.

    Attributes:
        path, reason: which, and what the system says.
        full: whether there is no space; else writing is not allowed.
    """

    def __init__(self, path: Path | str, reason: str, full: bool = True,
                 then: str = "run the command again") -> None:
        mend = "free disk space" if full else "check the permissions"
        super().__init__(f"{path}: cannot be written ({reason}); {mend}, then {then}. The last "
                         "good files are intact")
        self.path, self.reason, self.full, self._then = path, reason, full, then

    def __reduce__(self) -> tuple:
        """Say how to make it again, where another process has met it."""
        return type(self), (self.path, self.reason, self.full, self._then), self.__dict__


def together(*checks: Callable[[], T]) -> list[T]:
    """Return what several checks return; if some refuse, raise one error with all that is wrong.

    Raises:
        UserError: one of them, or several, refused.
    """
    results, errors = [], []
    for check in checks:
        try:
            results.append(check())
        except UserError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise UserError(f"{len(errors)} problems found.\n" + "\n".join(map(str, errors)))
    return results


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
        with stop_signals():
            main()
    except UserError as error:
        refuse(error)
    except PermissionError as error:  # of whatever looks at a file or folder
        _print_error(f"{error.filename}: {error.strerror}; check its permissions, and those of the "
                     "folders above it")
        sys.exit(2)
    except RunError as error:
        if error.by_one or global_rank() == 0:
            _print_error(str(error))
        sys.exit(1)
    except (Stopped, KeyboardInterrupt) as stop:
        _end_stopped(stop)
    finally:
        ignore_at_end()


def refuse(error: UserError) -> NoReturn:
    """End a script over bad input: one message, exit code 2."""
    if error.by_one or global_rank() == 0:
        _print_error(str(error))
    sys.exit(2)


def _print_error(message: str) -> None:
    """Print the one message with which a script ends, on stderr."""
    text = printable(f"error: {message}")
    print(wrapped(text) if sys.stderr.isatty() else text, file=sys.stderr)


def printable(text: object) -> str:
    """Return a text that any terminal takes: of file names that are no text, the bytes in hex."""
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def _end_stopped(stop: Stopped | KeyboardInterrupt) -> None:
    """Say in one line what stopped the run and how to continue, and end it without waiting.

    Neither for loading processes, nor for threads that still read scans.
    """
    number = getattr(stop, "number", signal.SIGINT)
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    text = f"stopped by {signal.Signals(number).name}"
    words = [word for word in sys.argv if word not in ("--overwrite", "--resume")]
    if Path(sys.argv[0]).name in TRAINING and (
            "--resume" in sys.argv or getattr(stop, "can_resume", False)):
        text += f". To continue: python {shlex.join([*words, '--resume'])}"
    if global_rank() == 0:
        print(printable(text), file=sys.stderr)
    for process in multiprocessing.active_children():
        process.kill()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the reader of a pipe may be gone
            stream.flush()
    os._exit(128 + number)
