"""`--explain N`: pictures and heat maps of where a model looked in the scans it is surest of."""

import dataclasses
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slivit.checkpoints.trained import Trained
from slivit.config import Preprocess, Target
from slivit.data.batch import Batch
from slivit.data.cache import Prepared
from slivit.data.datasets import ScanDataset, make_loader
from slivit.data.readers import Volume
from slivit.data.readers.orientation import cut
from slivit.data.readers.voxel_grid import Grid
from slivit.data.scan_table import ScanTable
from slivit.data.transforms import pick_slices
from slivit.explain.figures import draw_explanation
from slivit.explain.heatmaps import ViewSaliency, heat_volume, save_heat
from slivit.explain.saliency import Saliency, explain
from slivit.explain.strips import ScanStrips, make_strips
from slivit.metrics.confidence import judge, ranked
from slivit.metrics.operating_point import Threshold
from slivit.models.slivit import ImageClassifier, SLIViT
from slivit.utils.errors import UserError

LONGEST = 60  # letters of a name within a file's name


@dataclass(frozen=True)
class Case:
    """A scan to be explained.

    Attributes:
        index: of its row in the predictions.
        label: k, of the output that is explained.
        kind: `right`, `wrong` or, where the truth is unknown, `highest`.
        rank: from 1, the surest.
        about: what `kind` and `rank` mean, in words.
    """

    index: int
    label: int
    kind: str
    rank: int
    about: str


@dataclass(frozen=True)
class Explanation:
    """Where a model looked in one scan, for one label.

    Attributes:
        scan: its id.
        label: that is explained.
        facts: what was predicted, and the truth.
        about: why the scan was chosen, in words.
        views: what the model saw of each view, and the weights and Grad-CAM of its slices.
        axes: of the scan; see readers.base.Header.
        grid: the voxel grid of the scan's own file; None where it has none.
    """

    scan: str
    label: str
    facts: tuple[tuple[str, str], ...]
    about: str
    views: tuple[ViewSaliency, ...]
    axes: str | None
    grid: Grid | None

    @property
    def titles(self) -> tuple[str, str]:
        """The lines above the picture: which scan it is, and what was predicted."""
        facts = ", ".join(f"{name.lower()} {value}" for name, value in self.facts)
        return self.scan, f"{self.label}: {facts}" + (f"  ({self.about})" if self.about else "")

    @property
    def heat(self) -> np.ndarray:
        """The heat map, float32 (N, H, W), 0 to 1, in the order of the slices as read."""
        return heat_volume(self.views, self.axes)

    def save(self, folder: str | Path, name: str | None = None) -> Path:
        """Write a picture and, where the scan has a grid, `NAME_heat.nii.gz`; make the folder.

        Args:
            folder: where to.
            name: of the files, without a suffix; default label and id.

        Returns:
            The path of the picture.

        Raises:
            UserError, NotWritten: they cannot be written.
        """
        folder, name = Path(folder), name or _file_name(_plain(self.label), self.scan, set())
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made ({error.strerror}); name another folder"
                            ) from None
        draw_explanation(self.views, self.titles, folder / f"{name}.png")
        if self.grid is not None:
            save_heat(folder / f"{name}_heat.nii.gz", self.heat, self.grid)
        return folder / f"{name}.png"


@dataclass(frozen=True)
class ExplainedCase:
    """What a report shows of an explained scan.

    Attributes:
        row: of the scan in its table.
        label: name of the output that is explained.
        title: which scan it is, and why it was chosen.
        facts: what was predicted, and the truth.
        picture: a PNG.
        strips: slices and heat maps, for the report's viewer.
    """

    row: int
    label: str
    title: str
    facts: tuple[tuple[str, str], ...]
    picture: Path
    strips: ScanStrips


