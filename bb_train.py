"""Pre-train the 2D backbone on labelled images.

    python bb_train.py                                    # the embedded nodule slices
    python bb_train.py --meta_csv kermany_meta.csv --pathologies Drusen,CNV,DME,Normal
    python bb_train.py --dataset chestmnist --b_size 64 --gpu_id 0 --n_cpu 8
    python bb_train.py --meta_csv kermany_meta.csv --weights feature_extractor.pth

Writes backbone.safetensors, the --bb_path of finetune.py, and the files listed in README.md.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.cli.start import begin

    begin("bb_train", __doc__)

import argparse
import dataclasses

import torch

from slivit.checkpoints.pretrained import choose_start
from slivit.cli import records
from slivit.cli.bb_train import build_parser
from slivit.config import Target
from slivit.data.datasets import scan_training_set
from slivit.data.header_check import check_headers
from slivit.data.load import load_scans, make_preprocess
from slivit.data.scan_table import ScanTable, summarise
from slivit.data.splits import take_fraction
from slivit.data.targets import check_splits, describe_task, resolve_task
from slivit.models.backbone import for_scratch
from slivit.models.slivit import ImageClassifier
from slivit.training.experiment import Experiment, run_experiment
from slivit.training.losses import make_objective
from slivit.training.optim import backbone_groups
from slivit.training.trackers import check_trackers
from slivit.training.train_step import Phase
from slivit.utils.errors import UserError, run_script, together
from slivit.utils.log import LOG
from slivit.utils.session import Session, open_session


def main(argv: list[str] | None = None) -> None:
    """Options, data, model, loop, report."""
    args = build_parser(__doc__).parse_args(argv)
    trackers = records.tracker_options(args)
    check_trackers(trackers)
    inputs = (args.meta_csv, *records.on_disk(args.weights))
    with open_session(records.session_options(args), inputs) as run:
        records.fetch_weights(args)
        records.check_training_options(args, run)
        scans, target = load(args)
        records.check_decoding(args, scans, run)
        weighting = records.weighting_options(args)
        objective, target, weights = make_objective(weighting, scans, target)
        model, backbone, trained_on = make_model(args, scans, target, run)
        experiment = Experiment(
            "bb_train", model, backbone, trained_on, scans, target, objective,
            records.augmentation(args, scans), records.fit_options(args),
            weights, vars(args), args.out_dir, trackers=trackers)

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
               ) -> tuple[ImageClassifier, str, str | None]:
    """Return the model as it starts, its backbone's name, and what that was trained on."""
    start = choose_start(args.weights or "imagenet", args.backbone)
    if for_scratch(start.backbone) and run.world.size > 1:
        raise UserError(f"--backbone {start.backbone}: its BatchNorm would see only each "
                        f"process's share of a batch; found {run.world.size} processes, expected 1")
    preprocess = make_preprocess(records.input_options(args), scans, start.mean, start.std)
    torch.manual_seed(args.seed)
    model = ImageClassifier(start.backbone, len(target.labels), preprocess, args.drop_path)
    start.load_into(model.backbone)
    return model, start.backbone, start.trained_on


if __name__ == "__main__":
    run_script(main)
