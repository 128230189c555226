"""NIfTI and Analyze 7.5 volumes in two files, header (.hdr) and voxels (.img), by nibabel."""

import os
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.fileholders import FileHolder
from nibabel.spm2analyze import Spm2AnalyzeImage

from slivit.data.readers.base import Header, Pick, ReadError, Volume, kind_at, reason
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
from slivit.data.readers.nifti import check_slope, layout_of
from slivit.data.readers.voxel_grid import Grid

KIND = "hdr/img"
HEADERS, VOXELS = (".hdr", ".hdr.gz"), (".img", ".img.gz")
SUFFIXES = HEADERS + VOXELS
LONGEST = 2**24  # bytes of a header with its extensions, which are not looked at
SIZES = {struct.pack(order + "i", size): size for order in "<>" for size in (348, 540)}
UNORIENTED = "Analyze 7.5 states no orientation: left and right may be swapped"


@dataclass(frozen=True)
class Pair:
    """The two files of a scan, and what is in them.

    Attributes:
        head, voxels: the files.
        image: of nibabel.
        layout: of the voxels.
        notes: what is odd in the header.
    """

    head: Path
    voxels: Path
    image: nib.Nifti1Pair | nib.Nifti2Pair | Spm2AnalyzeImage
    layout: Layout
    notes: tuple[str, ...]


def header(path: Path) -> Header:
    """Return the header of a pair, either file of which is at `path`.

    Raises:
        ReadError: missing, one without the other, neither NIfTI nor Analyze, truncated, of other
            than three dimensions, of one slice.
    """
    pair = _open(path)
    more = bytes_after(pair.layout, pair.voxels)
    notes = pair.notes
    if more is None or (more and is_packed(pair.voxels)):
        read(path)  # truncated, packed in several parts, or longer
    elif more:
        notes += (f"{more} bytes follow its last voxel",)
    return header_of(KIND, pair.layout, notes)


def read(path: Path, pick: Pick | None = None) -> Volume:
    """Read a pair, either file of which is at `path`.

    Slices of NIfTI come as those of one file do (see nifti.read). Analyze's are those along the
    third axis, in the order of the file; its rows count from the bottom.

    Raises:
        ReadError: see `header`; or truncated, or with NaN in it.
    """
    pair = _open(path)
    try:
        with np.errstate(all="ignore"):  # infinite values are refused below
            values = stored_values(pair.layout, pair.voxels)
    except Exception as error:  # gzip, zlib and numpy raise several kinds for a damaged file
        raise ReadError(f"{path}: {pair.voxels.name} cannot be read "
                        f"({reason(error, pair.voxels)})") from None
    return volume_of(pair.layout, values, path, pick)


def grid(path: Path, _: Header) -> Grid:
    """Return the grid of a pair; Analyze's is nibabel's guess."""
    pair = _open(path)
    image = pair.image
    if isinstance(image, Spm2AnalyzeImage):
        return grid_of(pair.layout)
    single = nib.Nifti2Image if isinstance(image, nib.Nifti2Pair) else nib.Nifti1Image
    return grid_of(pair.layout, single(image.dataobj, image.affine, image.header))


def files(path: Path) -> list[Path]:
    """Return header and voxels of a pair, either of which is at `path`; one where it is alone."""
    head, voxels = _files(path)
    return [file for file in (head, voxels) if file is not None]


def _files(path: Path) -> tuple[Path | None, Path | None]:
    suffix = next(end for end in SUFFIXES if path.name.lower().endswith(end))
    stem = path.name[:len(path.name) - len(suffix)]
    ends = VOXELS if suffix in HEADERS else HEADERS
    if suffix.endswith(".gz"):
        ends = ends[::-1]
    names = [stem + case for end in ends for case in (end, end.upper())]
    other = next((path.with_name(name) for name in names
                  if os.path.exists(path.with_name(name))), None)
    return (path, other) if suffix in HEADERS else (other, path)


def _both(path: Path) -> tuple[Path, Path]:
    """Return header and voxels; refuse one that is alone, or is no file."""
    if not path.exists():
        raise ReadError(f"{path}: does not exist")
    head, voxels = _files(path)
    if voxels is None:
        raise ReadError(f"{path}: has no .img file of the same name beside it, which contains the "
                        "voxels; put it there")
    if head is None:
        raise ReadError(f"{path}: has no .hdr file of the same name beside it, so that it is not a "
                        "NIfTI or Analyze pair; put it there. An .img file of another kind, such "
                        "as Zeiss's, does not state its size: export the scan as DICOM")
    for file in (head, voxels):
        if kind_at(file) == "folder":
            raise ReadError(f"{path}: {file.name} is a folder, expected a file")
    return head, voxels


def _open(path: Path) -> Pair:
    head, voxels = _both(path)
    silence()
    try:
        with unpacked(head) as stream:
            content = stream.read(LONGEST)[:544]
    except Exception as error:  # gzip and zlib raise several kinds for a damaged file
        raise ReadError(f"{path}: {head.name} cannot be read ({reason(error, head)})") from None
    kind = _kind(content, head, path)
    content = content[:kind.header_class.sizeof_hdr] + bytes(4)  # without extensions
    try:
        with np.errstate(all="ignore"):  # of Analyze's numbers that are not what nibabel expects
            image = kind.from_file_map({
                "header": FileHolder(fileobj=BytesIO(content)), "image": FileHolder(str(voxels)),
                "mat": FileHolder(fileobj=BytesIO())})  # SPM's, a file of MATLAB, is not read
            layout = _layout(image)
            notes = (UNORIENTED,) * (not layout.oriented) + odd_fields(kind.header_class,
                                                                       BytesIO(content))
            slope = kind.header_class.from_fileobj(BytesIO(content))["scl_slope"]
    except Exception as error:  # nibabel raises several kinds for a damaged file
        raise ReadError(f"{path}: {head.name} cannot be read as a header of NIfTI or Analyze "
                        f"({reason(error, head)})") from None
    if kind is not Spm2AnalyzeImage:
        check_slope(slope, path)
    check_layout(layout, path)
    check_length(layout, voxels, path)
    return Pair(head, voxels, image, layout, notes)


def _kind(content: bytes, head: Path, path: Path) -> type:
    """Return nibabel's class of a pair with this header."""
    size = SIZES.get(content[:4])
    magic = {348: content[344:348], 540: content[4:8]}.get(size, b"")
    if size is None or len(content) < size:
        raise ReadError(f"{path}: {head.name} is not a header of NIfTI or Analyze, or is "
                        "truncated: expected 348 or 540 bytes that begin with their number")
    if magic[:3] in (b"n+1", b"n+2"):
        raise ReadError(f"{path}: {head.name} states that its voxels are in the same file; "
                        "expected them in an .img file. Such a file is named .nii")
    if size == 540:
        return nib.Nifti2Pair
    return nib.Nifti1Pair if magic[:3] == b"ni1" else Spm2AnalyzeImage


def _layout(image: nib.Nifti1Pair | Spm2AnalyzeImage) -> Layout:
    if not isinstance(image, Spm2AnalyzeImage):
        return layout_of(image)
    stored = image.dataobj
    return Layout(image.shape, image.get_data_dtype(), image.affine, None, stored.offset,
                  stored.slope, stored.inter, oriented=False)
