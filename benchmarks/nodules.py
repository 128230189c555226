"""All nodules of the embedded data in five folds by patient, and their files for the scripts.

The embedded split is left aside: the volumes of `noduleshapes3d` are cut into folds anew. A fold's
backbone sees images of its own training and validation patients alone: of each of their volumes
the axial slice of the largest area, and the slices in `noduleshapes2d` of nodules rated neither
malignant nor benign, which are no volumes here.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from data.build_nodule_shapes import label_nodules
from slivit.config import Augmentation, Target
from slivit.named import DATA_DIR
from slivit.runtime import whole_file
from slivit.scans import SPLITS, Scans
from slivit.sources import ArraySource

N_FOLDS = 5
VAL_PARTS = 8  # one of so many parts of a fold's other patients is its validation part
SIZE = 32      # pixels a side in the scripts, as for the embedded sets
LABEL = "malignant"
TARGET = Target("binary", (LABEL,))
IMAGE_LABELS = ("spiculated", "lobulated", "irregular", "ill_defined", "subsolid", "calcified",
                "malignant", "benign")


@dataclass(frozen=True)
class Nodules:
    """Scans with their table, row-aligned.

    Attributes:
        table: nodule, patient, mean ratings, volume_mm3, and a 0/1 column per label.
        scans: uint8 (n, 28, 28, 28) volumes or (n, 28, 28) images.
    """

    table: pd.DataFrame
    scans: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    def take(self, rows: np.ndarray) -> "Nodules":
        """Return some of them; `rows` are numbers or a mask."""
        return Nodules(self.table.iloc[rows].reset_index(drop=True), self.scans[rows])


@dataclass(frozen=True)
class Fold:
    """A part of the patients to be predicted, and what a model may learn from.

    Attributes:
        number: from 0.
        volumes: all volumes.
        split: (n,) of `train`, `val`, `test`; other rows are left out.
        images: the indeterminate nodules' slices; which of them may be used follows from `split`.
    """

    number: int
    volumes: Nodules
    split: np.ndarray
    images: Nodules

    def rows(self, *splits: str) -> np.ndarray:
        """Return the row numbers of some splits, in the table's order."""
        return np.flatnonzero(np.isin(self.split, splits))

    @property
    def truth(self) -> np.ndarray:
        """0 or 1 of each volume, (n,)."""
        return self.volumes.table[LABEL].to_numpy()


def load(few: int | None = None) -> tuple[Nodules, Nodules]:
    """Return the volumes, and the images of nodules that are no volumes; `few`: the first ones."""
    volumes = _read("noduleshapes3d")
    images = _read("noduleshapes2d")
    images = images.take((images.table["malignancy"] == 3).to_numpy())
    if few is not None:
        volumes, images = (part.take(np.arange(min(few, len(part)))) for part in (volumes, images))
    return volumes, images


def _read(name: str) -> Nodules:
    table = pd.read_csv(DATA_DIR / f"{name}.csv", dtype={"patient": str, "nodule": str})
    with np.load(DATA_DIR / f"{name}.npz", allow_pickle=False) as arrays:
        scans = np.concatenate([arrays[f"{split}_images"] for split in SPLITS
                                if f"{split}_images" in arrays])
    return Nodules(table.assign(**label_nodules(table)), scans)


def make_fold(number: int, volumes: Nodules, images: Nodules) -> Fold:
    """Return one of the five folds: no patient stands in two of its splits."""
    table = volumes.table
    parts = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=0)
    others, test = list(parts.split(table, table[LABEL], table["patient"]))[number]
    rest = table.iloc[others]
    inner = StratifiedGroupKFold(VAL_PARTS, shuffle=True, random_state=0)
    _, val = next(inner.split(rest, rest[LABEL], rest["patient"]))
    split = np.full(len(table), "train", dtype=object)
    split[test], split[others[val]] = "test", "val"
    return Fold(number, volumes, split.astype(str), images)