def write_explanations(trained: Trained, scans: ScanTable, rows: np.ndarray, pred: np.ndarray,
                       thresholds: Sequence[Threshold | None] | None, n: int, out_dir: Path
                       ) -> list[ExplainedCase]:
    """Write a picture of each chosen scan, and a NIfTI heat map beside it where it has a grid.

    `explain/LABEL_right_1_ID.png`, and `..._heat.nii.gz` of kinds that have a grid.

    Args:
        trained: the model that is explained.
        scans, rows: what was predicted.
        pred: (len(rows), K) probabilities, or values for regression.
        thresholds: of each label, by which a prediction counts as positive; default 0.5.
        n: scans of each kind, at most.
        out_dir: gets the folder `explain`.

    Raises:
        ReadError: a scan cannot be read.
    """
    folder = out_dir / "explain"
    explained, taken = [], set()
    for case in choose_cases(scans.labels[rows], pred, trained.card.target, thresholds, n):
        row = int(rows[case.index])
        found = explain_scan(trained, scans, row, case, pred[case.index])
        name = _file_name(f"{_plain(found.label)}_{case.kind}_{case.rank}", found.scan, taken)
        title = f"{found.scan}: {found.label}, {case.about}"
        explained.append(ExplainedCase(row, found.label, title, found.facts,
                                       found.save(folder, name), make_strips(found.views)))
    return explained


def explain_scan(trained: Trained, scans: ScanTable, row: int, case: Case, pred: np.ndarray
                 ) -> Explanation:
    """Return where a model looked in a scan.

    Args:
        trained: the model.
        scans, row: the scan.
        case: gives the label, and what is said of the scan.
        pred: (K,) what was predicted of it.

    Raises:
        ReadError: the scan cannot be read.
    """
    volume, target = scans.read(row), trained.card.target
    return Explanation(scans.ids[row], target.labels[case.label],
                       _facts(case, target, scans, row, pred), case.about,
                       tuple(look_at(trained.model, scans, row, volume, case.label)), volume.axes,
                       scans.read.grid(row))


def choose_cases(truth: np.ndarray, pred: np.ndarray, target: Target,
                 thresholds: Sequence[Threshold | None] | None, n: int) -> list[Case]:
    """Return the scans to explain: of each label the n surest right and the n surest wrong.

    How sure, says `confidence.Verdict`; of several classes, a scan is shown under the predicted
    one. For regression, the smallest errors are right and the largest wrong, none of them both.
    Where no truth is known, the highest predictions.

    Args:
        truth: (m, K), NaN where unknown.
        pred: (m, K).
        target, thresholds, n: see write_explanations.
    """
    verdict, cases = judge(truth, pred, target, thresholds), []
    for k in range(pred.shape[1]):
        known, right, size = (part[:, k] for part in (verdict.known, verdict.right, verdict.size))
        if np.isnan(truth[:, k]).all():
            order = ranked(np.ones(len(pred), dtype=bool), pred[:, k])
            cases += [Case(int(i), k, "highest", rank, f"no. {rank} of the highest")
                      for rank, i in enumerate(order[:n], start=1)]
        elif target.task == "regression":
            cases += _by_error(known, size, k, n)
        else:
            cases += [Case(int(i), k, kind, rank, f"{kind}; no. {rank} by confidence")
                      for kind, chosen in (("right", known & right), ("wrong", known & ~right))
                      for rank, i in enumerate(ranked(chosen, size)[:n], start=1)]
    return cases


def look_at(model: SLIViT | ImageClassifier, scans: ScanTable, row: int, volume: Volume,
            output: int) -> list[ViewSaliency]:
    """Return what the model saw of each view of a scan, and how much it made of it for an output.

    Args:
        model: on any device.
        scans, row: the scan.
        volume: the same as read, whole.
        output: k.
    """
    device = next(model.parameters()).device
    dataset = ScanDataset(scans, np.array([row]), model.preprocess)
    batch = next(iter(make_loader(dataset, 1, 0, device)))
    return by_view(batch, explain(model, batch.to(device), output), volume, model)


