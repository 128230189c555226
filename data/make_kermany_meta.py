"""Make the meta.csv of the OCT images of Kermany et al. 2018.

    python data/make_kermany_meta.py OCT2017              # writes OCT2017/kermany_meta.csv
    python bb_train.py --meta_csv OCT2017/kermany_meta.csv --pathologies Drusen,CNV,DME,Normal

ROOT is the unpacked OCT2017/ or CellData/OCT/, or the folder above: train/, test/ and maybe val/,
each with the folders NORMAL, DRUSEN, CNV and DME of images named CNV-PATIENT-NUMBER.jpeg.

test/ stays the test split. The published folders share patients, so train/ and val/ are pooled,
images of patients who are also in test/ are left out, and whole patients are drawn for validation.
"""

import argparse
import re
import sys
from pathlib import Path

if __name__ == "__main__":  # the packages of the repository are one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from slivit.utils.startup import begin_process

    begin_process()  # before the imports, which take seconds

import pandas as pd
from meta_table import check_out, path_cells, table_parser, write_table

from slivit.cli import types
from slivit.data.splits import split_by_group
from slivit.utils.errors import UserError, listing, run_script
from slivit.utils.log import LOG, setup_logging

CLASSES = ("NORMAL", "DRUSEN", "CNV", "DME")
FOLDERS = ("train", "val", "test")
IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".tif", ".tiff")
NAME = re.compile(r"([A-Z]+)-([0-9]+)-[0-9]+")  # class, patient, number of the image


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's options."""
    parser = table_parser(__doc__, "folder of train/ and test/, or the one above",
                          "kermany_meta.csv beside train/")
    parser.add_argument("--val_share", type=types.rate, default=0.1, metavar="X",
                        help="share of the training patients used for validation (default "
                             "%(default)s)")
    parser.add_argument("--seed", type=types.seed_number, default=0, metavar="N",
                        help="random seed of the split (default %(default)s)")
    return parser


def find_base(root: Path) -> Path:
    """Return the folder that contains train/ with its class folders: `root` or one just below.

    Raises:
        UserError: none or several, or a folder with other classes than the four.
    """
    below = sorted(root.iterdir()) if root.is_dir() else []
    bases = [folder for folder in (root, *below) if folder.name != "__MACOSX"
             and any((folder / "train" / name).is_dir() for name in CLASSES)]
    if root not in bases and len(bases) != 1:
        raise UserError(
            f"{root}: expected train/ with the folders {', '.join(CLASSES)}, there or in a "
            f"folder directly below; found {', '.join(repr(f.name) for f in bases) or 'none'}. "
            "ROOT is the unpacked OCT2017/ or CellData/OCT/ of Kermany et al. 2018")
    base = bases[0]
    wrong = []
    for folder in FOLDERS:
        names = {entry.name for entry in (base / folder).glob("*")
                 if entry.is_dir() and not entry.name.startswith(".")}
        if (base / folder).is_dir() and names != set(CLASSES):
            wrong.append(f"{folder}/: {', '.join(sorted(names)) or 'no folders'}")
    if wrong:
        raise UserError(f"{base}: expected exactly the folders {', '.join(CLASSES)}, found\n"
                        f"{listing(wrong)}\nUnpack the data set again, or use "
                        "data/make_folder_meta.py for other classes")
    return base


def list_images(base: Path) -> pd.DataFrame:
    """Return a row per image: F_Name, name (relative to `base`), folder, label, patient.

    Raises:
        UserError: listing every file whose name is not CLASS-PATIENT-NUMBER of its folder.
    """
    rows, bad, ignored = [], [], 0
    for folder in FOLDERS:
        for label in CLASSES:
            for file in sorted((base / folder / label).glob("*")):
                if file.name.startswith(".") or file.suffix.lower() not in IMAGE_SUFFIXES:
                    ignored += 1
                    continue
                name = f"{folder}/{label}/{file.name}"
                parts = NAME.fullmatch(file.stem)
                if parts is None or parts[1] != label:
                    bad.append(name)
                else:
                    rows.append((file.stem, name, folder, label, parts[2]))
    if bad:
        raise UserError(f"{base}: {len(bad)} images are not named CLASS-PATIENT-NUMBER with the "
                        f"class of their folder:\n{listing(bad)}\nRename, move or remove them")
    if ignored:
        LOG.info("ignored %d hidden files and files that are not images", ignored)
    return pd.DataFrame(rows, columns=["F_Name", "name", "folder", "label", "patient"])


def assign_splits(images: pd.DataFrame, val_share: float, seed: int) -> pd.DataFrame:
    """Return the images that stay, with a Split column in which no patient has two splits.

    Raises:
        UserError: no patient would be left for training or for validation.
    """
    in_test = images["patient"].isin(images.loc[images["folder"] == "test", "patient"])
    shared = images[in_test & (images["folder"] != "test")]
    LOG.info("left out %d images in train/ and val/ of %d patients who are also in test/",
             len(shared), shared["patient"].nunique())
    kept = images.drop(index=shared.index)
    pool = kept["folder"] != "test"
    drawn = split_by_group(tuple(kept.loc[pool, "patient"]), (1 - val_share, val_share, 0.0), seed)
    if set(drawn) != {"train", "val"}:
        raise UserError(f"--val_share {val_share:g} of {kept.loc[pool, 'patient'].nunique()} "
                        "patients leaves none for training or none for validation; expected at "
                        "least one in each")
    kept["Split"] = "test"
    kept.loc[pool, "Split"] = drawn
    return kept


def main(argv: list[str] | None = None) -> None:
    """Find the images, split the patients, write the table."""
    args = build_parser().parse_args(argv)
    setup_logging()
    base = find_base(args.root)
    out = args.out or base / "kermany_meta.csv"
    check_out(out, args.overwrite)
    images = assign_splits(list_images(base), args.val_share, args.seed)
    table = pd.DataFrame({"F_Name": images["F_Name"],
                          "Path": path_cells(list(images["name"]), base, out),
                          **{label: (images["label"] == label).astype(int) for label in CLASSES},
                          "Split": images["Split"], "patient": images["patient"]})
    write_table(table, out, CLASSES)


if __name__ == "__main__":
    run_script(main)
