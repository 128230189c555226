"""How threads wait for each other: seconds of a step by setting, alone and beside a busy process.

OpenMP reads the settings when torch is imported, so that each measurement is a process of its own.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import torch

from benchmarks.speed_steps import make_steps
from slivit.data.named_sets import DATA_DIR
from slivit.utils.startup import WAITING

OURS = "GOMP_SPINCOUNT=1000"
SETTINGS = {  # KMP_BLOCKTIME, which GNU's OpenMP ignores, keeps ours from being set
    "PyTorch's default": {"KMP_BLOCKTIME": "200"}, OURS: {}, "GOMP_SPINCOUNT=0":
    {"GOMP_SPINCOUNT": "0"}, "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"}}
STATES = ("alone", "beside a busy process", "beside a busy process on one core")
BUSY = "import os, sys\nif sys.argv[1:]: os.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: 0"
MODELS = (("convnext_atto_bn", 64, 112, 5), ("convnext_tiny", 256, 4, 2))
QUICK = (("convnext_zepto_rms", 32, 4, 2),)


def waiting(quick: bool, repeats: int, threads: int) -> list[dict]:
    """Measure every setting in turn, `repeats` times.

    Returns:
        Rows of model, what, state, setting, seconds (the median), and ratio to the seconds of the
        best setting alone.
    """
    taken: dict[tuple[str, str, str, str], list[float]] = {}
    for _ in range(repeats):
        for state in STATES:
            for setting in SETTINGS:
                for (model, what), seconds in _measure(state, setting, quick, threads).items():
                    taken.setdefault((model, what, state, setting), []).append(seconds)
    found = {key: statistics.median(seconds) for key, seconds in taken.items()}
    rows = []
    for (model, what, state, setting), seconds in sorted(
            found.items(), key=lambda one: (*one[0][:2], STATES.index(one[0][2]))):
        best = min(found[model, what, STATES[0], other] for other in SETTINGS)
        rows.append({"model": model, "what": what, "state": state, "setting": setting,
                     "seconds": round(seconds, 4), "ratio": round(seconds / best, 2),
                     "repeats": repeats})
    return rows


def _measure(state: str, setting: str, quick: bool, threads: int
             ) -> dict[tuple[str, str], float]:
    """Return the seconds of each model's steps in a fresh process, with a setting in a state."""
    clean = {name: value for name, value in os.environ.items() if name not in WAITING}
    words = [sys.executable, "-m", "benchmarks.speed_waiting", str(threads), *["quick"] * quick]
    with _busy(state):
        done = subprocess.run(words, cwd=DATA_DIR.parent, env=clean | SETTINGS[setting], text=True,
                              stdout=subprocess.PIPE, check=True)
    return {(model, what): seconds for model, what, seconds in json.loads(done.stdout)}


@contextmanager
def _busy(state: str) -> Iterator[None]:
    """Keep a core busy within this block, as the state says."""
    if state == STATES[0]:
        yield
        return
    core = [str(max(os.sched_getaffinity(0)))] if state == STATES[2] else []
    process = subprocess.Popen([sys.executable, "-c", BUSY, *core])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def timed_steps(quick: bool) -> list[tuple[str, str, float]]:
    """Return model, what, and the median of the seconds of its steps, measured in this process."""
    rows = []
    for name, size, n_slices, count in QUICK if quick else MODELS:
        for what, step in make_steps("slivit", size, n_slices, name).items():
            step()  # to warm up
            taken = []
            for _ in range(count):
                start = time.perf_counter()
                step()
                taken.append(time.perf_counter() - start)
            rows.append((f"{name}, {n_slices} slices of {size} pixels", what,
                         statistics.median(taken)))
    return rows


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps(timed_steps(sys.argv[2:] == ["quick"])))
