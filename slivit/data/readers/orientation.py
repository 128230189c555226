"""Which way the axes of a volume run in the patient, and the views cut from it."""

import nibabel.orientations
import numpy as np

from slivit.config import PLANES

UNKNOWN = "SPL"  # what a volume that does not say is taken for: axial, lowest slice first
OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))


def axes_of(directions: np.ndarray) -> str:
    """Return where three axes run to, one letter each.

    Args:
        directions: (3, 3), a column per axis: its direction in DICOM's patient coordinates (to
            the left, to the back, to the head). Oblique axes get the nearest letter, each letter
            pair once.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.diag([-1.0, -1.0, 1.0]) @ directions  # nibabel's: right, front, head
    return "".join(nibabel.orientations.aff2axcodes(affine))


def reorient(slices: np.ndarray, axes: str, wanted: str) -> np.ndarray:
    """Turn and flip a volume (N, H, W[, 3]) from the axes it has to the wanted ones (no copy)."""
    order, flips = [], []
    for letter in wanted:
        same = letter in axes
        order.append(axes.index(letter if same else OPPOSITE[letter]))
        flips.append(slice(None) if same else slice(None, None, -1))
    return slices.transpose(*order, *range(3, slices.ndim))[tuple(flips)]


def cut(slices: np.ndarray, axes: str | None, view: str) -> np.ndarray:
    """Return the slices of a view of a volume, without copying.

    Args:
        slices: (N, H, W) or (N, H, W, 3), as read.
        axes: of the volume; None counts as an axial one (`UNKNOWN`).
        view: `acquisition`, the slices as they are; `axial`, `coronal` or `sagittal`, the head up
            (axial: the front up) and the patient's left on the right; or the number of the array's
            axis along which to cut (`0` as they are).
    """
    if view == "acquisition":
        return slices
    if view in PLANES:
        return reorient(slices, axes or UNKNOWN, PLANES[view])
    return np.moveaxis(slices, int(view), 0)
