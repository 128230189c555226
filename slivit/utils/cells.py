"""Tables as CSV files in whose cells no spreadsheet finds a formula.

A cell that begins like a formula is written with an apostrophe before it, as is done by hand in a
spreadsheet; it is taken off where the cell is read back. A cell that has such an apostrophe itself
gets another one, so that every text comes back as it was.
"""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from slivit.utils.files import atomic_write

# The full-width signs are formulas too, in spreadsheets set to Chinese, Japanese or Korean.
FORMULA = re.compile(r"'*([\t\r\n]|\s*[=+\-@＝＋－＠])")
QUOTED = re.compile(r"[\r;\t]")
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def escape(text: str) -> str:
    """Return a cell as it is written: an apostrophe first where it could be a formula."""
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def unescape(text: str) -> str:
    """Return a cell that `escape` has made as it was."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, whole or not at all; texts and column names are escaped."""
    table = _change_texts(table, escape)
    # Pandas leaves a lone carriage return unquoted, and reads it as the end of a row. Spreadsheets
    # of some countries split cells at semicolons, and behind one could stand a formula.
    quoted = any(QUOTED.search(str(text)) for column in (table.columns, *_texts(table).values())
                 for text in column)
    with atomic_write(path) as part, part.open(
            "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        table.to_csv(file, index=False, lineterminator="\n",
                     quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)


def read_table(path: Path) -> pd.DataFrame:
    """Return a table that `write_table` has written; every cell is text, empty where unknown."""
    return unescaped(pd.read_csv(path, dtype=str, keep_default_na=False))


def unescaped(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of texts with cells and column names as they were before `escape`."""
    return _change_texts(table, unescape)


def _texts(table: pd.DataFrame) -> dict[int, pd.Series]:
    """Return the columns that may hold text, by their place."""
    columns = {k: table.iloc[:, k] for k in range(table.shape[1])}
    return {k: column for k, column in columns.items()
            if not pd.api.types.is_numeric_dtype(column)}


def _change_texts(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """Return a table with its texts and column names changed, and all else as it is."""
    def changed(value: object) -> object:
        return change(value) if isinstance(value, str) else value

    columns = _texts(table)
    table = table.rename(columns=changed)
    for k, column in columns.items():
        table.isetitem(k, column.map(changed))
    return table
