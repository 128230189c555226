"""Make the meta.csv of the EchoNet-Dynamic ultrasound videos.

    python data/make_echonet_meta.py EchoNet-Dynamic      # writes EchoNet-Dynamic/echonet_meta.csv
    python finetune.py --meta_csv EchoNet-Dynamic/echonet_meta.csv --pathologies EF

ROOT contains FileList.csv and Videos/. The labels are EF, the ejection fraction in per cent, and
EF_under_50, which is 1 where EF is below 50; both are empty where EF is. Choose one of them with
--pathologies. The published splits are kept. Each video is of a different patient.
"""

import argparse
import csv
import os
import sys
from collections import Counter
from pathlib import Path

if __name__ == "__main__":  # the packages of the repository are one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from slivit.utils.startup import begin_process

    begin_process()  # before the imports, which take seconds

import pandas as pd
from meta_table import check_out, path_cells, table_parser, write_table

from slivit.utils.errors import UserError, listing, run_script
from slivit.utils.log import LOG, setup_logging

COLUMNS = ("FileName", "EF", "Split")
SPLITS = ("train", "val", "test")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's options."""
    parser = table_parser(__doc__, "folder of FileList.csv and Videos/", "ROOT/echonet_meta.csv")
    parser.add_argument("--skip_missing", action="store_true",
                        help="omit rows whose video is missing")
    return parser


def read_file_list(path: Path) -> pd.DataFrame:
    """Return FileList.csv as stripped text: line (int), FileName without .avi, EF, Split.

    Raises:
        UserError: no such file, empty, not a table, or a column is missing.
    """
    if path.exists() and not path.is_file():  # opening a pipe could block forever
        raise UserError(f"{path}: is not a regular file, expected a table")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header = list(reader.fieldnames or [])
            rows = [{"line": reader.line_num, **{name: (row.get(name) or "").strip()
                                                 for name in COLUMNS}} for row in reader]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); ROOT is the unpacked "
                        "EchoNet-Dynamic/, with FileList.csv and Videos/") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not a CSV table ({error}); unpack it again") from None
    if not header:
        raise UserError(f"{path}: is empty, expected the columns {', '.join(COLUMNS)}; unpack it "
                        "again")
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise UserError(f"{path}: column {' and '.join(missing)} not found. Available: "
                        f"{', '.join(header) or 'none'}")
    if not rows:
        raise UserError(f"{path}: has a header but no rows; unpack it again")
    table = pd.DataFrame(rows)
    table["FileName"] = table["FileName"].str.replace(r"(?i)\.avi$", "", regex=True)
    return table


def check_rows(table: pd.DataFrame, path: Path) -> None:
    """Check names, ejection fractions and splits.

    Raises:
        UserError: listing every bad cell.
    """
    count = Counter(table["FileName"])
    bad = []
    for row in table.itertuples():
        if not row.FileName:
            bad.append(f"line {row.line}: FileName is empty")
        elif count[row.FileName] > 1:
            bad.append(f"line {row.line}: FileName {row.FileName} appears in {count[row.FileName]} "
                       "rows")
        if row.EF and not is_percentage(row.EF):
            bad.append(f"line {row.line}: EF {row.EF!r}")
        if row.Split.lower() not in SPLITS:
            bad.append(f"line {row.line}: Split {row.Split!r}")
    if bad:
        raise UserError(f"{path}: {len(bad)} bad cells; expected one row per FileName, EF from 0 "
                        f"to 100 or empty, Split TRAIN, VAL or TEST:\n{listing(bad)}\n"
                        "Correct them, or remove these rows")


def is_percentage(cell: str) -> bool:
    """Return whether a cell is a number from 0 to 100."""
    try:
        return 0 <= float(cell) <= 100 and "_" not in cell
    except ValueError:
        return False


def find_videos(table: pd.DataFrame, root: Path, skip_missing: bool) -> pd.DataFrame:
    """Return the rows whose video exists.

    Raises:
        UserError: listing every missing video, unless `skip_missing`; or none exists.
    """
    there = table["FileName"].map(lambda name: os.path.isfile(root / "Videos" / f"{name}.avi"))
    if not there.any():
        raise UserError(f"{root / 'Videos'}: contains none of the {len(table)} videos in "
                        f"FileList.csv, such as {table['FileName'].iloc[0]}.avi")
    missing = [f"Videos/{name}.avi" for name in table.loc[~there, "FileName"]]
    if missing and not skip_missing:
        raise UserError(f"{root}: {len(missing)} of {len(table)} videos are missing:\n"
                        f"{listing(missing)}\nDownload them, or omit them with --skip_missing")
    if missing:
        LOG.warning("warning: omitted %d of %d rows, whose videos are missing", len(missing),
                    len(table))
    return table[there]


def main(argv: list[str] | None = None) -> None:
    """Read FileList.csv, find the videos, write the table."""
    args = build_parser().parse_args(argv)
    setup_logging()
    out = args.out or args.root / "echonet_meta.csv"
    check_out(out, args.overwrite)
    table = read_file_list(args.root / "FileList.csv")
    check_rows(table, args.root / "FileList.csv")
    table = find_videos(table, args.root, args.skip_missing)
    names = [f"Videos/{name}.avi" for name in table["FileName"]]
    under = ["" if cell == "" else int(float(cell) < 50) for cell in table["EF"]]
    write_table(pd.DataFrame({"F_Name": table["FileName"],
                              "Path": path_cells(names, args.root, out), "EF": table["EF"],
                              "EF_under_50": under, "Split": table["Split"].str.lower()}),
                out, ["EF_under_50"])


if __name__ == "__main__":
    run_script(main)
