"""Slice features of volumes in one file: a store.

It has a record per volume, each with a checksum of its own, which is what makes the volume count as
done. So a record that a killed run has left half-written, or that has been damaged since, is
computed again, and a file of the right size is always a good one. It is computed in the batch that
it was in, since the last digits depend on the volumes beside it. Runs that share a store may fill
it at once: what one has written, another leaves as it is.
"""

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from slivit.data.datasets import ScanDataset
from slivit.utils.errors import RunError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

DONE = 1 << 32     # beside the checksum, which may be 0


@dataclass(frozen=True)
class FeatureStore:
    """The slice features of all volumes of a table, plain or augmented, as far as they are known.

    Attributes:
        file: where they lie.
        records: (n,), memory-mapped: `x` float32 (S, F), `mask` bool (S,), in which `batch` they
            were computed, how many records are of it (`size`), and `sum`, the checksum of all that,
            0 where a volume is not done yet.
        dataset: the volumes, all rows.
    """

    file: BinaryIO
    records: np.ndarray
    dataset: ScanDataset

    @property
    def x(self) -> np.ndarray:
        """Return the features, float32 (n, S, F)."""
        return self.records["x"]

    @property
    def mask(self) -> np.ndarray:
        """Return which slices are real, bool (n, S)."""
        return self.records["mask"]

    def is_done(self, row: int) -> bool:
        """Return whether a volume's record is whole."""
        record = self.records[row]
        return bool(record["sum"] and record["sum"] == _checksum(row, record))

    def torn(self, bad: list[int]) -> np.ndarray:
        """Return the volumes that are done, but were computed in a batch with some of the bad."""
        whole = self.records["sum"] != 0
        whole[bad] = False
        _, batch, count = np.unique(self.records["batch"][whole], return_inverse=True,
                                    return_counts=True)
        return np.flatnonzero(whole)[count[batch] < self.records["size"][whole]]

    def write(self, rows: list[int], x: np.ndarray, mask: np.ndarray) -> None:
        """Write the features (B, S, F) and masks (B, S) of volumes that are not done yet.

        Raises:
            RunError: they cannot be written.
        """
        record = np.zeros((), self.records.dtype)
        record["batch"] = zlib.crc32(np.array(rows))
        try:
            with _locked(self.file):
                done = [self.is_done(row) for row in rows]  # before, or by a run that shares it
                others = self.records["batch"][rows] != record["batch"]
                record["size"] = len(rows) - np.sum(done & others)
                for i, row in enumerate(rows):
                    if done[i]:
                        continue
                    record["x"], record["mask"] = x[i], mask[i]
                    record["sum"] = _checksum(row, record)
                    self.file.seek(row * record.nbytes)
                    self.file.write(record.tobytes())
                self.file.flush()
        except OSError as error:
            raise _unwritable(self.file.name, error.strerror) from None


def make_store(path: Path, size: int) -> None:
    """Make a file of zeros, if there is not one of that size; it takes room as it is filled."""
    if path.exists() and not path.is_file():
        raise _unwritable(path, "it is not a regular file")
    try:
        with path.open("ab") as file:
            if file.seek(0, 2) != size:
                file.truncate(size)
    except OSError as error:
        raise _unwritable(path, error.strerror) from None


def open_store(path: Path, count: int, record: np.dtype, dataset: ScanDataset) -> FeatureStore:
    """Open a file of `count` records.

    Raises:
        RunError: it cannot be opened, or has been made shorter.
    """
    try:
        file = path.open("r+b")
        return FeatureStore(file, np.memmap(file, record, mode="r", shape=(count,)), dataset)
    except (OSError, ValueError) as error:  # of numpy: another process has made the file shorter
        raise _unwritable(path, getattr(error, "strerror", None) or error) from None


def _unwritable(path: Path | str, why: object) -> RunError:
    return RunError(f"slice features: cannot write {path} ({why}); free disk space, or name "
                    "another --cache_dir")


@contextlib.contextmanager
def _locked(file: BinaryIO) -> Iterator[None]:
    """Keep other processes from writing, where the system and the file system know locks."""
    _lock(file, "LOCK_EX")
    try:
        yield
    finally:
        _lock(file, "LOCK_UN")


def _lock(file: BinaryIO, how: str) -> None:
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(file, getattr(fcntl, how))


def _checksum(row: int, record: np.ndarray) -> int:
    about = np.array([row, record["batch"], record["size"]])
    return DONE | zlib.crc32(record["x"], zlib.crc32(record["mask"], zlib.crc32(about)))
