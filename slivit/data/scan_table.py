"""One table of scans: what every source of data is turned into, files or arrays in memory."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from slivit.config import Augmentation
from slivit.data.readers import (
    Header,
    Pick,
    Volume,
    files_of,
    image_header,
    read_image,
    read_volume,
    scan_grid,
    stats_of,
    volume_header,
)
from slivit.data.readers.base import picked
from slivit.data.readers.voxel_grid import Grid
from slivit.utils.cells import write_table
from slivit.utils.errors import UserError, nearest

SPLITS = ("train", "val", "test")
MOST_GROUPS = 20
UNKNOWN = "unknown"  # kind of subjects that cannot all be told apart
DEFAULT_SIZE = {2: 224, 3: 256}  # pixels a side, images and volumes


@dataclass(frozen=True)
class FileSource:
    """Scans in files; `ndim` 2 for images, 3 for volumes."""

    paths: tuple[Path, ...]
    ndim: int

    def __call__(self, row: int, pick: Pick | None = None) -> Volume:
        """Read a scan; see readers.read_volume. An image becomes a volume of one slice."""
        if self.ndim == 2:
            return Volume(read_image(self.paths[row])[None])
        return read_volume(self.paths[row], pick)

    def header(self, row: int) -> Header:
        """Return what is known of a scan without decoding it."""
        return (image_header if self.ndim == 2 else volume_header)(self.paths[row])

    def grid(self, row: int) -> Grid | None:
        """Return the voxel grid of a scan's own file; None for kinds that have none."""
        return scan_grid(self.paths[row], self.header(row))

    def files(self) -> Iterator[Path]:
        """Yield every file of every scan."""
        for path in self.paths:
            yield from files_of(path)

    def describe(self, row: int) -> bytes:
        """Return what identifies a scan wherever it lies: names and sizes of its files."""
        return "\n".join(f"{file.name} {_size_of(file)}" for file in files_of(self.paths[row])
                         ).encode(errors="surrogateescape")

    def identity(self, row: int) -> bytes:
        """Return what changes when a file of the scan does: names, sizes and times."""
        return "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}"
                         for name, stat in stats_of(self.paths[row])
                         ).encode(errors="surrogateescape")


def _size_of(file: Path) -> int | str:
    try:
        return file.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return "missing"


@dataclass(frozen=True)
class ArraySource:
    """Scans in memory: consecutive blocks of rows, each an array (n, ...)."""

    blocks: tuple[np.ndarray, ...]
    ndim: int

    def __call__(self, row: int, pick: Pick | None = None) -> Volume:
        """Return a scan."""
        scan = self._array(row)
        if self.ndim == 2:
            return Volume(scan[None])
        return Volume(scan if pick is None else scan[picked(len(scan), pick)])

    def header(self, row: int) -> Header:
        """Return shape and type of a scan."""
        scan = self._array(row)
        return Header("memory", scan.shape, str(scan.dtype))

    def grid(self, row: int) -> None:
        """Return None: an array has no grid in the patient."""

    def files(self) -> Iterator[Path]:
        """Yield nothing: the scans are in memory."""
        return iter(())

    def describe(self, row: int) -> bytes:
        """Return the scan's bytes."""
        return np.ascontiguousarray(self._array(row)).tobytes()

    def _array(self, row: int) -> np.ndarray:
        for block in self.blocks:
            if row < len(block):
                return block[row]
            row -= len(block)
        raise IndexError(row)


@dataclass(frozen=True)
class PublishedSet:
    """A set of MedMNIST as it was published, whatever becomes of the splits and labels here.

    Attributes:
        task: as MedMNIST calls it.
        split: (n,) of `train`, `val` or `test`.
        label_names: all of them.
    """

    task: str
    split: np.ndarray
    label_names: tuple[str, ...]


