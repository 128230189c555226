"""`--cache_dir`: prepared scans on disk, decoded and resampled once, memory-mapped after that.

One file per scan and pre-processing: an `.npy` array, followed by a trailer with the identity of
the files it was made from and a checksum. A file that is incomplete, or was made from files that
have changed since, is made again. Files are written whole under a temporary name and then renamed,
so that two runs may fill the same folder at once.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from slivit.config import Preprocess
from slivit.utils.errors import RunError

FORMAT = 2  # to be raised when the same options give other pixels
MAGIC = b"SLIVIT01"
UNUSED = ("mean", "std")  # of Preprocess: they are applied later


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A scan ready for the device.

    Attributes:
        slices: uint8 (S, C, h, w), the views' slices one view after the other.
        counts: how many of them each view has.
    """

    slices: np.ndarray
    counts: tuple[int, ...]


def cached(folder: Path, path: Path, identity: bytes, preprocess: Preprocess,
           make: Callable[[], Prepared]) -> Prepared:
    """Return a prepared scan from the cache; make and store it if it is missing.

    Args:
        folder: `--cache_dir`.
        path: of the scan.
        identity: of the files it is made of, as they are now.
        preprocess: how it is prepared.
        make: prepares it.

    Raises:
        RunError: the cache cannot be written.
    """
    options = {key: value for key, value in dataclasses.asdict(preprocess).items()
               if key not in UNUSED}
    key = hashlib.sha256(json.dumps([FORMAT, str(path.absolute()), options]).encode()).hexdigest()
    file = folder / key[:2] / f"{key}.npy"
    stamp = hashlib.sha256(identity).hexdigest()
    prepared = _load(file, stamp)
    if prepared is None:
        prepared = make()
        _store(file, stamp, prepared)
    return prepared


def _load(file: Path, stamp: str) -> Prepared | None:
    """Return the content of a cache file, None if it is missing, stale or incomplete."""
    if not file.is_file():  # a pipe would keep us waiting
        return None
    try:
        with file.open("rb") as stream:
            stream.seek(-len(MAGIC) - 4, os.SEEK_END)
            end = stream.read()
            length = int.from_bytes(end[:4], "little")
            stream.seek(-len(end) - length, os.SEEK_END)
            trailer = json.loads(stream.read(length))
        slices = np.load(file, mmap_mode="c", allow_pickle=False)  # c: torch wants it writable
        prepared = Prepared(slices, tuple(trailer["counts"]))
        fits = (end[4:] == MAGIC and trailer["of"] == stamp
                and trailer["sum"] == _checksum(prepared, stamp))
    except Exception:  # a damaged header may say anything, and numpy believes it
        return None
    return prepared if fits else None


def _checksum(prepared: Prepared, stamp: str) -> int:
    about = repr((stamp, prepared.counts, prepared.slices.shape, str(prepared.slices.dtype)))
    return zlib.crc32(prepared.slices, zlib.crc32(about.encode()))


def _store(file: Path, stamp: str, prepared: Prepared) -> None:
    prepared = Prepared(np.ascontiguousarray(prepared.slices), prepared.counts)
    trailer = json.dumps({"of": stamp, "counts": prepared.counts,
                          "sum": _checksum(prepared, stamp)}).encode()
    part = file.with_name(f".{file.name}.{secrets.token_hex(8)}.part")
    try:
        if file.exists() and not file.is_file():
            raise OSError(errno.EEXIST, "it is not a regular file")
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as stream:  # tempfile would hide it from other users of the cache
            np.save(stream, prepared.slices)
            stream.write(trailer + len(trailer).to_bytes(4, "little") + MAGIC)
        os.replace(part, file)
    except OSError as error:
        raise RunError(f"--cache_dir: cannot write {file} ({error.strerror}); free disk space, "
                       "name another folder, or omit --cache_dir") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
