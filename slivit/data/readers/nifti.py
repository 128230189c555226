"""NIfTI volumes, by nibabel."""

import gzip
import logging
import math
import struct
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np

from slivit.config import PLANES
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
from slivit.data.readers.orientation import reorient
from slivit.data.readers.voxel_grid import Grid

SUFFIXES = (".nii", ".nii.gz")
RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
SINGLE = (b"n+1", b"n+2")  # of a file that holds header and voxels
SIZE_2 = (struct.pack("<i", 540), struct.pack(">i", 540))  # first bytes of NIfTI-2
ODD = 30       # nibabel's level of what is worth saying
TINY = 1e-12   # mm3 a voxel
VAST = 1e6     # mm a voxel
SQUARE = 0.01  # relative difference up to which two spacings are the same


def header(path: Path) -> Header:
    """Return the header of a NIfTI file.

    Raises:
        ReadError: missing, not NIfTI, truncated, of other than three dimensions, of one slice.
    """
    image = _open(path)
    notes, whole = _odd_fields(path), _length(image)
    if path.suffix.lower() == ".gz":
        if _unpacked_length(path) != whole % 2**32:
            read(path)  # truncated, packed in several parts, or longer
    elif path.stat().st_size > whole:
        notes += (f"{path.stat().st_size - whole} bytes follow its last voxel",)
    axes, spacing, shape = _geometry(image)
    colour = (3,) if image.get_data_dtype() == RGB else ()
    return Header("nifti", shape + colour, "uint8" if colour else str(image.get_data_dtype()),
                  spacing, axes, notes=notes)


def read(path: Path, pick: Pick | None = None) -> Volume:
    """Read a NIfTI file.

    Whatever way the file stores them, slices come as a scanner shows them: those of the
    acquisition (see `acquisition_plane`), from the feet to the head, the patient's left on the
    right of the picture, the front or the head up.

    Raises:
        ReadError: see `header`; or truncated, or with NaN in it.
    """
    image = _open(path)
    axes, spacing, _ = _geometry(image)
    try:
        values = _values(path, image)
    except Exception as error:  # gzip, zlib and numpy raise several kinds for a damaged file
        raise ReadError(f"{path}: cannot be read as NIfTI ({reason(error, path)})") from None
    values = values.reshape(image.shape[:3])
    if values.dtype == RGB:
        values = np.stack([values[name] for name in "RGB"], axis=-1)
    if values.dtype.kind == "f" and values.dtype.itemsize > 4:
        with np.errstate(over="ignore"):  # to infinite values, which are refused
            values = values.astype(np.float32)
    slices = reorient(values, "".join(nib.aff2axcodes(image.affine)), axes)
    return Volume(check_values(slices[picked(len(slices), pick)], path), spacing, axes)


def grid(path: Path, header: Header) -> Grid:
    """Return the grid of a file, whose header is that of `header`."""
    image = nib.load(path)
    codes = "".join(nib.aff2axcodes(image.affine))
    return Grid(image.affine, lambda values: reorient(values, header.axes, codes), image)


def acquisition_plane(spacing: tuple[float, ...], slice_axis: int | None) -> str:
    """Return the plane in which a NIfTI volume was acquired, as far as it tells.

    The axis that the header names (`dim_info`); else the one whose spacing differs while the
    other two are the same; else the one with the largest spacing; axial where all are the same.

    Args:
        spacing: mm between voxels to the right, to the front and to the head.
        slice_axis: of those three, where the header names it.
    """
    if slice_axis is None:
        others = ((1, 2), (0, 2), (0, 1))
        odd = [axis for axis, (a, b) in enumerate(others)
               if np.isclose(spacing[a], spacing[b], rtol=SQUARE)]
        slice_axis = {0: int(np.argmax(spacing)), 1: odd[0] if odd else 2}.get(len(odd), 2)
    return ("sagittal", "coronal", "axial")[slice_axis]


