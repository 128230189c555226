"""The options of evaluate.py."""

import argparse
from pathlib import Path

from slivit.cli import arguments, types
from slivit.cli.parser import Parser
from slivit.utils.errors import UserError

SHIPPED = Path(__file__).resolve().parents[2] / "data/models/noduleshapes.safetensors"


def build_parser(text: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of evaluate.py; `text` describes it."""
    parser = Parser(text)
    parser.add_argument("--checkpoint", type=types.weights_file, nargs="+", metavar="FILE",
                        help="slivit.safetensors of finetune.py, backbone.safetensors of "
                             "bb_train.py, slivit.pth of the original SLIViT, or one of the "
                             "Hugging Face Hub as hf://owner/name; with several, "
                             "their predictions are averaged and the models are compared (without "
                             "any scans given, the default is the model that ships, of the "
                             "embedded nodules)")
    parser.add_argument("--split", choices=("test", "val", "train", "all"), default="test",
                        help="rows to evaluate (default %(default)s)")
    parser.add_argument("--b_size", type=types.positive_int, default=16, metavar="N",
                        help="scans per batch (default %(default)s)")
    arguments.add_data_options(parser, "images or volumes, matching the checkpoint,")
    parser.add_argument("--volume", type=types.path, metavar="FILE_OR_FOLDER",
                        help="predict this one scan instead of a data set")
    parser.add_argument("--features", type=types.path, metavar="FILE.npz",
                        help="also write the vector from which each scan is predicted, with ids, "
                             "patients, splits and labels")
    arguments.add_decoding_options(parser)
    arguments.add_report_options(parser)
    arguments.add_precision_option(
        arguments.add_run_options(parser, "runs/evaluate", resumable=False),
        "the type in which the model was trained,")
    return parser


def complete(args: argparse.Namespace) -> None:
    """Choose the model that ships where no option says what is to be evaluated.

    Raises:
        UserError: there are scans but no model, or options that contradict each other.
    """
    if args.checkpoint is None:
        given = [flag for flag in ("meta_csv", "dataset", "volume")
                 if getattr(args, flag) is not None]
        if given:
            raise UserError(f"--{given[0]} needs --checkpoint, the model to evaluate")
        args.checkpoint = [SHIPPED]
    if args.features is not None and len(args.checkpoint) > 1:
        raise UserError(f"--features takes one --checkpoint, found {len(args.checkpoint)}")
