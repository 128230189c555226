"""The Path cells of a table: which files they mean, and what is wrong with them."""

import os
import posixpath
import stat
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from slivit.data.readers import main_files, split_key
from slivit.utils.errors import listing

WINDOWS = "\nPaths with backslashes are Windows paths: write /, and the paths of this machine"


def cell_paths(cells: Sequence[str], folder: Path) -> tuple[Path, ...]:
    """Return the paths of cells: `~` expanded, relative ones resolved against `folder`."""
    return tuple(folder / (os.path.expanduser(cell) if cell.startswith("~") else cell)
                 for cell in cells)


def resolved(paths: Sequence[Path]) -> list[str]:
    """Return the one file (or folder) that each path leads to: absolute, without `..` and links.

    Of hard links the first one stands for all. An array in a file with several is a file of its
    own, as `file.npz:NAME`; where a row names the file alone, that holds just one. A folder whose
    slices are links is where the first one leads. The file with the voxels
    stands for a scan in several files.
    """
    folders: dict[str, str] = {}
    inodes: dict[tuple[int, int], str] = {}
    targets = [_resolve(path, folders, inodes) for path in main_files(paths, -1)]
    alone = {file for file, key in targets if key is None}
    return [file if key is None or file in alone else f"{file}:{key}" for file, key in targets]


def _resolve(path: str, folders: dict[str, str], inodes: dict[tuple[int, int], str]
             ) -> tuple[str, str | None]:
    """Return the file that a path leads to, and the name of an array in it.

    `folders` and `inodes` hold what was found of other paths.
    """
    key = None
    if ":" in path:
        file, key = split_key(Path(path))
        key = posixpath.normpath(key).strip("/") if key else None  # FOLDER is ./FOLDER
        path = str(file)
    folder, name = os.path.split(path)
    if name == "..":
        target = os.path.realpath(path)
    else:
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        target = os.path.join(folders[folder], name)
        if os.path.islink(target):
            target = os.path.realpath(target)
    try:
        about = os.stat(target)
        if stat.S_ISDIR(about.st_mode):
            return _where_slices_are(target), key
        if about.st_nlink > 1:
            target = inodes.setdefault((about.st_dev, about.st_ino), target)
    except (OSError, ValueError):  # reported where scans are missing
        pass
    return target, key


def _where_slices_are(folder: str) -> str:
    """Return where the first file of a folder leads if it is a link, else the folder."""
    with os.scandir(folder) as entries:
        linked = next((entry.is_symlink() for entry in entries), False)
    if not linked:
        return folder
    return os.path.realpath(os.path.join(folder, min(os.listdir(folder))))


def missing(column: pd.Series, paths: Sequence[Path], folder: Path) -> list[str]:
    """Return a paragraph on the scans that are not there; none where all are."""
    bad = [f"line {line}: {cell}" for (line, cell), path in zip(column.items(), paths, strict=True)
           if cell and not _is_there(path) and not _is_there_by_slashes(cell, folder)]
    return [f"{len(bad)} of {len(column)} scans do not exist:\n{listing(bad)}"
            + WINDOWS * any("\\" in line for line in bad)] if bad else []


def backslashes(column: pd.Series, paths: Sequence[Path], folder: Path) -> list[str]:
    """Return a paragraph on cells that name a scan by backslashes; none where there are none."""
    bad = [f"line {line}: {cell}" for (line, cell), path in zip(column.items(), paths, strict=True)
           if not _is_there(path) and _is_there_by_slashes(cell, folder)]
    return [f"{len(bad)} cells of Path have backslashes, as on Windows; the scans exist under "
            f"these names with slashes:\n{listing(bad)}\nWrite / for \\ in Path"] if bad else []


def _is_there(path: Path) -> bool:
    return os.path.exists(split_key(path)[0])


def _is_there_by_slashes(cell: str, folder: Path) -> bool:
    """Return whether a cell with backslashes names a scan once they are slashes."""
    return "\\" in cell and _is_there(cell_paths([cell.replace("\\", "/")], folder)[0])
