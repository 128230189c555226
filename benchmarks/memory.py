"""Peak memory of a piece of work, in a process of its own."""

import multiprocessing
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch


def peak_memory(make: Callable[..., Callable[[], None]], threads: int, *args) -> float:
    """Return by how many megabytes (10^6 bytes) the resident set's high-water mark grows.

    Args:
        make: a function of a module; called with `args` in a fresh process, it prepares the work.
        threads: of torch.
        args: of `make`.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(theirs, make, threads, args))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()


def _run(pipe, make: Callable[..., Callable[[], None]], threads: int, args: tuple) -> None:
    torch.set_num_threads(threads)
    work = make(*args)
    before = _high_water()
    work()
    pipe.send(_high_water() - before)


def _high_water() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where a new process's ru_maxrss begins with that of its parent
        match = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"), re.MULTILINE)
        return int(match[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
