"""Read a table of text cells from whatever a spreadsheet has made of it."""

import codecs
import csv
import io
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from slivit.utils.cells import unescape
from slivit.utils.errors import UserError, listing
from slivit.utils.log import LOG

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
HEADER_LINES = 10  # of the file, among which the header is looked for
SEP_LINE = re.compile(r'"?sep=(.)"?[,;\t]*\s*', re.IGNORECASE)  # Excel's own first line
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # first bytes of .xlsx and .ods, and of .xls
END = "end of the table"
HOW = "save it as comma-separated text in UTF-8 (Excel: CSV UTF-8)"


def read_table(path: Path, needed: Sequence[str] = ("F_Name", "Path")) -> pd.DataFrame:
    """Return the rows of `--meta_csv` as stripped text; the index is the line of the file.

    Commas, semicolons and tabs are told apart by the header, UTF-8 and UTF-16 by the byte order
    mark; what is not a comma and UTF-8 is logged.

    Args:
        path: the table.
        needed: names, in any case, by which the header is known.

    Raises:
        UserError: no such file; not such a table; a title above the header; columns of one name; no
            rows.
    """
    header, rows = _read(path, needed)
    width = len(header)
    long = [f"line {line}: {len(cells)} cells" for line, cells in rows
            if any(cells[width:])]
    if long:
        raise UserError(f"--meta_csv {path}: cannot be read as a CSV table: {len(long)} lines have "
                        f"more cells than the {width} of the header:\n{listing(long)}\nPut "
                        "quotation marks around cells that contain the separator")
    if not rows:
        raise UserError(f"{path}: has a header but no rows")
    table = pd.DataFrame([(cells + [""] * (width - len(cells)))[:width] for _, cells in rows],
                         index=[line for line, _ in rows], columns=range(width), dtype=object)
    used = [k for k, name in enumerate(header) if name or (table[k] != "").any()]
    names = [header[k] for k in used]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise UserError(f"{path}: columns appear twice: {', '.join(map(repr, double))}")
    return table[used].set_axis(names, axis=1)


def _read(path: Path, needed: Sequence[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header, and each row with its line; cells are stripped."""
    text, encoding = _decode(path)
    try:
        separator, first = _form(itertools.islice(io.StringIO(text, newline=""), HEADER_LINES),
                                 needed, path)
        rows = list(_rows(text, separator, first))
    except csv.Error as error:
        raise _unreadable(path, str(error)) from None
    if encoding != "UTF-8" or separator != ",":
        LOG.info("%s is read as %s text separated by %s", path.name, encoding,
                 SEPARATORS[separator])
    line, last = rows.pop()
    if last != [END]:
        raise _unreadable(path, f"a quotation mark opened in line {line} is not closed")
    if not rows:
        raise _unreadable(path, "it is empty")
    return rows[0][1], rows[1:]


def _decode(path: Path) -> tuple[str, str]:
    """Return the text of a file, and how it is encoded."""
    if path.is_dir():
        raise UserError(f"--meta_csv {path}: is a folder; name the table itself, a CSV file")
    if not path.is_file():
        what = "is not a regular file" if path.exists() else "no such file"
        raise UserError(f"--meta_csv {path}: {what}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, str(error.strerror), "make it readable") from None
    if content.startswith(WORKBOOKS):
        raise _unreadable(path, "it is a spreadsheet workbook")
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "UTF-16" if wide else "UTF-8"
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        place = "" if wide else f" in line {content.count(bytes([10]), 0, error.start) + 1}"
        context = content[max(0, error.start - 10):error.start + 10]
        raise _unreadable(path, f"{context!r}{place} is not {encoding}") from None
    if "\0" in text:
        raise _unreadable(path, "it contains NUL bytes, as UTF-16 without a byte order mark does")
    return text, encoding


def _form(lines: Iterable[str], needed: Sequence[str], path: Path) -> tuple[str, int]:
    """Return the separator, and the line from which the table begins."""
    known, numbered = list(SEPARATORS), [(n, line) for n, line in enumerate(lines, 1)
                                         if line.strip()]
    first = 1
    sep_line = SEP_LINE.fullmatch(numbered[0][1]) if numbered else None
    if sep_line:
        first, known = numbered[0][0] + 1, [sep_line[1]]
        if sep_line[1] not in SEPARATORS:
            raise _unreadable(path, f"its first line says that {sep_line[1]!r} separates cells, "
                                    "expected a comma, a semicolon or a tab")
    numbered = numbered[bool(sep_line):]
    wanted = {name.lower() for name in needed}
    for place, (line, text) in enumerate(numbered):
        for separator in known:
            if not wanted <= {cell.lower() for cell in _cells(text, separator)}:
                continue
            if place:
                raise UserError(f"{path}: the header ({', '.join(needed)}, ...) is in line "
                                f"{line}; remove what is above it, beginning with "
                                f"{numbered[0][1].strip()[:60]!r}")
            return separator, first
    if not numbered:
        return known[0], first
    return max(known, key=lambda separator: len(_cells(numbered[0][1], separator))), first


def _cells(line: str, separator: str) -> list[str]:
    reader = csv.reader([line], delimiter=separator, skipinitialspace=True)
    return [unescape(cell.strip()) for cell in next(reader, [])]


def _rows(text: str, separator: str, first: int) -> Iterable[tuple[int, list[str]]]:
    """Yield each row that is not blank, with its first line; the last one is END, if all is well.

    A quotation mark that is left open swallows END.
    """
    reader = csv.reader(io.StringIO(f"{text}\n{END}", newline=""), delimiter=separator,
                        skipinitialspace=True)
    line = 1
    for row in reader:
        cells = [unescape(cell.strip()) for cell in row]  # a split.csv may be read, too
        if any(cells) and line >= first:
            yield line, cells
        line = reader.line_num + 1


def _unreadable(path: Path, why: str, how: str = HOW) -> UserError:
    return UserError(f"--meta_csv {path}: cannot be read as a CSV table ({why}); {how}")
