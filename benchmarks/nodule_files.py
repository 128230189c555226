"""The nodules as files and tables, for the three scripts."""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.nodules import IMAGE_LABELS, Fold, image_table, largest_slice
from slivit.data.scan_table import SPLITS
from slivit.utils.files import atomic_write


def write_images(fold: Fold, folder: Path, shared: Path) -> Path:
    """Write the table of a fold's pre-training, for bb_train.py; images go to `shared`, once."""
    table = image_table(fold)
    paths = []
    for row, nodule, of_volume in zip(table["row"], table["nodule"], table["of_volume"],
                                      strict=True):
        source = fold.scans if of_volume else fold.images
        scan = largest_slice(source.scans[row]) if of_volume else source.scans[row]
        paths.append(save(shared / f"{nodule}_slice.npy", scan))
    return write_table(table, paths, IMAGE_LABELS, folder / "images.csv")


def write_unlabelled(fold: Fold, folder: Path, shared: Path) -> Path:
    """Write the table of what a fold may learn from without labels: volumes, and images as such.

    Indeterminate nodules, of which there are images alone, are volumes of one slice.
    """
    table = image_table(fold, ())
    paths = [save(shared / f"{nodule}_volume.npy", fold.scans.scans[row]) if of_volume else
             save(shared / f"{nodule}_one_slice.npy", fold.images.scans[row][None])
             for row, nodule, of_volume in zip(table["row"], table["nodule"], table["of_volume"],
                                               strict=True)]
    return write_table(table, paths, (), folder / "unlabelled.csv")


def write_scans(fold: Fold, folder: Path, shared: Path) -> Path:
    """Write the table of a fold's scans, for a script; the scans go to `shared`, once."""
    rows = fold.rows(*SPLITS)
    table = fold.scans.table.loc[rows].assign(Split=fold.split[rows])
    kind = "volume" if fold.ndim == 3 else "slice"
    paths = [save(shared / f"{nodule}_{kind}.npy", fold.scans.scans[row])
             for row, nodule in zip(rows, table["nodule"], strict=True)]
    return write_table(table, paths, fold.target.labels, folder / "scans.csv")


def save(path: Path, scan: np.ndarray) -> Path:
    """Write a scan, if it is not there yet; return its path."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            np.save(part, scan)
    return path


def write_table(table: pd.DataFrame, paths: list[Path], labels: tuple[str, ...],
                path: Path) -> Path:
    """Write a table for a script; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [*(["patient"] if "patient" in table else []), "Split", *labels]
    content = pd.DataFrame({"F_Name": table["nodule"], "Path": [p.absolute() for p in paths],
                            **{name: table[name] for name in names}})
    with atomic_write(path) as part:
        content.to_csv(part, index=False)
    return path
