"""Writers of made-up OCT scans in the formats of Topcon and Heidelberg."""

import struct
from pathlib import Path

import imagecodecs
import numpy as np
from helpers import write_image

EMPTY = np.finfo(np.float32).max  # where a .vol file has no data
RAW = np.random.default_rng(3).integers(0, 60000, (4, 9, 12), dtype=np.uint16)
GREY = np.random.default_rng(4).integers(0, 255, (4, 9, 12), dtype=np.uint8)
LINEAR = np.random.default_rng(5).random((4, 9, 12), dtype=np.float32) ** 4
NAME = b"Musterfrau"              # of a patient, which must appear nowhere
MANY = 512                        # entries of the last directory of an .e2e file, most empty


def chunk(name: str, data: bytes) -> bytes:
    """Return a chunk of a Topcon file."""
    return bytes([len(name)]) + name.encode() + struct.pack("<I", len(data)) + data


def raw_chunk(name: str = "@IMG_SCAN_03", values: np.ndarray = RAW, **changed: int) -> bytes:
    """Return a chunk of raw B-scans (N, H, W), with some fields of its header changed."""
    count, height, width = values.shape
    fields = {"mode": 2, "width": width, "height": height, "bits": 16, "count": count, "format": 0,
              "size": values.nbytes} | changed
    return chunk(name, struct.pack("<B4IBI", *fields.values()) + values.astype("<u2").tobytes())


def jpeg_chunk(streams: list[bytes], shape: tuple[int, int, int] = RAW.shape,
               mode: int = 2) -> bytes:
    """Return a chunk of compressed B-scans."""
    count, height, width = shape
    return chunk("@IMG_JPEG", struct.pack("<B6I", mode, 0, 0, width, height, count, 2562)
                 + b"".join(struct.pack("<i", len(data)) + data for data in streams))


def jpeg2000(values: np.ndarray) -> list[bytes]:
    """Return a stream, without loss, of every slice."""
    return [imagecodecs.jpeg2k_encode(piece, level=0, reversible=True) for piece in values]


def sides_chunk(across: float = 6.0, along: float = 4.0, depth: float = 2.5,
                name: str = "@PARAM_SCAN_04") -> bytes:
    """Return the chunk with the sizes of a scan: mm, mm, and micrometres per pixel."""
    before = bytes(12 if name.endswith("04") else 21)
    return chunk(name, before + struct.pack("<5d", across, along, depth, 0, 0) + b"\0\0")


def write_topcon(path: Path, *chunks: bytes, start: bytes = b"FOCTFDA") -> Path:
    """Write a file of some chunks, after one with the patient."""
    patient = chunk("@PATIENT_INFO_02", NAME.ljust(96, b"\0"))
    path.write_bytes(start + struct.pack("<II", 2, 1000) + patient + b"".join(chunks) + b"\0")
    return path


def positions(count: int, gap: float = 0.25, turn: float = 0.0) -> list[tuple[float, ...]]:
    """Return start and end (x, y, to x, to y) of B-scans, the first the lowest.

    Args:
        count: of B-scans.
        gap: between them.
        turn: degrees from each to the next, as in a radial scan.
    """
    angles = np.deg2rad(turn * np.arange(count))
    y = 5 - gap * np.arange(count)
    return [(1.0, y[i], 1.0 + 6 * np.cos(angles[i]), y[i] + 6 * np.sin(angles[i]))
            for i in range(count)]


def write_vol(path: Path, values: np.ndarray = LINEAR, pattern: int = 3, spacing=(0.25, 0.004, 0.5),
              version: bytes = b"HSF-OCT-103", places: list | None = None,
              header: int = 300) -> Path:
    """Write a .vol file of float32 (N, H, W); its fundus picture has 3x5 pixels."""
    count, height, width = values.shape
    z, y, x = spacing
    start = struct.pack("<12s3I3d2I2dId4sQiI", version, width, count, height, x, z, y, 5, 3, 0.1,
                        0.1, 30, 0.0, b"OD", 0, pattern, header)
    parts = [(start + bytes(40) + NAME).ljust(2048, b"\0"), bytes(15)]
    for place, piece in zip(places or positions(count), values, strict=True):
        about = struct.pack("<12sI4dIIfI", version, header, *place, 0, 256, 20.0, 0)
        parts += [about.ljust(header, b"\0"), piece.astype("<f4").tobytes()]
    path.write_bytes(b"".join(parts))
    return path


