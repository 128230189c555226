"""A volume of slices, a file each: which kind of files they are, in a folder or an archive."""

import re
from collections.abc import Sequence
from pathlib import Path

from slivit.data.readers import dicom, dicom_grid, pictures
from slivit.data.readers.base import Reader, ReadError
from slivit.data.readers.members import SliceFile


def is_slice(file: SliceFile) -> bool:
    """Return whether a file looks like a slice, by its suffix or as DICOM."""
    return file.suffix.lower() in pictures.PICTURE_SUFFIXES or dicom.is_dicom(file)


def slices_reader(path: Path, files: Sequence[SliceFile], names: Sequence[str]) -> Reader:
    """Return the reader of the slices among some files, in their order.

    Args:
        path: of the volume.
        files: of it; those that are no slices are ignored.
        names: of what is there, for the message.

    Raises:
        ReadError: there are no slices, or pictures and DICOM files.
    """
    images = [file for file in files if file.suffix.lower() in pictures.PICTURE_SUFFIXES]
    series = [file for file in files if file.suffix.lower() not in pictures.PICTURE_SUFFIXES
              and dicom.is_dicom(file)]
    if images and series:
        raise ReadError(f"{path}: contains {len(series)} DICOM files and {len(images)} pictures "
                        f"(such as {images[0].name}), expected only one kind")
    if images:
        return Reader("pictures", (), lambda _: pictures.picture_folder_header(path, images),
                      lambda _, pick: pictures.read_picture_folder(path, images, pick))
    if series:
        _check_neighbours(files, series)
        return Reader("dicom", (), lambda _: dicom.folder_header(path, series),
                      lambda _, pick: dicom.read_folder(path, series, pick),
                      lambda _, header: dicom_grid.grid_of(path, series, header))
    there = ", ".join(names[:5]) or "it is empty"
    raise ReadError(f"{path}: contains no slices (neither pictures nor DICOM files): {there}")


def _check_neighbours(files: Sequence[SliceFile], series: Sequence[SliceFile]) -> None:
    """Refuse a file that is named like the DICOM files beside it and is none.

    A truncated one without a suffix would otherwise be a missing slice.
    """
    known, is_dicom = {_pattern(file.name) for file in series}, set(series)
    for file in files:
        if file not in is_dicom and _pattern(file.name) in known:
            raise ReadError(f"{file}: is not DICOM, but is named like the {len(series)} DICOM "
                            "files beside it; it is truncated or damaged: copy it again, or "
                            "remove it")


def _pattern(name: str) -> str:
    """Return a name with `#` in place of its numbers; of a hexadecimal number it is one `#`."""
    return "#" if re.fullmatch("[0-9A-F]+", name) else re.sub(r"\d+", "#", name)
