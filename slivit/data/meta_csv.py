"""Read and validate a meta.csv: F_Name, Path, label columns, optional Split and patient."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import pandas as pd

from slivit.data.csv_table import read_table
from slivit.data.meta_labels import UNKNOWN, label_columns, not_zero_one, parse_labels
from slivit.data.meta_paths import backslashes, cell_paths, missing, resolved
from slivit.data.scan_table import DEFAULT_SIZE, SPLITS, FileSource, ScanTable, match_names
from slivit.data.splits import (
    SPLIT_NAMES,
    Splitting,
    fill_in,
    in_several,
    overlap_text,
    split_by_group,
    written_alike,
)
from slivit.utils.errors import UserError, listing
from slivit.utils.log import LOG, counted

PATIENT_NAMES = ("pid", "patient", "patient_id")
RESERVED = ("f_name", "path", "split", *PATIENT_NAMES)
MAX_ALIKE = 5  # groups of patients with names alike that are shown


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are called; None where there is none, or not one.

    Attributes:
        f_name, path, split, patient: the columns with a meaning of their own.
        faults: a paragraph on each thing that is wrong with the header.
    """

    f_name: str | None
    path: str | None
    split: str | None
    patient: str | None
    faults: tuple[str, ...] = ()


def read_meta(path: Path, ndim: int, pathologies: Sequence[str] | None = None,
              pid_col: str | None = None, splitting: Splitting = Splitting(),  # noqa: B008
              labels_needed: bool = True, zero_one: bool = False) -> ScanTable:
    """Read a meta.csv.

    Args:
        path: the CSV; relative `Path` cells are resolved against its folder.
        ndim: 2 for images, 3 for volumes.
        pathologies: label columns; default every column that is not F_Name, Path, Split or the
            patient and holds at least one number.
        pid_col: the patient column; default the one called pid, patient or patient_id.
        splitting: how the scans are divided, where neither Split nor Path tells.
        labels_needed: whether a column of `pathologies` that is not there is an error, or has
            unknown labels only. A table without any of them, and without splits, is all test.
        zero_one: whether labels other than 0 and 1 are an error.

    Returns:
        Scans with float32 labels, NaN where a cell is empty (or NA).

    Raises:
        UserError: one message with every fault and all its rows. Scans that are not there are named
            with other faults; on their own header_check.check_headers names them.
    """
    table = read_table(path)
    columns = _find_columns(table, pid_col)
    special = {columns.f_name, columns.path, columns.patient, columns.split,
               *(name for name in table.columns if name.lower() in RESERVED)}
    faults = list(columns.faults)
    wanted = pathologies if labels_needed else _present(table, path, pathologies)
    names, wrong = label_columns(table, path, wanted, special)
    labels, rounded, cell_faults = parse_labels(table, names)
    faults += wrong + cell_faults
    if zero_one:
        faults += not_zero_one(table, names, labels)
    if not labels_needed and not wrong:
        labels, names = _in_order(labels, wanted, pathologies)
    faults += _empty_cells(table, [columns.path, columns.f_name, columns.patient])
    paths = files = ()
    if columns.path is not None:
        paths = cell_paths(table[columns.path], path.parent)
        files = resolved(paths)
        faults += backslashes(table[columns.path], paths, path.parent)
    patients = tuple(table[columns.patient]) if columns.patient else None
    split, split_faults = _find_split(table, columns, splitting.may_be_empty)
    faults += split_faults
    drawn = split is None and not faults and (labels_needed or bool(wanted))
    if drawn:
        split = split_by_group(patients or _first_spellings(paths, files), splitting.ratio,
                               splitting.seed)
    elif split is None:
        split = np.full(len(table), "test")
    if splitting.refuse_overlap or faults:
        faults += _overlaps(table, columns, split, files, patients)
    if splitting.may_be_empty and not faults:
        split = fill_in(split, files, *([patients] if patients else []))
    if faults:
        if columns.path is not None:
            faults += missing(table[columns.path], paths, path.parent)
        raise _all_wrong(path, faults)
    if drawn:
        LOG.info("%s has no splits: divided %s by %s with seed %d", path.name,
                 ",".join(f"{share:g}" for share in splitting.ratio),
                 "patient" if patients else "row (no patient column)", splitting.seed)
    _remark(path, files, patients, split)
    return ScanTable(name=path.name, ndim=ndim, ids=tuple(table[columns.f_name]), split=split,
                     labels=labels, label_names=tuple(names), patients=patients,
                     read=FileSource(paths, ndim), img_size=DEFAULT_SIZE[ndim], drawn=drawn,
                     columns={name: tuple(table[name]) for name in table.columns if name},
                     rounded=rounded)


def _find_columns(table: pd.DataFrame, pid_col: str | None) -> Columns:
    faults, single = [], {}
    for wanted in ("F_Name", "Path", "Split"):
        same = [name for name in table.columns if name.lower() == wanted.lower()]
        single[wanted] = same[0] if len(same) == 1 else None
        if len(same) > 1:
            faults.append(f"{' and '.join(map(repr, same))} could each be the column {wanted}; "
                          "keep one of them, or rename the others")
    absent = [name for name in ("F_Name", "Path")
              if name.lower() not in {column.lower() for column in table.columns}]
    if absent:
        faults.insert(0, f"column {' and '.join(absent)} not found. "
                         f"Available: {', '.join(table.columns)}")
    patient = None
    try:
        patient = _patient_column(table, pid_col)
    except UserError as error:
        faults.append(str(error))
    return Columns(single["F_Name"], single["Path"], single["Split"], patient, tuple(faults))


