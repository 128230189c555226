"""Files within an archive, which the readers of slices take like files of a folder."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pydicom
from pydicom.dataset import Dataset


@dataclass(frozen=True)
class Member:
    """A file within an archive: of a path, what readers of slices use.

    Attributes:
        archive: path of the archive.
        inside: name within it, with slashes.
        size: bytes.
        content: gives all its bytes.
        head: gives its first bytes, of this number.
    """

    archive: Path
    inside: str
    size: int
    content: Callable[[], bytes]
    head: Callable[[int], bytes]

    @property
    def name(self) -> str:
        """The last part of the name."""
        return PurePosixPath(self.inside).name

    @property
    def suffix(self) -> str:
        """Of the name, with its dot."""
        return PurePosixPath(self.inside).suffix

    def __str__(self) -> str:
        return f"{self.archive}:{self.inside}"

    def exists(self) -> bool:
        """Whether it is there, as it is."""
        return True

    def open(self, mode: str = "rb") -> io.BytesIO:
        """Return a stream of its bytes."""
        return io.BytesIO(self.content())


SliceFile = Path | Member


class _Deferred:
    """A stream from which pydicom reads long values once they are asked for; holds no bytes."""

    def __init__(self, member: Member) -> None:
        self._member, self._place = member, 0

    def seek(self, place: int, whence: int = 0) -> int:
        self._place = place + (0, self._place, self._member.size)[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, size: int = -1) -> bytes:
        content = self._member.content()
        piece = content[self._place:None if size is None or size < 0 else self._place + size]
        self._place += len(piece)
        return piece


def head_of(file: SliceFile, count: int) -> bytes:
    """Return the first `count` bytes of a file."""
    if isinstance(file, Member):
        return file.head(count)
    with file.open("rb") as stream:
        return stream.read(count)


def length_of(file: SliceFile) -> int:
    """Return the number of bytes of a file."""
    return file.size if isinstance(file, Member) else file.stat().st_size


def read_dicom(file: SliceFile, **options: object) -> Dataset:
    """Return the data set of a file by pydicom; its `filename` leads back, see `source_of`."""
    if not isinstance(file, Member):
        return pydicom.dcmread(file, **options)
    dataset = pydicom.dcmread(file.open(), **options)
    dataset.filename, dataset.buffer = file, _Deferred(file)
    return dataset


def source_of(dataset: Dataset) -> SliceFile:
    """Return the file from which a data set was read."""
    return dataset.filename if isinstance(dataset.filename, Member) else Path(dataset.filename)
