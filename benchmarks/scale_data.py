"""Made-up cohorts of images and of volumes, to see what grows with the number of scans."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from slivit.config import Preprocess
from slivit.data.datasets import prepare
from slivit.data.parallel import in_processes
from slivit.data.scan_table import ScanTable

SIDE, SLICES, PIXELS = 64, 28, 128  # of an image; of a volume
KINDS = 64  # different scans; the files are copies of them
PER_PATIENT = 3  # scans, on average
LABELS = tuple(f"finding {k}" for k in range(1, 15))
KNOWN = 0.95  # share of the label cells that are not empty


def make_table(folder: Path, names: list[str], seed: int, ratio: tuple[float, float]) -> Path:
    """Write meta.csv: patients of about PER_PATIENT scans, 14 labels, a split by patient.

    Args:
        folder: gets the table; the names are relative to it.
        names: of the scans' files.
        seed: of everything that is drawn.
        ratio: shares of the patients in training and validation.
    """
    rng = np.random.default_rng(seed)
    patients = np.sort(rng.integers(0, max(3, len(names) // PER_PATIENT), len(names)))
    place = rng.random(patients.max() + 1)
    place[np.unique(patients)[:3]] = 0, ratio[0], 1  # each split has a patient
    split = np.array(["train", "val", "test"])[np.searchsorted(np.cumsum(ratio), place, "right")]
    labels = (rng.random((len(names), len(LABELS))) < rng.uniform(0.02, 0.4, len(LABELS)))
    labels = labels.astype(int).astype(str).astype(object)
    labels[:2] = [["0"], ["1"]]
    labels[2:][rng.random(labels[2:].shape) > KNOWN] = ""
    table = pd.DataFrame({"F_Name": [Path(name).stem for name in names], "Path": names,
                          "patient": [f"PAT{number:07d}" for number in patients],
                          "Split": split[patients], **dict(zip(LABELS, labels.T, strict=True))})
    table.to_csv(folder / "meta.csv", index=False)
    return folder / "meta.csv"


def write_images(folder: Path, count: int) -> Path:
    """Write JPEG images of 64 pixels a side, and their table."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    made = []
    for _ in range(KINDS):
        pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).resize((SIDE, SIDE)).save(folder / "one.jpg")
        made.append((folder / "one.jpg").read_bytes())
    return make_table(folder, _copies(folder, made, count, ".jpg"), 0, (0.7, 0.15))


def write_volumes(folder: Path, count: int) -> Path:
    """Write volumes of 28 x 128 x 128, packed small as `.npz`, and their table."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    made = []
    for _ in range(KINDS):
        volume = rng.integers(0, 256, (SLICES, 4, 4), dtype=np.uint8).repeat(32, 1).repeat(32, 2)
        np.savez_compressed(folder / "one.npz", volume)
        made.append((folder / "one.npz").read_bytes())
    return make_table(folder, _copies(folder, made, count, ".npz"), 0, (0.7, 0.15))


def _copies(folder: Path, made: list[bytes], count: int, suffix: str) -> list[str]:
    """Write so many files with these contents in turn, a thousand to a folder."""
    names = [f"{k // 1000}/scan{k:06d}{suffix}" for k in range(count)]
    for k, name in enumerate(names):
        path = folder / name
        if k % 1000 == 0:
            path.parent.mkdir()
        path.write_bytes(made[k % len(made)])
    return names


def fill_cache(scans: ScanTable, preprocess: Preprocess) -> None:
    """Prepare every scan of a table that has a cache, by the code of a run."""
    in_processes(_Fill(scans, preprocess), range(len(scans)), "cache")


class _Fill:
    """What `in_processes` calls with a row; it can be pickled."""

    def __init__(self, scans: ScanTable, preprocess: Preprocess) -> None:
        self.scans, self.preprocess = scans, preprocess

    def __call__(self, row: int) -> None:
        prepare(self.scans, row, self.preprocess)
