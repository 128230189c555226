"""Make the meta.csv of a tree with one folder per class.

    python data/make_folder_meta.py ROOT                            # writes ROOT/meta.csv
    python data/make_folder_meta.py ROOT --patient_from '(P[0-9]+)_'

ROOT contains the class folders, or train, val and test folders of class folders. Each entry of a
class folder is one scan: an image, a volume in one file, or a sub-folder of slices. A table lists
images (for bb_train.py) or volumes (for finetune.py). Each class is a 0/1 column.
"""

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

if __name__ == "__main__":  # the packages of the repository are one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from slivit.utils.startup import begin_process

    begin_process()  # before the imports, which take seconds

import pandas as pd
from meta_table import check_out, path_cells, table_parser, write_table

from slivit.cli import types
from slivit.data.readers import ReadError, export_in, is_scan, main_files, scan_ndim
from slivit.data.splits import SPLIT_NAMES, check_no_overlap
from slivit.utils.errors import UserError, listing, run_script
from slivit.utils.log import LOG, setup_logging

RESERVED = {"split", "patient", "patient_id", "pid", "id", "f_name", "path"}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's options."""
    parser = table_parser(__doc__, "folder of class folders, or of train, val and test folders",
                          "ROOT/meta.csv")
    parser.add_argument("--patient_from", type=types.text, metavar="REGEX",
                        help="regular expression searched for in each scan's path below ROOT; its "
                             "first group, or the whole match, is the patient")
    return parser


def folders_of(folder: Path) -> list[Path]:
    """Return the sub-folders, sorted, without hidden ones."""
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and is_visible(entry))


def is_visible(entry: Path) -> bool:
    """Return whether an entry is not one that the system hides or adds."""
    return not entry.name.startswith(".") and entry.name != "__MACOSX"


def find_classes(root: Path) -> list[tuple[str | None, Path]]:
    """Return every class folder with its split, None where there are no split folders.

    Raises:
        UserError: no such folder, splits and classes side by side, or names that cannot be labels.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    splits = [folder for folder in folders_of(root) if folder.name.lower() in SPLIT_NAMES]
    others = [folder.name for folder in folders_of(root) if folder not in splits]
    if splits and others:
        raise UserError(f"{root}: has split folders ({', '.join(f.name for f in splits)}) and "
                        f"other folders beside them:\n{listing(others)}\nMove these elsewhere, "
                        "or into the split folders")
    classes = [(SPLIT_NAMES[split.name.lower()], folder)
               for split in splits for folder in folders_of(split)]
    if not splits:
        classes = [(None, folder) for folder in folders_of(root)]
    names = {folder.name for _, folder in classes}
    if len(names) < 2:
        raise UserError(f"{root}: has {len(names)} class folders, expected two or more, in ROOT or "
                        "in its train, val and test folders")
    lower = Counter(name.lower() for name in names)
    bad = [repr(name) for name in sorted(names)
           if name.lower() in RESERVED or name.lower().endswith("_pred") or "," in name
           or name != name.strip() or lower[name.lower()] > 1]
    if bad:
        raise UserError(f"{root}: {len(bad)} folders have names that cannot be labels:\n"
                        f"{listing(bad)}\nA label must not contain a comma, begin or end with a "
                        "space, end in _pred, differ from another only by case, or be one of "
                        f"{', '.join(sorted(RESERVED))}. Rename them")
    return classes


def kind_of(entry: Path) -> str | None:
    """Return `image` or `volume`, or None for an entry that is not a scan.

    Raises:
        ReadError: a folder without slices, or a file whose header does not show which it is.
    """
    if not is_visible(entry) or not (entry.is_dir() or is_scan(entry)):
        return None
    return "image" if scan_ndim(entry) == 2 else "volume"


def list_scans(root: Path, classes: list[tuple[str | None, Path]]) -> pd.DataFrame:
    """Return a row per scan: name (relative to `root`), label, Split (or None).

    Raises:
        UserError: listing the entries that cannot be read, or images beside volumes; or no scans.
    """
    rows, bad, ignored = [], [], 0
    for split, folder in classes:
        for entry in sorted(folder.iterdir()):
            if main_files([entry]) != [str(entry)]:
                continue  # the other file of a scan in two
            entry = export_in(entry) or entry
            name = entry.relative_to(root).as_posix()
            try:
                kind = kind_of(entry)
            except ReadError as error:
                bad.append(error)
                continue
            if kind is None:
                ignored += 1
            else:
                rows.append((name, folder.name, split, kind))
    if bad:
        raise UserError(f"{root}: {len(bad)} entries are not scans; expected an image, a volume "
                        f"file or a folder of slices each:\n{listing(bad)}\nRemove them, or put "
                        "the slices of each volume directly into one folder")
    if not rows:
        raise UserError(f"{root}: the class folders contain no scans, expected image or volume "
                        "files or folders of slices; data/README.md lists the kinds")
    table = pd.DataFrame(rows, columns=["name", "label", "Split", "kind"])
    counts = table["kind"].value_counts()  # the most frequent first
    if len(counts) > 1:
        fewer = table.loc[table["kind"] == counts.index[1], "name"]
        raise UserError(f"{root}: contains {counts.iloc[0]} {counts.index[0]}s and "
                        f"{counts.iloc[1]} {counts.index[1]}s; a table can list only one kind. The "
                        f"less frequent kind:\n{listing(fewer)}\nMove one kind to a separate "
                        "folder tree")
    if ignored:
        LOG.info("ignored %d hidden entries and files that are not scans", ignored)
    LOG.info("treated as %ss, one per entry of a class folder", counts.index[0])
    return table


def find_patients(names: list[str], pattern: str) -> list[str]:
    """Return the patient of each path: the first group of `pattern`, or its whole match.

    Raises:
        UserError: not a regular expression, or listing every path without a patient.
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--patient_from {pattern}: is not a regular expression ({error})"
                        ) from None
    matches = [regex.search(name) for name in names]
    patients = [(match[min(1, regex.groups)] or "").strip() if match else "" for match in matches]
    bad = [name for name, patient in zip(names, patients, strict=True) if not patient]
    if bad:
        raise UserError(f"--patient_from {pattern}: matches no patient in {len(bad)} of "
                        f"{len(names)} paths:\n{listing(bad)}\nCorrect the expression; it is "
                        "searched for in the path below ROOT")
    return patients


def main(argv: list[str] | None = None) -> None:
    """Find the classes and their scans, write the table."""
    args = build_parser().parse_args(argv)
    setup_logging()
    out = args.out or args.root / "meta.csv"
    check_out(out, args.overwrite)
    scans = list_scans(args.root, find_classes(args.root))
    names, labels = list(scans["name"]), sorted(set(scans["label"]))
    table = pd.DataFrame({"F_Name": names, "Path": path_cells(names, args.root, out),
                          **{label: (scans["label"] == label).astype(int) for label in labels}})
    if scans["Split"].notna().all():
        table["Split"] = scans["Split"]
    if args.patient_from is not None:
        table["patient"] = find_patients(names, args.patient_from)
        if "Split" in table:
            check_no_overlap(table["patient"], table["Split"].to_numpy(), "patients")
    write_table(table, out, labels)


if __name__ == "__main__":
    run_script(main)
