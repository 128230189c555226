"""What was measured: predictions with what they are of, operating points, and all scores."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from slivit.checkpoints.hub import title_of
from slivit.checkpoints.trained import Trained
from slivit.config import Target
from slivit.data.scan_table import ScanTable, match_names
from slivit.metrics import operating_point as operating
from slivit.metrics.comparison import compare
from slivit.metrics.evaluation import N_BOOT, calibration_scores, evaluate
from slivit.metrics.medmnist_scores import medmnist_scores
from slivit.metrics.operating_point import Rule, Threshold
from slivit.models.outputs import to_predictions
from slivit.prediction import InferenceOptions, Prediction


@dataclass(frozen=True)
class ReportOptions:
    """What is to be reported, besides the scores.

    Attributes:
        seed: of the bootstrap.
        only: labels to report; default all of the models'.
        rule: by which the operating point is chosen on validation.
        group_by: column of the table, for scores per group.
        explain: figures of so many confident right and wrong scans; 0 for none.
        how: test-time options of the predictions.
    """

    seed: int = 0
    only: list[str] | None = None
    rule: Rule = field(default_factory=lambda: operating.parse_rule("youden"))
    group_by: str | None = None
    explain: int = 0
    how: InferenceOptions = InferenceOptions()


@dataclass(frozen=True)
class EvaluationResult:
    """Predictions, and what they are of.

    Attributes:
        scans, rows: the table, and which of its rows; the labels are the target's.
        target: task and labels.
        split: as it is called.
        predicted: the predictions of the rows.
        thresholds: of each label.
        each: predictions (n, K) of every model by its name, where several are averaged.
    """

    scans: ScanTable
    rows: np.ndarray
    target: Target
    split: str
    predicted: Prediction
    thresholds: list[Threshold | None]
    each: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def truth(self) -> np.ndarray:
        """Labels (n, K) of the rows, NaN where unknown."""
        return self.scans.labels[self.rows]

    @property
    def groups(self) -> np.ndarray:
        """Unit of the bootstrap (n,) of the rows."""
        return np.asarray(self.scans.groups())[self.rows]


def choose_thresholds(trained: list[Trained], rule: Rule,
                      calibrate: bool = False) -> list[Threshold | None]:
    """Choose the operating point of each label on the models' validation outputs.

    Of several models the validation predictions are pooled. No threshold for regression, nor where
    a checkpoint contains no validation outputs (files of earlier versions); but a shared one has
    the thresholds of Youden's index, for predictions of it alone that are not calibrated.
    """
    target = trained[0].card.target
    kept = trained[0].card.thresholds
    if kept and len(trained) == 1 and rule.name == "youden" and not calibrate:
        return [None if value is None else Threshold(str(rule), value, "validation")
                for value in kept]
    known = [one for one in trained if one.validation is not None]
    if target.task == "regression" or len(known) < len(trained):
        return [None] * len(target.labels)
    pred = np.concatenate([
        to_predictions(one.validation.logits, one.card.target,
                       (one.card.temperature or 1.0) if calibrate else 1.0) for one in known])
    labels = np.concatenate([one.validation.labels for one in known])
    chosen = []
    for truth, column in zip(labels.T, pred.T, strict=True):
        seen = ~np.isnan(truth)
        chosen.append(operating.choose(truth[seen], column[seen], rule, "validation"))
    return chosen


def find_scores(measured: EvaluationResult, options: ReportOptions) -> dict:
    """Return the content of `metrics.json`."""
    scans, truth, target = measured.scans, measured.truth, measured.target
    predicted, groups = measured.predicted, measured.groups
    split = {"split": measured.split}
    metrics = split | evaluate(truth, predicted.pred, target, groups, options.seed,
                               thresholds=measured.thresholds)
    if is_published_split(measured):
        metrics["medmnist"] = {"task": scans.published.task, **medmnist_scores(
            truth, predicted.pred, scans.published.task)}
    metrics["data"] = scans.name
    metrics["intervals_by"] = "row" if scans.patients is None else "patient"
    metrics["blank_scans"] = [scans.ids[row] for row in measured.rows[predicted.blank]]
    metrics["test_time"] = dataclasses.asdict(options.how)
    if predicted.uncalibrated is not None:
        metrics["uncalibrated"] = calibration_scores(truth, predicted.uncalibrated, target, groups,
                                                     options.seed)
    metrics["comparison"] = []
    if len(measured.each) > 1:
        metrics["comparison"] = compare(truth, list(measured.each.values()), list(measured.each),
                                        target, groups, options.seed, N_BOOT)
    if options.group_by:
        values = scans.group_column(options.group_by)[measured.rows]
        parts = {}
        for value in sorted(set(values)):
            mine = values == value
            parts[value] = split | evaluate(truth[mine], predicted.pred[mine], target,
                                            groups[mine], options.seed,
                                            thresholds=measured.thresholds)
        metrics["by_group"] = {"column": options.group_by, "groups": parts}
    return metrics


def is_published_split(measured: EvaluationResult) -> bool:
    """Return whether these are all scans and all labels of a split that MedMNIST published."""
    published, target = measured.scans.published, measured.target
    return (published is not None and target.task != "regression"
            and target.labels == published.label_names
            and np.array_equal(measured.rows, np.flatnonzero(published.split == measured.split)))


def keep_labels(measured: EvaluationResult, only: list[str]) -> EvaluationResult:
    """Return what was measured of some of the labels.

    Some of several classes are scored each on its own, as in multi-label.
    """
    target, predicted = measured.target, measured.predicted
    columns = match_names(only, target.labels, "labels of the checkpoint")
    labels = tuple(target.labels[k] for k in columns)
    task = "multilabel" if target.task == "multiclass" else target.task

    def pick(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[:, columns]

    return dataclasses.replace(
        measured, scans=measured.scans.select_labels(labels),
        target=dataclasses.replace(target, task=task, labels=labels),
        predicted=Prediction(pick(predicted.pred), predicted.blank, pick(predicted.uncalibrated),
                             pick(predicted.std)),
        each={name: pick(pred) for name, pred in measured.each.items()},
        thresholds=[measured.thresholds[k] for k in columns])


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return paths without the folders that all of them share; those of the Hub by its names."""
    if len(paths) < 2:
        return [path.name for path in paths]
    titles = [title_of(path) for path in paths]
    if titles != [str(path) for path in paths]:
        return titles
    shared = os.path.commonpath([path.absolute().parent for path in paths])
    return [str(path.absolute().relative_to(shared)) for path in paths]
