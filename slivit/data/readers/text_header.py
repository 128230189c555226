"""Headers in text, of MetaImage and NRRD: their lines, the numbers in them, the file they name."""

from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

from slivit.data.readers.base import ReadError

LONGEST = 2**20  # bytes of a header
LARGEST = 2**63  # a whole number
MOST_AXES = 16   # which is NRRD's own limit
SHOWN = 100      # letters of a field in a message


def data_file(path: Path, name: str) -> Path:
    """Return the file that a header says its voxels are in.

    Raises:
        ReadError: the name is not that of one file in the folder of the header, or below it.
    """
    if not name:
        raise damaged(path, "the file of its voxels", name, "a name")
    both = PurePosixPath(name), PureWindowsPath(name)
    if "%" in name or name.split()[:1] == ["LIST"]:
        raise ReadError(f"{path}: its voxels are in several files ({shown(name)}), expected one; "
                        "save the volume as one file")
    if any(one.is_absolute() or one.anchor or ".." in one.parts for one in both):
        raise ReadError(f"{path}: its voxels are in {shown(name)}, outside its folder; expected a "
                        "file next to it. Move that file there and correct the name")
    if "\\" in name and not (path.parent / name).exists():
        raise ReadError(f"{path}: its voxels are in {shown(name)}, with a backslash as on Windows; "
                        "write / in that name")
    return path.parent / name


def lines_of(path: Path, is_last: Callable[[str], bool]) -> tuple[list[str], int | None]:
    """Return the lines of a header, and the byte at which it ends; None where the file ends first.

    Args:
        path: of a file that begins with it.
        is_last: whether a line, without white space at its ends, is the last of the header.

    Raises:
        ReadError: it is too long for a header.
    """
    lines = []
    with path.open("rb") as stream:
        while line := stream.readline(LONGEST):
            if stream.tell() >= LONGEST:
                raise ReadError(f"{path}: does not begin with a header in text, as a MetaImage or "
                                "NRRD file does")
            lines.append(line.decode("utf-8", "surrogateescape").strip())
            if is_last(lines[-1]):
                return lines, stream.tell()
    return lines, None


def numbers(path: Path, field: str, text: str, kind: type = float, count: int | None = None
            ) -> tuple:
    """Return the numbers in a field of a header.

    Args:
        path, field: for the message.
        text: the numbers, between white space.
        kind: `int` or `float`.
        count: how many there have to be.

    Raises:
        ReadError: it contains something else, or other than `count`.
    """
    try:
        values = tuple(map(kind, text.split()))
    except ValueError:
        values = ()
    is_odd = "_" in text or kind is int and any(abs(number) >= LARGEST for number in values)
    if not values or is_odd or (count is not None and len(values) != count):
        many = "" if count is None else f"{count} "
        what = "whole numbers" if kind is int else "numbers"
        raise damaged(path, field, text, f"{many}{what}")
    return values


def axis_sizes(path: Path, fields: dict[str, str], count: str, sizes: str) -> tuple[int, ...]:
    """Return the size of each axis from the fields of their `count` and their `sizes`.

    Raises:
        ReadError: these are not as many as it says, or more than a file can have.
    """
    sides, = numbers(path, count, fields[count], int, 1)
    if not 1 <= sides <= MOST_AXES:
        raise damaged(path, count, fields[count], f"1 to {MOST_AXES}")
    return numbers(path, sizes, fields[sizes], int, sides)


def damaged(path: Path, field: str, text: str, expected: str) -> ReadError:
    """Return the error of a field of a header."""
    return ReadError(f"{path}: its header is damaged: {field}: found {shown(text) or 'nothing'}, "
                     f"expected {expected}")


def shown(text: str) -> str:
    """Return the text of a field as a message can show it: short, in one line, printable."""
    text = " ".join(text.split())
    text = f"{text[:SHOWN]}..." if len(text) > SHOWN else text
    return "".join(letter if letter.isprintable() else "?" for letter in text)
