"""What kinds of file that nibabel reads share: geometry, lengths, checks, and values."""

import gzip
import logging
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.spatialimages import SpatialImage

from slivit.data.readers.acquisition import acquired, arranged, check_shape, spans_space
from slivit.data.readers.base import (
    UNPACKED,
    Header,
    Pick,
    ReadError,
    Volume,
    check_size,
    check_values,
    picked,
    reason,
)
from slivit.data.readers.orientation import UNKNOWN, reorient
from slivit.data.readers.voxel_grid import Grid

RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
ODD = 30       # nibabel's level of what is worth saying


@dataclass(frozen=True)
class Layout:
    """How a file stores its voxels.

    Attributes:
        shape: of the stored array.
        dtype: of the stored numbers, in their byte order, or RGB.
        affine: (4, 4), from voxel numbers to mm to the right, to the front and to the head.
        slice_axis: of the stored axes, that along which slices were acquired, where it is named.
        offset: bytes before the first voxel.
        slope, inter: values are stored numbers times slope plus inter.
        oriented: whether the file states where its axes run to; else the affine is a guess.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    affine: np.ndarray
    slice_axis: int | None = None
    offset: int = 0
    slope: float = 1.0
    inter: float = 0.0
    oriented: bool = True

    @property
    def end(self) -> int:
        """Return the number of bytes of an unpacked file, up to its last voxel."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    @property
    def codes(self) -> str:
        """Return where the stored axes run to, one letter each."""
        return "".join(nib.aff2axcodes(self.affine))


def silence() -> None:
    """Keep nibabel from logging: what it says, messages and notes say here."""
    nib.imageglobals.logger.setLevel(logging.CRITICAL)


def check_layout(layout: Layout, path: Path) -> None:
    """Refuse what is not a volume of numbers somewhere in the patient.

    Raises:
        ReadError: of other than three dimensions, of one slice, empty, of a kind of number that
            is not a grey value, or without directions of its axes.
    """
    shape, affine = layout.shape, layout.affine
    check_shape(shape, path)
    if not spans_space(affine):
        raise ReadError(f"{path}: its affine does not give the directions of the axes; expected "
                        "three, with more than 0 mm per voxel. Save it with a correct affine")
    if layout.dtype != RGB and layout.dtype.kind not in "uif":
        raise ReadError(f"{path}: contains {layout.dtype}, expected numbers, or 8-bit RGB")
    if layout.offset < 0:
        raise ReadError(f"{path}: its header is damaged: its voxels would begin at byte "
                        f"{layout.offset}")


def check_length(layout: Layout, file: Path, path: Path) -> None:
    """Refuse a file that cannot hold its voxels.

    Args:
        layout: of the voxels.
        file: that contains them.
        path: of the scan, for the message.

    Raises:
        ReadError: it is truncated.
    """
    there = file.stat().st_size
    if is_packed(file):
        check_size(layout.shape, layout.dtype, UNPACKED * there - layout.offset, path)
    elif there < layout.end:
        which = "" if file == path else f" ({file.name})"
        raise ReadError(f"{path}: is truncated{which}: {there} bytes, expected {layout.end}")


def bytes_after(layout: Layout, file: Path) -> int | None:
    """Return how many bytes follow the last voxel of a file; None where its length cannot tell.

    A packed file states the length of (its last part) modulo 2**32: a lower one than that of the
    voxels is that of a truncated file, of one in several parts, or of a large one.
    """
    if not is_packed(file):
        return file.stat().st_size - layout.end
    if file.stat().st_size < 4:
        return None
    with file.open("rb") as packed:
        packed.seek(-4, 2)
        more = int.from_bytes(packed.read(4), "little") - layout.end % 2**32
    return more if more >= 0 else None


def is_packed(file: Path) -> bool:
    """Return whether a file is packed by gzip, by its name."""
    return file.suffix.lower() in (".gz", ".mgz")


def unpacked(file: Path) -> BinaryIO:
    """Open a file for reading, through gzip where its name says so."""
    return gzip.open(file) if is_packed(file) else file.open("rb")


