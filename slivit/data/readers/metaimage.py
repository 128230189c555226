"""MetaImage volumes: `.mha`, and `.mhd` with their voxels in a `.raw` or `.zraw` file."""

from pathlib import Path

import numpy as np

from slivit.data.readers.base import ReadError
from slivit.data.readers.raw_voxels import Stored
from slivit.data.readers.text_header import axis_sizes, damaged, data_file, lines_of, numbers

SUFFIXES = (".mha", ".mhd")
LAST = "ElementDataFile"
TYPES = {"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2",
         "MET_INT": "i4", "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4",
         "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8"}
TRUTH = {"true": True, "1": True, "false": False, "0": False}
MATRIX = ("TransformMatrix", "Orientation", "Rotation")  # names that it has had
ORIGIN = ("Offset", "Position", "Origin")


def parse(path: Path) -> Stored:
    """Return what a header says.

    Raises:
        ReadError: it is none, it contains what cannot be, or its voxels are not in one local file.
    """
    fields, end = _fields(path)
    data = fields[LAST]
    is_local = data.upper() == "LOCAL"
    start = numbers(path, "HeaderSize", fields.get("HeaderSize", "0"), int, 1)[0]
    packed = _is_true(path, fields, "CompressedData")
    if start < -1 or start and (is_local or packed):
        raise damaged(path, "HeaderSize", str(start), "0")
    if not _is_true(path, fields, "BinaryData", default=True):
        raise ReadError(f"{path}: its voxels are written as text (BinaryData = False); save it "
                        "with binary data")
    sizes, dtype = axis_sizes(path, fields, "NDims", "DimSize"), _dtype(path, fields)
    channels, = numbers(path, "ElementNumberOfChannels",
                        fields.get("ElementNumberOfChannels", "1"), int, 1)
    length, = numbers(path, "CompressedDataSize", fields.get("CompressedDataSize", "0"), int, 1)
    if min(channels, length + 1) < 1:
        raise damaged(path, "ElementNumberOfChannels and CompressedDataSize",
                      f"{channels} and {length}", "numbers above 0")
    directions, spacing, origin = _place(path, fields, len(sizes))
    return Stored("metaimage", sizes if channels == 1 else (channels, *sizes), dtype,
                  path if is_local else data_file(path, data), directions, spacing, origin,
                  None if channels == 1 else 0, end if is_local else start, packed,
                  length or None)


def _fields(path: Path) -> tuple[dict[str, str], int | None]:
    """Return the fields of a header, and the byte at which it ends."""
    lines, end = lines_of(path, lambda line: _pair(line)[0] == LAST)
    fields = dict(map(_pair, lines))
    if not {"NDims", "DimSize", "ElementType"} & set(fields):
        raise ReadError(f"{path}: is not a MetaImage file; it does not begin with a header such as "
                        "NDims = 3")
    if missing := [name for name in ("NDims", "DimSize", "ElementType", LAST)
                   if name not in fields]:
        raise ReadError(f"{path}: its header is truncated, or damaged: it does not contain "
                        f"{', '.join(missing)}")
    if (what := fields.get("ObjectType", "Image")) != "Image":
        raise damaged(path, "ObjectType", what, "Image")
    return fields, end


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.replace(":", "=", "=" not in line).partition("=")
    return name.strip(), value.strip()


def _dtype(path: Path, fields: dict[str, str]) -> np.dtype:
    name = fields["ElementType"].removesuffix("_ARRAY")
    if name not in TYPES:
        raise damaged(path, "ElementType", name, f"one of {', '.join(TYPES)}")
    is_big = any(_is_true(path, fields, field)
                 for field in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"))
    return np.dtype((">" if is_big else "<") + TYPES[name])


def _place(path: Path, fields: dict[str, str], count: int) -> tuple:
    """Return directions, spacing and origin of a file of `count` axes; see Stored."""
    directions, spacing, origin = None, None, (0.0, 0.0, 0.0)
    if name := next((name for name in MATRIX if name in fields), None):
        matrix = numbers(path, name, fields[name], float, count * count)
        directions = np.reshape(matrix, (count, count)).T[:3, :3]  # a row per axis in the file
    if name := next((name for name in ("ElementSpacing", "ElementSize") if name in fields), None):
        spacing = numbers(path, name, fields[name], float, count)[:3]
        if not min(spacing) > 0:
            raise damaged(path, name, fields[name], "numbers above 0")
    if name := next((name for name in ORIGIN if name in fields), None):
        origin = numbers(path, name, fields[name], float, count)[:3]
    return directions, spacing, origin


def _is_true(path: Path, fields: dict[str, str], name: str, default: bool = False) -> bool:
    value = fields.get(name, str(default))
    if value.lower() not in TRUTH:
        raise damaged(path, name, value, "True or False")
    return TRUTH[value.lower()]