def by_view(batch: Batch, saliency: Saliency, volume: Volume, model: SLIViT | ImageClassifier
            ) -> list[ViewSaliency]:
    """Return what was found in a batch of one scan, view by view; see look_at."""
    preprocess = model.preprocess
    most = saliency.cams.max(axis=(1, 2), initial=0, keepdims=True)
    cams = saliency.cams / np.where(most > 0, most, 1)
    cell = model.backbone.feature_info[-1]["reduction"] / preprocess.img_size
    counts = batch.mask.view(len(preprocess.views), -1).sum(dim=1).tolist()
    looks, start = [], 0
    for look in views_seen(Prepared(batch.x[batch.mask].numpy(), tuple(counts)), preprocess,
                           volume.slices.shape[:3], volume.spacing, volume.axes):
        part = slice(start, start + len(look.numbers))
        looks.append(dataclasses.replace(
            look, rollout=None if saliency.rollout is None else saliency.rollout[part],
            relevance=None if saliency.relevance is None else saliency.relevance[part],
            cams=cams[part], cell=cell))
        start = part.stop
    return looks


def views_seen(prepared: Prepared, preprocess: Preprocess, shape: tuple[int, int, int],
               spacing: tuple[float, float, float] | None, axes: str | None
               ) -> list[ViewSaliency]:
    """Return what a model saw of each view of a scan, none of it explained.

    Args:
        prepared: the scan, as the model gets it.
        preprocess: of the model.
        shape: (N, H, W) of the scan.
        spacing, axes: see readers.base.Header.
    """
    views = np.split(prepared.slices, np.cumsum(prepared.counts)[:-1])
    wanted, looks = preprocess.n_slices or 1, []
    for view, slices in zip(preprocess.views, views, strict=True):
        sides, steps = _view_geometry(shape, spacing, axes, view)
        # A video's header may be some frames off; the slices that were read are not.
        total = len(slices) if len(slices) < wanted else max(sides[0], wanted)
        numbers = pick_slices(total, wanted, preprocess.slice_sampling)
        looks.append(ViewSaliency(view, (total, *sides[1:]), numbers, slices,
                                  (sides[1] * steps[1], sides[2] * steps[2])))
    return looks


def _view_geometry(shape: tuple[int, int, int], spacing: tuple[float, float, float] | None,
                   axes: str | None, view: str
                   ) -> tuple[tuple[int, int, int], tuple[float, ...]]:
    """Return the shape (N, H, W) of a view and its spacing (1 where unknown)."""
    order = [side - 1 for side in cut(np.empty((1, 2, 3)), axes, view).shape]
    spacing = spacing or (1.0, 1.0, 1.0)
    return tuple(shape[i] for i in order), tuple(spacing[i] for i in order)


def _by_error(known: np.ndarray, size: np.ndarray, k: int, n: int) -> list[Case]:
    """Return the cases of a label of regression, from the sizes (m,) of its errors."""
    order = ranked(known, -size)
    half = -(-len(order) // 2)
    best, worst = order[:half][:n], order[half:][::-1][:n]
    return [Case(int(i), k, kind, rank, f"{kind}: no. {rank} of the {which} errors")
            for kind, which, chosen in (("right", "smallest", best), ("wrong", "largest", worst))
            for rank, i in enumerate(chosen, start=1)]


def _facts(case: Case, target: Target, scans: ScanTable, row: int, pred: np.ndarray
           ) -> tuple[tuple[str, str], ...]:
    """Return what was predicted for a label of a scan, and the truth."""
    truth = scans.labels[row]
    known = not np.isnan(truth[case.label])
    if target.task == "multiclass" and known:
        text = target.labels[int(np.argmax(truth))]
    else:
        text = f"{truth[case.label]:.4g}" if known else "unknown"
    value = f"{pred[case.label]:.4g}" if target.task == "regression" else f"{pred[case.label]:.3f}"
    return ("Predicted", value), ("Truth", text)


def _file_name(about: str, scan: str, taken: set[str]) -> str:
    """Return a name that any file system takes, and note it among those taken."""
    wanted = name = f"{about}_{_plain(scan)}"
    count = 1
    while name.lower() in taken:
        count += 1
        name = f"{wanted}-{count}"
    taken.add(name.lower())
    return name


def _plain(text: str) -> str:
    """Return letters, digits, dots and dashes of a name, without accents and all else."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9.-]+", "_", ascii_text)[:LONGEST].strip("._-") or "scan"
