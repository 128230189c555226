"""What the scripts here that make a meta.csv share: their options, Path cells, the file."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from slivit.cli import types
from slivit.utils import cells
from slivit.utils.errors import NotWritten, UserError, listing
from slivit.utils.files import check_replaceable
from slivit.utils.log import LOG

BEGINNING = b"F_Name,Path"  # of the tables written here


def table_parser(text: str, root: str, out: str) -> argparse.ArgumentParser:
    """Return a parser of ROOT, --out and --overwrite; `root` and `out` describe them."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("root", metavar="ROOT", type=types.path, help=root)
    parser.add_argument("--out", metavar="FILE", type=types.path, help=f"the table (default {out})")
    parser.add_argument("--overwrite", action="store_true", help="replace the table if it exists")
    return parser


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse to replace a file without `overwrite`, and never replace what is not a table of scans.

    Raises:
        UserError: `out` is not such a table, or not a regular file; or it exists, and `overwrite`
            is not given.
    """
    check_replaceable(out, "--out")
    if not out.exists():
        return
    if not overwrite:
        raise UserError(f"--out {out}: already exists. Name another file, or add --overwrite to "
                        "replace it")
    with out.open("rb") as file:
        start = file.read(len(BEGINNING))
    if start != BEGINNING:
        raise UserError(f"--out {out}: --overwrite replaces a table of scans, which begins with "
                        f"{BEGINNING.decode()!r}; this file begins with {start!r}. Name another "
                        "file")


def path_cells(names: Sequence[str], root: Path, out: Path) -> list[str]:
    """Return the Path cells of scans.

    Args:
        names: the scans' paths relative to `root`.
        root: their folder.
        out: the table, to whose folder the cells are relative.

    Raises:
        UserError: listing the cells with a space at either end, which reading a table strips, or
            those that are not UTF-8.
    """
    folder = Path(os.path.relpath(root.resolve(), out.parent.resolve()))
    paths = [(folder / name).as_posix() for name in names]
    check_text(paths, "names of files or folders")
    if broken := [repr(cell) for cell in paths if "\n" in cell or "\r" in cell]:
        raise UserError(f"{len(broken)} names contain a line break, which a table cannot hold:\n"
                        f"{listing(broken)}\nRename these files or folders")
    bad = [repr(cell) for cell in paths if cell != cell.strip()]
    if bad:
        raise UserError(f"{len(bad)} Path cells would begin or end with a space, which is lost "
                        f"when the table is read:\n{listing(bad)}\nRename these files or folders, "
                        f"or put the table into the folder itself: --out '{root / out.name}'")
    return paths


def check_text(texts: Sequence[str], what: str) -> None:
    """Refuse texts that are not UTF-8, the encoding of the tables.

    Raises:
        UserError: listing them.
    """
    bad = [ascii(text) for text in texts if any("\ud800" <= sign <= "\udfff" for sign in text)]
    if bad:
        raise UserError(f"{len(bad)} {what} are not UTF-8, the encoding of the tables:\n"
                        f"{listing(bad)}\nRename them (convmv -f latin1 -t utf8 renames many at "
                        "once)")


def write_table(table: pd.DataFrame, out: Path, labels: Sequence[str]) -> None:
    """Write the table, whole or not at all, and log its counts.

    Args:
        table: F_Name, Path, the labels, and maybe Split and patient.
        out: the CSV.
        labels: the 0/1 columns to count.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        cells.write_table(out, table)
    except NotWritten as error:
        raise UserError(f"--out {out}: cannot be written ({error.reason}). Name another file"
                        ) from None
    parts = [table.assign(Split="all")]
    if "Split" in table:
        parts = [table[table["Split"] == split] for split in ("train", "val", "test")]
    rows = [{"split": part["Split"].iloc[0], "scans": len(part),
             **({"patients": part["patient"].nunique()} if "patient" in part else {}),
             **{name: part[name].eq(1).sum() for name in labels}} for part in parts if len(part)]
    LOG.info("%s\nwrote %s", pd.DataFrame(rows).to_string(index=False), out)
