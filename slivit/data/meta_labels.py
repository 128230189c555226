"""The labels of a table: which columns they are, and their numbers."""

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd

from slivit.config import label_name_faults
from slivit.data.scan_table import match_names
from slivit.utils.errors import UserError, listing
from slivit.utils.log import LOG

UNKNOWN = ("", "na", "n/a", "nan")
WHOLE = 2.0 ** 53  # from here on, float64 does not hold every whole number
LARGEST = float(np.finfo(np.float32).max)
DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+(e[+-]?[0-9]+)?", re.IGNORECASE)


def label_columns(table: pd.DataFrame, path: Path, wanted: Sequence[str] | None,
                  special: set[str | None]) -> tuple[list[str], list[str]]:
    """Return the names of the label columns, and a paragraph on each thing wrong with them.

    Args:
        table: text cells.
        path: of the table.
        wanted: names; None for every column with a number in it.
        special: columns that are not labels.
    """
    known = [name for name in table.columns if name not in special and name]
    if wanted is not None:
        try:
            labels = [known[i] for i in match_names(wanted, known, "label columns")]
        except UserError as error:
            return [], [str(error)]
        return labels, _bad_names(labels)
    texts = [name for name in known if not table[name].map(_may_be_number).any()]
    if texts:
        LOG.info("%s: columns without a number are not labels: %s", path.name, ", ".join(texts))
    labels = [name for name in known if name not in texts]
    if not labels:
        return [], ["has no label column; expected 0/1 columns (or numbers, for regression) in "
                    f"addition to {', '.join(sorted(filter(None, special)))}"]
    return labels, _bad_names(labels)


def parse_labels(table: pd.DataFrame, columns: list[str]
                 ) -> tuple[np.ndarray, dict[str, tuple[str, ...]], list[str]]:
    """Return the labels, the cells that are rounded, and a paragraph on each kind of bad cells.

    Returns:
        float32 (n, K), NaN where unknown; what ScanTable.rounded holds; the faults.
    """
    labels = np.full((len(table), len(columns)), np.nan, dtype=np.float32)
    rounded: dict[str, tuple[str, ...]] = {}
    bad, commas = [], []
    for k, name in enumerate(columns):
        exact = np.full(len(table), np.nan)
        for i, (line, cell) in enumerate(table[name].items()):
            if _is_number(cell):
                exact[i] = float(cell)
            elif cell.lower() not in UNKNOWN:
                (commas if DECIMAL_COMMA.fullmatch(cell) else bad).append(
                    f"line {line}, column {name}: {cell!r}")
        labels[:, k] = exact
        known = ~np.isnan(exact)
        if (labels[known, k] == np.round(labels[known, k])).all():  # classes, as it seems
            cells = list(table[name])
            lost = [i for i in np.flatnonzero(known) if labels[i, k] != exact[i]
                    or (abs(exact[i]) >= WHOLE and Decimal(cells[i]) != int(exact[i]))]
            if lost:
                rounded[name] = tuple(f"line {table.index[i]}: {cells[i]}" for i in lost)
    faults = []
    if bad:
        faults.append(f"{len(bad)} label cells are neither a number nor empty "
                      f"(empty means unknown):\n{listing(bad)}")
    if commas:
        faults.append(f"{len(commas)} label cells contain a comma, for decimals or "
                      f"thousands:\n{listing(commas)}\nWrite 0.5 for 0,5 and 1000 for 1,000, in a "
                      "spreadsheet set to decimal points; or with pandas, which leaves everything "
                      "else unchanged: t = read_csv(FILE, sep=None, engine='python', dtype=str); "
                      "t[LABEL] = t[LABEL].str.replace(',', '.'); t.to_csv(NEW_FILE, index=False)")
    return labels, rounded, faults


def not_zero_one(table: pd.DataFrame, names: list[str], labels: np.ndarray) -> list[str]:
    """Return a paragraph on the labels (n, K) that are neither 0, 1 nor unknown; none without."""
    rows, columns = np.nonzero(~(np.isnan(labels) | np.isin(labels, (0, 1))))
    bad = [f"line {table.index[i]}, column {names[k]}: {table[names[k]].iat[i]}"
           for i, k in zip(rows, columns, strict=True)]
    return [f"{len(bad)} labels are not 0, 1 or empty:\n{listing(bad)}\nName the 0/1 columns "
            "with --pathologies, or correct them"] * bool(bad)


def _bad_names(names: list[str]) -> list[str]:
    return [f"{fault}. Rename it, or choose labels with --pathologies"
            for fault in label_name_faults(names)]


def _is_number(cell: str) -> bool:
    try:
        return abs(float(cell)) <= LARGEST and "_" not in cell
    except ValueError:
        return False


def _may_be_number(cell: str) -> bool:
    return _is_number(cell) or DECIMAL_COMMA.fullmatch(cell) is not None
