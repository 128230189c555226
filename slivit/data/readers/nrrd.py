"""NRRD volumes: `.nrrd`, and `.nhdr` with their voxels in another file."""

import re
from pathlib import Path

import numpy as np

from slivit.data.readers.base import ReadError
from slivit.data.readers.raw_voxels import Stored
from slivit.data.readers.text_header import axis_sizes, damaged, data_file, lines_of, numbers, shown

SUFFIXES = (".nrrd", ".nhdr")
MAGIC = re.compile(r"NRRD000[1-5]")
TYPES = {  # `unsigned char` is `uchar` once blanks and the like are left out
    "i1": "signedchar int8 int8_t", "u1": "uchar unsignedchar uint8 uint8_t",
    "i2": "short shortint signedshort signedshortint int16 int16_t",
    "u2": "ushort unsignedshort unsignedshortint uint16 uint16_t",
    "i4": "int signedint int32 int32_t", "u4": "uint unsignedint uint32 uint32_t",
    "i8": "longlong longlongint signedlonglong signedlonglongint int64 int64_t",
    "u8": "ulonglong unsignedlonglong unsignedlonglongint uint64 uint64_t",
    "f4": "float", "f8": "double"}
ENCODINGS = {"raw": False, "gzip": True, "gz": True}  # whether it is packed
ENDIAN = {"little": "<", "big": ">"}
TOWARDS = {"right": -1, "left": 1, "anterior": -1, "posterior": 1, "superior": 1, "inferior": -1}
SPACES = {"ras": "right-anterior-superior", "las": "left-anterior-superior",
          "lps": "left-posterior-superior"}
ORDER = (("right", "left"), ("anterior", "posterior"), ("superior", "inferior"))  # NRRD's own
PLACES = ("domain", "space", "")  # kinds of an axis along which voxels lie
COLOURS = ("vector", "3-vector", "4-vector", "rgb-color", "rgba-color", "3-color", "4-color",
           "none", "???")
MM = {"um": 1e-3, "\u00b5m": 1e-3, "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3,
      "nm": 1e-6, "cm": 10.0, "m": 1000.0}
NEEDED = ("type", "dimension", "sizes", "encoding")


def parse(path: Path) -> Stored:
    """Return what a header says.

    Raises:
        ReadError: it is none, it contains what cannot be, or its voxels are not in one local file.
    """
    fields, end = _fields(path)
    sizes, dtype = axis_sizes(path, fields, "dimension", "sizes"), _dtype(path, fields)
    encoding = fields["encoding"].lower()
    if encoding not in ENCODINGS:
        raise ReadError(f"{path}: its voxels are encoded as {shown(encoding)}, expected raw or "
                        "gzip; save it as one of these")
    start, = numbers(path, "byte skip", fields.get("byteskip", "0"), int, 1)
    if start < -1 or start and ENCODINGS[encoding]:
        raise damaged(path, "byte skip", str(start), "0")
    if fields.get("lineskip", "0") != "0":
        raise damaged(path, "line skip", fields["lineskip"], "0")
    if "datafile" in fields:
        data = data_file(path, fields["datafile"])
    elif end is None:
        raise ReadError(f"{path}: its header is truncated: no empty line and no data file follow")
    else:
        data, start = path, start if start == -1 else end + start
    steps = _steps(path, fields, len(sizes))
    colour = _colour(path, fields, sizes, steps)
    along = [i for i in range(len(sizes)) if i != colour]
    return Stored("nrrd", sizes, dtype, data, *_place(path, fields, along, steps), colour, start,
                  ENCODINGS[encoding])


def _fields(path: Path) -> tuple[dict[str, str], int | None]:
    """Return the fields of a header, named in small letters without blanks, and where it ends."""
    lines, end = lines_of(path, lambda line: not line)
    if not lines or not MAGIC.fullmatch(lines[0]):
        raise ReadError(f"{path}: is not a NRRD file; it does not begin with NRRD0001 to NRRD0005")
    pairs = [line.partition(":") for line in lines[1:] if line and not line.startswith("#")]
    fields = {"".join(name.lower().split()): value.strip() for name, _, value in pairs
              if not value.startswith("=")}  # `key:=value` is what users add
    if missing := [name for name in NEEDED if name not in fields]:
        raise ReadError(f"{path}: its header is truncated, or damaged: it does not contain "
                        f"{', '.join(missing)}")
    return fields, end


