"""The options of finetune.py."""

import argparse

from slivit.cli import arguments, training_arguments, types
from slivit.cli.parser import Parser
from slivit.config import TASKS
from slivit.utils.errors import UserError


def build_parser(text: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of finetune.py; `text` describes it."""
    parser = Parser(text)
    arguments.add_data_options(parser, "volumes")
    arguments.add_split_options(parser)
    arguments.add_decoding_options(parser)
    parser.add_argument("--auxiliary", type=types.names, metavar="A,B",
                        help="additional label columns to learn, neither predicted nor scored (but "
                             "counted by --select loss); all: every label that --pathologies does "
                             "not name")
    parser.add_argument("--folds", type=types.folds, metavar="K",
                        help="cross-validate: train K models, each evaluated on patients it "
                             "has not seen")
    parser.add_argument("--task", choices=("auto", *TASKS), default="auto",
                        help="auto (default): what the data set specifies; else 0/1 labels are "
                             "binary or multilabel, other numbers regression")
    group = arguments.add_input_options(parser)
    group.add_argument("--bb_path", type=types.weights_file, metavar="FILE",
                       help="a backbone.safetensors of bb_train.py, a feature_extractor.pth of the "
                            "original SLIViT, another file of ConvNeXt weights, or one of the "
                            "Hugging Face Hub as hf://owner/name; gives architecture and weights")
    arguments.add_slice_options(group)
    training_arguments.add_integrator_options(parser)
    group = training_arguments.add_training_options(parser, b_size=4, n_epochs=20, lr=1e-4,
                                                  patience=5)
    group.add_argument("--bb_lr", type=types.positive, metavar="X",
                       help="peak learning rate of the backbone (default: a tenth of --lr)")
    group.add_argument("--slices_per_step", type=types.positive_int, metavar="N",
                       help="run the backbone over this many slices at a time and recompute "
                            "activations in the backward pass: less memory for the same result, up "
                            "to rounding")
    group.add_argument("--freeze_backbone", action="store_true",
                       help="train only the integrator, on slice features computed once")
    group.add_argument("--feature_augments", type=types.count_or_none, metavar="K",
                       help="with --freeze_backbone: augmented versions of each training volume "
                            "(default 0)")
    group.add_argument("--unfreeze_after", type=types.positive_int, metavar="E",
                       help="with --freeze_backbone: train the whole model after E epochs")
    arguments.add_run_options(parser, "runs/finetune")
    return parser


def check_args(args: argparse.Namespace) -> None:
    """Refuse options that contradict each other."""
    for flag in ("weights", "backbone"):
        if args.bb_path is not None and getattr(args, flag) is not None:
            raise UserError(f"--bb_path and --{flag} cannot be combined: the file of --bb_path "
                            "gives architecture and weights")
    end_to_end = not args.freeze_backbone or args.unfreeze_after is not None
    for flag in ("bb_lr", "slices_per_step"):
        if getattr(args, flag) is not None and not end_to_end:
            raise UserError(f"--{flag} and --freeze_backbone cannot be combined without "
                            "--unfreeze_after")
    if args.integrator == "linear":
        _check_linear(args)
    elif not end_to_end and args.bb_path is None and args.weights == "none":
        raise UserError("--freeze_backbone with --weights none would keep random weights; give "
                        "--bb_path or other --weights")
    for flag in ("feature_augments", "unfreeze_after"):
        if getattr(args, flag) and not args.freeze_backbone:
            raise UserError(f"--{flag} needs --freeze_backbone")
    if args.unfreeze_after is not None and args.unfreeze_after >= args.n_epochs:
        raise UserError(f"--unfreeze_after {args.unfreeze_after}: expected less than --n_epochs "
                        f"{args.n_epochs}")
    if args.views is not None and args.slice_axis is not None:
        raise UserError("--views and --slice_axis cannot be combined; give only one of them")


def _check_linear(args: argparse.Namespace) -> None:
    """Refuse what a linear integrator, solved at once, cannot do; its training is one epoch."""
    if not args.freeze_backbone:
        raise UserError("--integrator linear needs --freeze_backbone: it is solved on features "
                        "that stay as they are")
    asked = [flag for flag in ("unfreeze_after", "auxiliary", "pos_weight", "balanced_sampling",
                               "label_smoothing", "mixup", "ema", "dropout", "emb_dropout",
                               "compile") if getattr(args, flag)]
    if asked:
        raise UserError(f"--integrator linear is solved at once, without steps of training: omit "
                        f"{', '.join(f'--{flag}' for flag in asked)}")
    args.n_epochs = 1
