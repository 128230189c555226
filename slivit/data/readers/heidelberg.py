"""Heidelberg's `.vol` files, and what they share with its `.e2e` files and XML exports.

B-scans are stored in linear intensity. They are given as Heidelberg's own XML export and viewer
show them, 0 to 255, so that one model fits all three: by the curve that eyepy measured
(`from_vol_intensity` there, a logarithm), not the fourth root of other readers.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slivit.data.readers.base import (
    LARGEST,
    Header,
    Pick,
    ReadError,
    Volume,
    check_size,
    check_values,
    picked,
)

SUFFIXES = (".vol",)
STARTS = (b"HSF-OCT-", b"ep-v")  # of Heidelberg's own files, and of those that eyepy writes
GREY = b"ep-v0."                 # early versions of eyepy did not make values linear
FILE = struct.Struct("<12s3I3d2I2dId4sQiI")
SCAN = struct.Struct("<12sI4d")
FILE_SIZE, SCAN_SIZE = 2048, 256  # bytes of the headers, at least
PATTERNS = {1: "a single line scan", 2: "a circle scan", 5: "a radial (star) scan"}
PARALLEL = 0.98  # cosine of the angle up to which B-scans lie side by side
EVEN = 0.1       # relative difference up to which gaps are the same


@dataclass(frozen=True)
class Layout:
    """Where the B-scans of a `.vol` file are.

    Attributes:
        shape: B-scans, depth, A-scans.
        spacing: mm between them; None where unknown.
        places: first byte of the pixels of each.
        grey: whether values are 0 to 255 as shown, not linear.
        notes: see Header.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    places: tuple[int, ...]
    grey: bool
    notes: tuple[str, ...]


def header(path: Path) -> Header:
    """Return the header of a `.vol` file.

    Raises:
        ReadError: missing, truncated, not Heidelberg's, or not a volume, such as a radial scan.
    """
    layout = _open(path)
    return Header("vol", layout.shape, "float32", layout.spacing, notes=layout.notes)


def read(path: Path, pick: Pick | None = None) -> Volume:
    """Read a volume: uint8, 0 to 255 as shown (see `shown`), 0 where there is no data.

    Slices are B-scans in their stored order; rows are depth, the vitreous at the top.

    Raises:
        ReadError: see `header`; or NaN or infinite values.
    """
    layout = _open(path)
    slices = []
    for i in picked(layout.shape[0], pick):
        linear = check_values(_pixels(path, layout, i), path)
        slices.append(np.where(linear == LARGEST, 0, linear).astype(np.uint8) if layout.grey
                      else shown(linear, linear == LARGEST))
    return Volume(np.stack(slices), layout.spacing)