def _dtype(path: Path, fields: dict[str, str]) -> np.dtype:
    name = "".join(fields["type"].lower().split())
    code = next((code for code, names in TYPES.items() if name in names.split()), None)
    if code is None:
        raise damaged(path, "type", fields["type"], "a type of number, such as short or float")
    endian = fields.get("endian", "little" if code.endswith("1") else "").lower()
    if endian not in ENDIAN:
        raise damaged(path, "endian", endian, "little or big")
    return np.dtype(ENDIAN[endian] + code)


def _steps(path: Path, fields: dict[str, str], count: int) -> list[np.ndarray | None] | None:
    """Return the step (3,) along each axis in the space of the file, None along those not in it."""
    text = fields.get("spacedirections")
    if text is None:
        return None
    vectors = re.findall(r"none|\([^()]*\)", text, re.IGNORECASE)
    if len(vectors) != count:
        raise damaged(path, "space directions", text, f"{count} vectors")
    return [None if vector.lower() == "none" else _vector(path, "space directions", vector)
            for vector in vectors]


def _vector(path: Path, field: str, text: str) -> np.ndarray:
    return np.array(numbers(path, field, text.strip("() ").replace(",", " "), float, 3))


def _colour(path: Path, fields: dict[str, str], sizes: tuple[int, ...],
            steps: list[np.ndarray | None] | None) -> int | None:
    """Return which axis is that of the numbers of a voxel; None where there is none."""
    kinds = [kind.lower() for kind in fields.get("kinds", "").split()]
    if kinds and len(kinds) != len(sizes):
        raise damaged(path, "kinds", fields["kinds"], f"{len(sizes)}")
    kinds = kinds or [""] * len(sizes)
    if steps is None:
        inner = [i for i, kind in enumerate(kinds) if kind not in PLACES]
    else:
        inner = [i for i, step in enumerate(steps) if step is None]
    inner = [i for i in inner if kinds[i] in (*COLOURS, *PLACES)]  # `list` and `time`: a series
    return inner[0] if len(inner) == 1 else None


def _place(path: Path, fields: dict[str, str], along: list[int],
           steps: list[np.ndarray | None] | None) -> tuple:
    """Return directions, spacing and origin of the axes `along` which voxels lie; see Stored."""
    if len(along) < 3:  # refused as one slice
        return None, None, (0.0, 0.0, 0.0)
    signs = _signs(path, fields.get("space", ""))
    if steps is None or any(steps[i] is None for i in along[:3]):
        return None, _spacing(path, fields, along), (0.0, 0.0, 0.0)
    matrix = np.stack([steps[i] for i in along[:3]], axis=1)
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(matrix, axis=0)
    if not (lengths.min() > 0 and lengths.max() < np.inf):
        raise damaged(path, "space directions", fields["spacedirections"],
                      "vectors longer than 0 mm")
    scale = _scale(fields.get("spaceunits", ""))
    spacing = tuple(float(length) * scale for length in lengths)
    if signs is None:  # of no patient
        return None, spacing, (0.0, 0.0, 0.0)
    origin = _vector(path, "space origin", fields.get("spaceorigin", "0 0 0"))
    return signs[:, None] * matrix / lengths, spacing, tuple(signs * origin * scale)


def _signs(path: Path, space: str) -> np.ndarray | None:
    """Return what turns coordinates of a space into those to the left, back and head; or None."""
    words = SPACES.get(space.lower(), space.lower()).split("-")
    if len(words) != 3 or not all(word in TOWARDS for word in words):
        return None
    if not all(word in pair for word, pair in zip(words, ORDER, strict=True)):
        raise ReadError(f"{path}: its space is {space}, expected {' or '.join(SPACES)}, or their "
                        "names in full, in that order")
    return np.array([TOWARDS[word] for word in words], dtype=float)


def _spacing(path: Path, fields: dict[str, str], along: list[int]
             ) -> tuple[float, float, float] | None:
    """Return the distances of voxels; None where they are unknown."""
    if "spacings" not in fields:
        return None
    distances = numbers(path, "spacings", fields["spacings"], float)
    known = tuple(distances[i] for i in along[:3] if i < len(distances))
    if len(known) != 3 or np.isnan(known).any():
        return None
    if not min(known) > 0:
        raise damaged(path, "spacings", fields["spacings"], "numbers above 0")
    scale = _scale(fields.get("units", ""))
    return tuple(side * scale for side in known)


def _scale(units: str) -> float:
    """Return how many mm a unit is; 1 where units are unknown, or differ between axes."""
    names = set(re.findall(r'"([^"]+)"', units))
    return MM.get(names.pop().lower(), 1.0) if len(names) == 1 else 1.0
