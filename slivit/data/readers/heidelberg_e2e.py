"""Heidelberg's `.e2e` files: a database of scans, often of both eyes; `FILE.e2e:SERIES` names one.

The format as uocte and eyepy describe it: directories, each of which names the one before it, of
entries that say which patient, study, series and slice a piece of data belongs to. Only B-scans,
their geometry and the eye are read, never the patient.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from slivit.data.readers.base import (
    Header,
    Pick,
    ReadError,
    Volume,
    check_same_size,
    natural_key,
    picked,
    split_key,
)
from slivit.data.readers.heidelberg import PATTERNS, gaps, known, shown

SUFFIXES = (".e2e",)
SEVERAL, AFTER = b"E2EMultipleVolumeFile", 64  # a file that begins so is shifted by 64 bytes
MAGIC, HEADER_SIZE = b"CMDb", 36
DIRECTORY = struct.Struct("<12s24x4I")         # entries, this one, the one before it, unknown
ENTRY = np.dtype([("place", "<u4"), ("start", "<u4"), ("size", "<u4"), ("zero", "<u4"),
                  ("patient", "<i4"), ("study", "<i4"), ("series", "<i4"), ("slice", "<i4"),
                  ("index", "<u2"), ("unknown", "<u2"), ("kind", "<u4"), ("id", "<u4")])
DATA_HEADER = 60                               # bytes before the data of an entry
EYE, GEOMETRY, IMAGE = 11, 10004, 0x40000000   # kinds of entries
NONE = -1         # slice of an entry that belongs to the whole series
SIDE, EYES = struct.Struct("<14xc"), {b"R": "right", b"L": "left"}
SCAN = struct.Struct("<12x4f8xf20x4I")         # start, end (degrees), depth; A-scans, B-scans, ...
PICTURE, B_SCAN = struct.Struct("<5I"), 35652097  # size, type, values, height, width
DEGREE = 0.2896   # mm on the retina of an eye of medium length, as eyepy takes it
NO_DATA = 1.99    # values from here up mark where there is none
KEY = ("patient", "study", "series")  # of an entry: what is one scan
MOST_SERIES, MOST_LISTED = 1000, 10   # in a file, in a message


@dataclass(frozen=True)
class Series:
    """The B-scans of one scan.

    Attributes:
        key: by which it is named, the number of the series.
        eye: right, left or unknown.
        sizes: depth and A-scans of each B-scan.
        places: first byte of the pixels of each.
        scans: start and end (x, y in degrees), mm per row, A-scans, B-scans announced, number and
            pattern of each B-scan of which they are known.
    """

    key: str
    eye: str
    sizes: tuple[tuple[int, int], ...]
    places: tuple[int, ...]
    scans: tuple[tuple, ...]

    def not_a_volume(self) -> str:
        """Return what it is instead, the empty string for a volume."""
        pattern = self.scans[0][-1] if self.scans else 0
        return PATTERNS.get(pattern, "one B-scan" if len(self.places) == 1 else "")

    def __str__(self) -> str:
        what = self.not_a_volume()
        return (f"{self.key} ({self.eye} eye, {len(self.places)} B-scans"
                f"{', ' * bool(what)}{what})")


def header(path: Path) -> Header:
    """Return the header of a file, or of one series in it.

    Raises:
        ReadError: missing, truncated, not Heidelberg's, without a volume, or with several of which
            none is named.
    """
    series = _choose(path)
    spacing, notes = _geometry(series, path)
    return Header("e2e", (len(series.places), *series.sizes[0]), "uint16", spacing, notes=notes)


def read(path: Path, pick: Pick | None = None) -> Volume:
    """Read a volume: uint8, 0 to 255 as shown (see heidelberg.shown), 0 where there is no data.

    Slices are B-scans in their stored order; rows are depth, the vitreous at the top. A file has
    degrees on the retina, not mm: the spacing between B-scans and A-scans is that of an eye of
    medium length.

    Raises:
        ReadError: see `header`.
    """
    series, table = _choose(path), _intensities()
    file, (height, width) = split_key(path, SUFFIXES)[0], series.sizes[0]
    slices = [table[np.fromfile(file, "<u2", height * width, offset=series.places[i])]
              for i in picked(len(series.places), pick)]
    return Volume(np.stack(slices).reshape(-1, height, width), _geometry(series, path)[0])


def _intensities() -> np.ndarray:
    """Return what is shown of every stored number: 6 bits of exponent, 10 of mantissa, no sign.

    As in uocte, whose authors found the format; OCT-Converter and eyepy take the bits of the
    mantissa in the opposite order, by which brighter pixels can become darker.
    """
    stored = np.arange(2**16)
    linear = np.ldexp(1 + (stored & 1023) / 1024, (stored >> 10) - 63).astype(np.float32)
    return shown(linear, linear > NO_DATA)


def _choose(path: Path) -> Series:
    file, key = split_key(path, SUFFIXES)
    if not file.exists():
        raise ReadError(f"{path}: does not exist")
    series = _all_series(file)
    volumes = [one for one in series if not one.not_a_volume()]
    chosen = [one for one in series if one.key == key] if key else volumes
    if len(chosen) != 1:
        known_ones = series if key or not volumes else volumes
        if not series:
            raise ReadError(f"{path}: contains no B-scans")
        listed = "; ".join(map(str, known_ones[:MOST_LISTED]))
        if not key and not volumes:
            raise ReadError(f"{path}: contains no volume scan, expected one; it contains {listed}")
        what = "no such series" if key else f"contains {len(volumes)} volumes"
        raise ReadError(f"{path}: {what}, expected one, or its number as in {file.name}:"
                        f"{known_ones[0].key}: {listed}"
                        f"{'; ...' if len(known_ones) > MOST_LISTED else ''}")
    if what := chosen[0].not_a_volume():
        raise ReadError(f"{path}: is {what}, expected a volume scan")
    check_same_size(chosen[0].sizes, path)
    return chosen[0]


def _geometry(series: Series, path: Path) -> tuple[tuple | None, tuple[str, ...]]:
    """Return the spacing in mm, and notes."""
    if len(series.scans) != len(series.places):
        return None, ("the positions of some B-scans are missing",) * bool(series.scans)
    gap, notes = gaps([one[:2] for one in series.scans], [one[2:4] for one in series.scans], path)
    *ends, depth, width, announced, _, _ = series.scans[0]
    if announced != len(series.places):
        notes += (f"{len(series.places)} B-scans, but it announces {announced}",)
    if gap is None or not width:
        return None, notes
    across = float(np.hypot(ends[2] - ends[0], ends[3] - ends[1])) / width
    return known(gap * DEGREE, depth, across * DEGREE), notes


def _all_series(file: Path) -> list[Series]:
    """Return every series that has B-scans, by number."""
    shift, entries = _entries(file)
    entries = entries[np.isin(entries["kind"], (EYE, GEOMETRY, IMAGE))]
    keys = np.unique(entries[entries["kind"] == IMAGE][list(KEY)])
    if len(keys) > MOST_SERIES:
        raise ReadError(f"{file}: is damaged: it contains {len(keys)} series, expected at most "
                        f"{MOST_SERIES}")
    numbers = keys["series"].tolist()
    with file.open("rb") as stream:
        data = _Data(file, stream, shift)
        volumes = [_series(data, entries[entries[list(KEY)] == key],
                         str(key["series"]) if numbers.count(key["series"]) == 1
                         else f"{key['study']}_{key['series']}") for key in keys]
    return [one for one in sorted(volumes, key=lambda one: natural_key(one.key)) if one.places]


def _series(data: "_Data", entries: np.ndarray, key: str) -> Series:
    entries = entries[np.lexsort((entries["start"], entries["slice"]))]
    sizes, places, numbers = [], [], []
    for entry in entries[(entries["kind"] == IMAGE) & (entries["slice"] != NONE)]:
        _, kind, _, height, width = data.fields(entry, PICTURE)
        if kind != B_SCAN:
            continue
        place = data.place(entry) + PICTURE.size
        what = f"B-scan {len(places) + 1} of series {key}"
        if 0 in (height, width):
            raise ReadError(f"{data.file}: {what} is empty")
        if place + 2 * height * width > data.size:
            raise ReadError(f"{data.file}: is truncated or damaged: {data.size} bytes, expected "
                            f"{place + 2 * height * width} for {what}")
        sizes.append((height, width))
        places.append(place)
        numbers.append(int(entry["slice"]))
    if len(set(numbers)) < len(numbers):
        raise ReadError(f"{data.file}: series {key} contains two B-scans for one slice")
    scans = {int(entry["slice"]): data.fields(entry, SCAN)
             for entry in entries[entries["kind"] == GEOMETRY]}
    eyes = [data.fields(entry, SIDE)[0] for entry in entries[entries["kind"] == EYE]]
    return Series(key, EYES.get(eyes[0] if eyes else b"", "unknown"), tuple(sizes), tuple(places),
                  tuple(scans[number] for number in numbers if number in scans))


@dataclass(frozen=True)
class _Data:
    """An open file; `shift` is added to all its positions."""

    file: Path
    stream: BinaryIO
    shift: int

    @property
    def size(self) -> int:
        return self.file.stat().st_size

    def place(self, entry: np.void) -> int:
        return int(entry["start"]) + self.shift + DATA_HEADER

    def fields(self, entry: np.void, layout: struct.Struct) -> tuple:
        return layout.unpack(_bytes(self.stream, self.place(entry), layout.size, self.file))


def _entries(file: Path) -> tuple[int, np.ndarray]:
    """Return the shift of a file, and the entries of all its directories."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(AFTER + len(MAGIC))
        shift = AFTER if start.startswith(SEVERAL) else 0
        if not start[shift:].startswith(MAGIC):
            raise ReadError(f"{file}: is not a Heidelberg .e2e file (it does not begin with CMDb)")
        raw = _bytes(stream, shift + HEADER_SIZE, DIRECTORY.size, file)
        place, seen, entries, total = DIRECTORY.unpack(raw)[2], set(), [], 0
        while place:
            raw = _bytes(stream, place + shift, DIRECTORY.size, file)
            _, count, _, before, _ = DIRECTORY.unpack(raw)
            total += count
            if place in seen:
                raise ReadError(f"{file}: is damaged: its directories lead round in a circle")
            if total * ENTRY.itemsize > size:
                raise ReadError(f"{file}: is truncated or damaged: {size} bytes, but its "
                                f"directories take {total * ENTRY.itemsize}")
            seen.add(place)
            raw = _bytes(stream, place + shift + DIRECTORY.size, count * ENTRY.itemsize, file)
            entries.append(np.frombuffer(raw, ENTRY))
            place = before
    entries = np.concatenate(entries) if entries else np.empty(0, ENTRY)
    return shift, entries[entries["start"] > entries["place"]]


def _bytes(stream: BinaryIO, place: int, count: int, file: Path) -> bytes:
    stream.seek(place)
    raw = stream.read(count)
    if len(raw) < count:
        raise ReadError(f"{file}: is truncated or damaged: {file.stat().st_size} bytes, expected "
                        f"{place + count} or more")
    return raw
