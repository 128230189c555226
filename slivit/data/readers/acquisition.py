"""Which slices of a grid of voxels in the patient were acquired, and what is no such grid."""

from pathlib import Path

import numpy as np

from slivit.config import PLANES
from slivit.data.readers.base import LARGEST, ReadError

PAIRS = ("RL", "AP", "SI")
TINY = 1e-12   # mm3 a voxel
VAST = 1e6     # mm a voxel
FLAT = 1e-6    # of the volume that three axes at right angles would have
SQUARE = 0.01  # relative difference up to which two spacings are the same


def acquired(codes: str, sizes: tuple[float, ...], shape: tuple[int, ...],
             slice_axis: int | None = None
             ) -> tuple[str, tuple[float, float, float], tuple[int, int, int]]:
    """Return axes, spacing and shape of the slices as a scanner shows them (see base.Header).

    Args:
        codes: where the three axes of the stored voxels run to; see orientation.axes_of.
        sizes: mm between voxels along each.
        shape: voxels along each.
        slice_axis: that of the acquisition, where the file names it.
    """
    place = [_along(codes, pair) for pair in PAIRS]
    plane = acquisition_plane(tuple(sizes[i] for i in place),
                              None if slice_axis is None else place.index(slice_axis))
    return arranged(codes, sizes, shape, PLANES[plane])


def arranged(codes: str, sizes: tuple[float, ...], shape: tuple[int, ...], axes: str
             ) -> tuple[str, tuple[float, float, float], tuple[int, int, int]]:
    """Return axes, spacing and shape of slices that run along wanted `axes`; see `acquired`."""
    order = [_along(codes, pair) for letter in axes for pair in PAIRS if letter in pair]
    return axes, tuple(float(sizes[i]) for i in order), tuple(int(shape[i]) for i in order)


def acquisition_plane(spacing: tuple[float, ...], slice_axis: int | None) -> str:
    """Return the plane in which a volume was acquired, as far as its file tells.

    The axis that the header names (`dim_info` of NIfTI); else the one whose spacing differs while
    the other two are the same; else the one with the largest spacing; axial where all are the same.

    Args:
        spacing: mm between voxels to the right, to the front and to the head.
        slice_axis: of those three, where the header names it.
    """
    if slice_axis is None:
        others = ((1, 2), (0, 2), (0, 1))
        odd = [axis for axis, (a, b) in enumerate(others)
               if np.isclose(spacing[a], spacing[b], rtol=SQUARE)]
        slice_axis = {0: int(np.argmax(spacing)), 1: odd[0] if odd else 2}.get(len(odd), 2)
    return ("sagittal", "coronal", "axial")[slice_axis]


def check_shape(shape: tuple[int, ...], path: Path) -> None:
    """Refuse the shape of what is not one volume; axes of 1 after the third do not count.

    Raises:
        ReadError: one slice, a series of volumes, or no voxels.
    """
    if min(shape, default=1) < 0:
        raise ReadError(f"{path}: its header is damaged: it has the shape {shape}")
    if len(shape) < 3 or 1 in shape[:3]:
        raise ReadError(f"{path}: has the shape {shape}, which is one slice; expected a volume of "
                        "at least two slices")
    if any(side != 1 for side in shape[3:]):
        raise ReadError(f"{path}: has the shape {shape}, expected three dimensions; save each "
                        "volume of a series in its own file")
    if 0 in shape:
        raise ReadError(f"{path}: is empty, its shape is {shape}")


def spans_space(affine: np.ndarray) -> bool:
    """Return whether an affine (4, 4), in mm, gives a grid of voxels its place and directions."""
    with np.errstate(over="ignore"):
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        return bool(np.abs(affine).max() <= LARGEST and sizes.max() <= VAST  # NaN is neither
                    and abs(np.linalg.det(affine[:3, :3])) >= max(TINY, FLAT * np.prod(sizes)))


def _along(codes: str, pair: str) -> int:
    """Return the number of the axis that runs along a direction of the patient, such as `RL`."""
    return next(i for i, code in enumerate(codes) if code in pair)
