"""Read and validate a meta.csv: F_Name, Path, label columns, optional Split and patient."""

from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
import pandas as pd

from slivit.errors import UserError, listing
from slivit.readers.arrays import split_key
from slivit.readers.base import kind_at
from slivit.runtime import LOG
from slivit.scans import DEFAULT_SIZE, SPLITS, Scans, match_names
from slivit.sources import FileSource
from slivit.splits import SPLIT_NAMES, check_no_overlap, split_by_group

PATIENT_NAMES = ("pid", "patient", "patient_id")
UNKNOWN = ("", "na", "n/a", "nan")


def read_meta(path: Path, ndim: int, pathologies: Sequence[str] | None = None,
              pid_col: str | None = None, ratio: tuple[float, float, float] = (0.7, 0.15, 0.15),
              seed: int = 0, refuse_overlap: bool = True, labels_needed: bool = True) -> Scans:
    """Read a meta.csv.

    Args:
        path: the CSV; relative `Path` cells are resolved against its folder.
        ndim: 2 for images, 3 for volumes.
        pathologies: label columns; default every column that is not F_Name, Path, Split or the
            patient and holds at least one number.
        pid_col: the patient column; default the one called pid, patient or patient_id.
        ratio, seed: of the split by patient, where neither Split nor Path tells.
        refuse_overlap: whether a patient or a file in two splits is an error.
        labels_needed: whether a column of `pathologies` that is not there is an error, or has
            unknown labels only. A table without any of them, and without splits, is all test.

    Returns:
        Scans with float32 labels, NaN where a cell is empty (or NA).

    Raises:
        UserError: for each kind of fault one message with every offending row.
    """
    table = _read_table(path)
    columns = {name.lower(): name for name in reversed(table.columns)}
    missing = [name for name in ("F_Name", "Path") if name.lower() not in columns]
    if missing:
        raise UserError(f"{path}: column {' and '.join(missing)} not found. "
                        f"There are: {', '.join(table.columns)}")
    f_name, scan_path = columns["f_name"], columns["path"]
    patient = _patient_column(table, path, pid_col)
    special = {f_name, scan_path, patient, columns.get("split"),
               *(name for name in table.columns if name.lower() in PATIENT_NAMES)}
    found = pathologies
    if not labels_needed:
        found = _present(table, path, pathologies)
    label_columns = _label_columns(table, path, found, special)
    _check_label_names(label_columns, path)
    labels = _parse_labels(table, path, label_columns)
    if not labels_needed:
        labels, label_columns = _in_order(labels, found, pathologies)
    paths = tuple((path.parent / cell) for cell in table[scan_path])
    _check_cells(table, path, [scan_path, f_name] + ([patient] if patient else []))
    patients = tuple(table[patient]) if patient else None
    split = _find_split(table, path, scan_path, columns.get("split"))
    drawn = split is None and (labels_needed or bool(found))
    if split is None and not drawn:
        split = np.full(len(table), "test")
    elif drawn:
        groups = patients or tuple(str(p) for p in paths)
        split = split_by_group(groups, ratio, seed)
        LOG.info("%s has no splits: divided %s by %s with seed %d", path.name,
                 ",".join(f"{share:g}" for share in ratio),
                 "patient" if patients else "row (no patient column)", seed)
    if refuse_overlap:
        check_no_overlap([str(p) for p in paths], split, "files")
        check_no_overlap(patients or (), split, "patients")
    if not patients:
        LOG.info("%s has no patient column: rows count as independent", path.name)
    doubles = len(paths) - len(set(paths))
    if doubles:
        LOG.warning("warning: %s names %d scans more than once", path.name, doubles)
    return Scans(name=path.name, ndim=ndim, ids=tuple(table[f_name]), split=split, labels=labels,
                 label_names=tuple(label_columns), patients=patients,
                 read=FileSource(paths, ndim), img_size=DEFAULT_SIZE[ndim],
                 drawn=drawn, columns={name: tuple(table[name]) for name in table.columns if name})


def single_scan(path: Path, ndim: int, labels: Sequence[str]) -> Scans:
    """Return a table of one scan, in the test split, of which no label is known.

    Args:
        path: of a folder or a file; `file.npz:NAME` for one of several arrays.
        ndim: 2 for an image, 3 for a volume.
        labels: of the model.

    Raises:
        UserError: there is nothing at the path.
    """
    if not kind_at(path) and not kind_at(split_key(path)[0]):
        raise UserError(f"--volume {path}: no such file or folder")
    return Scans(name=path.name, ndim=ndim, ids=(path.name,), split=np.array(["test"]),
                 labels=np.full((1, len(labels)), np.nan, dtype=np.float32),
                 label_names=tuple(labels), patients=None, read=FileSource((path,), ndim),
                 img_size=DEFAULT_SIZE[ndim])