@dataclass(frozen=True)
class ScanTable:
    """A table of scans; all sequences are row-aligned.

    Attributes:
        name: data set name, or the table's file name.
        ndim: 2 for images (H, W[, 3]), 3 for volumes (N, H, W[, 3]).
        ids: what a row is called in reports.
        split: (n,) of `train`, `val` or `test`.
        labels: float32 (n, K); NaN where unknown.
        label_names: K names.
        patients: patient of each row, or None where unknown.
        read: gives a row's Volume, or its Header.
        task: the task the source itself declares, or None.
        window, img_size: pre-processing that suits the source (see config.Preprocess); of files,
            the window is known once their headers are (header_check.check_headers).
        augmentation: random transforms that leave such scans as good.
        drawn: whether the split was drawn by ratio and seed, since the source has none.
        cache_dir: where prepared scans are kept, or None.
        headers: the file that remembers the headers of these scans, or None.
        columns: other columns of the table, as text.
        rounded: of a label whose numbers are all whole as float32, the cells of the table that
            float32 does not hold as they are written.
        published: of a MedMNIST set.
    """

    name: str
    ndim: int
    ids: tuple[str, ...]
    split: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]
    patients: tuple[str, ...] | None
    read: FileSource | ArraySource
    task: str | None = None
    window: str = "percentile"
    img_size: int = 224
    augmentation: Augmentation = Augmentation()
    drawn: bool = False
    cache_dir: Path | None = None
    headers: Path | None = None
    columns: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    rounded: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    published: PublishedSet | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, split: str) -> np.ndarray:
        """Return the row numbers of a split (`all` for every row), in the table's order."""
        return np.arange(len(self)) if split == "all" else np.flatnonzero(self.split == split)

    def with_labels(self, names: Sequence[str], labels: np.ndarray) -> "ScanTable":
        """Return the same scans with other label columns."""
        return dataclasses.replace(self, label_names=tuple(names), labels=labels)

    def group_column(self, name: str) -> np.ndarray:
        """Return the group (n,) of each row by a column of the table, such as site or scanner.

        Raises:
            UserError: no such column, or one with more than 20 different values.
        """
        known = list(self.columns)
        if not known:
            raise UserError(f"--group_by {name}: {self.name} has no columns to group by")
        column = known[match_names([name], known, f"--group_by, columns of {self.name}")[0]]
        values = np.array([value or "(empty)" for value in self.columns[column]])
        count = len(np.unique(values))
        if count > MOST_GROUPS:
            raise UserError(f"--group_by {name}: has {count} different values, expected at most "
                            f"{MOST_GROUPS}; group them into classes first")
        return values

    def groups(self) -> tuple[str, ...]:
        """Return the unit of the bootstrap: the patient, else the row (ids may repeat)."""
        if self.patients is not None:
            return self.patients
        return tuple(map(str, range(len(self))))

    def select_labels(self, wanted: Sequence[str]) -> "ScanTable":
        """Return the scans with the wanted label columns, in that order.

        A name is matched exactly, or else without regard to case where that is unique.

        Raises:
            UserError: listing every name that is not there.
        """
        columns = match_names(wanted, self.label_names, f"label columns of {self.name}")
        return self.with_labels([self.label_names[i] for i in columns], self.labels[:, columns])

    def fingerprint(self) -> str:
        """Return a SHA-256 of ids, splits, labels and scans (files: by name and size)."""
        digest = hashlib.sha256(repr((self.ids, self.patients, self.label_names)).encode())
        digest.update("\n".join(self.split).encode() + self.labels.tobytes())
        for row in range(len(self)):
            digest.update(self.read.describe(row))
        return digest.hexdigest()

    @property
    def subject_kind(self) -> str | None:
        """By what `subjects_of` knows people: `patients`, or names of `images` or `volumes`.

        `unknown` where several rows have one name; None for scans that are not of a table, such as
        a public set without patients.
        """
        if self.patients is not None:
            return "patients"
        if not isinstance(self.read, FileSource):
            return None
        if len(set(self.ids)) < len(self.ids):
            return UNKNOWN
        return {2: "images", 3: "volumes"}[self.ndim]

    def subjects_of(self, *splits: str) -> set[str]:
        """Return who is in some splits: patients or, as rows then count as independent, scans."""
        known = {"patients": self.patients, UNKNOWN: (), None: ()}.get(self.subject_kind, self.ids)
        return {known[row] for split in splits for row in self.rows(split)} if known else set()

    def save_split(self, path: Path) -> None:
        """Write `split.csv`: id, patient where known, split."""
        table = pd.DataFrame({"id": self.ids, "split": self.split})
        if self.patients is not None:
            table.insert(1, "patient", self.patients)
        write_table(path, table)


def match_names(wanted: Sequence[str], known: Sequence[str], what: str) -> list[int]:
    """Return the positions of the wanted names among the known ones.

    Raises:
        UserError: listing every name that is missing, ambiguous but for case, or named twice.
    """
    positions, bad = [], []
    for name in wanted:
        exact = [i for i, other in enumerate(known) if other == name]
        close = exact or [i for i, other in enumerate(known) if other.lower() == name.lower()]
        if len(close) == 1:
            positions.append(close[0])
        elif close:
            bad.append(f"{name!r} (could be any of {', '.join(known[i] for i in close)})")
        else:
            bad.append(f"{name!r} (nearest: {nearest(name, known)})" if known else repr(name))
    if bad:
        raise UserError(f"{what}: not found: {'; '.join(bad)}. Available: {', '.join(known)}")
    if len(set(positions)) < len(positions):
        raise UserError(f"{what}: a name is given twice in {', '.join(wanted)}")
    return positions
