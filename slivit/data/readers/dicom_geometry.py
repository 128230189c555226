"""Order, spacing and orientation of DICOM slices and frames."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from slivit.data.readers.base import ReadError, natural_key
from slivit.data.readers.dicom_check import rescale_faults
from slivit.data.readers.members import source_of
from slivit.data.readers.orientation import axes_of

NEAR = 1e-3     # mm; slices nearer than this are at the same place
PARALLEL = 1e-2  # difference of direction cosines up to which slices are parallel
LEAST_NORMAL = 0.1  # length of the normal of rows and columns, 1 where they are unit vectors
UNEVEN = 1.2    # times the median distance of slices


@dataclass(frozen=True)
class Geometry:
    """Where slices lie.

    Attributes:
        order: numbers of the slices as stored, in the order in which they follow each other.
        spacing, axes, notes: see readers.base.Header.
        scales: what holds slope and intercept of each frame as stored; empty where the file does.
    """

    order: np.ndarray = field(default_factory=lambda: np.arange(1))
    spacing: tuple[float, float, float] | None = None
    axes: str | None = None
    notes: tuple[str, ...] = ()
    scales: tuple[Dataset, ...] = ()


def slice_geometry(slices: Sequence[Dataset], path: Path) -> Geometry:
    """Return the geometry of single slices.

    They are sorted by position along the slice normal; where no slice has a position, by instance
    number, and without that by file name (with a note).

    Raises:
        ReadError: some have a position and some have none; they are not parallel; two are at one
            place.
    """
    placed = [_place(one.get("ImageOrientationPatient"), one.get("ImagePositionPatient"))
              for one in slices]
    pixel = _pair(slices[0].get("PixelSpacing") or slices[0].get("ImagerPixelSpacing"))
    if all(place is not None for place in placed):
        between = _distance(slices[0])
        return _by_position(placed, pixel, between, path)
    if any(place is not None for place in placed):
        missing = [source_of(one).name for one, place in zip(slices, placed, strict=True)
                   if place is None]
        raise ReadError(f"{path}: {len(missing)} of {len(slices)} slices have no position "
                        f"({', '.join(missing[:5])}), but the others have one")
    numbers = [one.get("InstanceNumber") for one in slices]
    if all(number is not None for number in numbers) and len(set(numbers)) == len(numbers):
        order, note = np.argsort([int(number) for number in numbers]), "instance number"
    else:
        names = [natural_key(source_of(one).name) for one in slices]
        order, note = np.array(sorted(range(len(names)), key=names.__getitem__)), "file name"
    return Geometry(order, notes=(f"no slice positions: sorted by {note}",))


def frame_geometry(dataset: Dataset, path: Path) -> Geometry:
    """Return the geometry of the frames of one file.

    Raises:
        ReadError: frames that have positions are not parallel, or two are at one place.
    """
    count = int(dataset.NumberOfFrames)
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if len(groups) != count:
        groups = [Dataset()] * count

    def find(group: Dataset, sequence: str) -> Dataset:
        return (group.get(sequence) or shared.get(sequence) or [Dataset()])[0]

    scales = tuple(find(group, "PixelValueTransformationSequence") for group in groups)
    if not any("RescaleSlope" in scale for scale in scales):
        scales = ()
    if bad := [fault for scale in scales for fault in rescale_faults(scale)]:
        raise ReadError(f"{path}: its DICOM header is damaged: {'; '.join(bad[:5])}")
    measures = find(groups[0], "PixelMeasuresSequence")
    pixel = _pair(measures.get("PixelSpacing") or dataset.get("PixelSpacing"))
    between = _distance(measures) or _distance(dataset)
    places = [_place(find(group, "PlaneOrientationSequence").get("ImageOrientationPatient"),
                     find(group, "PlanePositionSequence").get("ImagePositionPatient"))
              for group in groups]
    if any(place is None for place in places) or len({tuple(p[1]) for p in places}) == 1:
        spacing = None if pixel is None or between is None else (between, *pixel)
        return Geometry(np.arange(count), spacing, scales=scales)
    geometry = _by_position(places, pixel, between, path)
    return Geometry(geometry.order, geometry.spacing, geometry.axes, geometry.notes, scales)


def _place(orientation: Sequence | None, position: Sequence | None) -> tuple | None:
    """Return the six direction cosines and the three coordinates of a slice, None if unknown."""
    if not orientation or not position or len(orientation) != 6 or len(position) != 3:
        return None
    return np.array(orientation, dtype=float), np.array(position, dtype=float)


def _pair(values: Sequence | float | None) -> tuple[float, float] | None:
    """Return two distances in mm; None where there are none, or they are not above 0."""
    if not isinstance(values, Sequence) or len(values) != 2:
        return None
    down, along = map(_positive, values)
    return None if down is None or along is None else (down, along)


def _distance(dataset: Dataset) -> float | None:
    """Return how far slices are apart by their header, in mm; some scanners give it a sign."""
    return next((distance for name in ("SpacingBetweenSlices", "SliceThickness")
                 if (distance := _positive(abs(dataset.get(name) or 0))) is not None), None)


def _positive(value: float) -> float | None:
    return float(value) if 0 < value < np.inf else None


def _by_position(places: list[tuple], pixel: tuple[float, float] | None, between: float | None,
                 path: Path) -> Geometry:
    orientations = np.array([place[0] for place in places])
    if not all(np.isfinite(np.concatenate(place)).all() for place in places) or (
            np.linalg.norm(np.cross(*orientations[0].reshape(2, 3))) < LEAST_NORMAL):
        raise ReadError(f"{path}: its DICOM header is damaged: ImageOrientationPatient and "
                        "ImagePositionPatient do not give the positions of its slices")
    if np.abs(orientations - orientations[0]).max() > PARALLEL:
        kinds = len(np.unique(orientations.round(2), axis=0))
        raise ReadError(f"{path}: its slices have {kinds} orientations, expected parallel slices "
                        "(a localiser is not a volume)")
    along, down = orientations[0][:3], orientations[0][3:]  # of a row, of a column
    normal = np.cross(along, down)
    heights = np.array([place[1] for place in places]) @ normal
    order = np.argsort(heights, kind="stable")
    gaps = np.diff(heights[order])
    if (gaps < NEAR).any():
        distinct = 1 + int((gaps >= NEAR).sum())
        raise ReadError(f"{path}: {len(places)} slices lie at {distinct} positions, expected one "
                        "each; put every phase, echo or time point into its own folder")
    notes = ()
    if len(gaps) and gaps.max() > UNEVEN * np.median(gaps):
        notes = (f"slices are {gaps.min():.2f} to {gaps.max():.2f} mm apart: some may be missing",)
    step = float(np.median(gaps)) if len(gaps) else between
    spacing = None if pixel is None or step is None else (step, *pixel)
    return Geometry(order, spacing, axes_of(np.stack([normal, down, along], axis=1)), notes)
