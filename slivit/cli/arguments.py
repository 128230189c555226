"""Command-line options that the scripts share, in named groups, and their types."""

import argparse
import dataclasses
import json
from pathlib import Path

from slivit.cli import types
from slivit.config import Preprocess
from slivit.data.meta_csv import read_meta
from slivit.data.named_sets import EMBEDDED, load_named
from slivit.data.scan_table import ScanTable
from slivit.data.splits import parse_ratio
from slivit.data.transforms import parse_window
from slivit.utils.errors import UserError, listing
from slivit.utils.manifest import read_manifest
from slivit.utils.output_dir import check_writable, is_empty
from slivit.utils.records import Misfit, check, parse_object

SPLIT_RATIO = "0.7,0.15,0.15"
MAY_CHANGE = {"resume", "overwrite", "out_dir", "gpu_id", "n_cpu", "n_epochs", "patience",
              "data_root", "cache_dir", "versions", "quiet", "tensorboard", "wandb"}


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


def load_scans(args: argparse.Namespace, ndim: int, pathologies: list[str] | None,
               ratio: str | None = None, seed: int = 0, labels_needed: bool = True,
               zero_one: bool = False) -> ScanTable:
    """Load the table that the data options name; the rest is as in meta.read_meta.

    Raises:
        UserError: contradictory options, or whatever is wrong with the data.
    """
    if args.meta_csv is not None and args.dataset is not None:
        raise UserError("--meta_csv and --dataset contradict each other; give one of them")
    if getattr(args, "cache_dir", None) is not None:
        check_writable(args.cache_dir, "--cache_dir")
    if args.meta_csv is not None:
        if args.medmnist_size is not None:
            raise UserError("--medmnist_size goes with --dataset, not with --meta_csv")
        scans = read_meta(args.meta_csv, ndim, pathologies, args.pid_col,
                          parse_ratio(ratio or SPLIT_RATIO), seed, labels_needed=labels_needed,
                          zero_one=zero_one)
        return dataclasses.replace(scans, cache_dir=getattr(args, "cache_dir", None))
    for flag in ("pid_col", "split_ratio"):
        if getattr(args, flag, None) is not None:
            raise UserError(f"--{flag} goes with --meta_csv; a --dataset has its own split")
    if getattr(args, "cache_dir", None) and not getattr(args, "freeze_backbone", False):
        raise UserError("--cache_dir goes with --meta_csv, or with --freeze_backbone; the scans of "
                        "a --dataset are in memory")
    name = args.dataset
    if name is None:
        name = next(key for key, value in EMBEDDED.items() if value == ndim)
    if name.lower() in EMBEDDED and args.medmnist_size is not None:
        raise UserError(f"--medmnist_size goes with a MedMNIST set, not with {name}")
    scans = load_named(name, ndim, args.data_root, args.medmnist_size or 28)
    return scans.select_labels(pathologies) if pathologies else scans


def make_preprocess(args: argparse.Namespace, scans: ScanTable, mean: tuple, std: tuple,
                    n_slices: int = 0) -> Preprocess:
    """Resolve the input options against what suits the data set.

    Raises:
        UserError: a window that is none, or slices too small for a ConvNeXt's strides.
    """
    if args.img_size is not None and args.img_size < 32:
        raise UserError(f"--img_size {args.img_size}: a ConvNeXt needs at least 32 pixels a side")
    return Preprocess(img_size=args.img_size or scans.img_size,
                      window=parse_window(args.window or scans.window),
                      mean=tuple(mean), std=tuple(std), n_slices=n_slices,
                      slice_sampling=getattr(args, "slice_sampling", "uniform"),
                      views=chosen_views(args),
                      channels=getattr(args, "channels", "repeat"))


def chosen_views(args: argparse.Namespace) -> tuple[str, ...]:
    """Return how volumes are cut, from --views or --slice_axis."""
    return (getattr(args, "views", None)
            or (getattr(args, "slice_axis", None) or "acquisition",))


def make_config(args: argparse.Namespace, **resolved: object) -> dict:
    """Return what `config.json` holds: every option, then what was resolved from them.

    Raises:
        UserError: a size that no checkpoint may hold.
    """
    config = dict(vars(args))
    for key, value in resolved.items():
        if dataclasses.is_dataclass(value):
            try:
                check(value)
            except Misfit as error:
                raise UserError(f"{key}: {error}") from None
        config[key] = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
    return json.loads(json.dumps(config, default=str))  # paths as text


def check_resume(out_dir: Path, config: dict) -> None:
    """Refuse to resume a run that was started with other options or other data.

    Raises:
        UserError: listing every option that differs.
    """
    path = out_dir / "config.json"
    if not path.exists() and not path.is_symlink():
        if not is_empty(out_dir, read_manifest(out_dir) or {}):
            raise UserError(f"--resume: {out_dir} is not empty and holds no config.json, so it is "
                            "not a run of this script")
        return
    try:
        if not path.is_file():
            raise Misfit(["it is no regular file"])
        before = parse_object(path.read_bytes())
    except (Misfit, OSError) as error:
        raise UserError(f"--resume: {path} is damaged ({error}); start again with --overwrite"
                        ) from None
    if isinstance(before.get("data"), dict):
        before["data"].pop("patients", None)  # stood there in earlier versions
    changed = [f"{key}: was {before.get(key)!r}, now {config.get(key)!r}"
               for key in sorted(set(before) | set(config))
               if key not in MAY_CHANGE and before.get(key) != config.get(key)]
    if changed:
        raise UserError(f"--resume: the run in {out_dir} was started differently:\n"
                        f"{listing(changed)}\nGive the same options (only "
                        f"{', '.join('--' + key for key in ('n_epochs', 'patience', 'n_cpu'))} "
                        "and --gpu_id may change), or another --out_dir")
