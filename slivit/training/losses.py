"""The loss, and how much the training weighs positives beyond what the data do."""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from slivit.checkpoints.header import Validation
from slivit.config import Target
from slivit.data.batch import Batch
from slivit.data.datasets import TrainingSet
from slivit.data.samplers import interleave
from slivit.data.scan_table import ScanTable
from slivit.metrics.evaluation import quick_scores
from slivit.models.outputs import to_predictions
from slivit.prediction import predict
from slivit.utils.errors import RunError, UserError
from slivit.utils.session import Session


@dataclass(frozen=True)
class WeightingOptions:
    """What is done about few and skewed labels.

    Attributes:
        pos_weight: factor on the loss of positives, `auto` for negatives per positive, or None.
        balanced_sampling: whether scans are drawn so that the classes appear equally often.
        label_smoothing: see Objective.
    """

    pos_weight: float | str | None = None
    balanced_sampling: bool = False
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class Validated:
    """What a model gave on validation.

    Attributes:
        loss: the mean.
        scores: beside it, by name; None where there is nothing to score.
        outputs: logits and labels of what is predicted; None where nothing is.
    """

    loss: float
    scores: dict[str, float | None]
    outputs: Validation | None = None


@dataclass(frozen=True)
class Objective:
    """What training with labels minimises, and how it is validated.

    self_supervised.objective.WithoutLabels has the same methods.

    Attributes:
        target: what the model predicts; gives the loss.
        pos_weight: K factors on the loss of positives (binary, multi-label), or empty.
        label_smoothing: share of each label that is spread over all its values.
        auxiliary: how many of the target's last labels are learned, but neither scored nor kept.
        drop_last: whether the last batch of an epoch is left out where it is not a whole one.
    """

    drop_last: ClassVar[bool] = False

    target: Target
    pos_weight: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    auxiliary: int = 0

    @property
    def scored(self) -> Target:
        """The target without the auxiliary labels."""
        return self.target.first(len(self.target.labels) - self.auxiliary)

    @property
    def score(self) -> str | None:
        """Name of the score by which an epoch is kept; None for none."""
        return "r2" if self.target.task == "regression" else "roc_auc"

    def count(self, batch: Batch) -> int:
        """Return what the summed loss of a batch is divided by."""
        return known_count(batch.y, self.target)

    def loss_sum(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch, given what the model makes of it, summed."""
        return loss_sum(logits, batch.y, self)

    def after_step(self, model: nn.Module) -> None:
        """Do what follows each step of the optimizer: nothing."""

    def validate(self, module: nn.Module, data: TrainingSet, run: Session, epoch: int) -> Validated:
        """Return what a module, in evaluation mode, gives on all validation scans.

        Raises:
            RunError: outputs or loss are not finite.
            Stopped: a signal came.
        """
        with run.stop.allowed(run.world):
            shares = predict(lambda batch: module(*data.inputs(batch)), data.validation(),
                             run.device,
                             "validation" if run.world.is_main and not run.quiet else None)
        run.stop.check(run.world)
        logits, labels = (interleave(run.world.all_gather(share)) for share in shares)
        check_finite(float(np.abs(logits).max()),
                     f"model's outputs became NaN or infinite in epoch {epoch}")
        loss = plain_loss(logits, labels, self.target)
        own = len(self.scored.labels)
        scores = quick_scores(labels[:, :own], to_predictions(logits, self.target)[:, :own],
                              self.scored)
        return Validated(loss, scores, Validation(logits[:, :own], labels[:, :own]))


def check_finite(loss: float, what: str) -> None:
    """Refuse a loss that is NaN or infinite.

    Raises:
        RunError: it is.
    """
    if not math.isfinite(loss):
        raise RunError(f"the {what}; the files of the last good epoch are intact. Lower --lr (and "
                       "--bb_lr), then start again with --overwrite")


def loss_sum(logits: torch.Tensor, labels: torch.Tensor, objective: Objective) -> torch.Tensor:
    """Return the loss summed over the known labels of a batch, a scalar.

    Binary and multi-label: binary cross-entropy; multi-class: cross-entropy; regression: squared
    error of the standardised label. Unknown labels (NaN) count neither in loss nor in gradient.

    Args:
        logits: (B, K) float.
        labels: (B, K) float, NaN where unknown; between 0 and 1 where mixup made them so.
        objective: see Objective.
    """
    target, smooth = objective.target, objective.label_smoothing
    known = ~torch.isnan(labels)
    if target.task == "multiclass":
        rows = known.all(dim=1)
        return F.cross_entropy(logits[rows], labels[rows], reduction="sum", label_smoothing=smooth)
    filled = torch.where(known, labels, torch.zeros_like(labels))
    if target.task == "regression":
        mean, std = logits.new_tensor(target.mean), logits.new_tensor(target.std)
        each = F.mse_loss(logits, (filled - mean) / std, reduction="none")
    else:
        if smooth:
            filled = filled * (1 - smooth) + smooth / 2
        weight = logits.new_tensor(objective.pos_weight) if objective.pos_weight else None
        each = F.binary_cross_entropy_with_logits(logits, filled, reduction="none",
                                                  pos_weight=weight)
    return torch.where(known, each, torch.zeros_like(each)).sum()


def known_count(labels: torch.Tensor, target: Target) -> int:
    """Return what a sum of losses is divided by: known labels, or for multi-class known rows."""
    known = ~torch.isnan(labels)
    return int((known.all(dim=1) if target.task == "multiclass" else known).sum())


def plain_loss(logits: np.ndarray, labels: np.ndarray, target: Target) -> float:
    """Return the mean loss of predictions as they are reported: unweighted and unsmoothed.

    Args:
        logits, labels: (n, K).
        target: its `shift` is taken off the logits first, as in outputs.to_predictions.
    """
    logits, labels = torch.from_numpy(logits), torch.from_numpy(labels)
    if target.shift:
        logits = logits - logits.new_tensor(target.shift)
    return float(loss_sum(logits, labels, Objective(target)) / max(1, known_count(labels, target)))


def auto_pos_weight(labels: np.ndarray) -> tuple[float, ...]:
    """Return negatives per positive of each 0/1 label (n, K), NaN where unknown."""
    return tuple(float((column == 0).sum() / (column == 1).sum()) for column in labels.T)


def row_weights(labels: np.ndarray, target: Target) -> np.ndarray:
    """Return how often each training scan is drawn, relative to others, to balance the classes.

    A scan counts by the rarest of its known label values: 1 over the number of scans that share it.

    Args:
        labels: (n, K) of 0 and 1, NaN where unknown.
        target: what they are; for multi-class only the class that is 1 counts.
    """
    weights = np.zeros(len(labels))
    for column in labels.T:
        for value in (1,) if target.task == "multiclass" else (0, 1):
            rows = column == value
            weights[rows] = np.maximum(weights[rows], 1 / max(1, rows.sum()))
    weights[weights == 0] = weights[weights > 0].min()  # nothing is known of them
    return weights / weights.sum()


def logit_shift(labels: np.ndarray, target: Target, pos_weight: tuple[float, ...] = (),
                weights: np.ndarray | None = None) -> tuple[float, ...]:
    """Return by how much weighting makes each logit too high, so that it can be taken off again.

    A loss that weighs positives w times, or a sample that holds them more often, moves the
    logarithm of the odds that a well-trained model gives by the logarithm of that factor (Saerens
    et al. 2002, section 2.2: adjusting to new a priori probabilities).

    Args:
        labels: (n, K) of 0 and 1 in the training data, NaN where unknown.
        target: what they are.
        pos_weight: of the loss, K factors or empty.
        weights: (n,) of the sampling, or None.

    Returns:
        K numbers; empty where nothing is weighted.
    """
    if not pos_weight and weights is None:
        return ()
    weights = np.full(len(labels), 1.0) if weights is None else weights
    shift = []
    for k, column in enumerate(labels.T):
        known = ~np.isnan(column)
        positive, negative = known & (column == 1), known & (column == 0)
        drawn, there = weights[positive].sum(), positive.sum()
        if target.task == "multiclass":
            shift.append(np.log(drawn / weights[known].sum()) - np.log(there / known.sum()))
            continue
        drawn, there = drawn / weights[negative].sum(), there / negative.sum()
        shift.append(np.log(drawn / there) + (np.log(pos_weight[k]) if pos_weight else 0.0))
    return tuple(float(value) for value in shift)


def make_objective(options: WeightingOptions, scans: ScanTable, target: Target, auxiliary: int = 0
                   ) -> tuple[Objective, Target, np.ndarray | None]:
    """Resolve the options on few and skewed labels.

    Args:
        options: see WeightingOptions.
        scans: with the labels of the target.
        target: all that is learned.
        auxiliary: how many of its last labels are auxiliary (see Objective).

    Returns:
        The objective; the target without them, which says what weighting adds to the logits; the
        weight of each training scan in sampling, or None.

    Raises:
        UserError: an option that does not apply to the task.
    """
    labels = scans.labels[scans.rows("train")]
    weighted = options.pos_weight is not None
    if target.task == "regression":
        for flag, given in (("pos_weight", weighted), ("label_smoothing", options.label_smoothing),
                            ("balanced_sampling", options.balanced_sampling)):
            if given:
                raise UserError(f"--{flag} is for 0/1 labels; the task is regression")
    if target.task == "multiclass" and weighted:
        raise UserError("--pos_weight applies to binary and multi-label tasks; for multiclass "
                        "use --balanced_sampling")
    pos_weight = ()
    if weighted:
        pos_weight = (auto_pos_weight(labels) if options.pos_weight == "auto"
                      else (options.pos_weight,) * len(target.labels))
    own = labels[:, :len(target.labels) - auxiliary]
    weights = row_weights(own, target) if options.balanced_sampling else None
    target = dataclasses.replace(target, shift=logit_shift(labels, target, pos_weight, weights))
    objective = Objective(target, pos_weight, options.label_smoothing, auxiliary)
    return objective, objective.scored, weights
