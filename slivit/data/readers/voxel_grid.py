"""The grid of a scan's own file: from slices as they are read back to voxels in the patient."""

from collections.abc import Callable
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from slivit.config import PLANES
from slivit.data.readers.orientation import UNKNOWN, reorient


@dataclass(frozen=True)
class Grid:
    """The voxels of a scan's own file.

    Attributes:
        affine: (4, 4), from voxel numbers to mm to the right, to the front and to the head.
        place: turns values (N, H, W), in the order of the slices as read, into this grid; one that
            can be pickled.
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


def plain_grid(spacing: tuple[float, float, float] | None) -> Grid:
    """Return the grid of slices of which only the spacing is known, not the place in the patient.

    Its axes are columns, rows and slices, taken to run to the left, the back and the head, as ITK
    takes them; 1 mm per voxel where the spacing is unknown.

    Args:
        spacing: mm between slices, rows and columns.
    """
    affine = np.diag([*(np.array((spacing or (1.0, 1.0, 1.0))[::-1]) * (-1, -1, 1)), 1.0])
    return Grid(affine, transposed)


def transposed(values: np.ndarray) -> np.ndarray:
    """Turn slices (N, H, W) into a grid of columns, rows and slices."""
    return values.transpose(2, 1, 0)


def uncut(values: np.ndarray, axes: str | None, view: str) -> np.ndarray:
    """Turn values of the slices of a view back into the order of the volume they were cut from.

    The inverse of orientation.cut.
    """
    if view == "acquisition":
        return values
    if view in PLANES:
        return reorient(values, PLANES[view], axes or UNKNOWN)
    return np.moveaxis(values, 0, int(view))
