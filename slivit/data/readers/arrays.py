"""Volumes and images in `.npy` and `.npz` files.

No array is taken for larger than its file can hold: of `.npz`, 1032 times the file's size, which is
the most that deflate packs.
"""

import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from slivit.data.readers.base import (
    UNPACKED,
    Header,
    Pick,
    ReadError,
    Volume,
    check_size,
    check_values,
    picked,
    reason,
    split_key,
)

SUFFIXES = (".npy", ".npz")
KEYED = (".npz",)


def read(path: Path, pick: Pick | None = None) -> Volume:
    """Read a volume (N, H, W) or (N, H, W, 3) from a `.npy`, `.npz` or `.npz:NAME`.

    Raises:
        ReadError: missing, damaged, not numeric, of another shape, or with NaN in it; several
            arrays and none named.
    """
    values = _load(path)
    _check(values.shape, values.dtype, 3, path)
    return Volume(_grey_values(values[picked(len(values), pick)], path))


def read_image(path: Path) -> np.ndarray:
    """Read an image (H, W) or (H, W, 3); else as `read`."""
    return from_memory(_load(path), 2, path)


def from_memory(values: np.ndarray, ndim: int, what: Path | str) -> np.ndarray:
    """Return an array as `read` gives it.

    Args:
        values: a volume (N, H, W) or (N, H, W, 3), or an image without the first axis.
        ndim: 3 for volumes, 2 for images.
        what: for the message.

    Raises:
        ReadError: not numeric, of another shape, or with NaN in it.
    """
    _check(values.shape, values.dtype, ndim, what)
    return _grey_values(values, what)


def header(path: Path, ndim: int = 3) -> Header:
    """Return the header of such a file, of a volume or (`ndim` 2) an image.

    Raises:
        ReadError: see `read`.
    """
    shape, dtype = _guarded(path, lambda: _array_header(path))
    _check(shape, dtype, ndim, path)
    return Header("array", shape, "uint8" if dtype.kind == "b" else str(dtype))


def _load(path: Path) -> np.ndarray:
    def load() -> np.ndarray:
        _array_header(path)  # before numpy makes room for whatever the file asks for
        file, key = split_key(path, KEYED)
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                loaded = loaded[_choose(path, loaded.files, key)]
        return loaded

    return _guarded(path, load)


def _guarded(path: Path, look: callable) -> object:
    try:
        return look()
    except FileNotFoundError:
        raise ReadError(f"{path}: does not exist") from None
    except ReadError:
        raise
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a damaged file
        raise ReadError(f"{path}: cannot be read as an array ({reason(error, path)})") from None


def _choose(path: Path, names: list[str], key: str | None) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key in names:
        return key
    what = "no such array" if key else f"contains {len(names)} arrays"
    raise ReadError(f"{path}: {what} ({', '.join(names)}), expected one, or its name as in "
                    f"{split_key(path, KEYED)[0].name}:{names[0] if names else 'NAME'}")


def _array_header(path: Path) -> tuple[tuple[int, ...], np.dtype]:
    file, key = split_key(path, KEYED)
    if file.suffix.lower() == ".npy":
        with file.open("rb") as stream:
            return _read_header(stream, file.stat().st_size, path)
    with zipfile.ZipFile(file) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        member = archive.getinfo(_choose(path, names, key) + ".npy")
        packed = min(member.compress_size, file.stat().st_size)
        size = {zipfile.ZIP_STORED: packed, zipfile.ZIP_DEFLATED: UNPACKED * packed}.get(
            member.compress_type)
        if size is None:
            raise ReadError(f"{path}: is not compressed as by numpy's savez_compressed")
        with archive.open(member) as stream:
            return _read_header(stream, min(size, member.file_size), path)


def _read_header(stream: BinaryIO, size: int, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    """Return shape and type of an array in `.npy` format that takes `size` bytes, header and all.

    Raises:
        ReadError, ValueError: it is damaged, or asks for more bytes.
    """
    version = np.lib.format.read_magic(stream)
    look = {(1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if look is None:
        raise ValueError(f"version {version} of the format, expected 1.0 or 2.0")
    shape, _, dtype = look(stream)
    if min(shape, default=1) < 0:
        raise ValueError(f"its shape is {shape}")
    if dtype.hasobject:
        raise ValueError("it contains Python objects, expected numbers")
    check_size(shape, dtype, size - stream.tell(), path)
    return shape, dtype


def _grey_values(values: np.ndarray, what: Path | str) -> np.ndarray:
    """Return finite values, of masks as uint8."""
    return check_values(values.astype(np.uint8) if values.dtype == bool else values, what)


def _check(shape: tuple[int, ...], dtype: np.dtype, ndim: int, path: Path | str) -> None:
    if dtype.kind not in "buif":
        raise ReadError(f"{path}: contains {dtype}, expected numbers")
    if len(shape) != ndim and not (len(shape) == ndim + 1 and shape[-1] == 3):
        axes = "slices, height, width" if ndim == 3 else "height, width"
        raise ReadError(f"{path}: has the shape {shape}, expected ({axes}) or ({axes}, 3)")
    if 0 in shape:
        raise ReadError(f"{path}: is empty, its shape is {shape}")
