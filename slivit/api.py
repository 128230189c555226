"""SLIViT from Python: load a checkpoint, then predict, explain or embed scans.

    import slivit
    model = slivit.load("slivit.safetensors")
    result = model.predict(["a.nii.gz", "b.nii.gz"])
    result.probabilities                    # float64 (2, K)
    model.explain("a.nii.gz").save("out/")
    model.embed(["a.nii.gz", "b.nii.gz"])   # float32 (2, D)

Scans are given as a path (of any kind that data/README.md lists), a numpy array (slices, height,
width) of any type of number, a nibabel image, or a list of these; for a 2D backbone as images
(height, width). The numbers are those of evaluate.py. Bad input is a UserError with the message
that the scripts print.
"""

import operator
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slivit.checkpoints.hub import is_hub_name
from slivit.checkpoints.trained import Trained, load_models
from slivit.config import PRECISIONS, Target
from slivit.data.given_scans import Scan, given_scans
from slivit.data.header_check import check_headers
from slivit.data.scan_table import ScanTable, match_names
from slivit.embedding import embed_scans, embed_slices
from slivit.explain.explanation import Explanation, explain_scan
from slivit.metrics.operating_point import Threshold, parse_rule
from slivit.models.slivit import require_slice_tokens
from slivit.prediction import InferenceOptions, average, check_test_time, predict_scans
from slivit.report.evaluation import choose_thresholds
from slivit.utils.errors import UserError
from slivit.utils.runtime import choose_device, set_kernels
from slivit.utils.session import Session

B_SIZE = 16  # scans at a time, as in evaluate.py


