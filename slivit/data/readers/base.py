"""What all readers share: their one interface, the records they return, and common checks."""

import math
import multiprocessing
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slivit.data.readers.voxel_grid import Grid
from slivit.utils.errors import UserError

Pick = Callable[[int], np.ndarray]  # number of slices found -> numbers of those wanted, ascending


UNPACKED = 1032  # times its own size, at most, is what a file packed by deflate unpacks to
LARGEST = float(np.finfo(np.float32).max)
KINDS = ((stat.S_ISDIR, "folder"), (stat.S_ISREG, "file"), (stat.S_ISFIFO, "named pipe"),
         (stat.S_ISSOCK, "socket"))


class ReadError(UserError):
    """A scan cannot be read; the message names the file and what is wrong with it."""

    by_one = True


@dataclass(frozen=True)
class Header:
    """What is known of a scan without decoding its pixels.

    Attributes:
        kind: `memory`, `pictures`, or the kind of a Reader, such as `dicom` or `nifti`.
        shape: (H, W), (H, W, 3), (N, H, W) or (N, H, W, 3), as it will be read.
        dtype: numpy's name of the stored type, before any rescaling.
        spacing: mm between slices, rows and columns; None where unknown.
        axes: where slices, rows and columns run to in the patient, each of R/L, A/P, S/I:
            `SPL` for a standard axial scan; None where unknown.
        modality: DICOM's (`CT`, `MR`, `US`, `OPT`, ...); None where unknown.
        notes: what is odd though readable, such as uneven gaps between slices.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    spacing: tuple[float, float, float] | None = None
    axes: str | None = None
    modality: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Volume:
    """A decoded scan.

    Attributes:
        slices: (N, H, W) or, in colour, (N, H, W, 3), in the order, and the way up, of the
            acquisition; an image is a volume of one slice. DICOM values are rescaled (CT: HU).
        spacing, axes: see Header.
    """

    slices: np.ndarray
    spacing: tuple[float, float, float] | None = None
    axes: str | None = None


@dataclass(frozen=True)
class Reader:
    """One kind of volume file.

    Attributes:
        kind: as in Header.
        suffixes: of the file names, lower case.
        header: path -> Header, from the header and the length of the file alone.
        read: (path, pick) -> Volume of the picked slices, or of all where `pick` is None.
        grid: (path, header) -> the voxel grid for heat maps; None for kinds that have none.
        keyed: whether `FILE:KEY` names one of several scans in a file.
        files: path -> the files of a scan that is in several, in the same order whichever of them
            is at the path; None for kinds of one file.
    """

    kind: str
    suffixes: tuple[str, ...]
    header: Callable[[Path], Header]
    read: Callable[[Path, Pick | None], Volume]
    grid: Callable[[Path, Header], Grid | None] | None = None
    keyed: bool = False
    files: Callable[[Path], list[Path]] | None = None


def split_key(path: Path, suffixes: tuple[str, ...]) -> tuple[Path, str | None]:
    """Return file and key of a path like `scans.npz:volume`; the key is None if not given.

    Args:
        path: of a scan.
        suffixes: of the files, in lower case, that have keys.
    """
    ends = "|".join(map(re.escape, suffixes))
    match = re.fullmatch(rf"(.*(?:{ends})):(.+)", str(path), flags=re.IGNORECASE | re.DOTALL)
    return (Path(match[1]), match[2]) if match else (path, None)


def natural_key(name: str) -> list[tuple[int, object]]:
    """Return a sorting key that puts `slice2` before `slice10`."""
    return [(0, int(part)) if part.isdecimal() else (1, part.lower())
            for part in re.split(r"(\d+)", name) if part]


def visible_files(folder: Path) -> list[Path]:
    """Return what is in a folder but hidden files, in natural order."""
    return sorted((file for file in folder.iterdir() if not file.name.startswith(".")),
                  key=lambda file: (natural_key(file.name), file.name))


def kind_at(path: Path) -> str:
    """Return what is at a path: `folder`, `file` or, where nothing is, the empty string.

    Raises:
        ReadError: something else, such as a named pipe, opening which could block forever.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError) as error:  # ValueError: a NUL in it
        raise ReadError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})"
                        ) from None
    kind = next((name for is_kind, name in KINDS if is_kind(mode)), "device")
    if kind not in ("folder", "file"):
        raise ReadError(f"{path}: is a {kind}, expected a regular file")
    return kind


def check_size(shape: tuple[int, ...], dtype: np.dtype, there: int, path: Path) -> None:
    """Refuse a header whose array is larger than the file can hold.

    Args:
        shape, dtype: that the header gives.
        there: bytes that the file can hold at most.
        path: for the message.

    Raises:
        ReadError: it is larger.
    """
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > there:
        raise ReadError(f"{path}: is truncated, or its header is damaged: an array of {shape} "
                        f"takes {wanted} bytes, but the file contains at most {max(there, 0)}")


def codec_threads() -> int | None:
    """Return how many threads may decode a file: one in a loading process; None for any number."""
    return None if multiprocessing.parent_process() is None else 1


def picked(count: int, pick: Pick | None) -> np.ndarray:
    """Return the numbers of the wanted slices of `count`."""
    return np.arange(count) if pick is None else pick(count)


def check_values(values: np.ndarray, path: Path) -> np.ndarray:
    """Return the array; refuse NaN and infinite values, and those that float32 cannot hold.

    Raises:
        ReadError: there are some.
    """
    if values.dtype.kind == "f" and not (  # NaN fits nowhere; float16 would round LARGEST to inf
            float(values.min()) >= -LARGEST and float(values.max()) <= LARGEST):
        what = "NaN or infinite values" if not np.isfinite(values).all() else (
            f"values beyond {LARGEST:.3g}, expected those of float32")
        raise ReadError(f"{path}: contains {what}")
    return values


def grey_if_equal(pixels: np.ndarray) -> np.ndarray:
    """Return (..., 3) pixels as (...) where all three channels are equal, else as they are."""
    grey = pixels[..., 0]
    if (grey == pixels[..., 1]).all() and (grey == pixels[..., 2]).all():
        return np.ascontiguousarray(grey)
    return pixels


def check_same_size(shapes: Sequence[tuple[int, ...]], path: Path) -> None:
    """Refuse slices (or frames) of different sizes.

    Raises:
        ReadError: listing the sizes.
    """
    sizes = sorted({shape[:2] for shape in shapes})
    if len(sizes) > 1:
        shown = ", ".join(f"{height}x{width}" for height, width in sizes[:10])
        raise ReadError(f"{path}: slices differ in size ({shown}), expected one size per volume")


def reason(error: Exception, path: Path) -> str:
    """Return what a library says of a damaged file, in one line without the file's name."""
    text = " ".join(str(error).replace(f"'{path}'", "").replace(str(path), "").split())
    text = re.sub(r" ?<_io\.[^>]*>", "", text)  # an open file, as Pillow shows it
    return text.strip(": ")[:200] or type(error).__name__
