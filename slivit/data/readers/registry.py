"""The kinds of volume files: which reader has which suffixes.

To add a kind of file, write a module with its `header` and `read` (see base.Reader) and list it in
`volume_readers`.
"""

import functools
from pathlib import Path

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
    raw_voxels,
    tiff,
    topcon,
    video,
)
from slivit.data.readers.base import Header, Reader
from slivit.data.readers.voxel_grid import Grid, plain_grid


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
            raw_voxels.reader("metaimage", metaimage.SUFFIXES, metaimage.parse),
            raw_voxels.reader("nrrd", nrrd.SUFFIXES, nrrd.parse),
            Reader("video", video.SUFFIXES, video.header, video.read),
            Reader("array", arrays.SUFFIXES, arrays.header, arrays.read, keyed=True),
            Reader("archive", archives.SUFFIXES, archives.header, archives.read, archives.grid,
                   keyed=True),
            Reader("topcon", topcon.SUFFIXES, topcon.header, topcon.read, _by_spacing),
            Reader("vol", heidelberg.SUFFIXES, heidelberg.header, heidelberg.read, _by_spacing),
            Reader("e2e", heidelberg_e2e.SUFFIXES, heidelberg_e2e.header, heidelberg_e2e.read,
                   _by_spacing, keyed=True),
            Reader("xml", heidelberg_xml.SUFFIXES, heidelberg_xml.header, heidelberg_xml.read,
                   _by_spacing, files=heidelberg_xml.files))


def _by_spacing(_: Path, header: Header) -> Grid:
    """Return the grid of an OCT scan, whose file does not say where it is in the patient."""
    return plain_grid(header.spacing)


def volume_suffixes() -> tuple[str, ...]:
    """Return the suffixes of volume files."""
    return tuple(suffix for reader in volume_readers() for suffix in reader.suffixes)


def reader_by_suffix(file: Path) -> Reader | None:
    """Return the reader of a volume file by its name; None where no kind has its suffix."""
    name = file.name.lower()
    return next((reader for reader in volume_readers() if name.endswith(reader.suffixes)), None)


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
