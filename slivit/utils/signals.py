"""SIGINT and SIGTERM: one line, whole files, and the state of the last whole step.

From a script's first line on, three handlers follow each other: while it imports, a signal ends the
process where it is (`end_at_signals`); in `run_script`, and in a session, it raises Stopped; when
all is done, it changes nothing (`ignore_at_end`).
Imports nothing that takes time.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from slivit.utils.ranks import global_rank

if TYPE_CHECKING:
    from slivit.utils.distributed import ProcessGroup

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ENOUGH = 3     # signals that end the process wherever it is
AGAIN = 0.05   # seconds after which a Stopped that was swallowed is raised again


class Stopped(BaseException):
    """The user, or the machine, has asked the run to stop.

    Not an Exception, so that nothing takes it for a fault in what is being read or computed.

    Attributes:
        number: the signal's.
        can_resume: whether the run has begun to write its folder, from which --resume continues.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.can_resume = False


def end_at_signals() -> None:
    """Have SIGINT and SIGTERM end the process at once, with one line and the signal's exit code."""
    for number in SIGNALS:
        signal.signal(number, _end)


def ignore_at_end() -> None:
    """Have a script that `end_at_signals` began, and that has finished, end with its own exit code.

    Python takes a second to end, in which it would give the system its own handlers back.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.SIG_IGN)


def _end(number: int, frame: object = None) -> None:
    if global_rank() == 0:
        os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


class StopSignal:
    """Whether the user, or the machine, has asked the run to stop.

    The first signal raises Stopped: at once or, while `deferred`, where it is next `allowed` to or
    at the next `check`; and again as long as some library swallows it (numpy does, in the indexing
    of strings). A second one changes nothing, so that what the first has begun, such as
    writing last.pt, is finished. The third ends the process where it is.

    Attributes:
        received: number of the first signal; 0 where none has come.
    """

    def __init__(self) -> None:
        self.received = 0
        self._count = 0
        self._raised = False
        self._deferred = False
        self._process = os.getpid()

    def note(self, number: int, frame: object = None) -> None:
        """Handle a signal."""
        if os.getpid() != self._process:  # a loading process: the one that started it decides
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        self._count += 1
        self.received = self.received or number
        if self._count >= ENOUGH:
            _end(number)
        self._raise()

    def _raise(self) -> None:
        if not self._deferred and not self._raised:
            self._raised = True
            if hasattr(signal, "setitimer"):
                signal.signal(signal.SIGALRM, self._again)
                signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
            raise Stopped(self.received)

    def _again(self, *_: object) -> None:
        """Raise Stopped again unless it is on its way: what handles it is not to be disturbed."""
        error = sys.exc_info()[1]
        while error is not None and not isinstance(error, Stopped):
            error = error.__context__
        if error is None and not self._deferred and os.getpid() == self._process:
            raise Stopped(self.received)

    @staticmethod
    def hide_lost(unraisable: "sys.UnraisableHookArgs") -> None:
        """Say nothing of a Stopped that a destructor has swallowed; a hook of sys."""
        if not isinstance(unraisable.exc_value, Stopped):
            sys.__unraisablehook__(unraisable)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this block a signal waits for `allowed` or `check`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    @contextlib.contextmanager
    def allowed(self, world: "ProcessGroup") -> Iterator[None]:
        """Within this block, inside `deferred`, raise at once: what it does can be done again.

        Of several processes none may leave a step alone; there it changes nothing.
        """
        if world.size > 1:
            yield
            return
        self._deferred = False
        try:
            self.check()
            yield
        finally:
            self._deferred = True

    def check(self, world: "ProcessGroup | None" = None) -> None:
        """Raise Stopped if a signal has come, to this process or another.

        Raises:
            Stopped: it has.
        """
        received = self.received
        if world is not None and world.size > 1:
            received = max(world.all_gather(received))
        if received:
            self.received, self._raised = received, True
            raise Stopped(received)


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignal]:
    """Catch SIGINT and SIGTERM within this block; a block within another shares its StopSignal."""
    outer = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if isinstance(outer, StopSignal):
        yield outer
        outer.check()  # one that some library has swallowed
        return
    stop = StopSignal()
    hook, sys.unraisablehook = sys.unraisablehook, stop.hide_lost
    before = {number: signal.signal(number, stop.note) for number in SIGNALS}
    try:
        yield stop
        stop.check()
    finally:
        if stop.received and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_IGN)  # one that is on its way
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


@contextlib.contextmanager
def held(signals: Iterable[int]) -> Iterator[None]:
    """Let signals wait; processes that are started within this block begin so."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals(worker: int = 0) -> None:
    """Leave a signal to the main process, which decides what becomes of this worker.

    Ctrl-C and `timeout` send theirs to a whole group of processes, of which a worker is no member
    then. SIGTERM to it alone, which is how it is ended, ends it.
    """
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
