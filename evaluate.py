"""Evaluate a checkpoint on a split of a labelled data set, or predict unlabelled scans.

    python evaluate.py                  # the model that ships, on the embedded nodules
    python evaluate.py --checkpoint runs/finetune/slivit.safetensors
    python evaluate.py --checkpoint slivit.safetensors --meta_csv other_site.csv --split all
    python evaluate.py --checkpoint a.safetensors b.safetensors --meta_csv test.csv --group_by site
    python evaluate.py --checkpoint a.safetensors --explain 3 --operating_point sensitivity=0.95
    python evaluate.py --checkpoint slivit.safetensors --volume scan.nii.gz
    python evaluate.py --checkpoint slivit.pth --meta_csv volumes.csv  # of the original SLIViT

Model, pre-processing, labels and task are read from the checkpoint.
"""

import argparse
import contextlib
from itertools import chain

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.cli.start import begin

    begin("evaluate", __doc__)

import numpy as np

from slivit.checkpoints.checkpoint import CheckpointHeader
from slivit.checkpoints.hub import title_of
from slivit.checkpoints.sharing import UNNAMED
from slivit.checkpoints.subjects import also_in_training, seen_in_training, subject_word
from slivit.checkpoints.trained import Trained, load_models
from slivit.cli import records
from slivit.cli.evaluate import build_parser, complete
from slivit.data.decode_check import check_decoding
from slivit.data.given_scans import given_scans
from slivit.data.header_check import check_headers
from slivit.data.load import load_scans
from slivit.data.named_sets import known_sets, set_and_size
from slivit.data.scan_table import ScanTable, match_names
from slivit.data.targets import check_splits, describe_task, fit_to_target
from slivit.embedding import check_features_file, embed_scans, save_features
from slivit.models.slivit import require_slice_tokens
from slivit.prediction import InferenceOptions, check_test_time
from slivit.report.evaluation import ReportOptions
from slivit.report.writer import measure
from slivit.utils.errors import UserError, run_script
from slivit.utils.files import write_json
from slivit.utils.log import LOG
from slivit.utils.output_dir import make_config, open_out_dir
from slivit.utils.precision import precision_name
from slivit.utils.runtime import log_device, set_kernels, versions
from slivit.utils.session import Session, open_session


def main(argv: list[str] | None = None) -> None:
    """Options, models, data, report."""
    args = build_parser(__doc__).parse_args(argv)
    complete(args)
    inputs = (args.meta_csv, *records.on_disk(*args.checkpoint))
    with open_session(records.session_options(args), inputs) as run:
        records.fetch_weights(args)
        evaluate(args, run)


def evaluate(args: argparse.Namespace, run: Session) -> None:
    """Evaluate the checkpoints on the data."""
    named = args.pathologies or []
    trained = load_models(args.checkpoint, run.device, named[0] if len(named) == 1 else None,
                          args.amp)
    precisions = [one.model.precision for one in trained]
    set_kernels(run.device, precisions, args.deterministic)
    log_device(run.device, precisions)
    how = InferenceOptions(args.tta == "flips", args.mc_dropout, args.calibrate, args.seed)
    for one in trained:
        check_test_time(one, how)
    if args.explain:
        require_slice_tokens(trained[0].model, "--explain")
    card = trained[0].card
    LOG.info("checkpoint: %s, %s, %s, trained on %s%s", card.kind, card.backbone,
             describe_task(card.target), card.data["name"],
             "" if len(trained) == 1 else f"; predictions of {len(trained)} are averaged")
    for one in trained:
        if args.amp == "auto" and precision_name(one.model.precision) != one.card.precision:
            LOG.info("%s: was trained in %s, which this device does not multiply in hardware, and "
                     "is evaluated in %s; its predictions differ a little from those of its "
                     "training run", one.path, one.card.precision,
                     precision_name(one.model.precision))
    if card.intended_use:
        LOG.info("intended use: %s", card.intended_use)
    match_names(named, card.target.labels, "labels of the checkpoint")
    scans = find_scans(args, card)
    if args.group_by:
        scans.group_column(args.group_by)
    if args.split != "all":
        check_splits(scans, (args.split,), "Evaluate all of them with --split all")
    rows = scans.rows(args.split)
    fingerprint = scans.fingerprint()
    if scans.drawn and args.split != "all" and fingerprint != card.data["fingerprint"]:
        LOG.warning("warning: %s has no splits and is not known to be the table used in training; "
                    "its %s rows were drawn at random and may include scans the model was trained "
                    "on. Evaluate an external table with --split all", scans.name, args.split)
    warn_of_training_patients(scans, rows, trained)
    if args.features is not None and run.world.is_main:
        check_features_file(args.features, args.out_dir, args.overwrite,
                            chain(run.inputs, scans.read.files()))
    check_headers(scans, rows, card.preprocess.views, args.n_cpu)
    check_decoding(scans, card.preprocess, None if args.check_scans else args.b_size,
                   (args.split,), args.n_cpu, run.world)

    with contextlib.ExitStack() as stack:
        if run.world.is_main:
            stack.enter_context(open_out_dir(args.out_dir, False, args.overwrite,
                                             chain(run.inputs, scans.read.files())))
            write_json(args.out_dir / "config.json", make_config(
                vars(args), script="evaluate", card=card, versions=versions(),
                precision=[precision_name(one) for one in precisions],
                data={"name": scans.name, "fingerprint": fingerprint}))
        if args.features is not None:
            write_features(args, trained[0], scans, rows, run)
        measure(trained, scans, args.split, run, args.b_size, args.out_dir,
                ReportOptions(args.seed, args.pathologies, args.operating_point, args.group_by,
                              args.explain, how))


