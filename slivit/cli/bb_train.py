"""The options of bb_train.py."""

import argparse

from slivit.cli import arguments, training_arguments
from slivit.cli.parser import Parser


def build_parser(text: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of bb_train.py; `text` describes it."""
    parser = Parser(text)
    arguments.add_data_options(parser, "images")
    arguments.add_split_options(parser)
    arguments.add_decoding_options(parser)
    parser.add_argument("--task", choices=("auto", "multilabel", "multiclass"), default="auto",
                        help="multilabel: a probability per label; multiclass: exactly one label "
                             "per image (default auto: what the data set specifies, else "
                             "multilabel)")
    arguments.add_input_options(parser)
    training_arguments.add_training_options(parser, b_size=32, n_epochs=20, lr=1e-4, patience=5)
    arguments.add_run_options(parser, "runs/bb_train")
    return parser
