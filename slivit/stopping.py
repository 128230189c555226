"""SIGINT and SIGTERM: finish the step, save, and say how to go on."""

import contextlib
import signal
from collections.abc import Iterable, Iterator

from slivit.errors import Stopped
from slivit.parallel import World

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Whether the user, or the machine, has asked the run to stop.

    While `deferred`, a signal is only noted, and `check` raises Stopped at the next good moment;
    otherwise the signal raises Stopped at once.
    """

    def __init__(self) -> None:
        self.received = 0
        self._deferred = False

    def note(self, number: int, frame: object = None) -> None:
        """Handle a signal; a second one does not wait."""
        again, self.received = self.received, number
        if again or not self._deferred:
            raise Stopped(number)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this block, wait for `check`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def check(self, world: World = World()) -> None:  # noqa: B008, a frozen record
        """Raise Stopped if a signal has come, to this process or another.

        Raises:
            Stopped: it has.
        """
        received = self.received
        if world.size > 1:
            received = max(world.join(received))
        if received:
            raise Stopped(received)

    def watch(self, items: Iterable) -> Iterator:
        """Pass items on, and check after each."""
        for item in items:
            yield item
            self.check()


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignal]:
    """Catch SIGINT and SIGTERM within this block."""
    stop = StopSignal()
    before = {number: signal.signal(number, stop.note) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