def _open(path: Path) -> nib.Nifti1Image:
    if not path.exists():
        raise ReadError(f"{path}: does not exist")
    nib.imageglobals.logger.setLevel(logging.CRITICAL)  # what it says, messages and notes say here
    try:
        image = nib.load(path)
        with _unpacked(path) as stream:  # nibabel's own has no slope and intercept any more
            stored = type(image.header).from_fileobj(stream)
    except Exception as error:  # nibabel raises several kinds for a damaged file
        raise ReadError(f"{path}: cannot be read as NIfTI ({reason(error, path)})") from None
    shape = image.shape
    if stored["magic"] not in SINGLE:
        raise ReadError(f"{path}: states that its voxels are in another file (.hdr and .img); save "
                        "it as one .nii file")
    if min(shape, default=1) < 0:
        raise ReadError(f"{path}: its header is damaged: it has the shape {shape}")
    if len(shape) < 3 or 1 in shape[:3]:
        raise ReadError(f"{path}: has the shape {shape}, which is one slice; expected a volume of "
                        "at least two slices")
    if any(side != 1 for side in shape[3:]):
        raise ReadError(f"{path}: has the shape {shape}, expected three dimensions; save each "
                        "volume of a series in its own file")
    if 0 in shape:
        raise ReadError(f"{path}: is empty, its shape is {shape}")
    if np.isinf(stored["scl_slope"]):
        raise ReadError(f"{path}: its header is damaged: its values would be multiplied by "
                        f"{stored['scl_slope']} (scl_slope)")
    sizes = nib.affines.voxel_sizes(image.affine)
    if (not np.isfinite(image.affine).all() or sizes.max() > VAST
            or abs(np.linalg.det(image.affine)) < TINY):
        raise ReadError(f"{path}: its affine does not give the directions of the axes; expected "
                        "three, with more than 0 mm per voxel. Save it with a correct affine")
    dtype = image.get_data_dtype()
    if dtype != RGB and dtype.kind not in "uif":
        raise ReadError(f"{path}: contains {dtype}, expected numbers, or 8-bit RGB")
    there, packed = path.stat().st_size, path.suffix.lower() == ".gz"
    if packed:
        check_size(shape, dtype, UNPACKED * there - image.dataobj.offset, path)
    elif there < _length(image):
        raise ReadError(f"{path}: is truncated: {there} bytes, expected {_length(image)}")
    return image


def _odd_fields(path: Path) -> tuple[str, ...]:
    """Return what nibabel finds odd in a header and corrects."""
    lines: list[str] = []
    logger = logging.Logger("header")
    logger.addHandler(handler := logging.Handler(ODD))
    handler.emit = lambda record: lines.append(record.getMessage())
    with _unpacked(path) as stream:
        kind = nib.Nifti2Header if stream.read(4) in SIZE_2 else nib.Nifti1Header
        stream.seek(0)
        kind.from_fileobj(stream, check=False).check_fix(logger, logging.CRITICAL)
    return tuple(lines)


def _length(image: nib.Nifti1Image) -> int:
    """Return the number of bytes of an unpacked file, up to its last voxel."""
    return image.dataobj.offset + math.prod(image.shape) * image.get_data_dtype().itemsize


def _unpacked(path: Path) -> BinaryIO:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _values(path: Path, image: nib.Nifti1Image) -> np.ndarray:
    """Return the voxels; of a packed file they are checked against its checksum."""
    if path.suffix.lower() != ".gz":
        return np.asanyarray(image.dataobj)
    with _unpacked(path) as stream:
        values = np.asanyarray(type(image).from_stream(stream).dataobj)
        while stream.read(2**20):  # the checksum is at the end, where nibabel does not look
            pass
    return values


def _unpacked_length(path: Path) -> int:
    """Return the number of bytes in (the last part of) a gzip file, modulo 2**32."""
    with path.open("rb") as file:
        file.seek(-4, 2)
        return int.from_bytes(file.read(4), "little")


def _geometry(image: nib.Nifti1Image) -> tuple[str, tuple[float, ...], tuple[int, ...]]:
    """Return axes, spacing and shape of the slices as they will be read."""
    codes = "".join(nib.aff2axcodes(image.affine))
    place = [next(i for i, code in enumerate(codes) if code in pair) for pair in ("RL", "AP", "SI")]
    sizes = nib.affines.voxel_sizes(image.affine)
    named = image.header.get_dim_info()[2]
    plane = acquisition_plane(tuple(sizes[place]), None if named is None else place.index(named))
    axes = PLANES[plane]
    order = [next(i for i, code in enumerate(codes) if code in pair)
             for letter in axes for pair in ("RL", "AP", "SI") if letter in pair]
    return (axes, tuple(float(sizes[i]) for i in order), tuple(image.shape[i] for i in order))
