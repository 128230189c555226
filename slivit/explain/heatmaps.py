"""From weights of slices and Grad-CAM maps to a heat map in the scan's own grid.

In every slice that the model looked at, the largest value is the slice's weight. Between slices
that were looked at (`--n_slices` of a longer scan) values are interpolated linearly, since what
lies between two neighbours that both matter most likely matters too; beyond the first and the last
of them (`--slice_sampling middle`) nothing is known and the map is 0. Several views are added up,
so that a place counts most where they agree. At last all is scaled to a maximum of 1.
"""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slivit.data.readers.voxel_grid import Grid, uncut
from slivit.utils.files import atomic_write


@dataclass(frozen=True)
class ViewSaliency:
    """What a model saw of one view of a scan, and how much it made of it.

    Attributes:
        view: see readers.orientation.VIEWS.
        shape: (N, H, W) of the view in the scan; what the model saw are n of the N slices.
        numbers: int (n,), ascending from 0, which they are.
        slices: uint8 (n, C, h, w), as the model gets them.
        sides: height and width of a slice in mm, or in pixels where spacing is unknown.
        rollout, relevance: (n,), see saliency.Saliency; None for an image, `rollout` also without
            attention.
        cams: (n, i, j), 0 to 1: Grad-CAM as a share of the slice's largest; None, as the two
            above, where nothing was explained.
        cell: (side of a cell of `cams`) / (side of the slice), the same for both sides.
    """

    view: str
    shape: tuple[int, int, int]
    numbers: np.ndarray
    slices: np.ndarray
    sides: tuple[float, float]
    rollout: np.ndarray | None = None
    relevance: np.ndarray | None = None
    cams: np.ndarray | None = None
    cell: float = 1.0


def heat_volume(looks: Sequence[ViewSaliency], axes: str | None) -> np.ndarray:
    """Return the heat map (N, H, W) of a volume in the order of its slices as read.

    Args:
        looks: of each view.
        axes: of the volume; see readers.base.Header.

    Returns:
        float32, 0 to 1, the largest value 1 if not all are 0.
    """
    total = None
    for look in looks:
        weights = np.ones(len(look.cams)) if look.relevance is None else look.relevance
        between = interpolation(np.arange(look.shape[0]), look.numbers, outside=0.0)
        maps = np.tensordot(between, weights[:, None, None] * look.cams, 1)  # (N, i, j)
        heat = uncut(enlarge(maps, look.shape[1:], look.cell), axes, look.view)
        total = heat if total is None else total + heat
    return total / (total.max() or np.float32(1))


def enlarge(maps: np.ndarray, size: tuple[int, int], cell: float) -> np.ndarray:
    """Return maps (n, i, j) as float32 (n, H, W), linear between the centres of the cells.

    Args:
        maps: of cells that begin at the top left.
        size: H and W.
        cell: see ViewSaliency.
    """
    rows, columns = (
        interpolation((np.arange(side) + 0.5) / side, (np.arange(cells) + 0.5) * cell)
        .astype(np.float32) for side, cells in zip(size, maps.shape[1:], strict=True))
    return rows @ maps.astype(np.float32) @ columns.T


def interpolation(wanted: np.ndarray, known: np.ndarray, outside: float | None = None
                  ) -> np.ndarray:
    """Return the matrix (w, k) that interpolates linearly from known places (ascending) to others.

    Beyond the first and last known place their values go on, or are `outside` times them.
    """
    return np.stack([np.interp(wanted, known, column,
                               None if outside is None else outside * column[0],
                               None if outside is None else outside * column[-1])
                     for column in np.eye(len(known))], axis=1)


def save_heat(path: Path, heat: np.ndarray, grid: Grid) -> None:
    """Write a heat map (N, H, W), in the order of the slices as read, as `.nii.gz`."""
    content = gzip.compress(grid.image(heat).to_bytes(), compresslevel=1, mtime=0)
    with atomic_write(path) as part:
        part.write_bytes(content)
