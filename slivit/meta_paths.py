"""The Path cells of a table: which files they mean, and what is wrong with them."""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from slivit.errors import listing
from slivit.readers.arrays import split_key


def cell_paths(cells: Sequence[str], folder: Path) -> tuple[Path, ...]:
    """Return the paths of cells: `~` expanded, relative ones resolved against `folder`."""
    return tuple(folder / (os.path.expanduser(cell) if cell.startswith("~") else cell)
                 for cell in cells)


def resolved(paths: Sequence[Path]) -> list[str]:
    """Return the one file (or folder) that each path leads to: absolute, without `..` and links.

    An array in a file with several is a file of its own, as `file.npz:NAME`.
    """
    folders: dict[str, str] = {}
    return [_resolve(str(path), folders) for path in paths]


def _resolve(path: str, folders: dict[str, str]) -> str:
    """Resolve one path; `folders` holds what was found of the folders of others."""
    key = None
    if ".npz:" in path.lower():
        file, key = split_key(Path(path))
        path = str(file)
    folder, name = os.path.split(path)
    if name == "..":
        found = os.path.realpath(path)
    else:
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        found = os.path.join(folders[folder], name)
        if os.path.islink(found):
            found = os.path.realpath(found)
    return found if key is None else f"{found}:{key}"


def missing(column: pd.Series, paths: Sequence[Path]) -> list[str]:
    """Return a paragraph on the scans that are not there; none where all are."""
    bad = [f"line {line}: {cell}" for (line, cell), path in zip(column.items(), paths, strict=True)
           if cell and not os.path.exists(split_key(path)[0])]
    return [f"{len(bad)} of {len(column)} scans do not exist:\n{listing(bad)}"] if bad else []


def backslashes(column: pd.Series, paths: Sequence[Path], folder: Path) -> list[str]:
    """Return a paragraph on cells that name a scan by backslashes; none where there are none."""
    bad = [f"line {line}: {cell}" for (line, cell), path in zip(column.items(), paths, strict=True)
           if "\\" in cell and not os.path.exists(split_key(path)[0]) and os.path.exists(
               split_key(cell_paths([cell.replace("\\", "/")], folder)[0])[0])]
    return [f"{len(bad)} cells of Path have backslashes, as on Windows; the scans are there under "
            f"these names with slashes:\n{listing(bad)}\nWrite / for \\ in Path"] if bad else []
