"""What torchrun tells the processes that it starts, in their environment.

Imports nothing that takes time. What is no number, as where something else has set the variable,
counts as not set.
"""

import os


def global_rank() -> int:
    """Return the number of this process among all that torchrun started, on every machine."""
    return _number("RANK", 0)


def local_rank() -> int:
    """Return the number of this process on its machine."""
    return _number("LOCAL_RANK", 0)


def processes_here() -> int:
    """Return how many processes of this run are on this machine."""
    return max(1, _number("LOCAL_WORLD_SIZE", 1))


def started_by_torchrun() -> bool:
    """Return whether torchrun started this process as one of several."""
    return _number("WORLD_SIZE", 1) > 1


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
