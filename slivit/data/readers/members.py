"""Files within an archive, which the readers of slices take like files of a folder."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

START = 140          # bytes, of which 8 follow the preamble
LONG = 1024          # bytes of a value that is not read at once
PIXELS = 0x7FE00008  # first of the tags of pixels


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


def read_dicom(file: SliceFile, force: bool, tags: Sequence[str] = ()) -> Dataset:
    """Return the data set of a file by pydicom, up to zeros that may fill its end.

    Its `filename` leads back, see `source_of`. Values of more than 1 kB are read when asked for.

    Args:
        file: of one slice, or of several frames.
        force: whether it may lack the preamble.
        tags: keywords of the only elements wanted, none of which is that of the pixels; default
            all.

    Raises:
        ValueError: it begins with zeros.
        Exception: what pydicom raises for a damaged file.
    """
    last = PIXELS if tags else 2**32

    def ends(tag: BaseTag, *_: object) -> bool:  # pydicom takes zeros for millions of elements
        return tag == 0 or int(tag) >= last

    with file.open("rb") as stream:
        start = stream.read(START)
        place = 132 if start[128:132] == b"DICM" else 0
        if start[place:place + 8] == bytes(8):
            raise ValueError("it begins with zeros, as a file that was not copied")
        stream.seek(0)
        dataset = read_partial(stream, ends, defer_size=LONG, force=force,
                               specific_tags=[Tag(name) for name in tags] or None)
    if isinstance(file, Member):
        dataset.filename, dataset.buffer = file, _Deferred(file)
    return dataset


def source_of(dataset: Dataset) -> SliceFile:
    """Return the file from which a data set was read."""
    return dataset.filename if isinstance(dataset.filename, Member) else Path(dataset.filename)
