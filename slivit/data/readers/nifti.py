"""NIfTI volumes, by nibabel."""

import struct
from pathlib import Path

import nibabel as nib
import numpy as np

from slivit.data.readers.base import Header, Pick, ReadError, Volume, reason
from slivit.data.readers.nibabel_images import (
    Layout,
    bytes_after,
    check_layout,
    check_length,
    grid_of,
    header_of,
    is_packed,
    odd_fields,
    silence,
    stored_values,
    unpacked,
    volume_of,
)
from slivit.data.readers.voxel_grid import Grid

SUFFIXES = (".nii", ".nii.gz")
SINGLE = (b"n+1", b"n+2")  # of a file that holds header and voxels
SIZE_2 = (struct.pack("<i", 540), struct.pack(">i", 540))  # first bytes of NIfTI-2


def header(path: Path) -> Header:
    """Return the header of a NIfTI file.

    Raises:
        ReadError: missing, not NIfTI, truncated, of other than three dimensions, of one slice.
    """
    layout = _layout(path)
    notes, more = _odd_fields(path), bytes_after(layout, path)
    if is_packed(path):
        if more != 0:
            read(path)  # truncated, packed in several parts, or longer
    elif more:
        notes += (f"{more} bytes follow its last voxel",)
    return header_of("nifti", layout, notes)


def read(path: Path, pick: Pick | None = None) -> Volume:
    """Read a NIfTI file.

    Whatever way the file stores them, slices come as a scanner shows them: those of the
    acquisition (see `acquisition_plane`), from the feet to the head, the patient's left on the
    right of the picture, the front or the head up.

    Raises:
        ReadError: see `header`; or truncated, or with NaN in it.
    """
    layout = _layout(path)
    try:
        values = stored_values(layout, path)
    except Exception as error:  # gzip, zlib and numpy raise several kinds for a damaged file
        raise ReadError(f"{path}: cannot be read as NIfTI ({reason(error, path)})") from None
    return volume_of(layout, values, path, pick)


def grid(path: Path, _: Header) -> Grid:
    """Return the grid of a file."""
    image = nib.load(path)
    return grid_of(layout_of(image), image)


def layout_of(image: nib.Nifti1Pair) -> Layout:
    """Return how a NIfTI image is stored, in one file or in two."""
    stored = image.dataobj
    return Layout(image.shape, image.get_data_dtype(), image.affine, image.header.get_dim_info()[2],
                  stored.offset, stored.slope, stored.inter)


def check_slope(slope: float, path: Path) -> None:
    """Refuse an infinite factor of the values (scl_slope), which nibabel ignores.

    Raises:
        ReadError: it is infinite.
    """
    if np.isinf(slope):
        raise ReadError(f"{path}: its header is damaged: its values would be multiplied by "
                        f"{slope} (scl_slope)")


def _layout(path: Path) -> Layout:
    if not path.exists():
        raise ReadError(f"{path}: does not exist")
    silence()
    try:
        image = nib.load(path)
        with unpacked(path) as stream:  # nibabel's own has no slope and intercept any more
            stored = type(image.header).from_fileobj(stream)
        layout = layout_of(image)
    except Exception as error:  # nibabel raises several kinds for a damaged file
        raise ReadError(f"{path}: cannot be read as NIfTI ({reason(error, path)})") from None
    if stored["magic"] not in SINGLE:
        raise ReadError(f"{path}: states that its voxels are in another file: name it .hdr, beside "
                        "its .img, or save it as one .nii file")
    check_slope(stored["scl_slope"], path)
    check_layout(layout, path)
    check_length(layout, path, path)
    return layout


def _odd_fields(path: Path) -> tuple[str, ...]:
    with unpacked(path) as stream:
        kind = nib.Nifti2Header if stream.read(4) in SIZE_2 else nib.Nifti1Header
        stream.seek(0)
        return odd_fields(kind, stream)
