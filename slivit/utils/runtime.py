"""Device, kernels, threads, loading processes, seeds and versions."""

import contextlib
import multiprocessing
import os
import platform
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import joblib
import numpy as np
import torch
from threadpoolctl import threadpool_limits

from slivit.utils.errors import UserError
from slivit.utils.log import LOG, counted
from slivit.utils.precision import precision_name
from slivit.utils.ranks import processes_here, started_by_torchrun
from slivit.utils.signals import SIGNALS, held, leave_signals
from slivit.utils.startup import spins_long
from slivit.version import __version__

LOADAVG = Path("/proc/loadavg")  # of Linux; its fourth field begins with the running threads
LOOKS, BETWEEN = 5, 0.002  # at it, and seconds from one to the next


def usable_cpus() -> int:
    """Return the number of CPU cores for this process, within the limits of a container.

    The processes that torchrun has started on this machine share them.
    """
    return max(1, joblib.cpu_count() // processes_here())


def running_elsewhere() -> int:
    """Return how many threads of other processes run, or wait for a core, on this machine.

    The least of some looks, so that what runs for a moment does not count; 0 where the system does
    not say.
    """
    counts = []
    for _ in range(LOOKS):
        try:
            running, _, _ = LOADAVG.read_text(encoding="utf-8").split()[3].partition("/")
            counts.append(int(running) - 1)
        except (OSError, ValueError, IndexError):
            return 0
        time.sleep(BETWEEN)
    return max(0, min(counts))


def what_slows_down(threads: int, others: int) -> str:
    """Return in a line why so many threads will be slow on this machine; empty if they will not.

    Args:
        threads: of this process.
        others: that run on the machine already.
    """
    cores, machine = usable_cpus(), os.cpu_count() or 1
    if threads > cores:
        return (f"OMP_NUM_THREADS={threads} is more than the cores there are for this process "
                f"({cores}), which makes it slower")
    if threads + others <= machine:
        return ""
    text = f"other processes keep {min(others, machine)} of {machine} cores busy: this takes longer"
    return text + ("; much longer, since PyTorch's threads spin while they wait: set "
                   "GOMP_SPINCOUNT=1000 in the environment" * (threads > 1 and spins_long()))


def choose_device(gpu_id: str | None, rank: int | None = None) -> torch.device:
    """Return the device for `--gpu_id` (`None`: GPU 0 where there is one, else the CPU).

    Of several processes on a machine, each takes the GPU of its number `rank`.

    Raises:
        UserError: no such GPU, or neither a number nor `cpu`.
    """
    gpus = torch.cuda.device_count()
    if rank is not None and gpu_id not in (None, "cpu"):
        raise UserError(f"--gpu_id {gpu_id}: with torchrun every process takes a GPU of its own; "
                        "omit --gpu_id, or give cpu")
    if rank is not None and gpu_id is None and gpus:
        gpu_id = str(rank)
    if gpu_id is None:
        gpu_id = "0" if gpus else "cpu"
    if gpu_id.lower() == "cpu":
        # More threads than cores make OpenMP threads spin and wait for each other.
        wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
        torch.set_num_threads(int(wanted) if wanted.isdecimal() and int(wanted) else usable_cpus())
        return torch.device("cpu")
    if not gpu_id.isdecimal():
        raise UserError(f"--gpu_id {gpu_id}: expected a GPU number or 'cpu'")
    if int(gpu_id) >= gpus:
        names = ", ".join(f"{i} ({torch.cuda.get_device_name(i)})" for i in range(gpus))
        raise UserError(f"--gpu_id {gpu_id}: there is no such GPU; found {names or 'none'}. "
                        "Choose another number, or --gpu_id cpu")
    device = torch.device("cuda", int(gpu_id))
    torch.cuda.set_device(device)
    return device


def log_device(device: torch.device, precisions: Iterable[torch.dtype]) -> None:
    """Say what the model runs on, and in which type of number: the first line of a script."""
    where = f"CPU, {counted(torch.get_num_threads(), 'thread')}"
    if device.type == "cuda":
        where = f"GPU {device.index} ({torch.cuda.get_device_name(device)})"
    LOG.info("device: %s, %s", where,
             " and ".join(dict.fromkeys(precision_name(one) for one in precisions)))
    if device.type == "cpu" and (slow := what_slows_down(
            torch.get_num_threads(), 0 if started_by_torchrun() else running_elsewhere())):
        LOG.info("  %s", slow)


def set_kernels(device: torch.device, precisions: Iterable[torch.dtype],
                deterministic: bool | None = False) -> None:
    """Say which kernels a GPU computes with, in this whole process; on a CPU nothing changes.

    cuDNN's search for the fastest kernel stays off: it begins anew for every number of slices, and
    may choose another kernel in the next run.

    Args:
        device: of the model. To be called before anything is computed on it.
        precisions: types of number in which backbones multiply. Where one is of half the size,
            the float32 products that remain take TF32, whose factors have 10 bits; else none does.
        deterministic: the same numbers in each run, as far as PyTorch has kernels for that; it
            warns where it has none. None leaves this to whoever has set it.
    """
    if device.type != "cuda":
        return
    tf32 = any(one != torch.float32 for one in precisions)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = False
    if deterministic is None:
        return
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS wants a fixed one
        torch.utils.deterministic.fill_uninitialized_memory = False  # nothing here reads it


@contextlib.contextmanager
def starting_workers() -> Iterator[None]:
    """Start loading processes within this block: signals wait until `begin_worker` has run.

    A copy of this process would start all threads of BLAS to be told to use one, so it is told
    before.
    """
    with held(SIGNALS), threadpool_limits(1):
        yield


def begin_worker(number: int = 0) -> None:
    """Begin a loading process: one thread, and no signals; a `worker_init_fn`.

    PyTorch's loop of such a process sees to its own threads.
    """
    leave_signals()
    if multiprocessing.get_start_method() != "fork":  # no copy, see starting_workers
        threadpool_limits(1)


def choose_workers(n_cpu: int | None, device: torch.device) -> int:
    """Return the number of data-loading processes, never more than there are cores."""
    cores = usable_cpus()
    if n_cpu is None:
        return min(8, cores) if device.type == "cuda" else 0
    if n_cpu > cores:
        LOG.info("--n_cpu %d: %d cores are available, using %d", n_cpu, cores, cores)
    return min(n_cpu, cores)


def derive_seed(*parts: int) -> int:
    """Return one 63-bit seed from several whole numbers, such as (seed, epoch, row)."""
    return int(np.random.SeedSequence([part % 2**32 for part in parts])
               .generate_state(1, np.uint64)[0] >> np.uint64(1))


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    import timm
    import torchvision

    return {"slivit": __version__, "python": platform.python_version(),
            "torch": str(torch.__version__), "torchvision": str(torchvision.__version__),
            "timm": timm.__version__, "numpy": np.__version__}
