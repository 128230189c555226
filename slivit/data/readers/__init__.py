"""Read a scan from whatever is at its path.

An image: a picture or DICOM file or an array. A volume: a folder of pictures or of DICOM files, or
a file of one of the kinds in `volume_readers`. To add a kind of file, write a module with its
`header` and `read` (see base.Reader) and list it there.
"""

import contextlib
import functools
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from slivit.data.readers import (
    archives,
    arrays,
    base,
    dicom,
    dicom_grid,
    heidelberg,
    heidelberg_e2e,
    heidelberg_xml,
    metaimage,
    mgh,
    minc,
    nifti,
    nifti_pair,
    nrrd,
    pictures,
    tiff,
    topcon,
    video,
)
from slivit.data.readers.base import (
    Header,
    Pick,
    Reader,
    ReadError,
    Volume,
    kind_at,
    natural_key,
    visible_files,
)
from slivit.data.readers.slice_files import slices_reader
from slivit.data.readers.voxel_grid import Grid

__all__ = ["Header", "Pick", "ReadError", "Volume", "files_of", "image_header", "is_scan",
           "main_files", "read_image", "read_volume", "readable_kinds", "scan_grid", "scan_ndim",
           "split_key", "stats_of", "volume_header", "volume_suffixes"]


EITHER = ("tiff", "dicom", "array")  # kinds of which a file may be an image or a volume


@functools.cache
def volume_readers() -> tuple[Reader, ...]:
    """Return the readers of volume files, by suffix."""
    return (Reader("tiff", tiff.TIFF_SUFFIXES, tiff.tiff_volume_header,
                   tiff.read_tiff_volume),
            Reader("dicom", dicom.SUFFIXES, dicom.header, dicom.read, dicom_grid.grid),
            Reader("nifti", nifti.SUFFIXES, nifti.header, nifti.read, nifti.grid),
            Reader(nifti_pair.KIND, nifti_pair.SUFFIXES, nifti_pair.header, nifti_pair.read,
                   nifti_pair.grid, files=nifti_pair.files),
            Reader("mgh", mgh.SUFFIXES, mgh.header, mgh.read, mgh.grid),
            Reader("minc", minc.SUFFIXES, minc.header, minc.read, minc.grid),
            Reader("metaimage", metaimage.SUFFIXES, metaimage.header, metaimage.read,
                   metaimage.grid, files=metaimage.files),
            Reader("nrrd", nrrd.SUFFIXES, nrrd.header, nrrd.read, nrrd.grid, files=nrrd.files),
            Reader("video", video.SUFFIXES, video.header, video.read),
            Reader("array", arrays.SUFFIXES, arrays.header, arrays.read, keyed=True),
            Reader("archive", archives.SUFFIXES, archives.header, archives.read, archives.grid,
                   keyed=True),
            Reader("topcon", topcon.SUFFIXES, topcon.header, topcon.read),
            Reader("vol", heidelberg.SUFFIXES, heidelberg.header, heidelberg.read),
            Reader("e2e", heidelberg_e2e.SUFFIXES, heidelberg_e2e.header, heidelberg_e2e.read,
                   keyed=True),
            Reader("xml", heidelberg_xml.SUFFIXES, heidelberg_xml.header, heidelberg_xml.read,
                   files=heidelberg_xml.files))


def volume_suffixes() -> tuple[str, ...]:
    """Return the suffixes of volume files."""
    return tuple(suffix for reader in volume_readers() for suffix in reader.suffixes)


def readable_kinds() -> str:
    """Return in words what can be read: kinds of files and their suffixes."""
    kinds = [("picture", pictures.PICTURE_SUFFIXES)]
    kinds += [(reader.kind, reader.suffixes) for reader in volume_readers()]
    return "; ".join(["folders of pictures or of DICOM files",
                      *(f"{kind} ({', '.join(suffixes)})" for kind, suffixes in kinds)])


def split_key(path: Path) -> tuple[Path, str | None]:
    """Return file and key of a path such as `file.npz:NAME`; the key is None if not given."""
    if ":" not in str(path):
        return path, None
    keyed = tuple(suffix for reader in volume_readers() if reader.keyed
                  for suffix in reader.suffixes)
    return base.split_key(path, keyed)


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


def files_of(path: Path) -> list[Path]:
    """Return the files that make up a scan: those of its folder, of its kind, or itself.

    Whichever file of a scan in several is at the path, they come in the same order.
    """
    try:
        if path.is_dir():
            return visible_files(path)
        file = split_key(path)[0]
        reader = _reader_by_suffix(file)
        return reader.files(file) if reader and reader.files else [file]
    except (OSError, ReadError):
        return [path]


def stats_of(path: Path) -> list[tuple[str, os.stat_result]]:
    """Return name and stat of each file of a scan that exists, in the order of `files_of`."""
    with contextlib.suppress(OSError):
        about = os.stat(path)
        if stat.S_ISDIR(about.st_mode):
            with os.scandir(path) as entries:
                shown = [entry for entry in entries if not entry.name.startswith(".")]
            return _stats(sorted(shown, key=lambda entry: (natural_key(entry.name), entry.name)))
        reader = _reader_by_suffix(path)
        if reader is None or reader.files is None:
            return [(path.name, about)]
    return _stats(files_of(path))  # of FILE:KEY, or a scan in several files


def _stats(files: Iterable[os.DirEntry | Path]) -> list[tuple[str, os.stat_result]]:
    stats = []
    for file in files:
        with contextlib.suppress(OSError):
            stats.append((file.name, file.stat()))
    return stats


def main_files(paths: Iterable[Path], which: int = 0) -> list[str]:
    """Return, of scans in several files, one that stands for all; else the path.

    The first is that of the header; the last, -1, that of the voxels.

    Only paths that end as such scans do are looked up.
    """
    several = tuple(suffix for reader in volume_readers() if reader.files
                    for suffix in reader.suffixes)
    return [str(files_of(path)[which] if str(path).lower().endswith(several)
                and not os.path.isdir(path) else path) for path in paths]


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
    if reader := _reader_by_suffix(file):
        return reader
    if kind and dicom.is_dicom(path):
        return Reader("dicom", (), dicom.header, dicom.read, dicom_grid.grid)
    if not kind:
        what = "is a broken symbolic link" if path.is_symlink() else "does not exist"
        raise ReadError(f"{path}: {what}")
    raise ReadError(f"{path}: is neither a folder of slices nor one of "
                    f"{', '.join(volume_suffixes())}")


def _reader_by_suffix(file: Path) -> Reader | None:
    return next((reader for reader in volume_readers()
                 if file.name.lower().endswith(reader.suffixes)), None)


def _folder_reader(path: Path) -> Reader:
    there = visible_files(path)
    return slices_reader(path, [file for file in there if kind_at(file) != "folder"],
                         [file.name for file in there])
