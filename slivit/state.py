"""`last.pt`: where a training stands, so that it can go on as if it had never stopped."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge
from pydantic import Field
from torch import nn

from slivit import checkpoint
from slivit.config import STRICT, Count
from slivit.errors import UserError, first_line
from slivit.files import whole_file
from slivit.parallel import World
from slivit.records import Misfit, Plain, from_values, rule
from slivit.scans import Scans
from slivit.session import Session
from slivit.tensor_files import Unreadable, check_tensors, load_torch, numbers_in

AGAIN = "start again with --overwrite"
PARTS = {"model": True, "ema": False, "optimizer": True, "scaler": False}  # name: always there
ROW = ("epoch", "lr", "train_loss", "val_loss", "best", "seconds")  # of the log, beside the scores
Seconds = Annotated[float, Ge(0)]
Score = Annotated[float, Field(allow_inf_nan=True), rule(  # none yet is minus infinity
    lambda value: () if value < math.inf else [f"found {value}, expected a score"])]


def _row_faults(row: dict) -> list[str]:
    """Return what is wrong with a row of the log; a score may be unknown."""
    missing = [name for name in ROW if name not in row]
    wrong = [name for name, value in row.items() if name != "best" and type(value) not in (
        int, float, *[type(None)] * (name not in ROW))]
    return ([f"{', '.join(missing)}: missing"] * bool(missing)
            + [f"{', '.join(wrong)}: expected numbers"] * bool(wrong)
            + ["best: expected true or false"] * (type(row.get("best", True)) is not bool))


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

    __pydantic_config__ = STRICT

    epoch: Annotated[int, Ge(1)] = 1
    step: Count = 0
    loss_sum: float = 0.0
    seen: Count = 0
    seconds: Seconds = 0.0
    log: list[Annotated[dict[str, Plain], rule(_row_faults)]] = field(default_factory=list)
    best: Score = -math.inf
    stale: Count = 0
    phase: Count = 0

    def faults(self) -> list[str]:
        """Return in what the fields contradict each other, in words."""
        bad = []
        if len(self.log) != self.epoch - 1:
            bad.append(f"log of {len(self.log)} epochs, expected {self.epoch - 1} before epoch "
                       f"{self.epoch}")
        if [row["epoch"] for row in self.log] != list(range(1, len(self.log) + 1)):
            bad.append("log: epoch: expected 1, 2, and so on")
        if self.log and not any(row["best"] for row in self.log):
            bad.append("log without an epoch that was the best")
        if not self.step and (self.seen or self.loss_sum):
            bad.append(f"loss_sum {self.loss_sum:g} of {self.seen} labels before the first step")
        return bad


@dataclass(frozen=True)
class Plan:
    """What a training is going to do, as far as last.pt has to agree with it.

    Attributes:
        steps: in an epoch.
        starts: the first epoch of each phase.
    """

    steps: int
    starts: tuple[int, ...] = (1,)

    @classmethod
    def of(cls, scans: Scans, b_size: int, accumulate: int, starts: tuple[int, ...] = (1,)
           ) -> "Plan":
        """Return the plan for a table's train split."""
        batches = -(-len(scans.rows("train")) // b_size)
        return cls(-(-batches // accumulate), starts)

    def faults(self, progress: Progress, scores: Iterable[str]) -> list[str]:
        """Return in what a training's progress contradicts the plan, in words.

        Args:
            progress: of last.pt.
            scores: that the checkpoint of the best epoch has; each is a column of the log.
        """
        bad = []
        if progress.step > self.steps:
            bad.append(f"step {progress.step} of an epoch of {self.steps} steps")
        phase = sum(start <= progress.epoch for start in self.starts) - 1
        begins = phase > 0 and progress.step == 0 and progress.epoch == self.starts[phase]
        if progress.phase not in (phase, phase - begins):
            bad.append(f"phase {progress.phase} in epoch {progress.epoch}, expected {phase}")
        columns = {*ROW, *(f"val_{name.removeprefix('val_')}" for name in scores)}
        for row in progress.log:
            if set(row) != columns:
                bad.append(f"log: columns {', '.join(sorted(set(row) ^ columns))} of epoch "
                           f"{row['epoch']} are missing or unknown")
                break
        return bad


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
        UserError: damaged anywhere, of another version, or with numbers that are not finite.
    """
    try:
        content = load_torch(path, device, sums=True)
        if not isinstance(content, dict):
            raise Misfit([f"found a {type(content).__name__}, expected the state of a training"])
        progress = from_values(Annotated[Progress, rule(Progress.faults)],
                               content.pop("progress", None))
        if faults := _faults(content):
            raise Misfit(faults)
        numbers = list(numbers_in({name: content[name] for name in PARTS if name in content}))
    except (Unreadable, Misfit, RecursionError) as error:
        raise _cannot_resume(path, error) from None
    check_tensors(path, numbers, f"It cannot be resumed from; {AGAIN}")
    return progress, content


def _faults(content: dict) -> list[str]:
    """Return what is wrong with the states of the parts, in words."""
    bad = [f"{name}: missing" for name, needed in PARTS.items() if needed and name not in content]
    bad += [f"{name}: found a {type(content[name]).__name__}, expected its state"
            for name in PARTS if name in content and not isinstance(content[name], dict)]
    bad += [f"{name}: unknown, a newer version has written it" for name in content
            if name not in (*PARTS, "rng")]
    rng = content.get("rng")
    good = isinstance(rng, list) and rng and all(
        isinstance(states, list) and states and all(
            torch.is_tensor(one) and one.dtype == torch.uint8 for one in states)
        for states in rng)
    return bad if good else [*bad, "rng: expected the states of the random numbers"]


def find_state(out_dir: Path, model: nn.Module, best: Path, run: Session, plan: Plan
               ) -> tuple[Progress, dict] | None:
    """Return what a run is to go on from, None where it starts; nothing is written yet.

    Args:
        out_dir: of the run.
        model: whose tensors last.pt has to hold.
        best: the checkpoint of the best epoch so far, which the run measures in the end.
        run: says whether to go on.
        plan: what the run is going to do.

    Raises:
        UserError: last.pt is damaged, of another model or of another training, or `best` is missing
            or damaged.
    """
    last = out_dir / "last.pt"
    if not run.resume or not last.exists():
        return None
    progress, content = load_state(last, run.device)
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if own != {name: getattr(tensor, "shape", None) for name, tensor in content["model"].items()}:
        raise _cannot_resume(last, ValueError("it is of another model"))
    scores: Iterable[str] = ()
    if progress.log:
        try:
            scores = checkpoint.read(best)[0].score
        except UserError as error:
            raise UserError(f"--resume: the checkpoint of the best epoch so far cannot be read: "
                            f"{error}. Put it back, or start again with --overwrite") from None
    if faults := plan.faults(progress, scores):
        raise _cannot_resume(last, Misfit(f"progress: {fault}" for fault in faults))
    return progress, content


def restore(path: Path, content: dict, parts: dict[str, nn.Module | object | None],
            world: World) -> None:
    """Put states back into model, optimizer and random numbers.

    Raises:
        UserError: a part is missing or does not fit.
    """
    try:
        for name, part in parts.items():
            if isinstance(part, torch.optim.Optimizer):
                _load_optimizer(part, content[name])
            elif part is not None:
                part.load_state_dict(content[name])
        if world.size == len(content["rng"]):
            set_random_state(content["rng"][world.rank])
    except Exception as error:  # load_state_dict raises several kinds
        raise _cannot_resume(path, error) from None


def _load_optimizer(optimizer: torch.optim.Optimizer, content: dict) -> None:
    """Put an optimizer's state back, of which load_state_dict takes any shape and kind.

    Raises:
        ValueError: what does not fit: a moment, or a setting that is not the run's own.
    """
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    for number, state in content["state"].items():
        shape = tuple(parameters[number].shape)
        wanted = {"step": (), "exp_avg": shape, "exp_avg_sq": shape}
        shapes = {name: tuple(value.shape) if torch.is_tensor(value) else type(value).__name__
                  for name, value in state.items()}
        if shapes != wanted:
            raise ValueError(f"optimizer: state {number}: found {shapes}, expected {wanted}")
    own = [{key: value for key, value in group.items() if key not in ("params", "lr")}
           for group in optimizer.param_groups]  # lr is set at every step
    optimizer.load_state_dict(content)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        for key, value in settings.items():
            if group.get(key) != value:
                raise ValueError(f"optimizer: {key}: found {group.get(key)!r:.50}, expected "
                                 f"{value}")


def _cannot_resume(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: cannot be resumed from ({first_line(error)[:500]}); {AGAIN}")


def random_state() -> list[torch.Tensor]:
    """Return the state of torch's random numbers, of the CPU and of a GPU in use."""
    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *cuda]


def set_random_state(states: list[torch.Tensor]) -> None:
    """Go on from what random_state has returned."""
    torch.set_rng_state(states[0].cpu())
    if len(states) > 1 and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(states[1].cpu())
