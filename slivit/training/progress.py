"""Where a training stands, as last.pt holds it, and what of that can be true."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge
from pydantic import Field

from slivit.checkpoints.header import CheckpointHeader
from slivit.config import STRICT, Count
from slivit.data.samplers import count_batches
from slivit.data.scan_table import ScanTable
from slivit.utils.records import Plain, rule

SCORES = ("val_roc_auc", "val_r2")  # by one of which an epoch is kept, or by the loss
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
        epoch, step: to continue with: `step` steps of `epoch` (from 1) are done.
        loss_sum, seen: of the training loss in this epoch, and how many labels (or slices) it is
            of.
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

    @property
    def kept(self) -> dict:
        """Return the row of the log of the epoch that is kept."""
        return [row for row in self.log if row["best"]][-1]

    def faults(self) -> list[str]:
        """Return how the fields contradict each other, in words."""
        bad = []
        if len(self.log) != self.epoch - 1:
            bad.append(f"log of {len(self.log)} epochs, expected {self.epoch - 1} before epoch "
                       f"{self.epoch}")
        if [row["epoch"] for row in self.log] != list(range(1, len(self.log) + 1)):
            bad.append("log: epoch: expected 1, 2, and so on")
        if self.log and not any(row["best"] for row in self.log):
            bad.append("log without a best epoch")
        elif self.log and self.best not in (-self.kept["val_loss"], self.kept["epoch"],
                                            *map(self.kept.get, SCORES)):
            bad.append(f"best {self.best:g}: is not a score of the kept epoch")
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
    def of(cls, scans: ScanTable, b_size: int, accumulate: int, starts: tuple[int, ...] = (1,),
           drop_last: bool = False) -> "Plan":
        """Return the plan for a table's train split."""
        batches = count_batches(len(scans.rows("train")), b_size, drop_last)
        return cls(-(-batches // accumulate), starts)

    def done(self, progress: Progress) -> int:
        """Return the steps that the stored optimizer has taken, those of its phase."""
        return (progress.epoch - self.starts[progress.phase]) * self.steps + progress.step

    def faults(self, progress: Progress, scores: Iterable[str]) -> list[str]:
        """Return how a training's progress contradicts the plan, in words.

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
        if progress.log:
            since = progress.epoch - 1 - max(progress.kept["epoch"],
                                             self.starts[min(progress.phase, phase)] - 1)
            if progress.stale != since:
                bad.append(f"stale {progress.stale}, expected {since}")
        columns = {*ROW, *(f"val_{name.removeprefix('val_')}" for name in scores)}
        for row in progress.log:
            if set(row) != columns:
                bad.append(f"log: columns {', '.join(sorted(set(row) ^ columns))} of epoch "
                           f"{row['epoch']} are missing or unknown")
                break
        return bad


def is_of(card: CheckpointHeader, progress: Progress) -> bool:
    """Return whether a checkpoint is of the epoch kept, or of the one a killed run was writing."""
    kept = progress.kept
    scores = {f"val_{name.removeprefix('val_')}": score for name, score in card.score.items()}
    return card.epoch == progress.epoch or (
        card.epoch == kept["epoch"] and all(kept[name] == score for name, score in scores.items()))