def write_export(folder: Path, slices: np.ndarray = GREY, kind: str = "Volume", suffix: str = "tif",
                 change=lambda text: text, turn: float = 0.0) -> Path:
    """Write an XML export: slices as pictures, B10 after B9, and a picture of the fundus."""
    folder.mkdir(parents=True, exist_ok=True)
    image = """<Image><ImageType><Type>{kind}</Type></ImageType>
      <OphthalmicAcquisitionContext><Width>{width}</Width><Height>{height}</Height>
      <ScaleX>0.5</ScaleX><ScaleY>0.004</ScaleY>
      <Start><Coord><X>{p[0]}</X><Y>{p[1]}</Y></Coord></Start>
      <End><Coord><X>{p[2]}</X><Y>{p[3]}</Y></Coord></End></OphthalmicAcquisitionContext>
      <ImageData><ExamURL>file:///\\\\server\\share\\{name}</ExamURL></ImageData></Image>"""
    count, height, width = slices.shape[:3]
    images = [image.format(kind="LOCALIZER", width=3, height=5, p=(0, 0, 0, 0), name="NIR.tif")]
    write_image(folder / "NIR.tif", np.full((5, 3), 9, np.uint8))
    for i, place in enumerate(positions(count, turn=turn)):
        name = f"B{i + 1}.{suffix}"
        write_image(folder / name, slices[i])
        images.append(image.format(kind="OCT", width=width, height=height, p=place, name=name))
    text = (f"<HEDX><BODY><Patient><LastName>{NAME.decode()}</LastName><Study><Series>"
            f"<Type>{kind}</Type>{''.join(images)}</Series></Study></Patient></BODY></HEDX>")
    (folder / "scan.xml").write_text(change(text))
    return folder / "scan.xml"


def stored(linear: np.ndarray) -> np.ndarray:
    """Return intensities as an .e2e file holds them: 6 bits of exponent, 10 of mantissa."""
    mantissa, exponent = np.frexp(np.maximum(linear, 2.0**-60))
    low = np.minimum(np.round((2 * mantissa - 1) * 1024), 1023)
    return ((exponent.astype(int) - 1 + 63) * 1024 + low.astype(int)).astype(np.uint16)


def series(number: int, values: np.ndarray, eye: bytes = b"R", pattern: int = 3, study: int = 7,
           announced: int | None = None, turn: float = 0.0) -> list[tuple]:
    """Return (study, series, slice, kind, data) of a scan of stored values (N, H, W)."""
    count, height, width = values.shape
    found = [(study, number, -1, 11, bytes(14) + eye + bytes(12)),
             (-1, -1, -1, 9, NAME.ljust(131, b"\0")),
             (study, number, -1, 0x40000000, struct.pack("<5I", 15, 33620481, 15, 3, 5)
              + bytes(15))]
    for i, place in reversed(list(enumerate(positions(count, turn=turn)))):
        about = struct.pack("<3I4fIffff8xIIIII", 0, height, width, *place, 0, 0.0, 0.004, 0.0, 0.0,
                            0, width, announced or count, i, pattern)
        found.append((study, number, 2 * i, 10004, about.ljust(428, b"\0")))
        found.append((study, number, 2 * i, 0x40000000, struct.pack(
            "<5I", 2 * height * width, 35652097, height * width, height, width)
            + values[i].astype("<u2").tobytes()))
    return found


def write_e2e(path: Path, *all_series: list[tuple], shift: int = 0) -> Path:
    """Write an .e2e file, a directory and its data for each scan; 0 or 64 bytes come first."""
    entry, container = struct.Struct("<4I4iHHII"), struct.Struct("<12s5I4iHHII")
    directory = struct.Struct("<12sI20s4I")
    parts, place, before = [], 36 + directory.size, 0
    for found in all_series:
        many = MANY if found is all_series[-1] else len(found)
        start = place + directory.size + many * entry.size
        entries, data, here = [], [], place + directory.size
        for study, number, piece, kind, raw in found:
            key = (1, study, number, piece, int(piece >= 0), 0, kind, 0)
            entries.append(entry.pack(here, start, len(raw), 0, *key))
            data.append(container.pack(b"MDbData", 0, here, start, len(raw), 0, *key) + raw)
            start, here = start + container.size + len(raw), here + entry.size
        head = directory.pack(b"MDbDir", 100, bytes(20), many, place, before, 0)
        parts.append(head + b"".join(entries).ljust(many * entry.size, b"\0") + b"".join(data))
        place, before = start, place
    first = struct.pack("<12sI20s", b"CMDb", 100, bytes(20)) + directory.pack(
        b"MDbMDir", 100, bytes(20), MANY, before, before, 0)
    path.write_bytes(b"E2EMultipleVolumeFile".ljust(shift, b"\0")[:shift] + first + b"".join(parts))
    return path
