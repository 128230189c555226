"""What a process does first, before imports that take seconds.

Imports nothing that takes time.
"""

import os
import sys

from slivit.utils.signals import end_at_signals

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")  # a user's own settings win
SPINS = "1000"  # turns of the loop in which a thread waits, before it sleeps
LONG = 100_000  # turns from which waiting threads keep others from the cores


def begin_process() -> None:
    """Let signals end the process, and threads wait for each other without taking a core."""
    end_at_signals()
    wait_asleep()


def wait_asleep() -> None:
    """Have the threads of PyTorch on a CPU sleep soon when they wait for each other.

    By default those of GNU's OpenMP spin 300,000 times, some milliseconds, so that beside another
    busy process each waits for one that cannot run. The variable is read when torch is imported,
    and has no effect later; processes that are started inherit it.
    """
    if "torch" not in sys.modules and not any(os.environ.get(name) for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = SPINS


def spins_long() -> bool:
    """Return whether threads of GNU's OpenMP spin for long by what the environment says."""
    count = os.environ.get("GOMP_SPINCOUNT", "").strip().lower()
    if count:
        power = "kmgt".find(count[-1]) + 1  # as libgomp reads it: 10k are 10 * 1024
        number = count[:-1].strip() if power else count
        return not number.isdecimal() or int(number) * 1024 ** power > LONG
    return os.environ.get("OMP_WAIT_POLICY", "").strip().upper() != "PASSIVE"
