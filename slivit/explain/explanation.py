"""Where a model looked in one scan, for one label: what it saw, its weights, picture, heat map."""

import dataclasses
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

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
from slivit.models.slivit import ImageClassifier, SLIViT
from slivit.utils.errors import UserError

LONGEST = 60  # letters of a name within a file's name


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
        folder, name = Path(folder), name or file_name(self.scan, self.label)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot be made ({error.strerror}); name another folder"
                            ) from None
        draw_explanation(self.views, self.titles, folder / f"{name}.png")
        if self.grid is not None:
            save_heat(folder / f"{name}_heat.nii.gz", self.heat, self.grid)
        return folder / f"{name}.png"


def explain_scan(trained: Trained, scans: ScanTable, row: int, label: int, pred: np.ndarray,
                 about: str = "") -> Explanation:
    """Return where a model looked in a scan.

    Args:
        trained: the model.
        scans, row: the scan.
        label: k, of the output that is explained.
        pred: (K,) what was predicted of it.
        about: why the scan was chosen, in words.

    Raises:
        ReadError: the scan cannot be read.
    """
    volume, target = scans.read(row), trained.card.target
    return Explanation(scans.ids[row], target.labels[label],
                       _facts(label, target, scans.labels[row], pred), about,
                       tuple(look_at(trained.model, scans, row, volume, label)), volume.axes,
                       scans.read.grid(row))


@torch.inference_mode(False)  # gradients are needed, whatever mode the caller is in
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


def _facts(label: int, target: Target, truth: np.ndarray, pred: np.ndarray
           ) -> tuple[tuple[str, str], ...]:
    """Return what was predicted for a label of a scan, and the truth, in words."""
    known = not np.isnan(truth[label])
    if target.task == "multiclass" and known:
        text = target.labels[int(np.argmax(truth))]
    else:
        text = f"{truth[label]:.4g}" if known else "unknown"
    value = f"{pred[label]:.4g}" if target.task == "regression" else f"{pred[label]:.3f}"
    return ("Predicted", value), ("Truth", text)


def file_name(scan: str, *about: str) -> str:
    """Return a name that any file system takes: what it is about, and the scan."""
    return "_".join([*map(_plain, about), _plain(scan)])


def _plain(text: str) -> str:
    """Return letters, digits, dots and dashes of a name, without accents and all else."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9.-]+", "_", ascii_text)[:LONGEST].strip("._-") or "scan"
