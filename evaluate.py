"""Measure a checkpoint on a split of any data set with its labels.

    python evaluate.py --checkpoint runs/finetune/slivit.safetensors
    python evaluate.py --checkpoint slivit.safetensors --meta_csv other_site.csv --split all
    python evaluate.py --checkpoint backbone.safetensors --dataset chestmnist --split val

Model, pre-processing, labels and task are read from the checkpoint.
"""

import argparse
from pathlib import Path

import numpy as np

from slivit import checkpoint, options
from slivit import option_types as types
from slivit.checkpoint import Card
from slivit.errors import UserError, listing, run_script
from slivit.headers import check_headers
from slivit.named import known_sets
from slivit.report import measure
from slivit.runtime import LOG, open_out_dir, versions, write_json
from slivit.scans import Scans, match_names
from slivit.session import Session, open_session
from slivit.tasks import check_splits, fit_to_target


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False)
    parser.add_argument("--checkpoint", type=Path, required=True, nargs="+", metavar="FILE",
                        help="slivit.safetensors of finetune.py or backbone.safetensors of "
                             "bb_train.py; of several, the predictions are averaged")
    parser.add_argument("--split", choices=("test", "val", "train", "all"), default="test",
                        help="rows to measure (default %(default)s)")
    parser.add_argument("--b_size", type=types.positive_int, default=16, metavar="N",
                        help="scans at a time (default %(default)s)")
    options.add_data_options(parser, "images or volumes, as the checkpoint takes them")
    options.add_cache_option(parser)
    options.add_run_options(parser, "runs/evaluate", resumable=False)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Options, models, data, report."""
    args = build_parser().parse_args(argv)
    with open_session(args, (args.meta_csv, *args.checkpoint)) as run:
        evaluate(args, run)


def evaluate(args: argparse.Namespace, run: Session) -> None:
    """Measure the checkpoints on the data."""
    cards, models = zip(*(checkpoint.load(path) for path in args.checkpoint), strict=True)
    check_alike(args.checkpoint, cards)
    card = cards[0]
    LOG.info("checkpoint: %s, %s of %s, trained on %s%s", card.kind, card.backbone,
             ", ".join(card.target.labels), card.data["name"],
             "" if len(cards) == 1 else f"; predictions of {len(cards)} are averaged")

    if args.meta_csv is None and args.dataset is None:
        args.dataset, args.medmnist_size = named_training_set(card)
        LOG.info("neither --meta_csv nor --dataset: measuring on %s", args.dataset)
    match_names(args.pathologies or [], card.target.labels, "labels of the checkpoint")
    wanted = [card.target.column] if card.target.column else list(card.target.labels)
    scans = options.load_scans(args, 2 if card.kind == "backbone" else 3,
                               wanted if args.meta_csv else None, card.data["split_ratio"],
                               card.data["split_seed"])
    scans = fit_to_target(scans, card.target)
    if args.split != "all":
        check_splits(scans, (args.split,))
    rows = scans.rows(args.split)
    fingerprint = scans.fingerprint()
    if scans.drawn and args.split != "all" and fingerprint != card.data["fingerprint"]:
        LOG.warning("warning: %s has no splits and is not the table of the training; its %s rows "
                    "were drawn anew and may hold scans the model was trained on. Measure a table "
                    "from elsewhere with --split all", scans.name, args.split)
    warn_of_training_patients(scans, rows, cards)
    check_headers(scans, rows, card.preprocess.views)

    if run.world.main:
        open_out_dir(args.out_dir, args.overwrite)
        write_json(args.out_dir / "config.json", options.make_config(
            args, script="evaluate", card=card, versions=versions(),
            data={"name": scans.name, "fingerprint": fingerprint}))
    measure([model.to(run.device) for model in models], [one.target for one in cards], scans,
            args.split, run, args.b_size, args.out_dir, args.seed, only=args.pathologies)


def check_alike(paths: list[Path], cards: tuple[Card, ...]) -> None:
    """Refuse checkpoints whose predictions cannot be averaged.

    Raises:
        UserError: listing what each of them is.
    """
    kinds = [f"{card.kind}, {card.target.task} of {', '.join(card.target.labels)}"
             for card in cards]
    if len(set(kinds)) > 1:
        rows = [f"{path}: {kind}" for path, kind in zip(paths, kinds, strict=True)]
        raise UserError("--checkpoint: only models of the same kind, task and labels can be "
                        f"averaged:\n{listing(rows)}\nMeasure them one by one.")


def named_training_set(card: Card) -> tuple[str, int | None]:
    """Return name and MedMNIST size of the named set a checkpoint was trained on.

    Of one trained on a table, the embedded set of the same kind.
    """
    flag, _, size = card.data["name"].partition("_")
    if flag in known_sets() and (not size or size.isdigit()):
        return flag, int(size) if size else None
    return ("noduleshapes2d" if card.kind == "backbone" else "noduleshapes3d"), None


def warn_of_training_patients(scans: Scans, rows: np.ndarray, cards: tuple[Card, ...]) -> None:
    """Say how many of the patients to be measured the models have met in training."""
    seen = {patient for card in cards for patient in card.data["patients"]}
    found = scans.patient_hashes(*{str(scans.split[row]) for row in rows})
    if seen & found:
        LOG.warning("warning: %d of %d patients have ids that stand in the training or validation "
                    "data of the checkpoint too; if they are the same people, these scores are "
                    "too good", len(seen & found), len(found))


if __name__ == "__main__":
    run_script(main)
