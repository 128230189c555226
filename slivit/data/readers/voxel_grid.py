"""The grid of a scan's own file: from slices as they are read back to voxels in the patient."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import Dataset

from slivit.config import PLANES
from slivit.data.readers import files_of
from slivit.data.readers.base import Header
from slivit.data.readers.dicom import is_dicom
from slivit.data.readers.dicom_geometry import frame_geometry, slice_geometry
from slivit.data.readers.orientation import UNKNOWN, reorient

TAGS = ("Rows", "Columns", "NumberOfFrames", "InstanceNumber", "ImagePositionPatient",
        "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing", "SliceThickness",
        "SpacingBetweenSlices", "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence")
UNTURNED = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)  # ImageOrientationPatient where a file has none
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])   # DICOM runs to the left and the back


@dataclass(frozen=True)
class Grid:
    """The voxels of a scan's own file.

    Attributes:
        affine: (4, 4), from voxel numbers to mm to the right, to the front and to the head.
        place: turns values (N, H, W), in the order of the slices as read, into this grid.
        like: the image whose header a file in this grid is to have; None for a new one.
    """

    affine: np.ndarray
    place: Callable[[np.ndarray], np.ndarray]
    like: nib.Nifti1Image | None = None

    def image(self, values: np.ndarray) -> nib.Nifti1Image:
        """Return values (N, H, W), in the order of the slices as read, as float32 NIfTI."""
        placed = np.ascontiguousarray(self.place(values), dtype=np.float32)
        if self.like is None:
            image = nib.Nifti1Image(placed, self.affine)
            image.set_qform(self.affine, code="scanner")  # which ITK prefers to sform
            image.set_sform(self.affine, code="scanner")
            image.header.set_xyzt_units("mm")
        else:
            image = type(self.like)(placed, self.like.affine, self.like.header)
            image.set_data_dtype(np.float32)
            image.header.extensions.clear()
        image.header.set_slope_inter(1, 0)
        image.header["cal_min"], image.header["cal_max"] = 0, float(placed.max(initial=0)) or 1
        return image


def scan_grid(path: Path, header: Header) -> Grid | None:
    """Return the grid of a NIfTI or DICOM file, or of a folder of DICOM files.

    Args:
        path: of a scan that can be read.
        header: of its reader.

    Returns:
        None for other kinds, which do not lie in a patient. A DICOM file without positions lies
        as if its first pixel were at 0 mm, rows to the left, columns to the back, as viewers
        show it; 1 mm a voxel where it has no spacing. Where gaps between slices are uneven the
        grid takes their mean, so that the first and the last slice lie right.
    """
    if header.kind == "nifti":
        return _nifti_grid(path, header)
    return _dicom_grid(path, header) if header.kind == "dicom" else None


def uncut(values: np.ndarray, axes: str | None, view: str) -> np.ndarray:
    """Turn values of the slices of a view back into the order of the volume they were cut from.

    The inverse of orientation.cut.
    """
    if view == "acquisition":
        return values
    if view in PLANES:
        return reorient(values, PLANES[view], axes or UNKNOWN)
    return np.moveaxis(values, 0, int(view))


def _nifti_grid(path: Path, header: Header) -> Grid:
    image = nib.load(path)
    codes = "".join(nib.aff2axcodes(image.affine))
    return Grid(image.affine, lambda values: reorient(values, header.axes, codes), image)


def _dicom_grid(path: Path, header: Header) -> Grid:
    """Return the grid whose axes are columns, rows and slices."""
    places, pixel = _dicom_places(path)
    count = len(places)
    spacing = header.spacing or (1.0, *(float(side) for side in pixel or (1.0, 1.0)))
    orientation, first = places[0]
    along, down = orientation[:3], orientation[3:]
    step = np.cross(along, down) * spacing[0]
    if count > 1 and not np.allclose(places[-1][1], first):
        step = (places[-1][1] - first) / (count - 1)
    affine = np.eye(4)
    affine[:3] = np.stack([along * spacing[2], down * spacing[1], step, first], axis=1)
    return Grid(TO_RAS @ affine, lambda values: values.transpose(2, 1, 0))


def _dicom_places(path: Path) -> tuple[list[tuple[np.ndarray, np.ndarray]], list | None]:
    """Return orientation (6,) and position (3,) of each slice, in order, and the pixel spacing."""
    files = [file for file in files_of(path) if is_dicom(file)]
    slices = [pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(TAGS))
              for file in files]
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
