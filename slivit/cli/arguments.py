"""Command-line options that the scripts share, in named groups, and their types."""

import argparse
from pathlib import Path

from slivit.cli import types
from slivit.config import PRECISIONS
from slivit.data.ratio import SPLIT_RATIO


def add_data_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the options that say which scans; `what` is `images` or `volumes`."""
    group = parser.add_argument_group("data")
    group.add_argument("--meta_csv", type=types.path, metavar="FILE",
                       help=f"table of {what} with the columns F_Name, Path and one per label; "
                            "optionally Split and patient (see data/README.md)")
    group.add_argument("--dataset", type=types.text, metavar="NAME",
                       help="instead of --meta_csv: a MedMNIST set such as nodulemnist3d, or the "
                            "embedded noduleshapes2d / noduleshapes3d (default: the embedded one)")
    group.add_argument("--data_root", type=types.path, default=Path("data/medmnist"),
                       metavar="DIR",
                       help="folder of the MedMNIST files; missing ones are downloaded to it "
                            "(default %(default)s)")
    group.add_argument("--medmnist_size", type=types.picture_side, metavar="N",
                       help="side of MedMNIST images in pixels: 28 (default) or 64, in 2D also 128 "
                            "or 224")
    group.add_argument("--pathologies", type=types.names, metavar="A,B",
                       help="label columns (default: every label the data set has)")
    group.add_argument("--pid_col", type=types.text, metavar="NAME",
                       help="patient column of --meta_csv (default: pid, patient or patient_id)")


def add_decoding_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say when scans are decoded, and where they are kept."""
    parser.add_argument("--cache_dir", type=types.path, metavar="DIR",
                        help="folder that keeps decoded and resized scans of --meta_csv, and with "
                             "--freeze_backbone the slice features, for the next run (default: "
                             "none)")
    parser.add_argument("--check_scans", action="store_true",
                        help="decode every scan before anything is written, and list all that are "
                             "damaged (default: one batch of each split)")


def add_split_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that divide a table without splits."""
    group = parser.add_argument_group("splitting a table without splits")
    group.add_argument("--split_ratio", type=types.split_ratio, metavar="A,B,C",
                       help="fractions for train, val and test, by patient (default "
                            f"{SPLIT_RATIO})")


def add_run_options(parser: argparse.ArgumentParser, out_dir: str, resumable: bool = True
                    ) -> argparse._ArgumentGroup:
    """Add the options that say where and on what the script runs; return their group."""
    group = parser.add_argument_group("run")
    group.add_argument("--out_dir", type=types.path, default=Path(out_dir), metavar="DIR",
                       help="output folder (default %(default)s)")
    again = group.add_mutually_exclusive_group()
    again.add_argument("--overwrite", action="store_true",
                       help="start again in an --out_dir that is not empty")
    if resumable:
        again.add_argument("--resume", action="store_true",
                           help="continue the run in --out_dir where it stopped")
    group.add_argument("--gpu_id", type=types.gpu, metavar="N",
                       help="which GPU, or cpu (default: GPU 0 where there is one, else the CPU)")
    group.add_argument("--n_cpu", type=types.natural, metavar="N",
                       help="data-loading processes, of one thread each (default: up to 8 with "
                            "a GPU, 0 on a CPU)")
    group.add_argument("--deterministic", action="store_true",
                       help="on a GPU, the same numbers in each run, as far as PyTorch has kernels "
                            "for that; slower (a CPU always gives the same)")
    group.add_argument("--seed", type=types.seed_number, default=0, metavar="N",
                       help="random seed (default %(default)s)")
    return group


def add_precision_option(group: argparse._ActionsContainer, usual: str) -> None:
    """Add the type of number in which the backbone multiplies; `auto` takes `usual`, in words."""
    group.add_argument("--amp", choices=("auto", *PRECISIONS), default="auto",
                       help="type of number in which the backbone multiplies: off (float32), bf16 "
                            f"(bfloat16), fp16 (float16, GPUs only), or auto: {usual} where the "
                            "device multiplies it in hardware (bfloat16: GPUs from compute "
                            "capability 8.0, CPUs with AMX or AVX512-BF16), else float32 (default "
                            "%(default)s)")


def add_input_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options of the backbone and its input; return their group."""
    group = parser.add_argument_group("backbone and its input")
    group.add_argument("--backbone", type=types.text, metavar="NAME",
                       help="any ConvNeXt or ConvNeXt V2 of timm, with or without a tag; the "
                            "suffix _bn, as in convnext_atto_bn, gives a variant that learns more "
                            "from random weights (default: that of a --weights file, else "
                            "convnext_tiny)")
    group.add_argument("--weights", type=types.weights, metavar="W",
                       help="imagenet (default): timm's weights of --backbone, of ImageNet or "
                            "whatever its tag says, as in convnext_tiny.dinov3_lvd1689m; none; or "
                            "a file of ConvNeXt weights in the format of timm, torchvision, "
                            "transformers, facebookresearch or the original SLIViT, on this "
                            "machine or as hf://owner/name")
    group.add_argument("--img_size", type=types.picture_side, metavar="N",
                       help="side in pixels of the resized slices (default 224 for images, "
                            "256 for volumes, smaller for small data sets)")
    group.add_argument("--window", type=types.window, metavar="W",
                       help="grey-value window: percentile (2nd to 98th of the scan), full, or "
                            "LOW,HIGH as in --window=-1000,400 (default percentile; -1000,1000 "
                            "Hounsfield units for CT in DICOM; full for videos, the embedded sets "
                            "and MedMNIST)")
    return group


