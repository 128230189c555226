"""Topcon's OCT files, `.fda` and `.fds`: chunks, each with a name and a size.

Of the three chunks that can hold B-scans the first of IMAGES is taken: the raw values
(`@IMG_SCAN_03`, of .fds), which lose nothing; else the compressed ones (`@IMG_JPEG`, of .fda); the
motion-corrected copy (`@IMG_MOT_COMP_03`) only where a file has nothing else, since only some files
have one, and the scans of a table are to be alike. Chunks with the patient are never read.
"""

import math
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image

from slivit.data.readers import jpeg2000, picture_ends
from slivit.data.readers.base import (
    Header,
    Pick,
    ReadError,
    Volume,
    check_size,
    picked,
    reason,
)

SUFFIXES = (".fda", ".fds")
IMAGES = ("@IMG_SCAN_03", "@IMG_JPEG", "@IMG_MOT_COMP_03")
START = 15         # bytes before the first chunk: FOCT, FDA or FAA, two numbers
RAW = struct.Struct("<B4IBI")     # scan mode, width, height, bits, slices, format, size
PACKED = struct.Struct("<B6I")    # scan mode, two unknown, width, height, slices, unknown
SIDES = (("@PARAM_SCAN_04", 12), ("@PARAM_SCAN_02", 21))  # where the three sizes begin
VOLUME, MODES = 2, {0: "a line scan", 3: "a radial scan", 4: "a cross scan", 7: "a scan of 7 lines",
                    11: "a cross scan of 5 lines"}
MOST_CHUNKS = 10_000              # files have some dozens
CODESTREAM = b"\xff\x4f\xff\x51"  # first bytes of JPEG 2000 proper, followed by its size


