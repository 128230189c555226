"""Where scans come from: files, or arrays in memory; both give a row's Volume on demand."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slivit.data.readers import (
    Header,
    Pick,
    Volume,
    files_of,
    image_header,
    read_image,
    read_volume,
    volume_header,
)
from slivit.data.readers.base import picked


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

    def files(self) -> Iterator[Path]:
        """Yield every file of every scan."""
        for path in self.paths:
            yield from files_of(path)

    def describe(self, row: int) -> bytes:
        """Return what identifies a scan wherever it lies: names and sizes of its files."""
        return "\n".join(f"{file.name} {file.stat().st_size if file.exists() else 'missing'}"
                         for file in files_of(self.paths[row])
                         ).encode(errors="surrogateescape")

    def identity(self, row: int) -> bytes:
        """Return what changes when a file of the scan does: names, sizes and times."""
        stats = [(file.name, file.stat()) for file in files_of(self.paths[row]) if file.exists()]
        return "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}"
                         for name, stat in stats).encode(errors="surrogateescape")


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
