"""Fine-tune SLIViT on volumes.

    python finetune.py --bb_path runs/bb_train/backbone.safetensors    # the embedded nodules
    python finetune.py --dataset nodulemnist3d --bb_path backbone.safetensors --out_dir out/
    python finetune.py --meta_csv volumes.csv --pathologies IHRF --task binary --out_dir out/

Writes slivit.safetensors, which evaluate.py takes as --checkpoint, and what README.md lists.
"""

import argparse
import contextlib
from pathlib import Path

import torch

from slivit import checkpoint, options
from slivit import option_types as types
from slivit.backbone import input_statistics
from slivit.checkpoint import Card
from slivit.config import TASKS
from slivit.datasets import scan_training_set
from slivit.engine import fit, parameter_groups
from slivit.errors import UserError, run_script
from slivit.features import frozen_training_set
from slivit.headers import check_headers
from slivit.model import SLIViT
from slivit.report import closing_split, measure
from slivit.runtime import (
    LOG,
    check_out_dir,
    choose_device,
    choose_workers,
    open_out_dir,
    scratch_dir,
    setup_logging,
    versions,
    write_json,
)
from slivit.scans import summarise
from slivit.tasks import check_splits, resolve_task
from slivit.weights import load_into, load_weights


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False)
    options.add_data_options(parser, "volumes")
    options.add_split_options(parser)
    options.add_cache_option(parser)
    parser.add_argument("--task", choices=("auto", *TASKS), default="auto",
                        help="auto (default): what the data set says; else 0/1 labels are binary "
                             "or multilabel, other numbers regression")
    group = options.add_input_options(parser)
    group.add_argument("--bb_path", type=Path, metavar="FILE",
                       help="a backbone.safetensors of bb_train.py; gives architecture and weights")
    options.add_slice_options(group)
    options.add_integrator_options(parser)
    group = options.add_training_options(parser, b_size=4, n_epochs=20, lr=1e-4, patience=5)
    group.add_argument("--bb_lr", type=types.positive, metavar="X",
                       help="peak learning rate of the backbone (default: a tenth of --lr)")
    group.add_argument("--freeze_backbone", action="store_true",
                       help="train the integrator alone, on slice features computed once")
    group.add_argument("--feature_augments", type=types.natural, metavar="K",
                       help="with --freeze_backbone: augmented versions of each training volume "
                            "(default 0)")
    options.add_run_options(parser, "runs/finetune")
    return parser


def check_args(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other."""
    for flag in ("weights", "backbone"):
        if args.bb_path is not None and getattr(args, flag) is not None:
            raise UserError(f"--bb_path and --{flag} contradict each other: the file of --bb_path "
                            "gives architecture and weights")
    if args.freeze_backbone and args.bb_lr is not None:
        raise UserError("--bb_lr and --freeze_backbone contradict each other")
    if args.freeze_backbone and args.bb_path is None and args.weights == "none":
        raise UserError("--freeze_backbone with --weights none would keep random weights; give "
                        "--bb_path or other --weights")
    if args.feature_augments and not args.freeze_backbone:
        raise UserError("--feature_augments goes with --freeze_backbone")
    if args.views is not None and args.slice_axis is not None:
        raise UserError("--views and --slice_axis contradict each other; give one of them")


def main(argv: list[str] | None = None) -> None:
    """Options, data, model, loop, report."""
    args = build_parser().parse_args(argv)
    check_args(args)
    setup_logging()
    check_out_dir(args.out_dir, args.resume, args.overwrite,
                  (args.meta_csv, args.bb_path, Path(args.weights or "")))
    device = choose_device(args.gpu_id)
    n_workers = choose_workers(args.n_cpu, device)

    scans = options.load_scans(args, 3, args.pathologies, args.split_ratio, args.seed)
    check_splits(scans, ("train", "val"))
    scans, target = resolve_task(scans, args.task)
    LOG.info(summarise(scans))

    pretrained = checkpoint.read(args.bb_path, "backbone") if args.bb_path else None
    name = pretrained[0].backbone if pretrained else args.backbone or "convnext_tiny"
    statistics = input_statistics(name)
    if pretrained:
        statistics = pretrained[0].preprocess.mean, pretrained[0].preprocess.std
    scans = check_headers(scans, views=options.chosen_views(args))
    augmentation = options.make_augmentation(args, scans)
    preprocess = options.make_preprocess(args, scans, *statistics, args.n_slices)
    integrator = options.make_integrator_config(args)
    torch.manual_seed(args.seed)
    model = SLIViT(name, len(target.labels), preprocess, integrator, args.drop_path)
    if pretrained:
        load_into(model.backbone, pretrained[1], str(args.bb_path))
    else:
        load_weights(model.backbone, name, args.weights or "imagenet")
    data = checkpoint.data_facts(scans, scans.fingerprint(), args.split_ratio, args.seed)
    config = options.make_config(
        args, script="finetune", backbone=name, target=target, preprocess=preprocess,
        augmentation=augmentation, integrator=integrator, data=data, versions=versions(),
        backbone_data=pretrained[0].data["name"] if pretrained else None)
    if args.resume:
        options.check_resume(args.out_dir, config)

    open_out_dir(args.out_dir, args.overwrite)
    write_json(args.out_dir / "config.json", config)
    scans.save_split(args.out_dir / "split.csv")
    best_path = args.out_dir / "slivit.safetensors"

    def save_best(epoch: int, scores: dict) -> None:
        checkpoint.save(best_path, model, Card("slivit", name, integrator, target, preprocess, data,
                                               epoch, scores, args.seed, versions()))

    model.to(device)
    groups = parameter_groups(model.integrator, args.lr, args.weight_decay)
    with contextlib.ExitStack() as stack:
        if args.freeze_backbone:
            folder = stack.enter_context(scratch_dir(args.out_dir))
            module, forward = model.integrator, lambda batch: model.integrator(batch.x, batch.mask)
            batches = frozen_training_set(model, scans, args.feature_augments or 0, args.b_size,
                                          args.seed, augmentation, n_workers, device, folder)
        else:
            module, forward = model, model
            groups += parameter_groups(model.backbone, args.bb_lr or args.lr / 10,
                                       args.weight_decay)
            batches = scan_training_set(scans, preprocess, args.b_size, args.seed, augmentation,
                                        n_workers, device)
        fit(module, groups, forward, batches, target, options.make_fit_options(args), device,
            args.out_dir, save_best, args.resume)

    _, best = checkpoint.load(best_path)
    measure(best.to(device), scans, closing_split(scans), target, device, args.b_size, n_workers,
            args.out_dir, args.seed)
    LOG.info("model: %s", best_path)


if __name__ == "__main__":
    run_script(main)
