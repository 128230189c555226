"""The files that make up a scan, by which runs, caches and fingerprints know it."""

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from slivit.data.readers.base import ReadError, natural_key, visible_files
from slivit.data.readers.registry import reader_by_suffix, split_key, volume_readers


def files_of(path: Path) -> list[Path]:
    """Return the files that make up a scan: those of its folder, of its kind, or itself.

    Whichever file of a scan in several is at the path, they come in the same order.
    """
    try:
        if path.is_dir():
            return visible_files(path)
        file = split_key(path)[0]
        reader = reader_by_suffix(file)
        return reader.files(file) if reader and reader.files else [file]
    except (OSError, ReadError):
        return [path]


def stats_of(path: Path) -> list[tuple[str, os.stat_result]]:
    """Return name and stat of each file of a scan that exists, in the order of `files_of`."""
    with contextlib.suppress(OSError):
        about = os.stat(path)
        if stat.S_ISDIR(about.st_mode):
            with os.scandir(path) as entries:
                shown = [entry for entry in entries if not entry.name.startswith(".")]
            return _stats(sorted(shown, key=lambda entry: (natural_key(entry.name), entry.name)))
        reader = reader_by_suffix(path)
        if reader is None or reader.files is None:
            return [(path.name, about)]
    return _stats(files_of(path))  # of FILE:KEY, or a scan in several files


def main_files(paths: Iterable[Path], which: int = 0) -> list[str]:
    """Return, of scans in several files, one that stands for all; else the path.

    The first is that of the header; the last, -1, that of the voxels.

    Only paths that end as such scans do are looked up.
    """
    several = tuple(suffix for reader in volume_readers() if reader.files
                    for suffix in reader.suffixes)
    return [str(files_of(path)[which] if str(path).lower().endswith(several)
                and not os.path.isdir(path) else path) for path in paths]


def _stats(files: Iterable[os.DirEntry | Path]) -> list[tuple[str, os.stat_result]]:
    stats = []
    for file in files:
        with contextlib.suppress(OSError):
            stats.append((file.name, file.stat()))
    return stats
