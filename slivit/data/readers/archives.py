"""Volumes of slices in a `.zip`, `.tar`, `.tar.gz` or `.tgz`: pictures, or one DICOM series.

They are read as a folder of the same files is, in memory; nothing is unpacked to disk.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from slivit.data.readers.archive_entries import (
    SUFFIXES,
    Entry,
    check_total,
    content_of,
    entries_of,
    head_of,
)
from slivit.data.readers.base import (
    Header,
    Pick,
    Reader,
    ReadError,
    Volume,
    natural_key,
    split_key,
)
from slivit.data.readers.members import Member
from slivit.data.readers.slice_files import is_slice, slices_reader
from slivit.data.readers.voxel_grid import Grid

TOP = "."  # key of the slices in no folder


def header(path: Path) -> Header:
    """Return the header of the slices in an archive, from their headers.

    No pixels are decoded, but every slice is unpacked in memory, since that alone shows damage; a
    `.tar.gz` has to be as a whole, which takes as long as to read it.

    Args:
        path: of the archive, or `file.zip:FOLDER`.

    Raises:
        ReadError: missing, damaged, encrypted, too large, with links, or without slices; slices in
            several folders and none named; as of a folder of the same slices.
    """
    with _slices(path) as slices:
        return slices.header(path)


def read(path: Path, pick: Pick | None = None) -> Volume:
    """Read the slices in an archive, as those of a folder: pictures by name, DICOM by position.

    Raises:
        ReadError: see `header`; or pixels that cannot be decoded.
    """
    with _slices(path) as slices:
        return slices.read(path, pick)


def grid(path: Path, header: Header) -> Grid | None:
    """Return the voxel grid of DICOM slices in an archive; pictures have none."""
    with _slices(path) as slices:
        return slices.grid(path, header) if slices.grid else None


@contextlib.contextmanager
def _slices(path: Path) -> Iterator[Reader]:
    """Open an archive; give the reader of its slices."""
    file, key = split_key(path, SUFFIXES)
    if not file.exists():
        raise ReadError(f"{path}: does not exist")
    with contextlib.ExitStack() as stack:
        members = _members(file, entries_of(file, stack))
        chosen = _choose(path, members, key)
        check_total(file, sum(member.size for member in chosen))
        yield slices_reader(path, chosen, [member.name for member in chosen or members])


def _members(file: Path, entries: Sequence[Entry]) -> list[Member]:
    """Return the files of an archive in natural order, without hidden ones and other junk.

    Raises:
        ReadError: one cannot be read, or leads out of the archive; two have one name.
    """
    members: dict[str, Member] = {}
    kept = [entry for entry in entries if not _is_junk(entry.parts)]
    content = functools.lru_cache(maxsize=1)(functools.partial(content_of, file))
    for entry in kept:
        name = _plain(entry.parts)
        if entry.fault:
            raise ReadError(f"{file}: {name} in it {entry.fault}")
        if ".." in entry.parts or not entry.parts[0] or entry.parts[0][1:] == ":":
            raise ReadError(f"{file}: contains {'/'.join(entry.parts)}, which leads out of the "
                            "archive; expected names below its top")
        if name in members:
            raise ReadError(f"{file}: contains {name} twice, expected a name for every file")
        members[name] = Member(file, name, entry.size, functools.partial(content, entry),
                               functools.partial(head_of, file, entry))
    return sorted(members.values(), key=lambda member: (natural_key(member.name), member.inside))


def _plain(parts: Sequence[str]) -> str:
    return "/".join(part for part in parts if part not in ("", "."))


def _is_junk(parts: Sequence[str]) -> bool:
    """Return whether a file is hidden, or what file managers and disc writers add."""
    return parts[-1].lower() in ("thumbs.db", "desktop.ini", "dicomdir") or any(
        part == "__MACOSX" or (part.startswith(".") and part not in (".", "..")) for part in parts)


def _choose(path: Path, members: Sequence[Member], key: str | None) -> list[Member]:
    """Return the members in the one folder that has slices, or that the key names.

    Raises:
        ReadError: listing the folders where several have slices, or the key names none.
    """
    folders: dict[str, list[Member]] = {}
    for member in members:
        folders.setdefault(member.inside.rpartition("/")[0] or TOP, []).append(member)
    wanted = None if key is None else _plain(key.split("/")) or TOP
    if wanted in folders and any(map(is_slice, folders[wanted])):
        return folders[wanted]
    within = [name for name in sorted(folders, key=natural_key)
              if any(map(is_slice, folders[name]))]
    chosen = [name for name in within if wanted is None or name.startswith(f"{wanted}/")]
    if len(chosen) == 1:
        return folders[chosen[0]]
    if not within:
        return []
    names = chosen or within
    shown = ", ".join(names[:10]) + ", ..." * (len(names) > 10)
    what = f"contains slices in {len(names)} folders" if chosen else "no such folder with slices"
    raise ReadError(f"{path}: {what} ({shown}), expected one, or its name as in "
                    f"{split_key(path, SUFFIXES)[0].name}:{names[0]}")