def add_slice_options(group: argparse._ArgumentGroup) -> None:
    """Add the options that say which slices of a volume are looked at."""
    group.add_argument("--n_slices", type=types.count, default=28, metavar="N",
                       help="slices per volume and view: shorter volumes are padded and masked, "
                            "longer ones sampled (default %(default)s)")
    group.add_argument("--slice_sampling", choices=("uniform", "middle"), default="uniform",
                       help="which slices to take from a longer volume (default %(default)s)")
    group.add_argument("--channels", choices=("repeat", "adjacent"), default="repeat",
                       help="the backbone's three input channels: repeat, the slice three times, "
                            "or adjacent, the previous slice, the slice itself and the next one "
                            "(default %(default)s)")
    group.add_argument("--slice_axis", type=types.view, metavar="AXIS",
                       help="cut volumes along another axis: axial, coronal or sagittal, or the "
                            "array's axis 0, 1 or 2 (default acquisition: the slices as stored)")
    group.add_argument("--views", type=types.views, metavar="A,B",
                       help="cut near-isotropic volumes in several planes at once: any of axial, "
                            "coronal, sagittal (default: one, see --slice_axis)")


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is to be reported besides the scores."""
    group = parser.add_argument_group("report")
    group.add_argument("--operating_point", type=types.operating_rule, metavar="RULE",
                       default="youden",
                       help="how the threshold is chosen on validation: youden, sensitivity=0.95 "
                            "or specificity=0.9 (default %(default)s)")
    group.add_argument("--group_by", type=types.text, metavar="COLUMN",
                       help="also give scores per value of this column, such as site, sex or "
                            "scanner")
    group.add_argument("--explain", type=types.count_or_none, default=0, metavar="N",
                       help="figures of where the model looked, for the N most confident right and "
                            "wrong predictions of each label")
    group.add_argument("--calibrate", action="store_true",
                       help="apply temperature scaling, fitted on the validation split in training")
    group.add_argument("--tta", choices=("flips",),
                       help="average predictions over the flips used in training")
    group.add_argument("--mc_dropout", type=types.count_or_none, default=0, metavar="N",
                       help="add a column with the standard deviation over N passes with dropout")
