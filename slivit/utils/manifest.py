"""manifest.csv: the files that runs have written to a folder, and the lock on it.

A line holds a file's name, relative to the folder, and its size; one without a size is temporary. A
line is there before its file is, so that a killed run leaves no file that is not listed.
"""

import contextlib
import csv
import io
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from slivit.utils.errors import UserError
from slivit.utils.files import PART, SCRATCH, check_replaceable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

MANIFEST = "manifest.csv"
HEADER = ("file", "bytes")
SIZE = re.compile(r"[0-9]{0,18}")
BUSY = (BlockingIOError, PermissionError)  # what a lock of another process raises


class Manifest:
    """The list of a folder's files that runs have written; open, and locked, while a run lasts.

    Args:
        folder: an existing one.

    Raises:
        UserError: another run has it open; or what is there is not such a manifest.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        check_replaceable(folder / MANIFEST)
        self._file = os.open(folder / MANIFEST, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._lock()
            # Through this one descriptor alone: closing any other gives the lock away.
            content = os.pread(self._file, os.fstat(self._file).st_size, 0)
            self.sizes = parse(content, folder / MANIFEST)
            if not content.endswith(b"\n"):  # a line that is torn
                os.ftruncate(self._file, content.rfind(b"\n") + 1)
        except BaseException:
            os.close(self._file)
            raise
        if not content:
            self._append(*HEADER)

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BUSY:
            raise in_use(self.folder) from None
        except OSError as error:  # some network file systems have no locks
            logging.getLogger("slivit").warning(
                "warning: %s cannot be locked (%s): do not start another run there", self.folder,
                error.strerror)

    def close(self) -> None:
        """Let go of the lock."""
        os.close(self._file)

    def _append(self, *cells: object) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        os.write(self._file, line.getvalue().encode("utf-8", "surrogateescape"))

    def record(self, path: Path, size: int | None) -> None:
        """Note a file (or, temporary, a folder) that is about to be there; others' are passed over.

        Raises:
            UserError: a file of that name is there that no run has written.
        """
        if not path.absolute().is_relative_to(self.folder.absolute()):
            return
        name = path.absolute().relative_to(self.folder.absolute()).as_posix()
        if name not in self.sizes and size is not None and os.path.lexists(path):
            raise UserError(f"{path}: already exists and was not written by a run. Move it away, "
                            "or name another --out_dir")
        if size not in self.sizes.setdefault(name, set()):
            self.sizes[name].add(size)
            self._append(name, "" if size is None else size)

    def adopt(self, names: Iterator[str]) -> None:
        """Note files that are there though not listed, as an earlier version has left them."""
        for name in names:
            path = self.folder / name
            if is_plain(self.folder, name):
                self.sizes.setdefault(name, set())
                self.record(path, path.lstat().st_size)

    def remove(self, names: list[str]) -> None:
        """Remove listed files, and folders that are empty then; forget the list."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                (self.folder / name).unlink()
        for parent in {Path(name).parent for name in names} - {Path()}:
            with contextlib.suppress(OSError):  # it holds what is not ours
                (self.folder / parent).rmdir()
        os.ftruncate(self._file, 0)
        self.sizes = {}
        self._append(*HEADER)

    def clear_temporary(self) -> None:
        """Remove what killed runs have left half-made."""
        for name, sizes in self.sizes.items():
            if None not in sizes:
                continue
            if PART.fullmatch(Path(name).name) and is_plain(self.folder, name):
                (self.folder / name).unlink()
            elif Path(name).name.startswith(SCRATCH) and not (self.folder / name).is_symlink():
                shutil.rmtree(self.folder / name, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, set[int | None]] | None:
    """Return the sizes by name that a folder's manifest lists; None where there is none.

    Raises:
        UserError: see parse; or it cannot be read.
    """
    path = folder / MANIFEST
    try:
        check_replaceable(path)
        return parse(path.read_bytes(), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected the list of files "
                        "that a run keeps. Name another --out_dir") from None


def parse(content: bytes, path: Path) -> dict[str, set[int | None]]:
    """Return the sizes by name that a manifest lists; a last line that is torn is passed over.

    Raises:
        UserError: it is another kind of file, or damaged.
    """
    text = content[:content.rfind(b"\n") + 1].decode("utf-8", "surrogateescape")
    try:
        rows = list(csv.reader(io.StringIO(text)))
    except csv.Error:
        rows = []
    if tuple(rows[0] if rows else ()) != (HEADER if content else ()):
        raise UserError(f"{path}: is not the list of files that a run keeps (it begins with "
                        f"{content[:20]!r}, expected {','.join(HEADER)!r}). Move it away, or name "
                        "another --out_dir")
    bad = [row for row in rows[1:] if not _is_entry(row)]
    if bad:
        raise UserError(f"{path}: is damaged (such as {','.join(bad[0])[:80]!r}); expected names "
                        "in its folder and their sizes. Remove it, and the run's files, by hand, "
                        "or name another --out_dir")
    sizes: dict[str, set[int | None]] = {}
    for name, size in rows[1:]:
        sizes.setdefault(name, set()).add(int(size) if size else None)
    return sizes


def _is_entry(row: list[str]) -> bool:
    """Return whether a row is a name within the folder, and a size or none."""
    if len(row) != 2 or not row[0] or "\0" in row[0]:
        return False
    name = Path(row[0])
    return not name.is_absolute() and ".." not in name.parts and bool(SIZE.fullmatch(row[1]))


def written_by_runs(folder: Path, sizes: dict[str, set[int | None]]) -> list[str]:
    """Return the listed files that are there as a run has left them: regular, of a size listed."""
    return [name for name, known in sizes.items() if is_plain(folder, name)
            and (folder / name).lstat().st_size in known]


def is_plain(folder: Path, name: str) -> bool:
    """Return whether a regular file is at a name in a folder, reached through no link."""
    path = folder / name
    try:
        links = any((folder / parent).is_symlink() for parent in list(Path(name).parents)[:-1])
        return not links and stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def in_use(folder: Path) -> UserError:
    """Return the error of a folder to which another run is writing."""
    return UserError(f"--out_dir {folder}: another run is writing there. Wait for it, or name "
                     "another --out_dir")
