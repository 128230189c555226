"""The loss, and how much the training weighs positives beyond what the data do."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from slivit.config import Target
from slivit.data.scan_table import ScanTable
from slivit.utils.errors import UserError


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
class Objective:
    """What training minimises.

    Attributes:
        target: what the model predicts; gives the loss.
        pos_weight: K factors on the loss of positives (binary, multi-label), or empty.
        label_smoothing: share of each label that is spread over all its values.
        auxiliary: how many of the target's last labels are learned, but neither scored nor kept.
    """

    target: Target
    pos_weight: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    auxiliary: int = 0

    @property
    def scored(self) -> Target:
        """The target without the auxiliary labels."""
        return self.target.first(len(self.target.labels) - self.auxiliary)


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
