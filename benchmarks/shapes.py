"""Hand-made features of nodule shapes, in 3D and in 2D.

The shape is what most annotators drew; what any of them drew where most agree on nothing.
"""

import math

import numpy as np


def shape_features(scan: np.ndarray) -> list[float]:
    """Return the features of a uint8 volume (D, H, W) or image (H, W).

    Its volume (area), box sides from short to long, surface (perimeter, in edges of voxels),
    sphericity (circularity), surface per volume, share of the box that is filled, mean grey value.
    """
    shape = scan >= 128
    if not shape.any():
        shape = scan > 0
    if not shape.any():
        return [0.0] * (6 + scan.ndim)
    count = float(shape.sum())
    sides = sorted(float(np.ptp(places)) + 1 for places in np.nonzero(shape))
    padded = np.pad(shape, 1).astype(np.int8)
    surface = float(sum(np.abs(np.diff(padded, axis=axis)).sum() for axis in range(scan.ndim)))
    if scan.ndim == 3:
        roundness = math.pi ** (1 / 3) * (6 * count) ** (2 / 3) / surface
    else:
        roundness = 4 * math.pi * count / surface ** 2
    return [float(scan.sum()) / 255, *sides, surface, roundness, surface / count,
            count / math.prod(sides), float(scan[scan > 0].mean())]
