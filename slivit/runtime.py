"""Device, threads, seeds, logging, and files that are written whole or not at all."""

import contextlib
import errno
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError

from slivit import __version__
from slivit.errors import RunError, UserError
from slivit.parallel import World

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LOG = logging.getLogger("slivit")
RUN_FILES = ("config.json", "split.csv", "log.csv", "history.png", "last.pt",
             "backbone.safetensors", "slivit.safetensors", "metrics.json", "predictions.csv",
             "roc.png", "pr.png", "calibration.png", "scatter.png", "data_report.csv",
             "contact_sheet.png", "folds.csv", "confusion.png", "bland_altman.png",
             "report.html", "report.md")
RUN_FOLDERS = ("worst", "explain")  # of pictures and heat maps


def setup_logging() -> None:
    """Send this package's messages to stdout, one line each.

    What stdout cannot say, such as a file name that is not UTF-8, is written as an escape.
    """
    LOG.handlers.clear()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False


def usable_cpus() -> int:
    """Return the number of CPU cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_device(gpu_id: str | None, rank: int | None = None) -> torch.device:
    """Return the device for `--gpu_id` (`None`: GPU 0 where there is one, else the CPU).

    Of several processes on a machine, each takes the GPU of its number `rank`.

    Raises:
        UserError: no such GPU, or neither a number nor `cpu`.
    """
    found = torch.cuda.device_count()
    if rank is not None and gpu_id not in (None, "cpu"):
        raise UserError(f"--gpu_id {gpu_id}: with torchrun every process takes a GPU of its own; "
                        "leave --gpu_id away, or say cpu")
    if rank is not None and gpu_id is None and found:
        gpu_id = str(rank)
    if gpu_id is None:
        gpu_id = "0" if found else "cpu"
    if gpu_id.lower() == "cpu":
        # More threads than cores make OpenMP threads spin and wait for each other.
        wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
        torch.set_num_threads(int(wanted) if wanted.isdecimal() and int(wanted) else usable_cpus())
        LOG.info("device: CPU, %d threads", torch.get_num_threads())
        return torch.device("cpu")
    if not gpu_id.isdecimal():
        raise UserError(f"--gpu_id {gpu_id}: expected a GPU number or 'cpu'")
    if int(gpu_id) >= found:
        names = ", ".join(f"{i} ({torch.cuda.get_device_name(i)})" for i in range(found))
        raise UserError(f"--gpu_id {gpu_id}: there is no such GPU; found {names or 'none'}. "
                        "Choose another number, or --gpu_id cpu")
    # The same numbers again: deterministic kernels, for which cuBLAS wants a fixed workspace.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    device = torch.device("cuda", int(gpu_id))
    torch.cuda.set_device(device)
    LOG.info("device: GPU %s (%s)", gpu_id, torch.cuda.get_device_name(device))
    return device


def choose_workers(n_cpu: int | None, device: torch.device) -> int:
    """Return the number of data-loading processes, never more than there are cores."""
    cores = usable_cpus()
    if n_cpu is None:
        return min(8, cores) if device.type == "cuda" else 0
    if n_cpu > cores:
        LOG.info("--n_cpu %d: this machine gives %d cores, using %d", n_cpu, cores, cores)
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


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it on success and vanishes on failure.

    The temporary name keeps the suffix, since matplotlib chooses the format by it.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # each library has its own kind
        if isinstance(error, OSError) and error.errno not in FULL:
            raise
        raise RunError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error}); "
                       "make room, then go on with --resume. The last good files are intact"
                       ) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write `content` as indented JSON, whole or not at all; NaN is refused."""
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def scratch_dir(parent: Path, world: World = World()) -> Iterator[Path]:  # noqa: B008
    """Yield a new folder in `parent`, the same for all processes, that is removed at the end."""
    made = tempfile.mkdtemp(prefix=".scratch.", dir=parent) if world.main else None
    folder = Path(world.join(made)[0])
    try:
        yield folder
    finally:
        if world.main:
            shutil.rmtree(folder, ignore_errors=True)


def check_out_dir(out_dir: Path, resume: bool = False, overwrite: bool = False,
                  inputs: Iterable[Path | None] = ()) -> None:
    """Refuse an output folder that holds something, unless `resume` or `overwrite`.

    Nothing is made or removed here: that waits until all input has been found good.

    Raises:
        UserError: not a folder, not empty, not writable, or `overwrite` would remove one of the
            `inputs`, the files that the run reads.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise UserError(f"--out_dir {out_dir}: is a file, expected a folder")
    if out_dir.is_dir() and any(out_dir.iterdir()) and not (resume or overwrite):
        raise UserError(f"--out_dir {out_dir}: is not empty. Name another folder, or add "
                        "--overwrite to start again there (the training scripts also take "
                        "--resume to go on)")
    lost = [str(path) for path in inputs if overwrite and path is not None
            and path.name in RUN_FILES and path.resolve().parent == out_dir.resolve()]
    if lost:
        raise UserError(f"--out_dir {out_dir}: --overwrite would remove {', '.join(lost)}, which "
                        "this run reads. Name another --out_dir")
    check_writable(out_dir, "--out_dir")


def check_writable(folder: Path, flag: str) -> None:
    """Refuse a folder in which nothing can be written, or that cannot be made.

    Raises:
        UserError: with the flag that named it.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):  # os.access knows too little: root, full disks
            pass
    except OSError as error:
        raise UserError(f"{flag} {folder}: cannot write in {existing}: {error.strerror}") from error


def open_out_dir(out_dir: Path, overwrite: bool = False) -> None:
    """Make the output folder and clear what killed runs left half-made.

    With `overwrite`, the files of an earlier run of ours are removed too; others stay.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    for scratch in out_dir.glob(".scratch.*"):
        shutil.rmtree(scratch, ignore_errors=True)
    for part in out_dir.glob(".*.part*"):
        part.unlink(missing_ok=True)
    if overwrite:
        for name in RUN_FILES:
            (out_dir / name).unlink(missing_ok=True)
        for folder in RUN_FOLDERS:
            for file in [*out_dir.glob(f"{folder}/*.png"), *out_dir.glob(f"{folder}/*.nii.gz")]:
                file.unlink()