def write_features(args: argparse.Namespace, trained: Trained, scans: ScanTable,
                   rows: np.ndarray, run: Session) -> None:
    """Write --features."""
    vectors = embed_scans(trained, scans, rows, run, args.b_size, args.split)
    if run.world.is_main:
        save_features(args.features, vectors, scans, rows)
        LOG.info("features of %d scans (%d numbers each): %s", *vectors.shape, args.features)


def find_scans(args: argparse.Namespace, card: CheckpointHeader) -> ScanTable:
    """Return what is to be predicted, with the label columns of the model.

    Labels that a table lacks are unknown.

    Raises:
        UserError: contradictory options, or whatever is wrong with the data.
    """
    ndim, target = 2 if card.kind == "backbone" else 3, card.target
    if args.volume is not None:
        for flag in ("meta_csv", "dataset", "pid_col", "medmnist_size", "cache_dir", "group_by"):
            if getattr(args, flag) is not None:
                raise UserError(f"--volume and --{flag} cannot be combined")
        return given_scans(args.volume, ndim, target.labels)
    name_data(args, card)
    wanted = [target.column] if target.column else list(target.labels)
    scans = load_scans(records.data_options(args), ndim, wanted if args.meta_csv else None,
                       card.data["split_ratio"], card.data["split_seed"], labels_needed=False)
    missing = [name for name, column in zip(scans.label_names, scans.labels.T, strict=True)
               if np.isnan(column).all()]
    if target.task == "multiclass" and 0 < len(missing) < len(scans.label_names):
        raise UserError(f"{scans.name}: the classes {', '.join(missing)} have no column or "
                        "no values; a table for this model has the columns of all its classes, or "
                        "of none")
    if len(missing) == len(scans.label_names) and args.meta_csv:  # nothing to fit
        unknown = np.full((len(scans), len(target.labels)), np.nan, np.float32)
        return scans.with_labels(target.labels, unknown)
    return fit_to_target(scans, target)


def name_data(args: argparse.Namespace, card: CheckpointHeader) -> None:
    """If no data are given, use those that the checkpoint was trained on."""
    if args.meta_csv is None and args.dataset is None and args.volume is None:
        args.dataset, args.medmnist_size = named_training_set(card)
        LOG.info("neither --meta_csv nor --dataset given: evaluating on %s", args.dataset)


def named_training_set(card: CheckpointHeader) -> tuple[str, int | None]:
    """Return name and MedMNIST size of the named set a checkpoint was trained on.

    Raises:
        UserError: it was trained on a table, or is a model of the original SLIViT.
    """
    known = set_and_size(card.data["name"])
    if known and known_sets()[known[0]] == (2 if card.kind == "backbone" else 3):
        return known
    if card.integrator and not card.integrator.tokens_are_slices:
        raise UserError("--checkpoint: a model of the original SLIViT does not record what it was "
                        "trained on; give the scans with --meta_csv, --dataset or --volume")
    name = card.data["name"]
    raise UserError("--checkpoint: was trained on " + (
        f"{name}; give the table to evaluate with --meta_csv" if name == UNNAMED else
        f"the table {name}; give it, or the table to evaluate, with --meta_csv"))


def _of_original(card: CheckpointHeader) -> bool:
    return bool(card.integrator) and not card.integrator.tokens_are_slices


def warn_of_training_patients(scans: ScanTable, rows: np.ndarray, trained: list[Trained]) -> None:
    """Warn of the evaluated patients whom the models have met in training.

    Raises:
        UserError: a key of patients' hashes beside a checkpoint is damaged.
    """
    scored = not np.isnan(scans.labels[rows]).all()
    for one in trained:
        if scored and _of_original(one.card):
            LOG.warning("warning: %s is a model of the original SLIViT, which does not record the "
                        "patients it was trained on; the scores are too optimistic if any of them "
                        "are evaluated here", one.path)
    subjects = scans.subjects_of(*{str(scans.split[row]) for row in rows})
    found, untold = set(), {}
    for one in trained:
        seen = seen_in_training(scans, subjects, one.card, one.path)
        found |= seen.found
        if scored and seen.untold and not _of_original(one.card):
            untold.setdefault(seen.untold, []).append(title_of(one.path))
    if found:
        LOG.warning("warning: %s%s", also_in_training(
            scans, len(found), len(subjects), "",
            "the checkpoint, or of the backbone that it started from"),
            "these scores are too optimistic" if scored else
            "their predictions are surer than those of others")
    for reason, names in untold.items():
        LOG.info("cannot tell whether %s of these %s were in the training of %s: %s",
                 "more" if found else "any", subject_word(scans), ", ".join(names), reason)


if __name__ == "__main__":
    run_script(main)
