"""Command-line options that the scripts share, in named groups, and their types."""

import argparse
from pathlib import Path

from slivit.cli import types

SPLIT_RATIO = "0.7,0.15,0.15"


def add_data_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the options that say which scans; `what` is `images` or `volumes`."""
    group = parser.add_argument_group("data")
    group.add_argument("--meta_csv", type=types.path, metavar="FILE",
                       help=f"table of {what}: F_Name, Path, a column per label; optional Split "
                            "and patient (data/README.md)")
    group.add_argument("--dataset", type=types.text, metavar="NAME",
                       help="instead of --meta_csv: a MedMNIST set such as nodulemnist3d, or the "
                            "embedded noduleshapes2d / noduleshapes3d (default: the embedded one)")
    group.add_argument("--data_root", type=types.path, default=Path("data/medmnist"),
                       metavar="DIR",
                       help="where MedMNIST files are, or are downloaded to (default %(default)s)")
    group.add_argument("--medmnist_size", type=types.picture_side, metavar="N",
                       help="side of MedMNIST's pictures: 28 (default), 64, and in 2D 128, 224")
    group.add_argument("--pathologies", type=types.names, metavar="A,B",
                       help="label columns (default: every label the data set has)")
    group.add_argument("--pid_col", type=types.text, metavar="NAME",
                       help="patient column of --meta_csv (default: pid, patient or patient_id)")


def add_cache_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where prepared scans are kept."""
    parser.add_argument("--cache_dir", type=types.path, metavar="DIR",
                        help="where decoded and resized scans of --meta_csv, and with "
                             "--freeze_backbone the slice features, are kept for the next run "
                             "(default: nowhere)")


def add_split_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that divide a table without splits."""
    group = parser.add_argument_group("split of a table that has none")
    group.add_argument("--split_ratio", type=types.split_ratio, metavar="A,B,C",
                       help="train, val and test shares, by patient (default 0.7,0.15,0.15)")


def add_run_options(parser: argparse.ArgumentParser, out_dir: str, resumable: bool = True) -> None:
    """Add the options that say where and on what the script runs."""
    group = parser.add_argument_group("run")
    group.add_argument("--out_dir", type=types.path, default=Path(out_dir), metavar="DIR",
                       help="where everything is written (default %(default)s)")
    again = group.add_mutually_exclusive_group()
    again.add_argument("--overwrite", action="store_true",
                       help="start again in an --out_dir that is not empty")
    if resumable:
        again.add_argument("--resume", action="store_true",
                           help="go on after the last finished epoch in --out_dir")
    group.add_argument("--gpu_id", type=types.gpu, metavar="N",
                       help="which GPU, or cpu (default: GPU 0 where there is one, else the CPU)")
    group.add_argument("--n_cpu", type=types.natural, metavar="N",
                       help="data-loading processes (default: up to 8 with a GPU, 0 on a CPU)")
    group.add_argument("--seed", type=types.seed_number, default=0, metavar="N",
                       help="of everything random (default %(default)s)")


def add_input_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options of the backbone and its input; return their group."""
    group = parser.add_argument_group("backbone and its input")
    group.add_argument("--backbone", type=types.text, metavar="NAME",
                       help="any ConvNeXt or ConvNeXt V2 of timm, tag allowed; with _bn after "
                            "it, as in convnext_atto_bn, one that learns more from random weights "
                            "(default: that of a --weights file, else convnext_tiny)")
    group.add_argument("--weights", type=types.weights, metavar="W",
                       help="imagenet (default), none, or a file of ConvNeXt weights as "
                            "timm, torchvision, transformers, facebookresearch or the "
                            "original SLIViT write them")
    group.add_argument("--img_size", type=types.picture_side, metavar="N",
                       help="side to which slices are resized (default 224 for images, 256 for "
                            "volumes, smaller for small data sets)")
    group.add_argument("--window", type=types.window, metavar="W",
                       help="grey values to use: percentile (2-98 of the scan), full, or LOW,HIGH "
                            "as in --window=-1000,400 (default percentile; -1000,1000 Hounsfield "
                            "units for CT in DICOM; full for videos, the embedded sets and "
                            "MedMNIST)")
    return group


def add_slice_options(group: argparse._ArgumentGroup) -> None:
    """Add the options that say which slices of a volume are looked at."""
    group.add_argument("--n_slices", type=types.count, default=28, metavar="N",
                       help="slices per volume, and per view: fewer are padded and masked, more "
                            "are sampled (default %(default)s)")
    group.add_argument("--slice_sampling", choices=("uniform", "middle"), default="uniform",
                       help="which slices of a longer volume (default %(default)s)")
    group.add_argument("--channels", choices=("repeat", "adjacent"), default="repeat",
                       help="what the backbone's three channels show of a slice: repeat, itself "
                            "three times, or adjacent, the slice before it, itself and the one "
                            "after it (default %(default)s)")
    group.add_argument("--slice_axis", type=types.view, metavar="AXIS",
                       help="cut volumes along another axis: axial, coronal or sagittal, or the "
                            "array's axis 0, 1 or 2 (default acquisition: the slices as they are)")
    group.add_argument("--views", type=types.views, metavar="A,B",
                       help="cut near-isotropic volumes in several planes at once: some of axial, "
                            "coronal, sagittal (default: one, see --slice_axis)")


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is to be found out beside the scores."""
    group = parser.add_argument_group("report")
    group.add_argument("--operating_point", type=types.operating_rule, metavar="RULE",
                       default="youden",
                       help="how the threshold is chosen on validation: youden, sensitivity=0.95 "
                            "or specificity=0.9 (default %(default)s)")
    group.add_argument("--group_by", type=types.text, metavar="COLUMN",
                       help="scores also per value of this column, such as site, sex or scanner")
    group.add_argument("--explain", type=types.count_or_none, default=0, metavar="N",
                       help="figures of where the model looked in the N most confident right and "
                            "wrong scans of each label")
    group.add_argument("--calibrate", action="store_true",
                       help="temperature scaling, fitted on validation in training")
    group.add_argument("--tta", choices=("flips",),
                       help="average predictions over the flips that training drew")
    group.add_argument("--mc_dropout", type=types.count_or_none, default=0, metavar="N",
                       help="a column with the standard deviation of N passes with dropout")
