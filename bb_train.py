"""Pre-train the 2D backbone on labelled images, or on any images and volumes without labels.

    python bb_train.py                                    # the embedded nodule slices
    python bb_train.py --meta_csv kermany_meta.csv --pathologies Drusen,CNV,DME,Normal
    python bb_train.py --dataset chestmnist --b_size 64 --gpu_id 0 --n_cpu 8
    python bb_train.py --meta_csv kermany_meta.csv --weights feature_extractor.pth
    python bb_train.py --task ssl --meta_csv volumes.csv --slices_per_volume 8

Writes backbone.safetensors, the --bb_path of finetune.py, and the files listed in README.md.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.cli.start import begin

    begin("bb_train", __doc__)

import argparse
import dataclasses

import numpy as np
import torch

from slivit.checkpoints.pretrained import PretrainedBackbone, choose_start
from slivit.checkpoints.start_checks import tell_of_input, warn_of_seen
from slivit.cli import records
from slivit.cli.bb_train import build_parser, complete
from slivit.config import Target
from slivit.data.datasets import scan_training_set
from slivit.data.decode_check import check_decoding
from slivit.data.header_check import check_headers
from slivit.data.load import load_scans, make_preprocess
from slivit.data.scan_table import ScanTable
from slivit.data.slice_checks import check_rows, check_shown, check_slices, kept_out
from slivit.data.slice_sets import SliceSampling, slice_training_set, whole_scans
from slivit.data.splits import take_fraction
from slivit.data.summary import summarise
from slivit.data.targets import check_splits, describe_task, resolve_task
from slivit.models.backbone import for_scratch
from slivit.models.slivit import ImageClassifier
from slivit.training.experiment import Experiment, run_experiment
from slivit.training.losses import make_objective
from slivit.training.optim import backbone_groups, parameter_groups
from slivit.training.self_supervised.method import SelfSupervisedMethod, WithoutLabels
from slivit.training.self_supervised.vicreg import VICReg
from slivit.training.trackers import check_trackers
from slivit.training.train_step import Phase
from slivit.utils.errors import UserError, run_script, together
from slivit.utils.log import LOG
from slivit.utils.session import Session, open_session

METHOD = VICReg  # of --task ssl
SLICES, B_SIZE = 8, {2: 64, 3: 8}  # of a volume, of a batch of images or volumes


def main(argv: list[str] | None = None, method: type[SelfSupervisedMethod] = METHOD) -> None:
    """Options, then a training with labels or, by `method`, without."""
    args = build_parser(__doc__).parse_args(argv)
    complete(args)
    check_trackers(records.tracker_options(args))
    inputs = (args.meta_csv, *records.on_disk(args.weights))
    with open_session(records.session_options(args), inputs) as run:
        records.fetch_weights(args)
        if args.task == "ssl":
            train_without_labels(args, run, method)
        else:
            train(args, run)


def train(args: argparse.Namespace, run: Session) -> None:
    """Data, model, loop, report."""
    records.check_training_options(args, run)
    scans, target = load(args)
    records.check_decoding(args, scans, run)
    weighting = records.weighting_options(args)
    objective, target, weights = make_objective(weighting, scans, target)
    model, start = make_model(args, scans, target, run)
    experiment = Experiment(
        "bb_train", model, start, scans, target, objective,
        records.augmentation(args, scans), records.fit_options(args),
        weights, vars(args), args.out_dir, trackers=records.tracker_options(args))

    def make_phases(_: object) -> list[Phase]:
        batches = scan_training_set(scans, model.preprocess, experiment.augmentation, run,
                                    args.b_size, args.seed, weights)
        groups = backbone_groups(model.backbone, args.lr, args.weight_decay, args.layer_decay)
        return [Phase(1, args.n_epochs, groups, batches)]

    run_experiment(experiment, run, make_phases)


def load(args: argparse.Namespace) -> tuple[ScanTable, Target]:
    """Return the images to train on, and what is to be predicted."""
    scans = load_scans(records.data_options(args), 2, args.pathologies, args.split_ratio,
                       args.seed, zero_one=args.task != "multiclass")
    scans = take_fraction(scans, args.train_fraction, args.seed)
    task = args.task
    if task == "auto" and scans.task is None:  # a table: its labels must be 0 and 1
        task = "binary" if len(scans.label_names) == 1 else "multilabel"
    looked, (scans, target), _ = together(lambda: check_headers(scans, n_cpu=args.n_cpu),
                                          lambda: resolve_task(scans, task),
                                          lambda: check_splits(scans, ("train", "val")))
    scans = dataclasses.replace(scans, window=looked.window)
    LOG.info("%s\n%s", describe_task(target), summarise(scans))
    return scans, target


def make_model(args: argparse.Namespace, scans: ScanTable, target: Target, run: Session
               ) -> tuple[ImageClassifier, PretrainedBackbone]:
    """Return the model as it starts, and from what."""
    start = choose_start(args.weights or "imagenet", args.backbone)
    if for_scratch(start.backbone) and run.world.size > 1:
        raise UserError(f"--backbone {start.backbone}: its BatchNorm would see only each "
                        f"process's share of a batch; found {run.world.size} processes, expected 1")
    warn_of_seen(start, scans)
    preprocess = make_preprocess(records.input_options(args), scans, start.mean, start.std)
    tell_of_input(start, preprocess)
    torch.manual_seed(args.seed)
    model = ImageClassifier(start.backbone, len(target.labels), preprocess, args.drop_path)
    start.load_into(model.backbone)
    return model, start.without_tensors()


def train_without_labels(args: argparse.Namespace, run: Session,
                         method: type[SelfSupervisedMethod]) -> None:
    """Data, method, loop; nothing is scored."""
    if run.world.size > 1:
        raise UserError(f"--task ssl: found {run.world.size} processes, expected 1: the loss "
                        "compares all images of a batch, and each process would see only its "
                        "share; run it without torchrun")
    scans = load_without_labels(args, method)
    sampling = SliceSampling(args.slices_per_volume or 1, method.views, method.reach)
    augmentation = records.augmentation(args, scans)
    check_slices(scans, sampling, augmentation, args.b_size)
    start = choose_start(args.weights or "imagenet", args.backbone)
    preprocess = make_preprocess(records.input_options(args), scans, start.mean, start.std)
    check_decoding(scans, whole_scans(preprocess, scans.ndim),
                   None if args.check_scans else args.b_size, ("train", "val"), args.n_cpu)
    check_shown(scans, preprocess, args.b_size)
    tell_of_input(start, preprocess)
    torch.manual_seed(args.seed)
    model = method(start.backbone, preprocess, args.drop_path)
    start.load_into(model.backbone)
    experiment = Experiment(
        "bb_train", model, start.without_tensors(), scans, Target("ssl", ()),
        WithoutLabels(args.seed), augmentation, records.fit_options(args), None,
        {**vars(args), "method": method.name}, args.out_dir,
        trackers=records.tracker_options(args))

    def make_phases(_: object) -> list[Phase]:
        batches = slice_training_set(scans, preprocess, sampling, augmentation, run, args.b_size,
                                     args.seed)
        groups = backbone_groups(model.backbone, args.lr, args.weight_decay, args.layer_decay)
        groups += parameter_groups(model.heads(), args.lr, args.weight_decay)
        return [Phase(1, args.n_epochs, groups, batches)]

    run_experiment(experiment, run, make_phases)


def load_without_labels(args: argparse.Namespace, method: type[SelfSupervisedMethod]
                        ) -> ScanTable:
    """Return the images or volumes to learn from; set what of the options depends on which."""
    scans = load_scans(records.data_options(args), None, None, args.split_ratio, args.seed)
    if scans.ndim == 2 and args.slices_per_volume is not None:
        raise UserError(f"--slices_per_volume {args.slices_per_volume}: applies to volumes; "
                        f"{scans.name} has images")
    if scans.ndim == 3:
        args.slices_per_volume = args.slices_per_volume or SLICES
    args.b_size = args.b_size or B_SIZE[scans.ndim]
    args.select = args.select or method.select
    out = kept_out(scans)
    scans = take_fraction(scans, args.train_fraction, args.seed)
    looked, _ = together(lambda: check_headers(scans, np.flatnonzero(np.isin(
        scans.split, ("train", "val"))), n_cpu=args.n_cpu), lambda: check_rows(scans))
    LOG.info("task: ssl (%s), no label is read\n%s\nkept out of what is learned from: %s",
             method.name, summarise(scans), out)
    return looked


if __name__ == "__main__":
    run_script(main)
