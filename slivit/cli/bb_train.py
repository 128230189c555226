"""The options of bb_train.py."""

import argparse

from slivit.cli import arguments, training_arguments, types
from slivit.cli.parser import Parser
from slivit.utils.errors import UserError

B_SIZE, PATIENCE = 32, 5  # with labels
LATE = {"b_size": f"{B_SIZE}; with --task ssl 64 images or 8 volumes",
        "patience": f"{PATIENCE}; with --task ssl 0", "select": "score; with --task ssl last"}


def build_parser(text: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of bb_train.py; `text` describes it."""
    parser = Parser(text)
    arguments.add_data_options(parser, "images (with --task ssl images or volumes)")
    arguments.add_split_options(parser)
    arguments.add_decoding_options(parser)
    parser.add_argument("--task", choices=("auto", "multilabel", "multiclass", "ssl"),
                        default="auto",
                        help="multilabel: a probability per label; multiclass: exactly one label "
                             "per image; ssl: learn from images, or slices of volumes, without "
                             "labels (default auto: what the data set specifies, else multilabel)")
    parser.add_argument("--slices_per_volume", type=types.count, metavar="N",
                        help="with --task ssl: slices of each volume in an epoch, evenly spaced, "
                             "other ones in each epoch (default 8)")
    arguments.add_input_options(parser)
    training_arguments.add_training_options(parser, b_size=B_SIZE, n_epochs=20, lr=1e-4,
                                            patience=PATIENCE, late=LATE)
    arguments.add_run_options(parser, "runs/bb_train")
    return parser


def complete(args: argparse.Namespace) -> None:
    """Choose defaults that depend on whether there are labels; what only the data tell is left.

    Raises:
        UserError: options that do not go with the task, all at once.
    """
    if args.task == "ssl":
        _check_without_labels(args)
        args.patience = args.patience or 0
        return
    if args.slices_per_volume is not None:
        raise UserError("--slices_per_volume applies to --task ssl; with labels, bb_train.py "
                        "learns from images")
    args.b_size = args.b_size or B_SIZE
    args.patience = PATIENCE if args.patience is None else args.patience
    args.select = args.select or "score"


def _check_without_labels(args: argparse.Namespace) -> None:
    """Refuse options that need labels, or that a loss of whole batches cannot meet."""
    labelled = [f"--{flag}" for flag in ("pathologies", "pos_weight", "balanced_sampling",
                                         "label_smoothing", "mixup") if getattr(args, flag)]
    labelled += ["--select score"] * (args.select == "score")
    faults = []
    if labelled:
        faults.append(f"--task ssl learns without labels; omit {', '.join(labelled)}, or omit "
                      "--task ssl to learn from labels")
    if args.accumulate > 1:
        faults.append(f"--accumulate {args.accumulate}: the loss of --task ssl compares the images "
                      "of a batch, and several batches do not make a larger one; raise --b_size")
    if args.patience and args.select != "loss":
        faults.append(f"--patience {args.patience}: with --task ssl the last epoch is kept; omit "
                      "--patience, or add --select loss")
    if faults:
        raise UserError(faults[0] if len(faults) == 1 else
                        f"{len(faults)} problems found.\n" + "\n".join(faults))