@dataclass(frozen=True)
class Scan:
    """Where the B-scans of a file are.

    Attributes:
        shape: slices, depth, A-scans.
        spacing: mm between them; None where unknown.
        streams: (first byte, bytes) of every compressed B-scan; empty where they are raw.
        start: first byte of raw values.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    streams: tuple[tuple[int, int], ...]
    start: int


def header(path: Path) -> Header:
    """Return the header of a file.

    Raises:
        ReadError: missing, truncated, not Topcon's, or not of a 3D scan, such as a radial one.
    """
    scan = _open(path)
    if not scan.streams:
        return Header("topcon", scan.shape, "uint16", scan.spacing)
    with path.open("rb") as file:
        bits = _check_stream(_stream(file, scan, 0), scan, 0, path)
    return Header("topcon", scan.shape, "uint8" if bits <= 8 else "uint16", scan.spacing)


def read(path: Path, pick: Pick | None = None) -> Volume:
    """Read a 3D scan: uint16 (raw) or as compressed (uint8 or uint16).

    Slices are B-scans in their stored order; rows are depth, the vitreous at the top.

    Raises:
        ReadError: see `header`; or B-scans that cannot be decoded or are of another size.
    """
    scan = _open(path)
    wanted = picked(scan.shape[0], pick)
    if not scan.streams:
        stored = np.memmap(path, "<u2", "r", offset=scan.start, shape=scan.shape)
        return Volume(np.array(stored[wanted], dtype=np.uint16), scan.spacing)
    with path.open("rb") as file:
        slices = [_decode(_stream(file, scan, i), scan, int(i), path) for i in wanted]
    if len({piece.dtype for piece in slices}) > 1:
        raise ReadError(f"{path}: B-scans differ in type, expected the same number of bits in all")
    return Volume(np.stack(slices), scan.spacing)


def _open(path: Path) -> Scan:
    if not path.exists():
        raise ReadError(f"{path}: does not exist")
    chunks = _chunks(path)
    name = next((name for name in IMAGES if name in chunks), None)
    if name is None:
        raise ReadError(f"{path}: contains no B-scans, expected one of {', '.join(IMAGES)}")
    if len(chunks[name]) > 1:
        raise ReadError(f"{path}: contains {len(chunks[name])} scans ({name}), expected one")
    start, size = chunks[name][0]
    layout = PACKED if name == "@IMG_JPEG" else RAW
    fields = layout.unpack(_bytes(path, start, min(size, layout.size)).ljust(layout.size, b"\0"))
    width, height, count = fields[3:6] if layout is PACKED else (*fields[1:3], fields[4])
    shape = (count, height, width)
    if fields[0] != VOLUME:
        what = MODES.get(fields[0], f"a scan of mode {fields[0]}")
        raise ReadError(f"{path}: is {what}, expected a 3D scan (mode {VOLUME})")
    if 0 in shape:
        raise ReadError(f"{path}: is empty, its shape is {shape}")
    if count == 1:
        raise ReadError(f"{path}: contains one B-scan, expected several")
    spacing = _spacing(path, chunks, shape)
    if layout is PACKED:
        check_size((count,), np.dtype(np.int32), size - layout.size, path)
        return Scan(shape, spacing, _streams(path, start, size, count), 0)
    check_size(shape, np.dtype(np.uint16), size - layout.size, path)
    if fields[3] != 16 or fields[6] != 2 * math.prod(shape):
        raise ReadError(f"{path}: its B-scans have {fields[3]} bits per pixel and take {fields[6]} "
                        f"bytes, expected 16 and {2 * math.prod(shape)} for {shape}")
    return Scan(shape, spacing, (), start + layout.size)


def _chunks(path: Path) -> dict[str, list[tuple[int, int]]]:
    """Return (first byte, bytes) of the chunks of each name."""
    chunks: dict[str, list[tuple[int, int]]] = {}
    end = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(START)
        if start[:7] not in (b"FOCTFDA", b"FOCTFAA"):
            raise ReadError(f"{path}: is not a file of Topcon's OCT (it does not begin with "
                            "FOCTFDA or FOCTFAA)")
        for _ in range(MOST_CHUNKS):
            length = file.read(1)
            if length in (b"", b"\0"):
                return chunks
            name, size = file.read(length[0]), file.read(4)
            first, size = file.tell(), int.from_bytes(size, "little")
            if len(name) < length[0] or first + size > end or not name.startswith(b"@"):
                raise ReadError(f"{path}: is truncated or damaged: after {first} of {end} bytes, "
                                f"expected a chunk of {size} bytes")
            chunks.setdefault(name.decode("latin-1"), []).append((first, size))
            file.seek(size, 1)
    raise ReadError(f"{path}: is damaged: it contains more than {MOST_CHUNKS} chunks")


def _streams(path: Path, start: int, size: int, count: int) -> tuple[tuple[int, int], ...]:
    """Return (first byte, bytes) of every compressed B-scan."""
    streams, place, end = [], start + PACKED.size, start + size
    with path.open("rb") as file:
        for i in range(count):
            file.seek(place)
            length = int.from_bytes(file.read(4), "little")
            if not 0 < length <= end - place - 4:
                raise ReadError(f"{path}: is truncated or damaged: B-scan {i + 1} of {count} takes "
                                f"{length} bytes, but its chunk contains {end - place - 4} more")
            streams.append((place + 4, length))
            place += 4 + length
    return tuple(streams)


def _spacing(path: Path, chunks: dict, shape: tuple[int, int, int]) -> tuple | None:
    for name, place in SIDES:
        for start, size in chunks.get(name, [])[:1]:
            if size < place + 24:
                continue
            across, along, depth = struct.unpack("<3d", _bytes(path, start + place, 24))
            spacing = (along / shape[0], depth / 1000, across / shape[2])
            if all(math.isfinite(side) and 1e-6 < side < 1e3 for side in spacing):
                return spacing
    return None


def _bytes(path: Path, start: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(count)


def _stream(file: object, scan: Scan, number: int) -> bytes:
    start, length = scan.streams[number]
    file.seek(start)
    return file.read(length)


def _check_stream(data: bytes, scan: Scan, number: int, path: Path) -> int:
    """Refuse a B-scan of another size before room is made for it; return its bits per value."""
    place = data.find(CODESTREAM)
    if place >= 0 and len(data) >= place + 43:
        right, bottom, left, top = struct.unpack_from(">4I", data, place + 8)
        channels, bits = struct.unpack_from(">HB", data, place + 40)
        size, bits = (bottom - top, right - left), (bits & 127) + 1
    else:
        try:
            with Image.open(BytesIO(data), formats=("JPEG",)) as picture:
                size, channels, bits = picture.size[::-1], len(picture.getbands()), 8
        except Exception:  # Pillow raises several kinds
            raise ReadError(f"{path}: B-scan {number + 1} is neither JPEG 2000 nor JPEG") from None
    if size != scan.shape[1:] or channels not in (1, 3) or bits > 16:
        raise ReadError(f"{path}: B-scan {number + 1} has {size[0]}x{size[1]} pixels of "
                        f"{channels} channels and {bits} bits, expected {scan.shape[1]}x"
                        f"{scan.shape[2]} in grey, of up to 16 bits")
    return bits


def _decode(data: bytes, scan: Scan, number: int, path: Path) -> np.ndarray:
    _check_stream(data, scan, number, path)
    try:
        if CODESTREAM in data:
            jpeg2000.check_end(data)
            values = imagecodecs.jpeg2k_decode(data)
        else:  # imagecodecs takes a truncated JPEG for whole
            picture_ends.check_end("JPEG", data)
            values = np.asarray(Image.open(BytesIO(data)))
    except Exception as error:  # imagecodecs raises several kinds for a damaged stream
        raise ReadError(f"{path}: B-scan {number + 1} cannot be decoded ({reason(error, path)})"
                        ) from None
    if values.ndim == 3 and (values == values[..., :1]).all():
        values = values[..., 0]
    if values.shape != scan.shape[1:] or values.dtype not in (np.uint8, np.uint16):
        raise ReadError(f"{path}: B-scan {number + 1} has the shape {values.shape} and type "
                        f"{values.dtype}, expected {scan.shape[1:]} in grey")
    return values
