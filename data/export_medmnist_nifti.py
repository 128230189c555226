"""Export a named set of volumes to NIfTI, to look at it in a viewer or to train from files.

    python data/export_medmnist_nifti.py --dataset nodulemnist3d --out_dir nodules
    python data/export_medmnist_nifti.py --dataset noduleshapes3d --limit 20 --out_dir few

Writes SPLIT_INDEX.nii.gz for each volume, INDEX being its row in the split's arrays, and meta.csv:
F_Name, Path, labels, Split, and patient where known. The same command gives the same bytes.

An array's slices are taken to run to superior, its rows to posterior, its columns to left, with
voxels of 1 mm. That is so for noduleshapes3d; MedMNIST publishes neither directions nor voxel size,
so its volumes cannot be measured in a viewer.
"""

import argparse
import gzip
import sys
from pathlib import Path

if __name__ == "__main__":  # the packages of the repository are one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from slivit.utils.startup import begin_process

    begin_process()  # before the imports, which take seconds

import nibabel
import numpy as np
import pandas as pd

from slivit.cli import types
from slivit.data.named_sets import EMBEDDED, load_named
from slivit.data.scan_table import ScanTable
from slivit.utils.cells import write_table
from slivit.utils.errors import UserError, run_script
from slivit.utils.files import atomic_write
from slivit.utils.log import LOG, setup_logging
from slivit.utils.output_dir import check_out_dir, open_out_dir

SPLITS = ("train", "val", "test")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False)
    parser.add_argument("--dataset", type=types.text, required=True, metavar="NAME",
                        help="a 3D MedMNIST set such as nodulemnist3d, or noduleshapes3d")
    parser.add_argument("--data_root", type=types.path, default=Path("data/medmnist"),
                        metavar="DIR", help="folder of the MedMNIST files; missing ones are "
                                            "downloaded to it (default %(default)s)")
    parser.add_argument("--medmnist_size", type=types.picture_side, metavar="N",
                        help="side of MedMNIST volumes in voxels: 28 (default) or 64")
    parser.add_argument("--split", choices=("test", "val", "train", "all"), default="all",
                        help="which volumes to export (default %(default)s)")
    parser.add_argument("--limit", type=types.positive_int, metavar="N",
                        help="only the first N volumes of each split")
    parser.add_argument("--out_dir", type=types.path, required=True, metavar="DIR",
                        help="output folder")
    parser.add_argument("--overwrite", action="store_true",
                        help="replace an earlier export in an --out_dir that is not empty")
    return parser


def to_nifti(volume: np.ndarray) -> bytes:
    """Return the bytes of a .nii.gz; the same volume always gives the same.

    Args:
        volume: (N, H, W) uint8, slices to superior, rows to posterior, columns to left.
    """
    data = volume.transpose(2, 1, 0)  # to left, to posterior, to superior
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(data.shape) - 1) / 2  # the centre is the origin
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.header.set_dim_info(slice=2)
    return gzip.compress(image.to_bytes(), mtime=0)


def export(scans: ScanTable, splits: tuple[str, ...], limit: int | None, out_dir: Path) -> None:
    """Write the volumes, and then their meta.csv, to an existing folder."""
    kept, names = [], []
    for split in splits:
        rows = scans.rows(split)[:limit]
        for index, row in enumerate(rows):
            volume = scans.read(row).slices
            name = f"{split}_{index:04d}"
            with atomic_write(out_dir / f"{name}.nii.gz") as part:
                part.write_bytes(to_nifti(volume))
            names.append(name)
        kept.extend(rows)
        LOG.info("%s: %d volumes", split, len(rows))
    table = pd.DataFrame({"F_Name": names, "Path": [f"{name}.nii.gz" for name in names]})
    for label, column in zip(scans.label_names, scans.labels[kept].T, strict=True):
        table[label] = ["" if np.isnan(value) else f"{value:g}" for value in column]
    table["Split"] = scans.split[kept]
    if scans.patients is not None:
        table["patient"] = [scans.patients[row] for row in kept]
    write_table(out_dir / "meta.csv", table)
    LOG.info("wrote %s", out_dir / "meta.csv")


def main(argv: list[str] | None = None) -> None:
    """Load the set, remove an earlier export, write the files."""
    args = build_parser().parse_args(argv)
    setup_logging()
    check_out_dir(args.out_dir, overwrite=args.overwrite)
    if args.dataset.lower() in EMBEDDED and args.medmnist_size is not None:
        raise UserError(f"--medmnist_size applies to MedMNIST sets, not to {args.dataset}")
    scans = load_named(args.dataset, 3, args.data_root, args.medmnist_size or 28)
    splits = SPLITS if args.split == "all" else (args.split,)
    if not any(len(scans.rows(split)) for split in splits):
        raise UserError(f"--split {args.split}: {scans.name} has no volumes in it")
    with open_out_dir(args.out_dir, False, args.overwrite):
        export(scans, splits, args.limit, args.out_dir)


if __name__ == "__main__":
    run_script(main)
