"""Write the embedded nodules as files and tables, with labels made from the radiologists' ratings.

    python -m demo.nodule_tables nodules     # writes nodules/images.csv and nodules/volumes.csv

A rating from 1 to 5 becomes several 0/1 labels: whether it is above each of several cut-offs
(ordinal regression by binary problems: Frank and Hall 2001, section 2). A volume of the training
and validation patients gives images of several slices along each axis; a nodule rated neither
malignant nor benign, which is not among the volumes, gives one image.
"""

import argparse
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import numpy as np
import pandas as pd
from PIL import Image

from slivit.cli import types
from slivit.data.named_sets import DATA_DIR, load_named
from slivit.utils.errors import run_script
from slivit.utils.files import atomic_write
from slivit.utils.log import LOG, setup_logging
from slivit.utils.output_dir import check_out_dir, open_out_dir

CUTS = {"malignancy": (1.7, 2.3, 2.7, 3.3, 3.7, 4.3), "spiculation": (1.2, 1.7, 2.2, 3),
        "lobulation": (1.2, 1.7, 2.2, 3), "sphericity": (2.9, 3.4, 3.9, 4.4),
        "margin": (2.9, 3.9, 4.4), "texture": (3, 4.4), "subtlety": (2.9, 3.9, 4.4)}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this command's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False)
    parser.add_argument("out_dir", type=types.path, metavar="DIR",
                        help="output folder")
    parser.add_argument("--slices", type=types.count_or_none, default=3, metavar="N",
                        help="slices of a volume along each axis, in addition to the slice with "
                             "the largest area (default %(default)s)")
    parser.add_argument("--overwrite", action="store_true",
                        help="write to a DIR that is not empty")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Write the images and volumes, then their tables."""
    args = build_parser().parse_args(argv)
    setup_logging()
    check_out_dir(args.out_dir, overwrite=args.overwrite)
    with open_out_dir(args.out_dir, False, args.overwrite):
        for name, rows in (("images", image_rows(args.out_dir, args.slices)),
                           ("volumes", volume_rows(args.out_dir))):
            with atomic_write(args.out_dir / f"{name}.csv") as part:
                rows.to_csv(part, index=False)
            counts = ", ".join(f"{count} {split}" for split, count in
                               rows["Split"].value_counts(sort=False).items())
            LOG.info("wrote %s: %d %s (%s)", args.out_dir / f"{name}.csv", len(rows), name, counts)


def image_rows(out_dir: Path, count: int) -> pd.DataFrame:
    """Write the images to `out_dir`/images; return their table."""
    (out_dir / "images").mkdir(parents=True, exist_ok=True)
    volumes, table = _read("noduleshapes3d")
    parts = []
    for k in np.flatnonzero(table["split"] != "test"):
        for axis in range(3):
            slices = np.moveaxis(volumes[k], axis, 0)
            parts += [(table.iloc[k], f"_{place}_{axis}", slices[place])
                      for place in choose_slices(slices, count)]
    slices, table = _read("noduleshapes2d")
    parts += [(table.iloc[k], "", slices[k]) for k in np.flatnonzero(table["malignancy"] == 3)]
    names = [row["nodule"] + ending for row, ending, _ in parts]
    for name, (_, _, image) in zip(names, parts, strict=True):
        with atomic_write(out_dir / "images" / f"{name}.png") as part:
            Image.fromarray(image).save(part)
    return _table(pd.DataFrame([row for row, _, _ in parts]), names,
                  [f"images/{name}.png" for name in names])


def volume_rows(out_dir: Path) -> pd.DataFrame:
    """Write the volumes to `out_dir`/volumes; return their table."""
    (out_dir / "volumes").mkdir(parents=True, exist_ok=True)
    volumes, table = _read("noduleshapes3d")
    paths = [f"volumes/{name}.npy" for name in table["nodule"]]
    for path, volume in zip(paths, volumes, strict=True):
        with atomic_write(out_dir / path) as part:
            np.save(part, volume)
    return _table(table, table["nodule"], paths)


def _read(name: str) -> tuple[list[np.ndarray], pd.DataFrame]:
    """Return the scans of an embedded set, uint8, and the table that describes them."""
    scans = load_named(name, 3 if name.endswith("3d") else 2, DATA_DIR)
    table = pd.read_csv(DATA_DIR / f"{name}.csv", dtype={"patient": str, "nodule": str})
    slices = [scans.read(row).slices for row in range(len(scans))]
    return [one if scans.ndim == 3 else one[0] for one in slices], table


def _table(rows: pd.DataFrame, names: list[str], paths: list[str]) -> pd.DataFrame:
    rows = rows.reset_index(drop=True)
    return pd.DataFrame({"F_Name": names, "Path": paths,
                         "malignant": (rows["malignancy"] > 3).astype(int), **above_cuts(rows),
                         "Split": rows["split"], "patient": rows["patient"]})


def choose_slices(slices: np.ndarray, count: int) -> list[int]:
    """Return the slice of the largest area and `count` others, evenly over those of any area.

    Args:
        slices: (N, H, W) uint8, 0 where there is nothing.
        count: at most so many others.
    """
    area = slices.sum(axis=(1, 2), dtype=np.int64)
    seen = np.flatnonzero(area)
    evenly = seen[np.round(np.linspace(0, len(seen) - 1, count + 2)[1:-1]).astype(int)]
    return sorted({int(area.argmax()), *evenly.tolist()})


def above_cuts(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Return a 0/1 column `RATING_CUT` for every cut of the ratings in `table`."""
    return {f"{name}_{cut}": (table[name] > cut).astype(int)
            for name, cuts in CUTS.items() for cut in cuts}


if __name__ == "__main__":
    run_script(main)