@dataclass(frozen=True)
class Result:
    """Predictions of n scans, in the order in which they were given.

    Attributes:
        ids: names of the scans.
        labels: the K labels that are predicted.
        task: `binary`, `multilabel`, `multiclass` or `regression`.
        values: float64 (n, K), probabilities or, for regression, in the label's own unit.
        thresholds: float64 (K,), the operating point of each label, chosen on the validation split
            (Youden); NaN where there is none.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    task: str
    values: np.ndarray
    thresholds: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """Return the probabilities, float64 (n, K), 0 to 1.

        Raises:
            UserError: the model predicts values, not classes.
        """
        if self.task == "regression":
            raise UserError("this model predicts values, not probabilities: use result.values")
        return self.values

    @property
    def above_threshold(self) -> np.ndarray:
        """Return which predictions are at least the threshold, bool (n, K).

        Raises:
            UserError: a label has no operating point.
        """
        if np.isnan(self.thresholds).any():
            without = [name for name, value in zip(self.labels, self.thresholds, strict=True)
                       if np.isnan(value)]
            raise UserError(f"the checkpoint has no operating point for {', '.join(without)}: "
                            "choose a threshold, and compare result.values with it")
        return self.values >= self.thresholds


class Model:
    """A trained model, or several whose predictions are averaged; made by `load`."""

    def __init__(self, trained: Sequence[Trained], run: Session) -> None:
        self._trained, self._run = tuple(trained), run

    @property
    def labels(self) -> tuple[str, ...]:
        """The K labels that are predicted."""
        return self._target.labels

    @property
    def task(self) -> str:
        """`binary`, `multilabel`, `multiclass` or `regression`."""
        return self._target.task

    @property
    def _target(self) -> Target:
        return self._trained[0].card.target

    def __repr__(self) -> str:
        """Say what it is in a line."""
        card = self._trained[0].card
        count = len(self._trained)
        return (f"<{f'{count} x ' * (count > 1)}{card.kind}, {card.backbone}, {self.task}: "
                f"{', '.join(self.labels)}>")

    def predict(self, scans: Scan | Iterable[Scan], *, calibrate: bool = False,
                tta: str | None = None, b_size: int = B_SIZE) -> Result:
        """Predict scans.

        Args:
            scans: see the module's text.
            calibrate, tta: as evaluate.py's options: temperature scaling; `flips` to average over
                those used in training.
            b_size: scans at a time.

        Raises:
            UserError: scans that cannot be read, listed; or options that the model cannot meet.
            RunError: outputs that are not finite.
        """
        if tta not in (None, "flips"):
            raise UserError(f"tta={tta!r}: expected None or 'flips'")
        b_size = _batch_size(b_size)
        how = InferenceOptions(tta == "flips", 0, calibrate)
        for one in self._trained:
            check_test_time(one, how)
        table = self._table(scans)
        rows = np.arange(len(table))
        mean = average([predict_scans(one, table, rows, self._run, b_size, "", how)
                        for one in self._trained])
        chosen = self._thresholds(calibrate)
        return Result(table.ids, self.labels, self.task, mean.pred,
                      np.array([np.nan if one is None else one.value for one in chosen]))

    def explain(self, scan: Scan, label: str | None = None) -> Explanation:
        """Return where the model looked in a scan; of several models, the first.

        Args:
            scan: one.
            label: that is explained; default the only one or, of several, that of the highest
                prediction.

        Raises:
            UserError: see `predict`; an unknown label; several scans; a model of the original
                SLIViT, whose tokens are not slices.
        """
        if not (label is None or isinstance(label, str)):
            raise UserError(f"label={label!r}: expected one of {', '.join(self.labels)}")
        first = self._trained[0]
        require_slice_tokens(first.model, "explanations")
        column = None if label is None else match_names([label], self.labels, "labels")[0]
        table = self._table(scan)
        if len(table) > 1:
            raise UserError(f"explain takes one scan, found {len(table)}")
        pred = predict_scans(first, table, np.arange(1), self._run, 1, "").pred[0]
        column = int(np.argmax(pred)) if column is None else column
        return explain_scan(first, table, 0, column, pred)

    def embed(self, scans: Scan | Iterable[Scan], *, per_slice: bool = False,
              b_size: int = B_SIZE) -> np.ndarray | list[np.ndarray]:
        """Return one vector a scan, float32 (n, D): that from which the last layer predicts.

        Args:
            scans: see the module's text.
            per_slice: return instead a list of n arrays (slices, D'), the backbone's features of
                the slices that the model saw (at most its n_slices a view), in order.
            b_size: scans at a time.

        Raises:
            UserError: see `predict`; several models; slices of a model of images, or of one of the
                original SLIViT.
            RunError: vectors that are not finite.
        """
        if len(self._trained) > 1:
            raise UserError(f"embed takes one model, found {len(self._trained)}; load them one by "
                            "one")
        b_size = _batch_size(b_size)
        table = self._table(scans)
        embed = embed_slices if per_slice else embed_scans
        return embed(self._trained[0], table, np.arange(len(table)), self._run, b_size)

    def _table(self, scans: Scan | Iterable[Scan]) -> ScanTable:
        """Return the scans as a table, their headers checked."""
        card = self._trained[0].card
        table = given_scans(scans, 2 if card.kind == "backbone" else 3, self.labels)
        return check_headers(table, views=card.preprocess.views, n_cpu=0)

    def _thresholds(self, calibrate: bool) -> list[Threshold | None]:
        return choose_thresholds(list(self._trained), parse_rule("youden"), calibrate)


def _batch_size(given: object) -> int:
    """Return a number of scans; refuse what is none.

    Raises:
        UserError: not a whole number, or below 1.
    """
    try:
        number = operator.index(given)
    except TypeError:
        number = 0
    if number < 1:
        raise UserError(f"b_size={given!r}: expected a whole number of at least 1")
    return number


def load(*checkpoints: str | os.PathLike, gpu_id: int | str | None = None, amp: str = "auto"
         ) -> Model:
    """Load a trained model, or several whose predictions are averaged.

    Args:
        checkpoints: slivit.safetensors of finetune.py, backbone.safetensors of bb_train.py, or
            `hf://owner/name`; one or several, or a list of them.
        gpu_id: number of a GPU, or `cpu`; default the first GPU where there is one. PyTorch is set
            up as in the scripts, for the whole process: all cores this process may use on a CPU,
            and on a GPU TF32 only beside numbers of half the size. Whether its algorithms are
            deterministic stays as it is.
        amp: as evaluate.py's option: `auto`, `off`, `bf16` or `fp16`.

    Raises:
        UserError: not a checkpoint of this project; models that cannot be averaged; no such GPU.
    """
    if len(checkpoints) == 1 and isinstance(checkpoints[0], (list, tuple)):
        checkpoints = tuple(checkpoints[0])
    if not checkpoints:
        raise UserError("no checkpoint is given; expected at least one")
    odd = [one for one in checkpoints if not isinstance(one, (str, os.PathLike))]
    if odd:
        raise UserError(f"found a checkpoint of type {type(odd[0]).__name__}, expected a path")
    names = [os.fsdecode(one) for one in checkpoints]
    if not all(names):
        raise UserError("the name of a checkpoint is empty, expected a path or hf://owner/name")
    paths = [name if is_hub_name(name) else Path(os.path.expanduser(name)) for name in names]
    if amp not in ("auto", *PRECISIONS):
        raise UserError(f"amp={amp!r}: expected one of auto, {', '.join(PRECISIONS)}")
    device = choose_device(None if gpu_id is None else str(gpu_id))
    trained = load_models(paths, device, amp=amp)
    set_kernels(device, [one.model.precision for one in trained], deterministic=None)
    return Model(trained, Session(device, quiet=True))