def _read_table(path: Path) -> pd.DataFrame:
    """Return the CSV as stripped text cells; row i of the table is line i + 2 of the file."""
    if not path.is_file():
        raise UserError(f"--meta_csv {path}: no such file")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig",
                            skipinitialspace=True, header=None, skip_blank_lines=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"--meta_csv {path}: cannot be read as a CSV table ({error}); "
                        "save it as comma-separated text in UTF-8") from None
    table = table.fillna("").map(str.strip)
    table = table.loc[:, (table != "").any()]  # spreadsheets leave empty columns at the end
    names = list(table.iloc[0])
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise UserError(f"{path}: columns appear twice: {', '.join(map(repr, double))}")
    table = table.iloc[1:].set_axis(names, axis=1).reset_index(drop=True)
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise UserError(f"{path}: has a header but no rows")
    return table


def _patient_column(table: pd.DataFrame, path: Path, pid_col: str | None) -> str | None:
    if pid_col is not None:
        return table.columns[match_names([pid_col], list(table.columns), f"--pid_col, {path}")[0]]
    found = [name for name in table.columns if name.lower() in PATIENT_NAMES]
    if len(found) > 1:
        raise UserError(f"{path}: {', '.join(found)} could each be the patient column; "
                        "name one with --pid_col")
    return found[0] if found else None


def _label_columns(table: pd.DataFrame, path: Path, pathologies: Sequence[str] | None,
                   special: set[str | None]) -> list[str]:
    known = [name for name in table.columns if name not in special and name]
    if pathologies is not None:
        return [known[i] for i in match_names(pathologies, known, f"label columns of {path}")]
    texts = [name for name in known if not table[name].map(_is_number).any()]
    if texts:
        LOG.info("%s: columns without a number are not labels: %s", path.name, ", ".join(texts))
    labels = [name for name in known if name not in texts]
    if not labels:
        raise UserError(f"{path}: has no label column; expected 0/1 columns (or numbers, for "
                        f"regression) beside {', '.join(sorted(filter(None, special)))}")
    return labels


def _present(table: pd.DataFrame, path: Path, pathologies: Sequence[str]) -> list[str]:
    """Return those of the label columns that the table has; say which it has not."""
    known = {name.lower() for name in table.columns}
    found = [name for name in pathologies if name.lower() in known]
    missing = [name for name in pathologies if name not in found]
    if missing:
        LOG.info("%s has no column %s: predicted, not scored (there are: %s)", path.name,
                 ", ".join(missing), ", ".join(filter(None, table.columns)))
    return found


def _in_order(labels: np.ndarray, found: list[str],
              wanted: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return labels (n, K) of all wanted columns, NaN in those that were not found."""
    filled = np.full((len(labels), len(wanted)), np.nan, dtype=np.float32)
    filled[:, [list(wanted).index(name) for name in found]] = labels
    return filled, list(wanted)


def _check_label_names(names: list[str], path: Path) -> None:
    taken = {"id", "patient", "split", *(f"{name}_pred" for name in names)}
    bad = [name for name in names if name in taken]
    if bad:
        raise UserError(f"{path}: {', '.join(bad)} cannot be a label: predictions.csv has a column "
                        "of that name. Rename it, or choose labels with --pathologies")


def _is_number(cell: str) -> bool:
    try:
        return abs(float(cell)) <= float(np.finfo(np.float32).max)
    except ValueError:
        return False


def _parse_labels(table: pd.DataFrame, path: Path, columns: list[str]) -> np.ndarray:
    labels = np.full((len(table), len(columns)), np.nan, dtype=np.float32)
    bad = []
    for k, name in enumerate(columns):
        for i, (line, cell) in enumerate(table[name].items()):
            if _is_number(cell):
                labels[i, k] = float(cell)
            elif cell.lower() not in UNKNOWN:
                bad.append(f"line {line + 2}, column {name}: {cell!r}")
    if bad:
        raise UserError(f"{path}: {len(bad)} label cells are neither a number nor empty "
                        f"(empty means unknown):\n{listing(bad)}")
    return labels


def _check_cells(table: pd.DataFrame, path: Path, columns: list[str]) -> None:
    bad = [f"line {line + 2}: {name} is empty" for name in columns
           for line, cell in table[name].items() if cell == ""]
    if bad:
        raise UserError(f"{path}: {len(bad)} cells must not be empty:\n{listing(bad)}")


def _find_split(table: pd.DataFrame, path: Path, scan_path: str,
                split_column: str | None) -> np.ndarray | None:
    """Return the split of each row by the Split column, else by a folder in Path, else None."""
    if split_column is not None:
        found = [SPLIT_NAMES.get(cell.lower()) for cell in table[split_column]]
        expected = "train, val or test"
    else:
        found = [_split_of_path(cell) for cell in table[scan_path]]
        expected = "a train, val or test folder in Path, as other rows have"
        if not any(found):
            return None
    bad = [f"line {line + 2}: {cell!r}" for (line, cell), name
           in zip(table[split_column or scan_path].items(), found, strict=True) if name is None]
    if bad:
        raise UserError(f"{path}: {len(bad)} rows have no split; expected {expected}:\n"
                        f"{listing(bad)}")
    return np.array(found)


def _split_of_path(cell: str) -> str | None:
    folders = [SPLIT_NAMES.get(part.lower()) for part in PurePath(cell).parts]
    return next((name for name in reversed(folders) if name in SPLITS), None)
