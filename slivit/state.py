"""`last.pt`: where a training stands, so that it can go on as if it had never stopped."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from slivit import checkpoint
from slivit.errors import UserError, first_line
from slivit.files import whole_file
from slivit.parallel import World
from slivit.session import Session


@dataclass
class Progress:
    """Where a training stands.

    Attributes:
        epoch, step: to go on with: `step` steps of `epoch` (from 1) are done.
        loss_sum, seen: of the training loss in this epoch, and how many labels it is of.
        seconds: this epoch has taken.
        log: a row per finished epoch.
        best: score of the epoch kept; higher is better.
        stale: epochs since.
        phase: number of the phase whose optimizer is stored.
    """

    epoch: int = 1
    step: int = 0
    loss_sum: float = 0.0
    seen: int = 0
    seconds: float = 0.0
    log: list[dict] = field(default_factory=list)
    best: float = -math.inf
    stale: int = 0
    phase: int = 0


def save_state(path: Path, progress: Progress, parts: dict[str, object], world: World) -> None:
    """Write `last.pt`, whole or not at all.

    Args:
        path: the file.
        progress: where the training stands.
        parts: name -> what has a state_dict (model, optimizer, ...), or None.
        world: the processes; the state of every one's random numbers is kept.

    Raises:
        RunError: it cannot be written.
    """
    rng = world.join(random_state())
    if not world.main:
        return
    content = {name: part.state_dict() for name, part in parts.items() if part is not None}
    with whole_file(path) as file:
        torch.save({**content, "progress": vars(progress), "rng": rng}, file)


def load_state(path: Path, device: torch.device) -> tuple[Progress, dict]:
    """Return what `last.pt` holds: where the training stood, and the states of its parts.

    Raises:
        UserError: damaged, or of another version.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        return Progress(**content.pop("progress")), content
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise _cannot_resume(path, error) from None


def find_state(out_dir: Path, model: nn.Module, best: Path, run: Session
               ) -> tuple[Progress, dict] | None:
    """Return what a run is to go on from, None where it starts; nothing is written yet.

    Args:
        out_dir: of the run.
        model: whose tensors last.pt has to hold.
        best: the checkpoint of the best epoch so far, which the run measures in the end.
        run: says whether to go on.

    Raises:
        UserError: last.pt is damaged or of another model, or `best` is missing or damaged.
    """
    last = out_dir / "last.pt"
    if not run.resume or not last.exists():
        return None
    progress, content = load_state(last, run.device)
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if own != {name: tensor.shape for name, tensor in content["model"].items()}:
        raise _cannot_resume(last, ValueError("it is of another model"))
    if math.isfinite(progress.best):
        try:
            checkpoint.read(best)
        except UserError as error:
            raise UserError(f"--resume: the checkpoint of the best epoch so far cannot be read: "
                            f"{error}. Put it back, or start again with --overwrite") from None
    return progress, content


def restore(path: Path, content: dict, parts: dict[str, nn.Module | object | None],
            world: World) -> None:
    """Put states back into model, optimizer and random numbers.

    Raises:
        UserError: a part is missing or does not fit.
    """
    try:
        for name, part in parts.items():
            if part is not None:
                part.load_state_dict(content[name])
        if world.size == len(content["rng"]):
            set_random_state(content["rng"][world.rank])
    except Exception as error:  # load_state_dict raises several kinds
        raise _cannot_resume(path, error) from None


def _cannot_resume(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: cannot be resumed from ({first_line(error)}); start again with "
                     "--overwrite")


def random_state() -> list[torch.Tensor]:
    """Return the state of torch's random numbers, of the CPU and of a GPU in use."""
    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *cuda]


def set_random_state(states: list[torch.Tensor]) -> None:
    """Go on from what random_state has returned."""
    torch.set_rng_state(states[0].cpu())
    if len(states) > 1 and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(states[1].cpu())