def image_table(fold: Fold) -> pd.DataFrame:
    """Return the images for the fold's backbone: nodule, patient, Split and the eight labels.

    `row` and `of_volume` say where an image comes from. An indeterminate nodule's image has the
    split of its patient, `train` where the patient has no volume.
    """
    columns = ["nodule", "patient", *IMAGE_LABELS]
    own = fold.rows("train", "val")
    slices = fold.volumes.table.loc[own, columns].assign(
        row=own, of_volume=True, Split=fold.split[own])
    of_patient = dict(zip(fold.volumes.table["patient"], fold.split, strict=True))
    extra = fold.images.table[columns].assign(
        row=np.arange(len(fold.images)), of_volume=False,
        Split=[of_patient.get(patient, "train") for patient in fold.images.table["patient"]])
    extra = extra[extra["Split"].isin(["train", "val"])]
    return pd.concat([slices, extra], ignore_index=True)


def largest_slice(volume: np.ndarray) -> np.ndarray:
    """Return the axial slice of the largest area, as data/build_nodule_shapes.py takes it."""
    return volume[volume.sum(axis=(1, 2), dtype=np.int64).argmax()]


def shape_features(volume: np.ndarray) -> list[float]:
    """Return hand-made features of a uint8 volume.

    Its volume, box sides from short to long, surface (faces of voxels), sphericity, surface per
    volume, share of the box that is filled, mean grey value. The shape is what most annotators
    drew; what any of them drew where most agree on nothing.
    """
    shape = volume >= 128
    if not shape.any():
        shape = volume > 0
    if not shape.any():
        return [0.0] * 9
    count = float(shape.sum())
    sides = sorted(float(np.ptp(places)) + 1 for places in np.nonzero(shape))
    padded = np.pad(shape, 1).astype(np.int8)
    surface = float(sum(np.abs(np.diff(padded, axis=axis)).sum() for axis in range(3)))
    sphericity = math.pi ** (1 / 3) * (6 * count) ** (2 / 3) / surface
    return [float(volume.sum()) / 255, *sides, surface, sphericity, surface / count,
            count / math.prod(sides), float(volume[volume > 0].mean())]


def write_images(fold: Fold, folder: Path, shared: Path) -> Path:
    """Write the fold's table of images, for bb_train.py; the images go to `shared`, once."""
    table = image_table(fold)
    paths = []
    for row, nodule, of_volume in zip(table["row"], table["nodule"], table["of_volume"],
                                      strict=True):
        source = fold.volumes if of_volume else fold.images
        scan = largest_slice(source.scans[row]) if of_volume else source.scans[row]
        paths.append(_save(shared / f"{nodule}_slice.npy", scan))
    return _write_table(table, paths, IMAGE_LABELS, folder / "images.csv")


def write_volumes(fold: Fold, folder: Path, shared: Path) -> Path:
    """Write the fold's table of volumes, for finetune.py; the volumes go to `shared`, once."""
    rows = fold.rows(*SPLITS)
    table = fold.volumes.table.loc[rows].assign(Split=fold.split[rows])
    paths = [_save(shared / f"{nodule}_volume.npy", fold.volumes.scans[row])
             for row, nodule in zip(rows, table["nodule"], strict=True)]
    return _write_table(table, paths, (LABEL,), folder / "volumes.csv")


def _save(path: Path, scan: np.ndarray) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            np.save(part, scan)
    return path


def _write_table(table: pd.DataFrame, paths: list[Path], labels: tuple[str, ...],
                 path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = pd.DataFrame({"F_Name": table["nodule"], "Path": [p.absolute() for p in paths],
                            "patient": table["patient"], "Split": table["Split"],
                            **{label: table[label] for label in labels}})
    with whole_file(path) as part:
        content.to_csv(part, index=False)
    return path


def as_scans(fold: Fold) -> Scans:
    """Return the fold's volumes in memory, for the training engine."""
    table = fold.volumes.table
    return Scans(name="nodules", ndim=3, ids=tuple(table["nodule"]), split=fold.split,
                 labels=fold.truth.astype(np.float32)[:, None], label_names=(LABEL,),
                 patients=tuple(table["patient"]), read=ArraySource((fold.volumes.scans,), 3),
                 task="binary", window="full", img_size=SIZE,
                 augmentation=Augmentation(flips="hvz", jitter=0.0))