def stored_values(layout: Layout, file: Path) -> np.ndarray:
    """Return the values of a file, scaled; of a packed one they are checked by its checksum."""
    spec = (layout.shape, layout.dtype, layout.offset, layout.slope, layout.inter)
    if not is_packed(file):
        return np.asanyarray(ArrayProxy(str(file), spec))
    with unpacked(file) as stream:
        values = np.asanyarray(ArrayProxy(stream, spec))
        while stream.read(2**20):  # the checksum is at the end, where nibabel does not look
            pass
    return values


def odd_fields(header: type, stream: BinaryIO) -> tuple[str, ...]:
    """Return what nibabel finds odd in a header and corrects.

    Args:
        header: class of it.
        stream: at its beginning.
    """
    lines: list[str] = []
    logger = logging.Logger("header")
    logger.addHandler(handler := logging.Handler(ODD))
    handler.emit = lambda record: lines.append(record.getMessage())
    header.from_fileobj(stream, check=False).check_fix(logger, logging.CRITICAL)
    return tuple(lines)


def header_of(kind: str, layout: Layout, notes: tuple[str, ...] = ()) -> Header:
    """Return the header of a scan; see `geometry`."""
    axes, spacing, shape = geometry(layout)
    colour = (3,) if layout.dtype == RGB else ()
    return Header(kind, shape + colour, "uint8" if colour else layout.dtype.name, spacing,
                  axes if layout.oriented else None, notes=notes)


def volume_of(layout: Layout, values: np.ndarray, path: Path, pick: Pick | None) -> Volume:
    """Return the picked slices of stored values, turned as the scanner shows them.

    Raises:
        ReadError: there are NaN, infinite values, or values that float32 cannot hold.
    """
    axes, spacing, _ = geometry(layout)
    values = values.reshape(layout.shape[:3])
    if values.dtype == RGB:
        values = np.stack([values[name] for name in "RGB"], axis=-1)
    if values.dtype.kind == "f" and values.dtype.itemsize > 4:
        with np.errstate(over="ignore"):  # to infinite values, which are refused
            values = values.astype(np.float32)
    slices = reorient(values, layout.codes, axes)
    slices = slices[picked(len(slices), pick)]
    slices = slices.astype(slices.dtype.newbyteorder("="), copy=False)
    return Volume(check_values(slices, path), spacing, axes if layout.oriented else None)


def volume_of_image(image: SpatialImage, name: str) -> tuple[Volume, Grid]:
    """Return the slices of an image that nibabel has loaded or made, and its grid.

    They are those of its file: see nifti.read.

    Raises:
        ReadError: it is not a volume, or with NaN in it.
    """
    header = image.header
    slice_axis = header.get_dim_info()[2] if isinstance(header, nib.Nifti1Header) else None
    try:
        values = np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel raises several kinds for a damaged file
        raise ReadError(f"{name}: cannot be read ({reason(error, Path(name))})") from None
    if image.affine is None:
        raise ReadError(f"{name}: has no affine; expected a nibabel image with one, or an array")
    layout = Layout(values.shape, values.dtype, image.affine, slice_axis,
                    oriented=not isinstance(image, nib.AnalyzeImage) or isinstance(
                        image, nib.Nifti1Pair))
    check_layout(layout, Path(name))
    like = image if isinstance(image, nib.Nifti1Image) else None
    return volume_of(layout, values, Path(name), None), grid_of(layout, like)


def grid_of(layout: Layout, like: nib.Nifti1Image | None = None) -> Grid:
    """Return the grid of a file; see voxel_grid.Grid for `like`."""
    axes = geometry(layout)[0]
    return Grid(layout.affine, partial(reorient, axes=axes, wanted=layout.codes), like)


def geometry(layout: Layout) -> tuple[str, tuple[float, ...], tuple[int, ...]]:
    """Return axes, spacing and shape of the slices as they will be read.

    The slices are those of the acquisition (see `acquisition.acquired`); of a file that is not
    oriented, those along the third axis.
    """
    sizes, shape = tuple(nib.affines.voxel_sizes(layout.affine)), layout.shape[:3]
    if not layout.oriented:
        return arranged(layout.codes, sizes, shape, UNKNOWN)
    return acquired(layout.codes, sizes, shape, layout.slice_axis)
