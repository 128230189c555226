"""All nodules of the embedded data in five folds by patient.

The embedded split is left aside: the volumes of `noduleshapes3d` are cut into folds anew. A fold's
backbone sees images of its own training and validation patients alone: of each of their volumes
the axial slice of the largest area, and the slices in `noduleshapes2d` of nodules rated neither
malignant nor benign, which are no volumes here.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from data.build_nodule_shapes import label_nodules
from demo.nodule_tables import CUTS, above_cuts
from slivit.config import Augmentation, Target
from slivit.data.named_sets import DATA_DIR
from slivit.data.scan_table import SPLITS, ArraySource, ScanTable
from slivit.utils.runtime import derive_seed

N_FOLDS = 5
VAL_PARTS = 8  # one of so many parts of a fold's other patients is its validation part
LABEL = "malignant"
LEFT_OUT = "left out"  # beside the three splits
TARGET = Target("binary", (LABEL,))
RATING = Target("regression", ("malignancy",))  # the radiologists' mean, 1 to 5
ORDINAL = (LABEL, *(f"{name}_{cut}" for name, cuts in CUTS.items() for cut in cuts))
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
        scans: all of them.
        ndim: 3 for volumes, 2 for images.
        target: what is predicted; its labels are columns of the table.
        split: (n,) of `train`, `val`, `test`; other rows are left out.
        images: the indeterminate nodules' slices; which of them may be used follows from `split`.
        augmentation: of training scans; None for what leaves an outline as good.
    """

    number: int
    scans: Nodules
    ndim: int
    target: Target
    split: np.ndarray
    images: Nodules
    augmentation: Augmentation | None = None

    def rows(self, *splits: str) -> np.ndarray:
        """Return the row numbers of some splits, in the table's order."""
        return np.flatnonzero(np.isin(self.split, splits))

    @property
    def truth(self) -> np.ndarray:
        """Labels, (n, K) float32."""
        return self.scans.table[list(self.target.labels)].to_numpy(np.float32, copy=True)


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
    return Nodules(table.assign(**label_nodules(table), **above_cuts(table)), scans)


def all_images(volumes: Nodules, images: Nodules) -> Nodules:
    """Return an image per nodule: the slices of the volumes, then those that are no volumes."""
    slices = np.stack([largest_slice(volume) for volume in volumes.scans])
    table = pd.concat([volumes.table, images.table], join="inner", ignore_index=True)
    return Nodules(table, np.concatenate([slices, images.scans]))


def largest_slice(volume: np.ndarray) -> np.ndarray:
    """Return the axial slice of the largest area, as data/build_nodule_shapes.py takes it."""
    return volume[volume.sum(axis=(1, 2), dtype=np.int64).argmax()]


def make_fold(number: int, scans: Nodules, images: Nodules, target: Target = TARGET,
              ndim: int = 3) -> Fold:
    """Return one of the five folds: no patient stands in two of its splits."""
    table = scans.table
    parts = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=0)
    others, test = list(parts.split(table, table[LABEL], table["patient"]))[number]
    rest = table.iloc[others]
    inner = StratifiedGroupKFold(VAL_PARTS, shuffle=True, random_state=0)
    _, val = next(inner.split(rest, rest[LABEL], rest["patient"]))
    split = np.full(len(table), "train", dtype=object)
    split[test], split[others[val]] = "test", "val"
    return Fold(number, scans, ndim, target, split.astype("<U8"), images)


def with_few(fold: Fold, size: int, seed: int) -> Fold:
    """Return the fold with `size` of its training and validation scans, the test part as it is.

    Patients are taken in a random order, whole but for the last, from training and validation in
    proportion; a smaller fold of the same seed is part of a larger one. Both parts have scans of
    both classes: the first scan is malignant, the second is not.
    """
    split = fold.split.copy()
    of_all = len(fold.rows("train", "val"))
    val_size = max(2, round(size * len(fold.rows("val")) / of_all))
    for part, wanted in (("train", size - val_size), ("val", val_size)):
        rows = fold.rows(part)
        patients = fold.scans.table["patient"].to_numpy()[rows]
        rng = np.random.default_rng(derive_seed(seed, fold.number))
        place = {name: k for k, name in enumerate(rng.permutation(np.unique(patients)))}
        order = rows[np.argsort([place[name] for name in patients], kind="stable")]
        malignant = fold.scans.table[LABEL].to_numpy()[order] == 1
        first = [order[malignant][0], order[~malignant][0]]
        order = [*first, *(row for row in order if row not in first)]
        split[order[wanted:]] = LEFT_OUT
    return dataclasses.replace(fold, split=split)


def image_table(fold: Fold, labels: tuple[str, ...] = IMAGE_LABELS) -> pd.DataFrame:
    """Return the images for the fold's backbone: nodule, patient, Split and labels.

    `row` and `of_volume` say where an image comes from. An indeterminate nodule's image has the
    split of its patient; where the patient has no volume, `train`, or nothing if volumes are left
    out.
    """
    columns = ["nodule", "patient", *dict.fromkeys(labels)]
    own = fold.rows("train", "val")
    slices = fold.scans.table.loc[own, columns].assign(
        row=own, of_volume=True, Split=fold.split[own])
    of_patient = dict(zip(fold.scans.table["patient"], fold.split, strict=True))
    otherwise = LEFT_OUT if LEFT_OUT in fold.split else "train"
    extra = fold.images.table[columns].assign(
        row=np.arange(len(fold.images)), of_volume=False,
        Split=[of_patient.get(patient, otherwise) for patient in fold.images.table["patient"]])
    extra = extra[extra["Split"].isin(["train", "val"])]
    return pd.concat([slices, extra], ignore_index=True)


def as_scans(fold: Fold) -> ScanTable:
    """Return the fold's scans in memory, for the training engine."""
    table, flips = fold.scans.table, "hvz" if fold.ndim == 3 else "hv"
    return ScanTable(name="nodules", ndim=fold.ndim, ids=tuple(table["nodule"]), split=fold.split,
                     labels=fold.truth, label_names=fold.target.labels,
                     patients=tuple(table["patient"]) if "patient" in table else None,
                     read=ArraySource((fold.scans.scans,), fold.ndim), task=fold.target.task,
                     window="full", img_size=32,
                     augmentation=fold.augmentation or Augmentation(flips=flips, jitter=0.0))