def shown(linear: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """Return intensities as Heidelberg shows them.

    Args:
        linear: float32, 0 to 1; what is beyond is clipped.
        empty: where there is no data.

    Returns:
        uint8, 0 where it is empty.
    """
    grey = (np.log(np.clip(linear, 0, 1) + 2.44e-4) + 8.3) / 8.285
    return np.rint(np.clip(np.where(empty, 0, grey), 0, 1) * 255).astype(np.uint8)


def check_pattern(pattern: int, path: Path) -> None:
    """Refuse a scan whose number of pattern says that it is no volume."""
    if pattern in PATTERNS:
        raise ReadError(f"{path}: is {PATTERNS[pattern]}, expected a volume scan")


def gaps(starts: Sequence, ends: Sequence, path: Path) -> tuple[float | None, tuple[str, ...]]:
    """Return the mean gap between B-scans, and a note where gaps are uneven.

    Args:
        starts, ends: (N, 2) positions of the first and the last A-scan of each; None (or NaN)
            where unknown.
        path: for the message.

    Returns:
        The gap in the positions' unit, None where they do not tell; notes.

    Raises:
        ReadError: B-scans that are not side by side, as in a radial scan.
    """
    starts, ends = (np.array(points, dtype=float).reshape(-1, 2) for points in (starts, ends))
    along = ends - starts
    with np.errstate(all="ignore"):  # of damaged positions, which do not tell
        lengths = np.hypot(*along.T)
        steps = np.concatenate([np.hypot(*np.diff(side, axis=0).T) for side in (starts, ends)])
        cosines = along @ along[0] / (lengths * lengths[0])
    if len(starts) < 2 or not (np.isfinite(lengths) & (lengths > 0)).all():
        return None, ()
    if not (cosines >= PARALLEL).all():
        raise ReadError(f"{path}: its B-scans are not parallel, as in a radial scan; expected a "
                        "volume scan")
    mean = float(steps.mean())
    if not np.isfinite(mean) or mean <= 0:
        return None, ()
    uneven = np.abs(steps - mean).max() > EVEN * mean
    return mean, (f"B-scans are {steps.min():.3g} to {steps.max():.3g} apart, "
                  f"{mean:.3g} on average",) * bool(uneven)


def known(*sides: float | None) -> tuple[float, ...] | None:
    """Return a spacing in mm, None unless all sides are lengths."""
    return tuple(map(float, sides)) if all(
        side is not None and 1e-6 < side < 1e3 for side in sides) else None


def _open(path: Path) -> Layout:
    if not path.exists():
        raise ReadError(f"{path}: does not exist")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(FILE.size)
    if not start.startswith(STARTS):
        raise ReadError(f"{path}: is not a Heidelberg .vol file (it does not begin with HSF-OCT)")
    if size < FILE_SIZE:
        raise ReadError(f"{path}: is truncated: {size} bytes, expected {FILE_SIZE} or more")
    version, width, count, height, x, z, y, slo_width, slo_height, *rest = FILE.unpack(start)
    check_pattern(rest[-2], path)
    shape = (count, height, width)
    if 0 in shape:
        raise ReadError(f"{path}: is empty, its shape is {shape}")
    if count == 1:
        raise ReadError(f"{path}: contains one B-scan, expected several")
    first = FILE_SIZE + slo_width * slo_height
    check_size(shape, np.dtype(np.float32), size - first - SCAN_SIZE * count, path)
    places, starts, ends = _places(path, first, shape)
    gap, notes = gaps(starts, ends, path)
    layout = Layout(shape, known(z, y, x) or known(gap, y, x), places, False, notes)
    if version.startswith(GREY) and _is_grey(path, layout):
        return Layout(shape, layout.spacing, places, True, notes)
    return layout


def _places(path: Path, place: int, shape: tuple[int, int, int]) -> tuple[tuple, list, list]:
    """Return the first byte of the pixels, and the positions, of each B-scan."""
    count, height, width = shape
    size, places, starts, ends = path.stat().st_size, [], [], []
    with path.open("rb") as file:
        for i in range(count):
            file.seek(place)
            raw = file.read(SCAN.size)
            length = SCAN.unpack(raw)[1] if len(raw) == SCAN.size else SCAN_SIZE
            if length < SCAN_SIZE:
                raise ReadError(f"{path}: is damaged: the header of B-scan {i + 1} of {count} has "
                                f"{length} bytes, expected {SCAN_SIZE} or more")
            if place + length + 4 * height * width > size:
                raise ReadError(f"{path}: is truncated or damaged: {size} bytes, expected "
                                f"{place + length + 4 * height * width} for B-scan {i + 1} of "
                                f"{count}")
            x, y, to_x, to_y = SCAN.unpack(raw)[2:]
            starts.append((x, y))
            ends.append((to_x, to_y))
            places.append(place + length)
            place += length + 4 * height * width
    return tuple(places), starts, ends


def _pixels(path: Path, layout: Layout, number: int) -> np.ndarray:
    _, height, width = layout.shape
    values = np.fromfile(path, "<f4", height * width, offset=layout.places[number])
    return values.reshape(height, width)


def _is_grey(path: Path, layout: Layout) -> bool:
    """Return whether all values are whole numbers from 0 to 255, some of them beyond 1."""
    most = 0.0
    for i in range(layout.shape[0]):
        values = _pixels(path, layout, i)
        values = values[values != LARGEST]
        if not ((values >= 0) & (values <= 255)).all() or (values % 1).any():
            return False
        most = max(most, values.max(initial=0))
    return most > 1
