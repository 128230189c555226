"""Peak memory of a piece of work; light, since a new process imports this file."""

import numpy as np

from benchmarks.memory import peak_memory


def allocate(megabytes):
    """Return work that fills so much memory."""
    return lambda: np.ones(megabytes * 125_000)


def test_peak_memory_is_that_of_the_work_alone():
    held = np.ones(50_000_000)  # 400 MB here, which a new process does not hold
    assert 290 < peak_memory(allocate, 1, 300) < 330
    assert held.all()
