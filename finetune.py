"""Fine-tune SLIViT on volumes.

    python finetune.py --bb_path runs/bb_train/backbone.safetensors    # the embedded nodules
    python finetune.py --dataset nodulemnist3d --bb_path backbone.safetensors --out_dir out/
    python finetune.py --meta_csv volumes.csv --pathologies IHRF --task binary --out_dir out/
    python finetune.py --meta_csv volumes.csv --freeze_backbone --folds 5 --cache_dir cache/
    torchrun --nproc_per_node=4 finetune.py --meta_csv volumes.csv     # on four GPUs

Writes slivit.safetensors, which evaluate.py takes as --checkpoint, and what README.md lists.
"""

import argparse
import contextlib
from itertools import chain
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.signals import end_at_signals

    end_at_signals()

import numpy as np
import torch
from torch import nn

from slivit.checkpoints import checkpoint
from slivit.checkpoints.checkpoint import CheckpointHeader, Validation
from slivit.checkpoints.model_card import training_facts
from slivit.checkpoints.patient_key import patient_key, write_key
from slivit.checkpoints.pretrained import choose_start, read_start
from slivit.cli import arguments as options
from slivit.cli import training_arguments as training_options
from slivit.cli import types
from slivit.config import TASKS, Augmentation, Target
from slivit.data.datasets import scan_training_set
from slivit.data.header_check import check_headers
from slivit.data.scan_table import ScanTable, summarise
from slivit.data.subsets import take_fraction
from slivit.data.targets import check_splits, divide_labels, resolve_with_auxiliary
from slivit.models.backbone import for_scratch
from slivit.models.slivit import SLIViT
from slivit.prediction import load_trained
from slivit.report.evaluation import ReportOptions
from slivit.report.writer import closing_split, measure
from slivit.training.calibration import temperature_of
from slivit.training.cross_validation import cross_validate
from slivit.training.frozen_features import FeatureOptions, frozen_training_set
from slivit.training.optim import backbone_groups, parameter_groups
from slivit.training.progress import Plan
from slivit.training.resume import find_state
from slivit.training.trackers import check_trackers, open_trackers
from slivit.training.train_step import Phase
from slivit.training.trainer import fit
from slivit.utils.errors import UserError, run_script, together
from slivit.utils.files import scratch_dir, write_json
from slivit.utils.output_dir import open_out_dir
from slivit.utils.runtime import LOG, versions
from slivit.utils.session import Session, open_session


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False)
    options.add_data_options(parser, "volumes")
    options.add_split_options(parser)
    options.add_cache_option(parser)
    parser.add_argument("--auxiliary", type=types.names, metavar="A,B",
                        help="label columns that are learned too, but neither predicted nor scored "
                             "(--select loss counts them); all: every one that --pathologies "
                             "does not name")
    parser.add_argument("--folds", type=types.folds, metavar="K",
                        help="cross-validate: train K models, each measured on patients that it "
                             "has not seen")
    parser.add_argument("--task", choices=("auto", *TASKS), default="auto",
                        help="auto (default): what the data set says; else 0/1 labels are binary "
                             "or multilabel, other numbers regression")
    group = options.add_input_options(parser)
    group.add_argument("--bb_path", type=types.path, metavar="FILE",
                       help="a backbone.safetensors of bb_train.py, a feature_extractor.pth of the "
                            "original SLIViT, or another file of ConvNeXt weights; gives "
                            "architecture and weights")
    options.add_slice_options(group)
    training_options.add_integrator_options(parser)
    group = training_options.add_training_options(parser, b_size=4, n_epochs=20, lr=1e-4,
                                                  patience=5)
    group.add_argument("--bb_lr", type=types.positive, metavar="X",
                       help="peak learning rate of the backbone (default: a tenth of --lr)")
    group.add_argument("--slices_per_step", type=types.positive_int, metavar="N",
                       help="run the backbone over so many slices at a time and compute again what "
                            "the backward pass needs: the same result in less memory")
    group.add_argument("--freeze_backbone", action="store_true",
                       help="train the integrator alone, on slice features computed once")
    group.add_argument("--feature_augments", type=types.count_or_none, metavar="K",
                       help="with --freeze_backbone: augmented versions of each training volume "
                            "(default 0)")
    group.add_argument("--unfreeze_after", type=types.positive_int, metavar="E",
                       help="with --freeze_backbone: train the whole model after E epochs")
    options.add_run_options(parser, "runs/finetune")
    return parser


