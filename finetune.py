"""Fine-tune SLIViT on volumes.

    python finetune.py --bb_path runs/bb_train/backbone.safetensors    # the embedded nodules
    python finetune.py --dataset nodulemnist3d --bb_path backbone.safetensors --out_dir out/
    python finetune.py --meta_csv volumes.csv --pathologies IHRF --task binary --out_dir out/
    python finetune.py --meta_csv volumes.csv --freeze_backbone --folds 5 --cache_dir cache/
    torchrun --nproc_per_node=4 finetune.py --meta_csv volumes.csv     # on four GPUs

Writes slivit.safetensors, the --checkpoint of evaluate.py, and the files listed in README.md.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.cli.start import begin

    begin("finetune", __doc__)

import argparse
import contextlib
import functools
from pathlib import Path

import numpy as np
import torch

from slivit.checkpoints.hub import local_file
from slivit.checkpoints.pretrained import PretrainedBackbone, choose_start, read_start
from slivit.checkpoints.start_checks import tell_of_input, warn_of_seen
from slivit.cli import records
from slivit.cli.finetune import build_parser, check_args
from slivit.config import Target
from slivit.data.datasets import scan_training_set
from slivit.data.header_check import check_headers
from slivit.data.load import load_scans, make_preprocess
from slivit.data.scan_table import ScanTable
from slivit.data.splits import take_fraction
from slivit.data.summary import summarise
from slivit.data.targets import (
    check_splits,
    describe_task,
    divide_labels,
    resolve_with_auxiliary,
)
from slivit.models.backbone import for_scratch
from slivit.models.slivit import SLIViT
from slivit.training import linear
from slivit.training.cross_validation import FoldOptions, cross_validate
from slivit.training.experiment import Experiment, run_experiment
from slivit.training.frozen_features import FeatureOptions, filled_stores, stored_training_set
from slivit.training.losses import make_objective
from slivit.training.optim import backbone_groups, parameter_groups
from slivit.training.trackers import check_trackers
from slivit.training.train_step import Phase
from slivit.utils.errors import UserError, run_script, together
from slivit.utils.files import scratch_dir
from slivit.utils.log import LOG
from slivit.utils.session import Session, open_session

FEW = 100  # labelled volumes of training and validation, below which a recipe is named


def main(argv: list[str] | None = None) -> None:
    """Options, data, then one training, or one for each fold."""
    args = build_parser(__doc__).parse_args(argv)
    check_args(args)
    check_trackers(records.tracker_options(args))
    inputs = (args.meta_csv, *records.on_disk(args.bb_path, args.weights))
    with open_session(records.session_options(args), inputs) as run:
        records.fetch_weights(args)
        records.check_training_options(args, run)
        scans = load(args)
        records.check_decoding(args, scans, run)
        if args.folds is None:
            train(args, scans, run, args.out_dir)
        else:
            folds = FoldOptions(args.folds, args.out_dir, args.seed, args.split_ratio,
                                args.pathologies, args.auxiliary, vars(args))
            _, target, auxiliary = resolve(args, scans)
            LOG.info(describe_task(target, len(auxiliary)))
            cross_validate(folds, scans, run,
                           lambda fold, folder: train(args, fold, run, folder))


def train(args: argparse.Namespace, scans: ScanTable, run: Session, out_dir: Path) -> None:
    """Train on the table's train split, keep the best epoch on val, evaluate on test."""
    scans, target, auxiliary = resolve(args, scans)
    model, start = make_model(args, scans, target)
    weighting = records.weighting_options(args)
    objective, target, weights = make_objective(weighting, scans, target, len(auxiliary))
    if args.folds is None:
        LOG.info(describe_task(target, len(auxiliary)))
    LOG.info(summarise(scans))
    _name_recipe(args, scans)
    experiment = Experiment(
        "finetune", model, start, scans, target, objective,
        records.augmentation(args, scans), records.fit_options(args), weights,
        vars(args), out_dir, tuple(auxiliary),
        (1,) if args.unfreeze_after is None else (1, args.unfreeze_after + 1),
        records.tracker_options(args))
    run_experiment(experiment, run, lambda stack: make_phases(args, experiment, run, stack))


