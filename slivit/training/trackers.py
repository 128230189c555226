"""TensorBoard and Weights & Biases, where they are wanted; log.csv is always written."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from slivit.utils.errors import UserError

Track = Callable[[dict], None]  # takes a row of the log


@dataclass(frozen=True)
class TrackerOptions:
    """Whether the log goes to TensorBoard too, and to which project of Weights & Biases."""

    tensorboard: bool = False
    wandb: str | None = None


@contextlib.contextmanager
def open_trackers(options: TrackerOptions, config: dict, out_dir: Path) -> Iterator[Track]:
    """Yield a function that sends a row of the log to every tracker asked for.

    Raises:
        UserError: a tracker is not installed.
    """
    with contextlib.ExitStack() as stack:
        tracks = []
        if options.tensorboard:
            tracks.append(_tensorboard(out_dir, stack))
        if options.wandb:
            tracks.append(_wandb(options.wandb, config, out_dir, stack))

        def track(row: dict) -> None:
            for one in tracks:
                one({key: value for key, value in row.items() if value is not None})

        yield track


def check_trackers(options: TrackerOptions) -> None:
    """Refuse trackers that are not installed.

    Raises:
        UserError: with the command that installs it.
    """
    for flag, package in (("tensorboard", "tensorboard"), ("wandb", "wandb")):
        if getattr(options, flag):
            try:
                __import__(package)
            except ImportError:
                raise UserError(f"--{flag}: the package {package} is not installed; "
                                f"pip install {package}, or omit --{flag}") from None


def _tensorboard(out_dir: Path, stack: contextlib.ExitStack) -> Track:
    from torch.utils.tensorboard import SummaryWriter

    writer = stack.enter_context(SummaryWriter(str(out_dir / "tensorboard")))

    def track(row: dict) -> None:
        for key, value in row.items():
            if key != "epoch":
                writer.add_scalar(key, float(value), row["epoch"])
        writer.flush()

    return track


def _wandb(project: str, config: dict, out_dir: Path, stack: contextlib.ExitStack) -> Track:
    import wandb

    run = wandb.init(project=project, config=config, dir=str(out_dir), name=out_dir.name,
                     resume="allow")
    stack.callback(run.finish)
    return lambda row: run.log(row, step=row["epoch"])
