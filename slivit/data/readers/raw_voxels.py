"""Voxels stored as they are, or packed, and described by a header in text: MetaImage and NRRD.

The voxels are in the file of the header or in one other local file. They are read by numpy and
zlib, not by ITK, which takes some damaged files for whole and ends the process over others.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from slivit.data.readers.acquisition import acquired, check_shape, spans_space
from slivit.data.readers.base import (
    UNPACKED,
    Header,
    Pick,
    Reader,
    ReadError,
    Volume,
    check_size,
    check_values,
    kind_at,
    picked,
    reason,
)
from slivit.data.readers.orientation import axes_of, reorient
from slivit.data.readers.text_header import shown
from slivit.data.readers.voxel_grid import Grid, transposed

COLOURS = (3, 4)           # numbers per voxel: red, green, blue, and opacity
ANY = zlib.MAX_WBITS + 32  # zlib's sign for data packed as zlib or as gzip
GZIP = b"\x1f\x8b"         # its first bytes
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from DICOM's coordinates to nibabel's


@dataclass(frozen=True)
class Stored:
    """What the header of a file says of its voxels.

    Attributes:
        kind: as in Header.
        sizes: of all axes, the one stored fastest first.
        dtype: of a number.
        data: the file of the voxels, see text_header.data_file.
        directions: (3, 3), a column per axis of voxels, to the left, back and head; None where
            unknown.
        spacing: mm along these axes; None where unknown.
        origin: mm to the left, back and head, of the first voxel.
        colour: which of the axes is that of the numbers of one voxel, None where there is one.
        start: byte of the file at which the voxels, or what they are packed in, begin; -1 where
            they are its last bytes.
        packed: whether they are packed, by zlib or gzip.
        length: bytes that they take when packed; None for all from the start.
    """

    kind: str
    sizes: tuple[int, ...]
    dtype: np.dtype
    data: Path
    directions: np.ndarray | None = None
    spacing: tuple[float, float, float] | None = None
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    colour: int | None = None
    start: int = 0
    packed: bool = False
    length: int | None = None

    def shape(self) -> tuple[int, ...]:
        """Return the number of voxels along each axis, the one stored fastest first."""
        return tuple(size for i, size in enumerate(self.sizes) if i != self.colour)

    def codes(self) -> str | None:
        """Return where the axes of voxels run to in the patient; None where it is unknown."""
        return None if self.directions is None else axes_of(self.affine()[:3, :3])

    def affine(self) -> np.ndarray:
        """Return (4, 4), from voxel numbers to mm to the left, back and head, as far as known."""
        directions = np.eye(3) if self.directions is None else self.directions
        affine = np.eye(4)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
            affine[:3, :3] = directions * np.array(self.spacing or (1.0, 1.0, 1.0))
        affine[:3, 3] = self.origin
        return affine


Parse = Callable[[Path], Stored]  # path of the header -> what it says, or a ReadError


def reader(kind: str, suffixes: tuple[str, ...], parse: Parse) -> Reader:
    """Return the reader of a kind of file of which only the text of the header differs.

    Args:
        kind, suffixes: see Reader.
        parse: reads the header.
    """
    return Reader(kind, suffixes, lambda path: header(path, checked(path, parse)),
                  lambda path, pick=None: read(path, checked(path, parse), pick),
                  lambda path, header: grid(checked(path, parse), header),
                  files=lambda path: files_of(path, parse))


def header(path: Path, stored: Stored) -> Header:
    """Return the header of a scan that has been checked (`checked`)."""
    axes, spacing, shape = _geometry(stored)
    there, notes = stored.data.stat().st_size, ()
    if stored.packed:
        if _gzip_says(stored) not in (None, _bytes(stored) % 2**32):
            _content(path, stored)  # truncated, packed in several parts, or followed by something
    elif there > stored.start + _bytes(stored):
        notes = (f"{there - stored.start - _bytes(stored)} bytes follow its last voxel",)
    colour = () if stored.colour is None else (3,)
    return Header(stored.kind, shape + colour, stored.dtype.newbyteorder("=").name, spacing, axes,
                  notes=notes)


def read(path: Path, stored: Stored, pick: Pick | None) -> Volume:
    """Return the slices of a scan that has been checked, as a scanner shows them; see nifti.read.

    Where the directions of the axes are unknown, slices follow the axis that is stored slowest.

    Raises:
        ReadError: damaged where they are packed, or with NaN in them.
    """
    axes, spacing, _ = _geometry(stored)
    values = _content(path, stored).reshape(stored.sizes[::-1]).T  # axes as in the header
    if stored.colour is not None:
        values = np.moveaxis(values, stored.colour, -1)[..., :3]
    values = values.reshape(*stored.shape()[:3], *values.shape[len(stored.shape()):])
    if axes is None:
        slices = values.transpose(2, 1, 0, *range(3, values.ndim))
    else:
        slices = reorient(values, stored.codes(), axes)
    slices = slices[picked(len(slices), pick)]
    dtype = np.dtype(np.float32) if slices.dtype.kind == "f" else slices.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):  # to infinite values, which are refused
        slices = slices.astype(dtype, copy=False)
    return Volume(check_values(slices, path), spacing, axes)


def grid(stored: Stored, header: Header) -> Grid:
    """Return the grid of a scan; where directions are unknown, as ITK takes them: left, back, head.

    1 mm per voxel where there is no spacing.
    """
    codes = stored.codes()
    place = transposed if codes is None else partial(reorient, axes=header.axes, wanted=codes)
    return Grid(TO_RAS @ stored.affine(), place)


def checked(path: Path, parse: Parse) -> Stored:
    """Return what a header says, after a check of all that shows without unpacking voxels.

    Args:
        path: of the header.
        parse: reads it.

    Raises:
        ReadError: missing, damaged or truncated, not one volume, or of voxels that are elsewhere.
    """
    if not kind_at(path):
        raise ReadError(f"{path}: does not exist")
    try:
        stored = parse(path)
        check_shape(stored.shape(), path)
        _check_numbers(path, stored)
        if not spans_space(stored.affine()):
            raise ReadError(f"{path}: its header does not give the directions of the axes; "
                            "expected three, with more than 0 mm per voxel")
        return _check_length(path, stored)
    except OSError as error:
        raise ReadError(f"{error.filename or path}: cannot be read ({error.strerror})") from None


def files_of(path: Path, parse: Parse) -> list[Path]:
    """Return the file of the header and, where that is another, the file of the voxels."""
    try:
        data = parse(path).data
    except (ReadError, OSError):
        return [path]
    return [path] if data == path else [path, data]


def _check_numbers(path: Path, stored: Stored) -> None:
    """Refuse what is not one number, or a colour, per voxel."""
    if stored.colour is None:
        return
    count = stored.sizes[stored.colour]
    if count not in COLOURS or stored.dtype != np.uint8:
        raise ReadError(f"{path}: contains {count} numbers ({stored.dtype.name}) per voxel, "
                        "expected one, or 8-bit RGB; save each in its own file")


def _check_length(path: Path, stored: Stored) -> Stored:
    """Return it with the place of its voxels; refuse a file that is missing, or too short."""
    name = "" if stored.data == path else f" in {shown(stored.data.name)}"
    try:
        kind = kind_at(stored.data)
    except ReadError as error:  # which does not name the header
        what = str(error).removeprefix(f"{stored.data}: ")
        raise ReadError(f"{path}: its voxels are{name}, which {what}") from None
    if kind != "file":
        what = "is a folder" if kind else "does not exist"
        raise ReadError(f"{path}: its voxels are{name}, which {what}; copy that file next to it")
    with stored.data.open("rb") as stream:  # which shows that it may be read
        there, wanted = stream.seek(0, 2), _bytes(stored)
    start = there - wanted if stored.start == -1 else stored.start
    length = (stored.length or max(there - start, 0)) if stored.packed else wanted
    if start < 0 or start + length > there:
        raise ReadError(f"{path}: is truncated: {there} bytes{name}, expected "
                        f"{max(start, 0) + length}")
    if stored.packed:
        check_size(stored.sizes, stored.dtype, UNPACKED * length, path)
    return dataclasses.replace(stored, start=start, length=length)


def _bytes(stored: Stored) -> int:
    return math.prod(stored.sizes) * stored.dtype.itemsize


def _geometry(stored: Stored) -> tuple[str | None, tuple[float, ...] | None, tuple[int, ...]]:
    """Return axes, spacing and shape of the slices as they will be read."""
    shape = stored.shape()[:3]
    if stored.directions is None:
        return None, stored.spacing and stored.spacing[::-1], shape[::-1]
    steps = np.linalg.norm(stored.affine()[:3, :3], axis=0)
    axes, spacing, shape = acquired(stored.codes(), tuple(steps), shape)
    return axes, stored.spacing and spacing, shape


def _content(path: Path, stored: Stored) -> np.ndarray:
    """Return all numbers, in the order in which they are stored."""
    try:
        if stored.packed:
            return np.frombuffer(_unpacked(stored), stored.dtype)
        return np.asarray(np.memmap(stored.data, stored.dtype, "r", stored.start,
                                    (math.prod(stored.sizes),)))
    except (OSError, ValueError, zlib.error) as error:
        raise ReadError(f"{path}: its voxels cannot be read ({reason(error, stored.data)})"
                        ) from None


def _unpacked(stored: Stored) -> bytes:
    """Return the bytes of the voxels, whose checksums zlib compares; never more than expected."""
    parts, left = [], _bytes(stored)
    with stored.data.open("rb") as stream:
        stream.seek(stored.start)
        packed = stream.read(stored.length)
    while left:
        if not packed:
            raise ValueError(f"they are truncated: {left} bytes are missing when unpacked")
        engine = zlib.decompressobj(ANY)
        parts.append(engine.decompress(packed, left + 1))
        left -= len(parts[-1])
        if left < 0:
            raise ValueError(f"they unpack to more than the expected {_bytes(stored)} bytes")
        packed = engine.unused_data if engine.eof else b""
        if not engine.eof and not left:
            raise ValueError("they are truncated: their checksum is missing")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _gzip_says(stored: Stored) -> int | None:
    """Return how many bytes gzip says that it packed, modulo 2**32; None of data by zlib."""
    with stored.data.open("rb") as stream:
        stream.seek(stored.start)
        if stream.read(2) != GZIP:
            return None
        stream.seek(stored.start + max(stored.length - 4, 0))
        return int.from_bytes(stream.read(4), "little")
