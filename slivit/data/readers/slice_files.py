"""A volume of slices, a file each: which kind of files they are, in a folder or an archive."""

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
        return Reader("dicom", (), lambda _: dicom.folder_header(path, series),
                      lambda _, pick: dicom.read_folder(path, series, pick),
                      lambda _, header: dicom_grid.grid_of(path, series, header))
    there = ", ".join(names[:5]) or "it is empty"
    raise ReadError(f"{path}: contains no slices (neither pictures nor DICOM files): {there}")
