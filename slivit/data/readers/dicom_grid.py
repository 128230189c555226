"""The voxel grid of DICOM slices and frames in the patient."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from slivit.data.readers.base import Header, visible_files
from slivit.data.readers.dicom import is_dicom
from slivit.data.readers.dicom_geometry import frame_geometry, slice_geometry
from slivit.data.readers.members import SliceFile, read_dicom
from slivit.data.readers.voxel_grid import Grid, transposed

TAGS = ("Rows", "Columns", "NumberOfFrames", "InstanceNumber", "ImagePositionPatient",
        "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing", "SliceThickness",
        "SpacingBetweenSlices", "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence")
UNTURNED = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # ImageOrientationPatient where a file has none
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])   # DICOM runs to the left and the back


def grid(path: Path, header: Header) -> Grid:
    """Return the grid of a DICOM file, or of a folder of them; see `grid_of`."""
    files = [file for file in (visible_files(path) if path.is_dir() else [path]) if is_dicom(file)]
    return grid_of(path, files, header)


def grid_of(path: Path, files: Sequence[SliceFile], header: Header) -> Grid:
    """Return the grid of the DICOM files of one scan: its axes are columns, rows, slices.

    A file without positions is placed as if its first pixel were at 0 mm, rows to the left, columns
    to the back, as viewers show it; 1 mm per voxel where it has no spacing. Where gaps between
    slices are uneven the grid takes their mean, so that the first and the last slice are right.
    """
    places, pixel = _dicom_places(path, files)
    count = len(places)
    spacing = header.spacing or (1.0, *(float(side) for side in pixel or (1.0, 1.0)))
    orientation, first = places[0]
    along, down = orientation[:3], orientation[3:]
    step = np.cross(along, down) * spacing[0]
    if count > 1 and not np.allclose(places[-1][1], first):
        step = (places[-1][1] - first) / (count - 1)
    affine = np.eye(4)
    affine[:3] = np.stack([along * spacing[2], down * spacing[1], step, first], axis=1)
    return Grid(TO_RAS @ affine, transposed)


def _dicom_places(path: Path, files: Sequence[SliceFile]
                  ) -> tuple[list[tuple[np.ndarray, np.ndarray]], list | None]:
    """Return orientation (6,) and position (3,) of each slice, in order, and the pixel spacing."""
    slices = [read_dicom(file, force=True, tags=TAGS) for file in files]
    slices = [one for one in slices if "Rows" in one]  # reports and the like have none
    pixel = slices[0].get("PixelSpacing") or slices[0].get("ImagerPixelSpacing")
    frames = int(slices[0].get("NumberOfFrames") or 1)
    if len(slices) == 1 and frames > 1:
        order = frame_geometry(slices[0], path).order
        return [_frame_place(slices[0], i) for i in order], pixel
    order = slice_geometry(slices, path).order
    return [_place(slices[i], slices[i]) for i in order], pixel


def _frame_place(dataset: Dataset, number: int) -> tuple[np.ndarray, np.ndarray]:
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    frame = frames[number] if number < len(frames) else Dataset()

    def find(sequence: str) -> Dataset:
        return (frame.get(sequence) or shared.get(sequence) or [Dataset()])[0]

    return _place(find("PlaneOrientationSequence"), find("PlanePositionSequence"))


def _place(turned: Dataset, placed: Dataset) -> tuple[np.ndarray, np.ndarray]:
    orientation = turned.get("ImageOrientationPatient") or UNTURNED
    position = placed.get("ImagePositionPatient") or (0.0, 0.0, 0.0)
    return np.array(orientation, dtype=float), np.array(position, dtype=float)
