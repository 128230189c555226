"""Convert a fine-tuned model of the original SLIViT into a checkpoint of this project.

    python -m slivit.convert slivit.pth slivit.safetensors --tiling width --task binary --label IHRF
    python -m slivit.convert slivit.pth slivit.safetensors   # with finetune_options.txt

The predictions stay the same. What can be read neither from the tensors nor from a
finetune_options.txt in the same folder has to be given with the options.
"""

import argparse
import dataclasses
import os

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

from slivit.checkpoints import checkpoint
from slivit.checkpoints.checkpoint import CheckpointHeader
from slivit.checkpoints.original.reader import make_target, read_original
from slivit.checkpoints.tensor_files import is_safetensors
from slivit.cli import types
from slivit.config import TILINGS, label_name_faults
from slivit.utils.errors import UserError, run_script
from slivit.utils.files import check_replaceable
from slivit.utils.log import LOG, setup_logging


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this program's options."""
    parser = argparse.ArgumentParser(
        prog="python -m slivit.convert", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("source", type=types.path, metavar="IN",
                        help="slivit.pth of the original SLIViT")
    parser.add_argument("out", type=types.path, metavar="OUT",
                        help="the .safetensors file to write")
    parser.add_argument("--tiling", choices=tuple(TILINGS),
                        help="how the original tiled the slices of a volume: along the height "
                             "(MedMNIST) or the width (all other data)")
    parser.add_argument("--task", choices=("binary", "regression"), help="what the model predicts")
    parser.add_argument("--label", type=types.names, metavar="NAME",
                        help="name of what it predicts: a column of your tables")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Read, decide, write."""
    args = build_parser().parse_args(argv)
    setup_logging()
    check_args(args)
    card, state = read_original(args.source)
    card = decide(card, args)
    model = checkpoint.restore(args.source, card, state)
    checkpoint.save(args.out, model, card)
    LOG.info("%s: %s, %d slices of %d pixels, %d transformer blocks of width %d with %d heads; "
             "%d tensors, %s numbers\nwritten to %s", args.source, card.backbone,
             card.preprocess.n_slices, card.preprocess.img_size, card.integrator.depth,
             card.integrator.dim, card.integrator.heads, len(state),
             f"{sum(tensor.numel() for tensor in state.values()):,}", args.out)


def check_args(args: argparse.Namespace) -> None:
    """Refuse files that cannot be converted from or to.

    Raises:
        UserError: saying what was expected.
    """
    if is_safetensors(args.source):
        raise UserError(f"{args.source}: is a safetensors file; expected a slivit.pth of the "
                        "original SLIViT")
    if args.out.suffix != ".safetensors":
        raise UserError(f"{args.out}: expected a name that ends with .safetensors")
    check_replaceable(args.out)
    if args.out.exists() and args.out.samefile(args.source):
        raise UserError(f"{args.out}: is the file to be converted; name another file")
    if args.out.exists() and not args.overwrite:
        raise UserError(f"{args.out}: already exists; name another file, or add --overwrite")
    if not args.out.parent.is_dir() or not os.access(args.out.parent, os.W_OK):
        raise UserError(f"{args.out}: {args.out.parent} is not a writable folder")
    if args.label is not None and len(args.label) != 1:
        raise UserError(f"--label: the original predicts one label, found {len(args.label)}")
    if faults := label_name_faults(args.label or ()):
        raise UserError(f"--label: {'; '.join(faults)}; give another name")


def decide(card: CheckpointHeader, args: argparse.Namespace) -> CheckpointHeader:
    """Return the card with what the options say, and log what was decided and why.

    Raises:
        UserError: something that neither a file nor an option says.
    """
    given = {"tiling": args.tiling, "task": args.task, "label": args.label and args.label[0]}
    unsaid = [name for name in card.data["assumed"] if given[name] is None]
    if unsaid:
        raise UserError(f"{args.source}: no file states the {', '.join(unsaid)} of this model; "
                        f"give {' and '.join(f'--{name}' for name in unsaid)} (see --help)")
    token, target = card.integrator.token, card.target
    token = TILINGS[args.tiling] if args.tiling else token
    target = make_target(args.task or target.task, given["label"] or target.labels[0])
    chosen = {"tiling": next(name for name, value in TILINGS.items() if value == token),
              "task": target.task, "label": target.labels[0]}
    for name, value in chosen.items():
        LOG.info("%s: %s (%s)", name, value,
                 "finetune_options.txt" if given[name] is None else f"--{name}")
    return dataclasses.replace(
        card, target=target, integrator=dataclasses.replace(card.integrator, token=token),
        data={**card.data, "assumed": []})


if __name__ == "__main__":
    run_script(main)
