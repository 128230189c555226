"""Read a scan from whatever is at its path.

An image: a picture or DICOM file or an array. A volume: a folder of pictures or of DICOM files, or
a file of one of the kinds in registry.volume_readers.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from slivit.data.readers import archives, arrays, dicom, dicom_grid, heidelberg_xml, pictures
from slivit.data.readers.base import (
    Header,
    Pick,
    Reader,
    ReadError,
    Volume,
    kind_at,
    visible_files,
)
from slivit.data.readers.registry import (
    readable_kinds,
    reader_by_suffix,
    split_key,
    volume_readers,
    volume_suffixes,
)
from slivit.data.readers.scan_files import files_of, main_files, stats_of
from slivit.data.readers.slice_files import slices_reader
from slivit.data.readers.voxel_grid import Grid

__all__ = ["Header", "Pick", "ReadError", "Volume", "export_in", "files_of", "image_header",
           "is_scan", "main_files", "read_image", "read_volume", "readable_kinds", "scan_grid",
           "scan_ndim", "split_key", "stats_of", "volume_header", "volume_suffixes"]


EITHER = ("tiff", "dicom", "array")  # kinds of which a file may be an image or a volume


def scan_grid(path: Path, header: Header) -> Grid | None:
    """Return the voxel grid of a scan's own file, for heat maps; None for kinds that have none.

    Args:
        path: of a scan that can be read.
        header: of its reader.
    """
    kind = "archive" if _is_archive(path) else header.kind
    grid = {reader.kind: reader.grid for reader in volume_readers()}.get(kind)
    return grid(path, header) if grid else None


def read_volume(path: Path, pick: Pick | None = None) -> Volume:
    """Read a volume.

    Args:
        path: a folder of slices, or one volume file; `file.npz:NAME` for one of several arrays,
            `file.zip:FOLDER` for one of several folders.
        pick: number of slices -> numbers of those wanted; others are not decoded where the kind
            of file allows. Default all.

    Raises:
        ReadError: missing, damaged, or not a volume; the message says what was found.
    """
    return _reader(Path(path)).read(Path(path), pick)


def volume_header(path: Path) -> Header:
    """Return what is known of a volume from the headers and lengths of its files.

    Raises:
        ReadError: see `read_volume`, as far as it shows without decoding the pixels.
    """
    return _reader(Path(path)).header(Path(path))


def read_image(path: Path) -> np.ndarray:
    """Read an image: a picture (see pictures.read_picture), a DICOM file, or an array.

    Returns:
        (H, W) for grey or (H, W, 3) for colour, of the file's own type.

    Raises:
        ReadError: missing, damaged, or not one image.
    """
    path = _image_file(path)
    if _is_array(path):
        return arrays.read_image(path)
    if path.suffix.lower() not in pictures.PICTURE_SUFFIXES and dicom.is_dicom(path):
        return dicom.read_image(path)
    _check_image_suffix(path)
    return pictures.read_picture(path)


def image_header(path: Path) -> Header:
    """Return what is known of an image without decoding it; errors as `read_image`."""
    path = _image_file(path)
    if _is_array(path):
        return arrays.header(path, ndim=2)
    if path.suffix.lower() not in pictures.PICTURE_SUFFIXES and dicom.is_dicom(path):
        return dicom.image_header(path)
    _check_image_suffix(path)
    return pictures.picture_header(path)


def is_scan(path: Path) -> bool:
    """Return whether a file looks like a scan, by its suffix or as DICOM."""
    file = split_key(path)[0]
    if file.name.lower().endswith(heidelberg_xml.SUFFIXES):  # which many programs write
        return file.is_file() and heidelberg_xml.is_export(file)
    known = (*pictures.PICTURE_SUFFIXES, *volume_suffixes())
    return file.is_file() and (file.name.lower().endswith(known) or dicom.is_dicom(path))


def scan_ndim(path: Path) -> int:
    """Return 2 where an image is at a path, 3 for a volume, from the kind of file.

    For a TIFF, DICOM or array, which may be either, from its header.

    Raises:
        ReadError: neither is there.
    """
    path = Path(path)
    if not path.is_dir():
        name = split_key(path)[0].name.lower()
        if any(name.endswith(reader.suffixes) for reader in volume_readers()
               if reader.kind not in EITHER):
            return 3
        if name.endswith(pictures.PICTURE_SUFFIXES) and not name.endswith(pictures.TIFF_SUFFIXES):
            return 2
        try:
            volume_header(path)
        except ReadError:
            image_header(path)
            return 2
        return 3
    _folder_reader(path)
    return 3


def export_in(path: Path) -> Path | None:
    """Return the XML file of Heidelberg's export in a folder; None where there is none."""
    return _export_among(visible_files(path)) if path.is_dir() else None


def _export_among(files: Iterable[Path]) -> Path | None:
    return next((file for file in files if file.name.lower().endswith(heidelberg_xml.SUFFIXES)
                 and kind_at(file) == "file" and heidelberg_xml.is_export(file)), None)


def _is_array(path: Path) -> bool:
    return split_key(path)[0].suffix.lower() in arrays.SUFFIXES


def _is_archive(path: Path) -> bool:
    return split_key(path)[0].name.lower().endswith(archives.SUFFIXES) and not path.is_dir()


def _check_image_suffix(path: Path) -> None:
    if path.suffix.lower() not in pictures.PICTURE_SUFFIXES:
        known = ", ".join((*pictures.PICTURE_SUFFIXES, *dicom.SUFFIXES, *arrays.SUFFIXES))
        raise ReadError(f"{path}: is not one of {known}")


def _image_file(path: Path) -> Path:
    """Return the path of an image; refuse a folder."""
    path = Path(path)
    if kind_at(split_key(path)[0]) == "folder":
        raise ReadError(f"{path}: is a folder, expected one image")
    return path


def _reader(path: Path) -> Reader:
    """Return the reader for what is at a path."""
    if (kind := kind_at(path)) == "folder":
        try:
            return _folder_reader(path)
        except OSError as error:
            raise ReadError(f"{path}: cannot be read ({error.strerror})") from None
    file, key = split_key(path)
    if key and kind_at(file) == "folder":
        raise ReadError(f"{path}: {file.name} is a folder, expected a file")
    if reader := reader_by_suffix(file):
        return reader
    if kind and dicom.is_dicom(path):
        return Reader("dicom", (), dicom.header, dicom.read, dicom_grid.grid)
    if not kind:
        what = "is a broken symbolic link" if path.is_symlink() else "does not exist"
        raise ReadError(f"{path}: {what}")
    raise ReadError(f"{path}: is neither a folder of slices nor one of "
                    f"{', '.join(volume_suffixes())}")


def _folder_reader(path: Path) -> Reader:
    there = visible_files(path)
    if export := _export_among(there):
        raise ReadError(f"{path}: contains an XML export of Heidelberg's, which gives the order of "
                        f"the B-scans; name that file, {export}")
    return slices_reader(path, [file for file in there if kind_at(file) != "folder"],
                         [file.name for file in there])
