"""What a script runs in: its device, its processes, the signals that stop it."""

import argparse
import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from slivit.utils.distributed import (
    ProcessGroup,
    join_world,
    leave_world,
    local_rank,
    started_by_torchrun,
)
from slivit.utils.errors import RunError, UserError
from slivit.utils.failures import explain
from slivit.utils.output_dir import check_out_dir
from slivit.utils.runtime import LOG, choose_device, choose_workers, setup_logging
from slivit.utils.signals import StopSignal, stop_signals


@dataclass(frozen=True)
class Session:
    """What a script runs in.

    Attributes:
        device: where the model runs.
        n_workers: data-loading processes.
        world: the processes that torchrun started, or one.
        stop: whether a signal has come.
        resume: whether to go on from `last.pt`.
        quiet: whether to omit progress bars.
        inputs: files that the script reads, beside its scans.
    """

    device: torch.device
    n_workers: int = 0
    world: ProcessGroup = ProcessGroup()
    stop: StopSignal = field(default_factory=StopSignal)
    resume: bool = False
    quiet: bool = False
    inputs: tuple[Path, ...] = ()


@contextlib.contextmanager
def open_session(args: argparse.Namespace, inputs: Iterable[Path | None]) -> Iterator[Session]:
    """Check the output folder, choose the device, join the other processes, catch signals.

    Args:
        args: with out_dir, overwrite, gpu_id, n_cpu, and maybe resume and quiet.
        inputs: files that the script reads; `--overwrite` must not remove them.

    Raises:
        UserError: the output folder or the device cannot be used.
        RunError: within the block memory or disk ran out, or a process died.
        Stopped: a signal came.
    """
    setup_logging()
    inputs = tuple(path for path in inputs if path is not None)
    resume = getattr(args, "resume", False)
    rank = local_rank() if started_by_torchrun() else None
    if rank:
        LOG.setLevel(logging.ERROR)
    else:
        check_out_dir(args.out_dir, resume, args.overwrite, inputs)
    device = choose_device(args.gpu_id, rank)
    with stop_signals() as stop:
        try:
            yield Session(device, choose_workers(args.n_cpu, device), join_world(device), stop,
                          resume, getattr(args, "quiet", False), inputs)
        except UserError:
            raise
        except Exception as error:  # of a library that a signal, or the lack of room, came upon
            if not isinstance(error, RunError):
                stop.check()
            explained = explain(error, args)
            if explained is None:
                raise
            raise explained from None
        finally:
            leave_world()
