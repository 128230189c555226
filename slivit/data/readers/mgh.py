"""FreeSurfer's volumes (.mgh, packed .mgz), by nibabel."""

from pathlib import Path

import numpy as np
from nibabel.freesurfer.mghformat import DATA_OFFSET, MGHHeader

from slivit.data.readers.base import Header, Pick, ReadError, Volume, reason
from slivit.data.readers.nibabel_images import (
    Layout,
    bytes_after,
    check_layout,
    check_length,
    grid_of,
    header_of,
    is_packed,
    silence,
    stored_values,
    unpacked,
    volume_of,
)
from slivit.data.readers.voxel_grid import Grid

SUFFIXES = (".mgh", ".mgz", ".mgh.gz")
FIELDS = MGHHeader._hdrdtype
TAGS = 2**16  # bytes that may well follow the voxels: FreeSurfer's footer and tags have no end
TYPES = (0, 1, 3, 4, 10)  # of voxels, that FreeSurfer writes and nibabel reads
DEFAULT = ((-1, 0, 0), (0, 0, -1), (0, 1, 0))  # FreeSurfer's axes; nibabel's are upside down
UNORIENTED = ("does not state its orientation and spacing (goodRASFlag 0); FreeSurfer's default "
              "axes and 1 mm are assumed")


def header(path: Path) -> Header:
    """Return the header of a FreeSurfer volume.

    Raises:
        ReadError: missing, not of FreeSurfer, truncated, of several frames, of one slice.
    """
    layout, notes = _open(path)
    more = bytes_after(layout, path)
    if is_packed(path) and (more is None or more > TAGS):
        read(path)  # truncated, packed in several parts, or large
    elif more is not None and more > TAGS:
        notes += (f"{more} bytes follow its last voxel",)
    return header_of("mgh", layout, notes)


def read(path: Path, pick: Pick | None = None) -> Volume:
    """Read a FreeSurfer volume; its slices come as those of NIfTI do (see nifti.read).

    Raises:
        ReadError: see `header`; or damaged, or with NaN in it.
    """
    layout, _ = _open(path)
    try:
        values = stored_values(layout, path)
    except Exception as error:  # gzip, zlib and numpy raise several kinds for a damaged file
        raise ReadError(f"{path}: cannot be read as MGH ({reason(error, path)})") from None
    return volume_of(layout, values, path, pick)


def grid(path: Path, _: Header) -> Grid:
    """Return the grid of a file."""
    return grid_of(_open(path)[0])


def _open(path: Path) -> tuple[Layout, tuple[str, ...]]:
    """Return how a file stores its voxels, and notes on it."""
    if not path.exists():
        raise ReadError(f"{path}: does not exist")
    silence()
    try:
        with unpacked(path) as stream:
            content = stream.read(FIELDS.itemsize)
    except Exception as error:  # gzip and zlib raise several kinds for a damaged file
        raise ReadError(f"{path}: cannot be read as MGH ({reason(error, path)})") from None
    if len(content) < FIELDS.itemsize:
        raise ReadError(f"{path}: is truncated: {len(content)} bytes, expected a header of "
                        f"{DATA_OFFSET}")
    fields = np.frombuffer(content, FIELDS)[0].copy()
    _check(fields, path)
    stated = bool(fields["goodRASFlag"])
    if not stated:
        fields["goodRASFlag"], fields["delta"], fields["Pxyz_c"] = 1, 1, 0
        fields["Mdc"] = DEFAULT
    with np.errstate(all="ignore"):  # of numbers that are refused below
        stored = MGHHeader(fields.tobytes())
        affine = stored.get_affine()
    layout = Layout(tuple(map(int, fields["dims"][:3])), stored.get_data_dtype(), affine,
                    offset=DATA_OFFSET)
    check_layout(layout, path)
    check_length(layout, path, path)
    return layout, () if stated else (UNORIENTED,)


def _check(fields: np.void, path: Path) -> None:
    """Refuse fields of a header that cannot be, or are of a series."""
    if fields["version"] != 1:
        raise ReadError(f"{path}: is not a FreeSurfer volume: its version is {fields['version']}, "
                        "expected 1")
    if fields["type"] not in TYPES:
        raise ReadError(f"{path}: its header gives voxels of type {fields['type']}, expected one "
                        f"of {', '.join(map(str, TYPES))}")
    if fields["dims"][3] != 1:
        raise ReadError(f"{path}: contains {fields['dims'][3]} frames of the shape "
                        f"{tuple(map(int, fields['dims'][:3]))}, expected one; save each frame in "
                        "its own file")
