"""The files in a `.zip`, `.tar`, `.tar.gz` or `.tgz`, which are unpacked in memory.

No archive is unpacked to more than 1032 times its size, which is the most that deflate packs, nor
to more than 4 GiB: eight times a CT series of 1000 slices, and what a loading process can hold.
"""

import contextlib
import functools
import gzip
import io
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from slivit.data.readers.base import UNPACKED, ReadError, reason

PACKED_TAR = (".tar.gz", ".tgz")
SUFFIXES = (".zip", ".tar", *PACKED_TAR)
TOTAL = 4 * 2**30     # bytes, unpacked
MOST = 20_000         # files and folders
CHUNK = 2**20         # bytes that are unpacked at a time
LONGEST = 2**14       # bytes of a header in a tar: of a long name, or of attributes
MOST_ZEROS = 2 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE  # bytes at the end of a tar
UNKNOWN = 2**16 - 1   # number of files that a zip gives elsewhere
ZIP_END = struct.Struct("<10xH10x")  # the last record of a zip, up to its comment
PACKED_BY = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Entry:
    """A file of an archive.

    Attributes:
        parts: of its name.
        size: bytes, unpacked.
        open: gives a stream of them.
        fault: why it cannot be read; empty where it can.
    """

    parts: tuple[str, ...]
    size: int
    open: Callable[[], BinaryIO]
    fault: str = ""


class _Listed:
    """A stream for tarfile, which reads headers into memory however long they say they are."""

    def __init__(self, stream: BinaryIO) -> None:
        self.seek, self.tell, self._stream, self.listing = stream.seek, stream.tell, stream, True

    def read(self, size: int) -> bytes:
        if self.listing and size > LONGEST:
            raise tarfile.ReadError(f"a header of {size} bytes, expected at most {LONGEST}")
        return self._stream.read(size)


def entries_of(file: Path, stack: contextlib.ExitStack) -> list[Entry]:
    """Return the files of an archive; they can be opened until `stack` is left.

    Raises:
        ReadError: it is damaged, or has too many files, or a `.tar.gz` unpacks to too much.
    """
    with refuse_damage(file):
        look = _zip_entries if file.name.lower().endswith(".zip") else _tar_entries
        entries = look(file, stack)
    if len(entries) > MOST:
        raise ReadError(_too_many(file))
    return entries


def content_of(file: Path, entry: Entry) -> bytes:
    """Return all bytes of a file of an archive; ReadError where it is damaged."""
    with refuse_damage(file), entry.open() as stream:
        content = stream.read(entry.size + 1)
        if len(content) != entry.size or stream.read(1):
            raise EOFError(f"{'/'.join(entry.parts)}: {len(content)} bytes, expected {entry.size}")
    return content


def head_of(file: Path, entry: Entry, count: int) -> bytes:
    """Return the first bytes of a file of an archive; ReadError where it is damaged."""
    with refuse_damage(file), entry.open() as stream:
        return stream.read(count)


def check_total(file: Path, size: int) -> None:
    """Refuse to unpack so many bytes of an archive.

    Raises:
        ReadError: they are more than `TOTAL`, or than it can hold.
    """
    bound = min(TOTAL, UNPACKED * file.stat().st_size)
    if size > bound:
        raise ReadError(f"{file}: unpacks to more than {bound} bytes ({TOTAL >> 30} GiB, or "
                        f"{UNPACKED} times its size), expected one volume; unpack it into a folder")


@contextlib.contextmanager
def refuse_damage(file: Path) -> Iterator[None]:
    """Turn what a damaged archive leads to into a ReadError that names it."""
    try:
        yield
    except ReadError:
        raise
    except Exception as error:  # zipfile, tarfile and gzip raise a dozen kinds
        raise ReadError(f"{file}: is truncated or damaged, or is not an archive as its suffix says "
                        f"({reason(error, file)})") from None


def _zip_entries(file: Path, stack: contextlib.ExitStack) -> list[Entry]:
    archive = stack.enter_context(zipfile.ZipFile(file))
    stated = _stated_entries(file)
    if stated not in (UNKNOWN, len(archive.infolist()) % 2**16):
        raise zipfile.BadZipFile(f"{len(archive.infolist())} entries, expected {stated}")
    entries = []
    for info in archive.infolist():
        fault, kind = "", stat.S_IFMT(info.external_attr >> 16)
        if "\0" in info.orig_filename or (info.is_dir() and info.file_size):
            raise zipfile.BadZipFile(f"the name of {info.filename!r} is damaged")
        if info.is_dir():
            continue
        if info.flag_bits & 1:
            fault = "is encrypted; unpack it with its password into a folder"
        elif info.compress_type not in PACKED_BY:
            name = zipfile.compressor_names.get(info.compress_type, info.compress_type)
            fault = f"is packed by {name}, expected deflate; pack it again"
        elif kind not in (0, stat.S_IFREG):
            fault = "is a link or device, expected a file; pack the files themselves"
        name = info.filename.replace("\\", "/")  # some writers on Windows
        entries.append(Entry(tuple(name.split("/")), info.file_size,
                             functools.partial(archive.open, info), fault))
    return entries


def _stated_entries(file: Path) -> int:
    """Return the number of files in a zip as its last record has it, modulo 2**16."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 2**16 - ZIP_END.size))
        tail = stream.read()
    return ZIP_END.unpack_from(tail, tail.rindex(b"PK\5\6"))[0]


def _tar_entries(file: Path, stack: contextlib.ExitStack) -> list[Entry]:
    stream = stack.enter_context(file.open("rb"))
    if file.name.lower().endswith(PACKED_TAR):
        stream = _unpacked(stream, file)
    stream = _Listed(stream)
    archive = stack.enter_context(tarfile.TarFile(fileobj=stream))
    entries = []
    for count, info in enumerate(archive):
        if count >= MOST:
            raise ReadError(_too_many(file))
        fault = ""
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            fault = ("is a link, device or sparse file, expected a plain file; pack the files "
                     "themselves (tar --dereference)")
        entries.append(Entry(tuple(info.name.split("/")), info.size,
                             functools.partial(archive.extractfile, info), fault))
    _check_end(stream, archive.offset, file)
    stream.listing = False
    return entries


def _check_end(stream: BinaryIO, place: int, file: Path) -> None:
    """Refuse a tar whose files do not end with zeros; tarfile stops at whatever is no header.

    Nor may they end with more zeros than a tar does: those of a file that was not copied whole.
    """
    stream.seek(place)
    length = 0
    while piece := stream.read(LONGEST):
        length += len(piece)
        if piece.strip(b"\0"):
            break
    if piece or length < tarfile.BLOCKSIZE or length % tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"at byte {place} is neither another file nor the end")
    if length > MOST_ZEROS:
        raise ReadError(f"{file}: its last {length} bytes are zeros, expected at most {MOST_ZEROS}:"
                        " it was probably not copied whole. Copy it again, or pack it again")


def _unpacked(packed: BinaryIO, file: Path) -> BinaryIO:
    """Return what a gzip file holds, checked against its checksum."""
    unpacked = io.BytesIO()
    with gzip.open(packed) as stream:
        while piece := stream.read(CHUNK):
            check_total(file, unpacked.tell() + len(piece))
            unpacked.write(piece)
    unpacked.seek(0)
    return unpacked


def _too_many(file: Path) -> str:
    return f"{file}: contains more than {MOST} files, expected one volume"
