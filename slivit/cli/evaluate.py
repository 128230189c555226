"""The options of evaluate.py."""

import argparse

from slivit.cli import arguments, types
from slivit.cli.parser import Parser


def build_parser(text: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of evaluate.py; `text` describes it."""
    parser = Parser(text)
    parser.add_argument("--checkpoint", type=types.path, required=True, nargs="+", metavar="FILE",
                        help="slivit.safetensors of finetune.py, backbone.safetensors of "
                             "bb_train.py, or slivit.pth of the original SLIViT; with several, "
                             "their predictions are averaged and the models are compared")
    parser.add_argument("--split", choices=("test", "val", "train", "all"), default="test",
                        help="rows to evaluate (default %(default)s)")
    parser.add_argument("--b_size", type=types.positive_int, default=16, metavar="N",
                        help="scans per batch (default %(default)s)")
    arguments.add_data_options(parser, "images or volumes, matching the checkpoint,")
    parser.add_argument("--volume", type=types.path, metavar="FILE_OR_FOLDER",
                        help="predict this one scan instead of a data set")
    arguments.add_decoding_options(parser)
    arguments.add_report_options(parser)
    arguments.add_run_options(parser, "runs/evaluate", resumable=False)
    return parser
