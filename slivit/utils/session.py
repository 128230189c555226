"""What a script runs in: its device, its processes, the signals that stop it."""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from slivit.utils.distributed import ProcessGroup, join_world, leave_world
from slivit.utils.errors import RunError, UserError
from slivit.utils.failures import explain
from slivit.utils.log import LOG, setup_logging
from slivit.utils.output_dir import check_out_dir
from slivit.utils.precision import choose_precision
from slivit.utils.ranks import global_rank, local_rank, started_by_torchrun
from slivit.utils.runtime import choose_device, choose_workers, log_device, set_kernels
from slivit.utils.signals import StopSignal, stop_signals


@dataclass(frozen=True)
class Session:
    """What a script runs in.

    Attributes:
        device: where the model runs.
        n_workers: data-loading processes.
        world: the processes that torchrun started, or one.
        stop: whether a signal has come.
        resume, overwrite, quiet: see SessionOptions.
        inputs: files that the script reads, besides its scans.
        precision: type of number in which a model is trained.
    """

    device: torch.device
    n_workers: int = 0
    world: ProcessGroup = ProcessGroup()
    stop: StopSignal = field(default_factory=StopSignal)
    resume: bool = False
    overwrite: bool = False
    quiet: bool = False
    inputs: tuple[Path, ...] = ()
    precision: torch.dtype = torch.float32


@dataclass(frozen=True)
class SessionOptions:
    """Where and on what a script runs.

    Attributes:
        out_dir: where everything is written.
        gpu_id: number of a GPU, `cpu`, or None for the first GPU there is.
        n_cpu: data-loading processes; None for as many as suit the device.
        resume, overwrite: what is to be done with an out_dir that is not empty.
        quiet: whether to omit progress bars.
        deterministic: see runtime.set_kernels.
        settings: all options of the script by name, for advice where memory or disk run out.
        trained_in: `--amp` of a training; None where models are trained already, each of which
            has a type of its own.
    """

    out_dir: Path
    gpu_id: str | None
    n_cpu: int | None
    resume: bool
    overwrite: bool
    quiet: bool
    deterministic: bool
    settings: Mapping[str, object]
    trained_in: str | None = None


@contextlib.contextmanager
def open_session(options: SessionOptions, inputs: Iterable[Path | None]) -> Iterator[Session]:
    """Check the output folder, choose the device, join the other processes, catch signals.

    Args:
        options: see SessionOptions.
        inputs: files that the script reads; `--overwrite` must not remove them.

    Raises:
        UserError: the output folder or the device cannot be used.
        RunError: within the block memory or disk ran out, or a process died.
        Stopped: a signal came.
    """
    setup_logging()
    inputs = tuple(path for path in inputs if path is not None)
    several = started_by_torchrun()
    if several and global_rank():
        LOG.setLevel(logging.ERROR)
    else:
        check_out_dir(options.out_dir, options.resume, options.overwrite, inputs)
    device = choose_device(options.gpu_id, local_rank() if several else None)
    precision = torch.float32
    if options.trained_in is not None:
        precision = choose_precision(options.trained_in, device)
        set_kernels(device, [precision], options.deterministic)
        log_device(device, [precision])
    with stop_signals() as stop:
        try:
            yield Session(device, choose_workers(options.n_cpu, device), join_world(device), stop,
                          options.resume, options.overwrite, options.quiet, inputs, precision)
        except UserError:
            raise
        except Exception as error:  # of a library that a signal, or the lack of room, came upon
            if not isinstance(error, RunError):
                stop.check()
            explained = explain(error, options.settings)
            if explained is None:
                raise
            raise explained from None
        finally:
            leave_world()
