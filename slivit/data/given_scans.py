"""Scans that are handed over one by one, without a table: paths, arrays, nibabel images."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from nibabel.spatialimages import SpatialImage

from slivit.data.readers import Header, Pick, ReadError, Volume, split_key
from slivit.data.readers.arrays import from_memory
from slivit.data.readers.base import kind_at, picked
from slivit.data.readers.nibabel_images import volume_of_image
from slivit.data.readers.voxel_grid import Grid
from slivit.data.scan_table import DEFAULT_SIZE, FileSource, ScanTable
from slivit.utils.errors import UserError, listing

TABLES = (".csv", ".tsv", ".txt", ".xls", ".xlsx", ".parquet", ".json")
Scan = str | os.PathLike | np.ndarray | SpatialImage


@dataclass(frozen=True)
class MemorySource:
    """Scans in memory, of any sizes; `ndim` 2 for images, 3 for volumes.

    Attributes:
        volumes: an image is a volume of one slice.
        grids: of those that have one.
    """

    volumes: tuple[Volume, ...]
    grids: tuple[Grid | None, ...]
    ndim: int

    def __call__(self, row: int, pick: Pick | None = None) -> Volume:
        """Return a scan."""
        one = self.volumes[row]
        return Volume(one.slices[picked(len(one.slices), pick)], one.spacing, one.axes)

    def header(self, row: int) -> Header:
        """Return shape and type of a scan."""
        one = self.volumes[row]
        return Header("memory", one.slices.shape[3 - self.ndim:], str(one.slices.dtype),
                      one.spacing, one.axes)

    def grid(self, row: int) -> Grid | None:
        """Return the voxel grid of a scan; None where it has none."""
        return self.grids[row]

    def files(self) -> Iterator[Path]:
        """Yield nothing: the scans are in memory."""
        return iter(())

    def describe(self, row: int) -> bytes:
        """Return the scan's bytes."""
        return np.ascontiguousarray(self.volumes[row].slices).tobytes()


def given_scans(scans: Scan | Iterable[Scan], ndim: int, labels: Sequence[str]) -> ScanTable:
    """Return a table of scans, all in the test split, of which no label is known.

    Args:
        scans: one, or several of one kind: paths of files or folders (`file.npz:NAME` for one of
            several arrays, `file.zip:FOLDER` for one of several folders); arrays (N, H, W) or
            (N, H, W, 3), an image without the first axis, of any type of number; or nibabel images.
        ndim: 2 for images, 3 for volumes.
        labels: of the model.

    Raises:
        UserError: there are none, or of several kinds; listing paths at which there is nothing, or
            a table; arrays of another rank, with NaN in them, or masked.
    """
    single = isinstance(scans, (str, os.PathLike, np.ndarray, SpatialImage))
    items = [scans] if single else _listed(scans)
    if not items:
        raise UserError("no scans are given; expected at least one")
    if all(isinstance(one, (str, os.PathLike)) for one in items):
        paths = tuple(map(_path, items))
        names, source = _names(paths), FileSource(paths, ndim)
    elif all(isinstance(one, (np.ndarray, SpatialImage)) for one in items):
        names = tuple(f"scan_{i}" for i in range(1, len(items) + 1))
        source = _in_memory(items, names, ndim)
    else:
        kinds = sorted({type(one).__name__ for one in items})
        raise UserError(f"found scans of type {', '.join(kinds)}; expected paths, or numpy arrays "
                        "and nibabel images")
    return ScanTable(name=names[0] if len(names) == 1 else f"{len(names)} scans", ndim=ndim,
                     ids=names, split=np.full(len(names), "test"),
                     labels=np.full((len(names), len(labels)), np.nan, dtype=np.float32),
                     label_names=tuple(labels), patients=None, read=source,
                     img_size=DEFAULT_SIZE[ndim])


def _listed(scans: object) -> list:
    try:
        if isinstance(scans, (bytes, Mapping, pd.DataFrame)):  # lists of numbers, or of names
            raise TypeError
        return list(scans)
    except TypeError:
        raise UserError(f"found {type(scans).__name__}, expected a scan: a path, a numpy array, a "
                        "nibabel image, or a list of these") from None


def _path(given: str | os.PathLike) -> Path:
    """Return a path; refuse an empty text, which would mean the current folder."""
    if not (name := os.fsdecode(given)):
        raise UserError("a path is empty, expected the name of a file or folder")
    return Path(os.path.expanduser(name))


def _names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return what scans are called; refuse paths at which no scan can be."""
    bad, names = [], []
    for path in paths:
        file, key = split_key(path)
        if not kind_at(path) and not kind_at(file):
            bad.append(f"{path}: no such file or folder")
        elif file.name.lower().endswith(TABLES) and kind_at(file) == "file":
            bad.append(f"{path}: is a table, expected a scan; give the scans that it names, or "
                       "the table to evaluate.py --meta_csv")
        name = file.name or str(file.resolve())
        names.append(name if key is None else f"{name}:{key}")
    if len(bad) == 1:
        raise UserError(bad[0])
    if bad:
        raise UserError(f"{len(bad)} of {len(paths)} paths are not those of scans:\n{listing(bad)}")
    return tuple(names)


def _in_memory(items: Sequence[np.ndarray | SpatialImage], names: Sequence[str], ndim: int
               ) -> MemorySource:
    found, bad = [], []
    for one, name in zip(items, names, strict=True):
        try:
            found.append(_volume(one, name, ndim))
        except ReadError as error:
            bad.append(str(error))
    if len(bad) == 1:
        raise UserError(bad[0])
    if bad:
        raise UserError(f"{len(bad)} of {len(items)} scans cannot be used:\n{listing(bad)}")
    return MemorySource(tuple(volume for volume, _ in found), tuple(grid for _, grid in found),
                        ndim)


def _volume(one: np.ndarray | SpatialImage, name: str, ndim: int) -> tuple[Volume, Grid | None]:
    if isinstance(one, np.ndarray):
        if np.ma.is_masked(one):
            raise ReadError(f"{name}: is a masked array, expected one with all values; choose what "
                            "stands in for the masked ones, as in array.filled(0)")
        values = from_memory(np.asarray(one), ndim, name)
        return Volume(values if ndim == 3 else values[None]), None
    if ndim == 2:
        raise ReadError(f"{name}: is a volume ({type(one).__name__}), but this model is of images; "
                        "give an array (height, width)")
    return volume_of_image(one, name)
