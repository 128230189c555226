"""Pre-train the 2D backbone on labelled images.

    python bb_train.py                                    # the embedded nodule slices
    python bb_train.py --meta_csv kermany_meta.csv --pathologies Drusen,CNV,DME,Normal
    python bb_train.py --dataset chestmnist --b_size 64 --gpu_id 0 --n_cpu 8

Writes backbone.safetensors, which finetune.py takes as --bb_path, and what README.md lists.
"""

import argparse
from pathlib import Path

import torch

from slivit import checkpoint, options
from slivit.backbone import input_statistics
from slivit.checkpoint import Card
from slivit.datasets import scan_training_set
from slivit.engine import fit, parameter_groups
from slivit.errors import run_script
from slivit.headers import check_headers
from slivit.model import ImageClassifier
from slivit.report import closing_split, measure
from slivit.runtime import (
    LOG,
    check_out_dir,
    choose_device,
    choose_workers,
    open_out_dir,
    setup_logging,
    versions,
    write_json,
)
from slivit.scans import summarise
from slivit.tasks import check_splits, resolve_task
from slivit.weights import load_weights


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
    options.add_training_options(parser, b_size=32, n_epochs=20, lr=1e-4, patience=5)
    options.add_run_options(parser, "runs/bb_train")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Options, data, model, loop, report."""
    args = build_parser().parse_args(argv)
    setup_logging()
    check_out_dir(args.out_dir, args.resume, args.overwrite,
                  (args.meta_csv, Path(args.weights or "")))
    device = choose_device(args.gpu_id)
    n_workers = choose_workers(args.n_cpu, device)

    scans = options.load_scans(args, 2, args.pathologies, args.split_ratio, args.seed)
    check_splits(scans, ("train", "val"))
    task = args.task
    if task == "auto" and scans.task is None:  # a table: its labels must be 0 and 1
        task = "binary" if len(scans.label_names) == 1 else "multilabel"
    scans, target = resolve_task(scans, task)
    LOG.info(summarise(scans))

    name = args.backbone or "convnext_tiny"
    scans = check_headers(scans)
    augmentation = options.make_augmentation(args, scans)
    preprocess = options.make_preprocess(args, scans, *input_statistics(name))
    torch.manual_seed(args.seed)
    model = ImageClassifier(name, len(target.labels), preprocess, args.drop_path)
    load_weights(model.backbone, name, args.weights or "imagenet")
    data = checkpoint.data_facts(scans, scans.fingerprint(), args.split_ratio, args.seed)
    config = options.make_config(
        args, script="bb_train", backbone=name, target=target, preprocess=preprocess,
        augmentation=augmentation, data=data, versions=versions())
    if args.resume:
        options.check_resume(args.out_dir, config)

    open_out_dir(args.out_dir, args.overwrite)
    write_json(args.out_dir / "config.json", config)
    scans.save_split(args.out_dir / "split.csv")
    best_path = args.out_dir / "backbone.safetensors"

    def save_best(epoch: int, scores: dict) -> None:
        checkpoint.save(best_path, model, Card("backbone", name, None, target, preprocess, data,
                                               epoch, scores, args.seed, versions()))

    model.to(device)
    batches = scan_training_set(scans, preprocess, args.b_size, args.seed, augmentation, n_workers,
                                device)
    fit(model, parameter_groups(model, args.lr, args.weight_decay), model, batches, target,
        options.make_fit_options(args), device, args.out_dir, save_best, args.resume)

    _, best = checkpoint.load(best_path)
    measure(best.to(device), scans, closing_split(scans), target, device, args.b_size, n_workers,
            args.out_dir, args.seed)
    LOG.info("backbone: %s", best_path)


if __name__ == "__main__":
    run_script(main)
