"""The records that the rest of the package takes, made of parsed options."""

import argparse
from pathlib import Path

from slivit.checkpoints.hub import is_hub_name, pinned
from slivit.cli import types
from slivit.config import Augmentation, FitOptions, IntegratorConfig
from slivit.data import decode_check
from slivit.data.load import DataOptions, InputOptions, make_preprocess
from slivit.data.scan_table import ScanTable
from slivit.training.losses import WeightingOptions
from slivit.training.trackers import TrackerOptions
from slivit.utils.errors import UserError
from slivit.utils.session import Session, SessionOptions


def data_options(args: argparse.Namespace) -> DataOptions:
    """Return which scans the options name."""
    return DataOptions(args.meta_csv, args.dataset, args.data_root, args.medmnist_size,
                       args.pid_col, getattr(args, "split_ratio", None),
                       getattr(args, "cache_dir", None),
                       bool(getattr(args, "freeze_backbone", False)),
                       getattr(args, "task", None) == "ssl")


def input_options(args: argparse.Namespace) -> InputOptions:
    """Return how scans become input; images have no options on slices."""
    if not hasattr(args, "n_slices"):
        return InputOptions(args.img_size, args.window)
    return InputOptions(args.img_size, args.window, args.n_slices, args.slice_sampling,
                        args.views or (args.slice_axis or "acquisition",), args.channels)


def check_decoding(args: argparse.Namespace, scans: ScanTable, run: Session) -> None:
    """Decode a batch of each split, or with --check_scans every scan, before anything is written.

    Raises:
        UserError: listing every scan that cannot be decoded.
    """
    preprocess = make_preprocess(input_options(args), scans, (0.0,) * 3, (1.0,) * 3)
    decode_check.check_decoding(scans, preprocess, None if args.check_scans else args.b_size,
                                n_cpu=args.n_cpu, world=run.world)


def session_options(args: argparse.Namespace) -> SessionOptions:
    """Return where and on what the script runs."""
    return SessionOptions(args.out_dir, args.gpu_id, args.n_cpu, getattr(args, "resume", False),
                          args.overwrite, getattr(args, "quiet", False), args.deterministic,
                          vars(args), args.amp if hasattr(args, "n_epochs") else None)


def on_disk(*names: str | Path | None) -> list[Path]:
    """Return those of --weights, --bb_path and --checkpoint that name files of this machine."""
    return [Path(name) for name in names if name not in (None, *types.STARTS)
            and not is_hub_name(name)]


def fetch_weights(args: argparse.Namespace) -> None:
    """Fetch what --weights, --bb_path and --checkpoint name on the Hub, and note the commits.

    Raises:
        UserError: see hub.local_file.
    """
    for flag in ("weights", "bb_path", "checkpoint"):
        given = getattr(args, flag, None)
        if isinstance(given, list):
            setattr(args, flag, [pinned(name) for name in given])
        elif given not in (None, *types.STARTS):
            setattr(args, flag, pinned(given))


def integrator_config(args: argparse.Namespace) -> IntegratorConfig:
    """Gather kind and sizes of the integrator."""
    return IntegratorConfig(token=args.token, dim=args.vit_dim, depth=args.vit_depth,
                            heads=args.vit_heads, head_dim=args.vit_head_dim,
                            mlp_dim=args.vit_mlp_dim, dropout=args.dropout,
                            emb_dropout=args.emb_dropout, kind=args.integrator)


def fit_options(args: argparse.Namespace) -> FitOptions:
    """Gather the options of the loop."""
    return FitOptions(n_epochs=args.n_epochs, b_size=args.b_size,
                      warmup_epochs=args.warmup_epochs, patience=args.patience, seed=args.seed,
                      select=args.select, accumulate=args.accumulate, compile=args.compile,
                      ema=args.ema, mixup=args.mixup)


def augmentation(args: argparse.Namespace, scans: ScanTable) -> Augmentation:
    """Resolve the augmentation options against what suits the data set."""
    return Augmentation(
        flips=scans.augmentation.flips if args.flips is None else args.flips,
        jitter=scans.augmentation.jitter if args.jitter is None else args.jitter)


def weighting_options(args: argparse.Namespace) -> WeightingOptions:
    """Gather what is done about few and skewed labels."""
    return WeightingOptions(args.pos_weight, args.balanced_sampling, args.label_smoothing)


def tracker_options(args: argparse.Namespace) -> TrackerOptions:
    """Gather where the log goes beside log.csv."""
    return TrackerOptions(args.tensorboard, args.wandb)


def check_training_options(args: argparse.Namespace, run: Session) -> None:
    """Refuse training options that cannot be met.

    Raises:
        UserError: saying which, and what to do.
    """
    if args.b_size < run.world.size:
        raise UserError(f"--b_size {args.b_size}: is divided among {run.world.size} processes, "
                        "each of which needs at least one scan")
    if args.pos_weight == "auto" and args.balanced_sampling:
        raise UserError("--pos_weight auto and --balanced_sampling cannot be combined: each "
                        "balances the classes, and both together would favour the rare one; give "
                        "only one")
