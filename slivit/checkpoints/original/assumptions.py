"""What no file tells of a model of the original SLIViT, settled by the data it is to measure."""

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from slivit.checkpoints.checkpoint import CheckpointHeader
from slivit.checkpoints.original.reader import make_target
from slivit.cli import arguments as options
from slivit.config import TILINGS
from slivit.data.csv_table import column_names
from slivit.data.meta_csv import PATIENT_NAMES
from slivit.data.named_sets import EMBEDDED
from slivit.data.scan_table import ScanTable
from slivit.utils.errors import UserError
from slivit.utils.runtime import LOG

NO_LABELS = {"f_name", "path", "split", *PATIENT_NAMES}  # columns of meta.csv


def assumed(card: CheckpointHeader) -> list[str]:
    """Return what is only assumed of a model: some of `tiling`, `task`, `label`."""
    return card.data.get("assumed", [])


def load_evidence(args: argparse.Namespace, cards: list[CheckpointHeader]) -> ScanTable | None:
    """Load the data to be measured; None for `--volume`.

    With all labels, unless `--pathologies` or a checkpoint that knows its own names them.

    Raises:
        UserError: no data are named, or whatever is wrong with them.
    """
    if args.volume is not None:
        return None
    ours = [card for card in cards if not assumed(card)]
    split = ours[0].data if ours else {"split_ratio": None, "split_seed": 0}
    wanted = args.pathologies
    if wanted is None and args.meta_csv is not None and (ours or not _has_labels(args.meta_csv)):
        wanted = [*ours, *cards][0].target.labels
    try:
        return options.load_scans(args, 3, wanted, split["split_ratio"], split["split_seed"],
                                  labels_needed=wanted is None)
    except UserError as error:
        if wanted is not None or args.meta_csv is None:
            raise
        raise UserError(f"{error}\n(All columns were read, since the checkpoint does not say which "
                        "one it predicts; --pathologies NAME does.)") from None


def settle(path: Path, card: CheckpointHeader, args: argparse.Namespace, scans: ScanTable | None,
           others: list[CheckpointHeader]) -> CheckpointHeader:
    """Return the card of a model with what was assumed decided by the data, and log why.

    Args:
        path: of the model.
        card: with something under `data["assumed"]`.
        args: options of evaluate.py.
        scans: of load_evidence.
        others: cards of the models beside which it is measured, of which nothing is assumed.

    Raises:
        UserError: which label it predicts cannot be told.
    """
    token, tiling_from = card.integrator.token, "as its file says"
    if "tiling" in assumed(card):
        tiling, tiling_from = _tiling(args)
        token = TILINGS[tiling]
    label, label_from = card.target.labels[0], "as its file says"
    if "label" in assumed(card):
        label, label_from = _label(path, card, args, scans, others)
    task, task_from = card.target.task, "as its file says"
    if "task" in assumed(card):
        task, task_from = _task(scans, label, others)
    LOG.info("%s: a model of the original SLIViT; slices tiled along the %s (%s), %s (%s) of %s "
             "(%s); python -m slivit.convert makes that lasting", path,
             next(name for name, value in TILINGS.items() if value == token), tiling_from, task,
             task_from, label, label_from)
    return dataclasses.replace(
        card, integrator=dataclasses.replace(card.integrator, token=token),
        target=make_target(task, label))


def _has_labels(table: Path) -> bool:
    """Return whether a table has columns that could be labels; a fault is found by its reader."""
    try:
        names = column_names(table)
    except UserError:
        return True
    return any(name.lower() not in NO_LABELS for name in names)


def _tiling(args: argparse.Namespace) -> tuple[str, str]:
    if args.dataset is not None and args.dataset.lower() not in EMBEDDED:
        return "height", "as the original does with MedMNIST"
    return "width", "as the original does with all data but MedMNIST"


def _label(path: Path, card: CheckpointHeader, args: argparse.Namespace, scans: ScanTable | None,
           others: list[CheckpointHeader]) -> tuple[str, str]:
    """Return the name of the output, and why."""
    if args.pathologies is not None and len(args.pathologies) != 1:
        raise UserError(f"{path}: predicts one label, --pathologies names {len(args.pathologies)}")
    names = scans.label_names if scans is not None else ()
    if args.pathologies is not None:
        return (names or tuple(args.pathologies))[0], "--pathologies"
    same = [name for name in names if name.lower() == card.target.labels[0].lower()]
    if len(same) == 1:
        return same[0], "its own, and a label of the data"
    if others and len(others[0].target.labels) == 1:
        return others[0].target.labels[0], "that of the other checkpoint"
    if len(names) == 1:
        return names[0], "the data's only label"
    if names:
        raise UserError(f"{path}: does not say which label it predicts, and {scans.name} has "
                        f"{len(names)}: {', '.join(names)}. Name it with --pathologies")
    return card.target.labels[0], "no label is known"


def _task(scans: ScanTable | None, label: str, others: list[CheckpointHeader]) -> tuple[str, str]:
    """Return the task, and why."""
    if others and others[0].target.task in ("binary", "regression"):
        return others[0].target.task, "that of the other checkpoint"
    if scans is None or label not in scans.label_names:
        return "binary", "assumed"
    values = scans.labels[:, scans.label_names.index(label)]
    values = values[~np.isnan(values)]
    if not len(values):
        return "binary", "assumed"
    if np.isin(values, (0, 1)).all():
        return "binary", "its labels are 0 and 1"
    return "regression", "its labels are other numbers than 0 and 1"