def _patient_column(table: pd.DataFrame, pid_col: str | None) -> str | None:
    if pid_col is not None:
        return table.columns[match_names([pid_col], list(table.columns), "--pid_col")[0]]
    matches = [name for name in table.columns if name.lower() in PATIENT_NAMES]
    if len(matches) > 1:
        raise UserError(f"{', '.join(matches)} could each be the patient column; "
                        "name one with --pid_col")
    return matches[0] if matches else None


def _present(table: pd.DataFrame, path: Path, pathologies: Sequence[str]) -> list[str]:
    """Return those of the label columns that the table has; log which it lacks."""
    known = {name.lower() for name in table.columns}
    present = [name for name in pathologies if name.lower() in known]
    missing = [name for name in pathologies if name not in present]
    if missing:
        LOG.info("%s has no column %s: predicted but not scored (columns: %s)", path.name,
                 ", ".join(missing), ", ".join(filter(None, table.columns)))
    return present


def _in_order(labels: np.ndarray, present: list[str],
              wanted: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return labels (n, K) of all wanted columns, NaN in those that were not found."""
    filled = np.full((len(labels), len(wanted)), np.nan, dtype=np.float32)
    filled[:, [list(wanted).index(name) for name in present]] = labels
    return filled, list(wanted)


def _empty_cells(table: pd.DataFrame, columns: Sequence[str | None]) -> list[str]:
    bad = [f"line {line}: {name} is {repr(cell) if cell else 'empty'}"
           for name in columns if name is not None for line, cell in table[name].items()
           if cell == "" or (name == columns[-1] and cell.lower() in UNKNOWN)]
    broken = [f"line {line}: {name} {cell!r}" for name in columns if name is not None
              for line, cell in table[name].items() if "\n" in cell or "\r" in cell]
    return ([f"{counted(len(bad), 'cell')} must not be empty:\n{listing(bad)}"] * bool(bad)
            + [f"{len(broken)} cells contain a line break; is a quotation mark left open there?\n"
               f"{listing(broken)}"] * bool(broken))


def _find_split(table: pd.DataFrame, columns: Columns, may_be_empty: bool
                ) -> tuple[np.ndarray | None, list[str]]:
    """Return the split of each row by the Split column, else by a folder in Path; and the faults.

    No split where neither tells; an empty one in rows of which it is not known. Of these, the ones
    with nothing to read it from are no fault where they `may_be_empty`.
    """
    if columns.split is not None:
        cells, expected = table[columns.split], "train, val or test"
        splits = [SPLIT_NAMES.get(cell.lower(), "") for cell in cells]
    elif columns.path is None or "split" in {name.lower() for name in table.columns}:
        return None, []
    else:
        cells = table[columns.path]
        expected = "a train, val or test folder in Path, as other rows have"
        splits = [_split_of_path(cell) for cell in cells]
        if not any(splits):
            return None, []
    bad = [f"line {line}: {cell!r}"
           for (line, cell), name in zip(cells.items(), splits, strict=True)
           if not name and not (may_be_empty and (cell == "" or columns.split is None))]
    return np.array(splits), [f"{len(bad)} rows have no split; expected {expected}:\n"
                             f"{listing(bad)}"] * bool(bad)


def _split_of_path(cell: str) -> str:
    folders = [SPLIT_NAMES.get(part.lower()) for part in PurePath(cell).parts]
    return next((name for name in reversed(folders) if name in SPLITS), "")


def _first_spellings(paths: Sequence[Path], files: Sequence[str]) -> tuple[str, ...]:
    """Return a group for each row: the first path that leads to its file."""
    first: dict[str, str] = {}
    return tuple(first.setdefault(file, str(path)) for path, file in zip(paths, files, strict=True))


def _overlaps(table: pd.DataFrame, columns: Columns, split: np.ndarray, files: Sequence[str],
              patients: Sequence[str] | None) -> list[str]:
    """Return a paragraph on files in several splits, and one on patients."""
    faults = []
    for groups, column, what in ((files, columns.path, "files"),
                                 (patients, columns.patient, "patients")):
        if not groups:
            continue
        rows = np.flatnonzero((split != "") & (table[column] != "").to_numpy())
        bad = in_several([groups[row] for row in rows], split[rows])
        if bad and what == "files":
            lines: dict[str, list[str]] = {file: [] for file in bad}
            for row in rows:
                if files[row] in bad:
                    lines[files[row]].append(str(table.index[row]))
            bad = {file: f"{text} (lines {', '.join(lines[file])})" for file, text in bad.items()}
        if bad:
            faults.append(overlap_text(list(bad.values()), what))
    return faults


def _all_wrong(path: Path, faults: Sequence[str]) -> UserError:
    """Return the one error that says all that is wrong with a table, a paragraph for each kind."""
    if len(faults) == 1:
        return UserError(f"{path}: {faults[0]}")
    return UserError(f"{path}: {len(faults)} problems in this table.\n"
                     + "\n".join(faults))


def _remark(path: Path, files: Sequence[str], patients: Sequence[str] | None,
            split: np.ndarray) -> None:
    """Log the oddities of the rows that are allowed."""
    if patients is None:
        LOG.info("%s has no patient column: rows count as independent", path.name)
    doubles = len(files) - len(set(files))
    if doubles:
        LOG.warning("warning: %s names %s more than once", path.name, counted(doubles, "scan"))
    alike = written_alike(patients or (), split if patients else ())
    if alike:
        LOG.warning("warning: %s: in %s, patient ids differ only by case, spaces, leading zeros or "
                    "the like, and count as different patients: %s. If they are the same person, "
                    "make the ids identical: one person in several splits would inflate every "
                    "score", path.name, counted(len(alike), "group"),
                    "; ".join(alike[:MAX_ALIKE]) + "; ..." * (len(alike) > MAX_ALIKE))