def _name_recipe(args: argparse.Namespace, scans: ScanTable) -> None:
    """Say what is made for as few volumes as there are to learn from."""
    rows = np.isin(scans.split, ("train", "val"))
    count = int((~np.isnan(scans.labels[rows])).any(axis=1).sum())
    if count < FEW and args.integrator != "linear":
        LOG.info("%d labelled volumes: @recipes/few_volumes is made for fewer than %d "
                 "(docs/training.md)", count, FEW)


def load(args: argparse.Namespace) -> ScanTable:
    """Return the volumes, with all labels that are asked for."""
    wanted = args.pathologies
    if args.auxiliary:
        every = wanted is None or args.auxiliary == ["all"]
        wanted = None if every else [*wanted, *args.auxiliary]
    scans = load_scans(records.data_options(args), 3, wanted, args.split_ratio, args.seed,
                       zero_one=args.task in ("binary", "multilabel"))
    try:
        return check_headers(scans, views=records.input_options(args).views, n_cpu=args.n_cpu)
    except UserError:
        together(lambda: check_headers(scans, n_cpu=args.n_cpu),
                 lambda: resolve(args, scans))  # all in one message
        raise


def resolve(args: argparse.Namespace, scans: ScanTable) -> tuple[ScanTable, Target, list[str]]:
    """Return the scans to train on, with the labels to learn, and which of these are auxiliary."""
    predicted, auxiliary = divide_labels(scans, args.auxiliary or (), args.pathologies)
    scans = take_fraction(scans, args.train_fraction, args.seed, predicted)
    (scans, target), _ = together(
        lambda: resolve_with_auxiliary(scans, args.task, predicted, auxiliary),
        lambda: None if args.folds else check_splits(scans, ("train", "val")))
    return scans, target, auxiliary


def make_model(args: argparse.Namespace, scans: ScanTable, target: Target
               ) -> tuple[SLIViT, PretrainedBackbone]:
    """Return the model as it starts, and from what."""
    start = (read_start(local_file(args.bb_path)) if args.bb_path else
             choose_start(args.weights or "imagenet", args.backbone))
    if for_scratch(start.backbone) and start.source == "none":
        raise UserError(f"--backbone {start.backbone}: its BatchNorm has no running statistics "
                        "until it is pre-trained; pre-train it with bb_train.py and give --bb_path")
    warn_of_seen(start, scans)
    preprocess = make_preprocess(records.input_options(args), scans, start.mean, start.std)
    tell_of_input(start, preprocess)
    torch.manual_seed(args.seed)
    model = SLIViT(start.backbone, len(target.labels), preprocess,
                   records.integrator_config(args), args.drop_path)
    model.slices_per_step = args.slices_per_step or 0
    start.load_into(model.backbone)
    return model, start.without_tensors()


def make_phases(args: argparse.Namespace, one: Experiment, run: Session,
                stack: contextlib.ExitStack) -> list[Phase]:
    """Return what is trained in which epochs: the integrator alone, the whole model, or both."""
    model, phases, first = one.model, [], 1
    if args.freeze_backbone:
        last = args.unfreeze_after or args.n_epochs
        folder = args.cache_dir / "features" if args.cache_dir else (
            stack.enter_context(scratch_dir(one.out_dir, run.world)))
        features = FeatureOptions(args.feature_augments or 0, one.augmentation, args.b_size,
                                  args.seed)
        stores = filled_stores(model, one.scans, features, folder, run)
        data = stored_training_set(stores, one.scans, features, run.world, one.weights)
        groups = parameter_groups(model.integrator, args.lr, args.weight_decay)
        solve = None
        if args.integrator == "linear":
            solve = functools.partial(linear.solve, model.integrator, stores, one.scans,
                                      one.objective, args.seed)
        phases.append(Phase(first, last, groups, data, part="integrator", solve=solve))
        first = last + 1
    if first <= args.n_epochs:
        groups = parameter_groups(model.integrator, args.lr, args.weight_decay)
        groups += backbone_groups(model.backbone, args.bb_lr or args.lr / 10, args.weight_decay,
                                  args.layer_decay)
        data = scan_training_set(one.scans, model.preprocess, one.augmentation, run, args.b_size,
                                 args.seed, one.weights)
        phases.append(Phase(first, args.n_epochs, groups, data))
    return phases


if __name__ == "__main__":
    run_script(main)
