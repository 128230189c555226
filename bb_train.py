"""Pre-train the 2D backbone on labelled images.

    python bb_train.py                                    # the embedded nodule slices
    python bb_train.py --meta_csv kermany_meta.csv --pathologies Drusen,CNV,DME,Normal
    python bb_train.py --dataset chestmnist --b_size 64 --gpu_id 0 --n_cpu 8
    python bb_train.py --meta_csv kermany_meta.csv --weights feature_extractor.pth

Writes backbone.safetensors, which finetune.py takes as --bb_path, and what README.md lists.
"""

import argparse
import contextlib
import dataclasses
from itertools import chain
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.signals import end_at_signals

    end_at_signals()

import torch
from torch import nn

from slivit.checkpoints import checkpoint
from slivit.checkpoints.checkpoint import CheckpointHeader, Validation
from slivit.checkpoints.model_card import training_facts
from slivit.checkpoints.patient_key import patient_key, write_key
from slivit.checkpoints.pretrained import choose_start
from slivit.cli import arguments as options
from slivit.cli import training_arguments as training_options
from slivit.data.datasets import scan_training_set
from slivit.data.header_check import check_headers
from slivit.data.scan_table import summarise
from slivit.data.subsets import take_fraction
from slivit.data.targets import check_splits, resolve_task
from slivit.models.backbone import for_scratch
from slivit.models.slivit import ImageClassifier
from slivit.prediction import load_trained
from slivit.report.evaluation import ReportOptions
from slivit.report.writer import closing_split, measure
from slivit.training.calibration import temperature_of
from slivit.training.optim import backbone_groups
from slivit.training.progress import Plan
from slivit.training.resume import find_state
from slivit.training.trackers import check_trackers, open_trackers
from slivit.training.train_step import Phase
from slivit.training.trainer import fit
from slivit.utils.errors import UserError, run_script, together
from slivit.utils.files import write_json
from slivit.utils.output_dir import open_out_dir
from slivit.utils.runtime import LOG, versions
from slivit.utils.session import Session, open_session


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False)
    options.add_data_options(parser, "images")
    options.add_split_options(parser)
    options.add_cache_option(parser)
    parser.add_argument("--task", choices=("auto", "multilabel", "multiclass"), default="auto",
                        help="multilabel: a probability per label; multiclass: exactly one label "
                             "an image (default auto: what the data set says, else multilabel)")
    options.add_input_options(parser)
    training_options.add_training_options(parser, b_size=32, n_epochs=20, lr=1e-4, patience=5)
    options.add_run_options(parser, "runs/bb_train")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Options, data, model, loop, report."""
    args = build_parser().parse_args(argv)
    check_trackers(args)
    with open_session(args, (args.meta_csv, Path(args.weights or ""))) as run:
        training_options.check_training_options(args, run.world.size, run.device)
        train(args, run)


def train(args: argparse.Namespace, run: Session) -> None:
    """Train on the table's train split, keep the best epoch on val, measure on test."""
    scans = options.load_scans(args, 2, args.pathologies, args.split_ratio, args.seed,
                               zero_one=args.task != "multiclass")
    scans = take_fraction(scans, args.train_fraction, args.seed)
    task = args.task
    if task == "auto" and scans.task is None:  # a table: its labels must be 0 and 1
        task = "binary" if len(scans.label_names) == 1 else "multilabel"
    looked, (scans, target), _ = together(lambda: check_headers(scans),
                                          lambda: resolve_task(scans, task),
                                          lambda: check_splits(scans, ("train", "val")))
    scans = dataclasses.replace(scans, window=looked.window)
    LOG.info(summarise(scans))
    objective, target, weights = training_options.make_objective(args, scans, target)

    start = choose_start(args.weights or "imagenet", args.backbone)
    name = start.backbone
    if for_scratch(name) and run.world.size > 1:
        raise UserError(f"--backbone {name}: its BatchNorm would see each process's share of a "
                        f"batch alone; found {run.world.size} processes, expected 1")
    augmentation = training_options.make_augmentation(args, scans)
    preprocess = options.make_preprocess(args, scans, start.mean, start.std)
    torch.manual_seed(args.seed)
    model = ImageClassifier(name, len(target.labels), preprocess, args.drop_path)
    start.load_into(model.backbone)
    data = checkpoint.data_facts(scans, scans.fingerprint(), args.split_ratio, args.seed)
    key = patient_key(args.out_dir, run.resume)
    known = checkpoint.patient_facts(scans, key)
    config = options.make_config(
        args, script="bb_train", backbone=name, target=target, preprocess=preprocess,
        augmentation=augmentation, data=data, versions=versions(),
        backbone_data=start.trained_on)
    best_path = args.out_dir / "backbone.safetensors"
    start_from = find_state(args.out_dir, model, best_path, run,
                            Plan.of(scans, args.b_size, args.accumulate))
    facts = training_facts(scans, target, augmentation, config, start.trained_on)

    def save_best(epoch: int, scores: dict, best: nn.Module, validation: Validation) -> None:
        card = CheckpointHeader("backbone", name, None, target, preprocess, data | known, epoch,
                                scores,
                                args.seed, versions(), facts, temperature_of(validation, target))
        checkpoint.save(best_path, best, card, validation)

    with contextlib.ExitStack() as stack:
        track = None
        if run.world.is_main:
            if run.resume:
                options.check_resume(args.out_dir, config)
            stack.enter_context(open_out_dir(args.out_dir, run.resume, args.overwrite,
                                             chain(run.inputs, scans.read.files())))
            write_json(args.out_dir / "config.json", config)
            if known["patients"]:
                write_key(args.out_dir, key)
            scans.save_split(args.out_dir / "split.csv")
            track = stack.enter_context(open_trackers(args, config, args.out_dir))
        run.world.barrier()
        model.to(run.device)
        batches = scan_training_set(scans, preprocess, args.b_size, args.seed, augmentation,
                                    run.n_workers, run.device, weights, run.world)
        groups = backbone_groups(model.backbone, args.lr, args.weight_decay, args.layer_decay)
        fit(model, [Phase(1, args.n_epochs, groups, batches)], objective,
            training_options.make_fit_options(args), run, args.out_dir, save_best, track,
            start_from)
        run.world.barrier()
        measure([load_trained(best_path, run.device)], scans, closing_split(scans), run,
                args.b_size, args.out_dir, ReportOptions(args.seed))
    LOG.info("backbone: %s", best_path)


if __name__ == "__main__":
    run_script(main)