def check_args(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other."""
    for flag in ("weights", "backbone"):
        if args.bb_path is not None and getattr(args, flag) is not None:
            raise UserError(f"--bb_path and --{flag} contradict each other: the file of --bb_path "
                            "gives architecture and weights")
    end_to_end = not args.freeze_backbone or args.unfreeze_after is not None
    for flag in ("bb_lr", "slices_per_step"):
        if getattr(args, flag) is not None and not end_to_end:
            raise UserError(f"--{flag} and --freeze_backbone contradict each other, without "
                            "--unfreeze_after")
    if not end_to_end and args.bb_path is None and args.weights == "none":
        raise UserError("--freeze_backbone with --weights none would keep random weights; give "
                        "--bb_path or other --weights")
    for flag in ("feature_augments", "unfreeze_after"):
        if getattr(args, flag) and not args.freeze_backbone:
            raise UserError(f"--{flag} goes with --freeze_backbone")
    if args.unfreeze_after is not None and args.unfreeze_after >= args.n_epochs:
        raise UserError(f"--unfreeze_after {args.unfreeze_after}: leaves nothing of --n_epochs "
                        f"{args.n_epochs}")
    if args.views is not None and args.slice_axis is not None:
        raise UserError("--views and --slice_axis contradict each other; give one of them")
    check_trackers(args)


def main(argv: list[str] | None = None) -> None:
    """Options, data, then one training, or one for each fold."""
    args = build_parser().parse_args(argv)
    check_args(args)
    with open_session(args, (args.meta_csv, args.bb_path, Path(args.weights or ""))) as run:
        training_options.check_training_options(args, run.world.size, run.device)
        wanted = args.pathologies
        if args.auxiliary:
            every = wanted is None or args.auxiliary == ["all"]
            wanted = None if every else [*wanted, *args.auxiliary]
        scans = options.load_scans(args, 3, wanted, args.split_ratio, args.seed,
                                   zero_one=args.task in ("binary", "multilabel"))
        try:
            scans = check_headers(scans, views=options.chosen_views(args))
        except UserError:
            together(lambda: check_headers(scans), lambda: resolve(args, scans))  # all in one
            raise
        if args.folds is None:
            train(args, scans, run, args.out_dir)
        else:
            cross_validate(args, scans, run, train)


def train(args: argparse.Namespace, scans: ScanTable, run: Session, out_dir: Path) -> None:
    """Train on the table's train split, keep the best epoch on val, measure on test."""
    scans, target, auxiliary = resolve(args, scans)
    LOG.info(summarise(scans))
    augmentation = training_options.make_augmentation(args, scans)
    model, bb_data = make_model(args, scans, target)
    objective, target, weights = training_options.make_objective(
        args, scans, target, len(auxiliary))
    own = scans.select_labels(target.labels) if auxiliary else scans
    data = checkpoint.data_facts(own, own.fingerprint(), args.split_ratio, args.seed)
    key = patient_key(out_dir, run.resume)
    known = checkpoint.patient_facts(own, key)
    name, preprocess, integrator = model.backbone_name, model.preprocess, model.config
    config = options.make_config(
        args, script="finetune", backbone=name, target=target, preprocess=preprocess,
        augmentation=augmentation, integrator=integrator, data=data, versions=versions(),
        backbone_data=bb_data)
    best_path = out_dir / "slivit.safetensors"
    starts = (1,) if args.unfreeze_after is None else (1, args.unfreeze_after + 1)
    start_from = find_state(out_dir, model, best_path, run,
                            Plan.of(scans, args.b_size, args.accumulate, starts))
    facts = training_facts(own, target, augmentation,
                           {**config, "auxiliary": ", ".join(auxiliary) or None}, bb_data)

    def save_best(epoch: int, scores: dict, best: nn.Module, validation: Validation) -> None:
        card = CheckpointHeader("slivit", name, integrator, target, preprocess, data | known,
                                epoch, scores,
                                args.seed, versions(), facts, temperature_of(validation, target))
        checkpoint.save(best_path, best, card, validation)

    with contextlib.ExitStack() as stack:
        track = None
        if run.world.is_main:
            if run.resume:
                options.check_resume(out_dir, config)
            stack.enter_context(open_out_dir(out_dir, run.resume, args.overwrite,
                                             chain(run.inputs, scans.read.files())))
            write_json(out_dir / "config.json", config)
            if known["patients"]:
                write_key(out_dir, key)
            scans.save_split(out_dir / "split.csv")
            track = stack.enter_context(open_trackers(args, config, out_dir))
        run.world.barrier()
        model.to(run.device)
        phases = make_phases(args, model, scans, augmentation, weights, run, stack, out_dir)
        fit(model, phases, objective, training_options.make_fit_options(args), run, out_dir,
            save_best, track, start_from)
        run.world.barrier()
        measure([load_trained(best_path, run.device)], own, closing_split(own), run, args.b_size,
                out_dir, ReportOptions(args.seed))
    LOG.info("model: %s", best_path)


def resolve(args: argparse.Namespace, scans: ScanTable) -> tuple[ScanTable, Target, list[str]]:
    """Return the scans to train on, with the labels to learn, and which of these are auxiliary."""
    predicted, auxiliary = divide_labels(scans, args.auxiliary or (), args.pathologies)
    scans = take_fraction(scans, args.train_fraction, args.seed, predicted)
    (scans, target), _ = together(
        lambda: resolve_with_auxiliary(scans, args.task, predicted, auxiliary),
        lambda: None if args.folds else check_splits(scans, ("train", "val")))
    return scans, target, auxiliary


def make_model(args: argparse.Namespace, scans: ScanTable, target: Target
               ) -> tuple[SLIViT, str | None]:
    """Return the model with the weights it starts from, and what its backbone was trained on."""
    start = (read_start(args.bb_path) if args.bb_path else
             choose_start(args.weights or "imagenet", args.backbone))
    if for_scratch(start.backbone) and start.source == "none":
        raise UserError(f"--backbone {start.backbone}: its BatchNorm has no averages before it is "
                        "pre-trained; pre-train it with bb_train.py and give --bb_path")
    preprocess = options.make_preprocess(args, scans, start.mean, start.std, args.n_slices)
    torch.manual_seed(args.seed)
    model = SLIViT(start.backbone, len(target.labels), preprocess,
                   training_options.make_integrator_config(args), args.drop_path)
    model.slices_per_step = args.slices_per_step or 0
    start.load_into(model.backbone)
    return model, start.trained_on


def make_phases(args: argparse.Namespace, model: SLIViT, scans: ScanTable,
                augmentation: Augmentation, weights: np.ndarray | None, run: Session,
                stack: contextlib.ExitStack,
                out_dir: Path) -> list[Phase]:
    """Return what is trained in which epochs: the integrator alone, the whole model, or both."""
    phases, first = [], 1
    if args.freeze_backbone:
        last = args.unfreeze_after or args.n_epochs
        folder = args.cache_dir / "features" if args.cache_dir else (
            stack.enter_context(scratch_dir(out_dir, run.world)))
        features = FeatureOptions(args.feature_augments or 0, args.seed, augmentation, args.b_size,
                                  run.n_workers, run.quiet)
        data = frozen_training_set(model, scans, features, args.b_size, args.seed, run.device,
                                   folder, weights, run.world)
        phases.append(Phase(first, last, parameter_groups(model.integrator, args.lr,
                                                          args.weight_decay), data))
        first = last + 1
    if first <= args.n_epochs:
        groups = parameter_groups(model.integrator, args.lr, args.weight_decay)
        groups += backbone_groups(model.backbone, args.bb_lr or args.lr / 10, args.weight_decay,
                                  args.layer_decay)
        data = scan_training_set(scans, model.preprocess, args.b_size, args.seed, augmentation,
                                 run.n_workers, run.device, weights, run.world)
        phases.append(Phase(first, args.n_epochs, groups, data))
    return phases


if __name__ == "__main__":
    run_script(main)
