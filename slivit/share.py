"""Share a checkpoint on the Hugging Face Hub, without anything of people in it.

    python -m slivit.share slivit.safetensors --to owner/name
    python -m slivit.share slivit.safetensors --to owner/name --out_dir shared/   # only look

Before the upload, everything of people, files and folders is removed: predictions and labels on
validation, hashes of patients, names of tables. What stays is printed, and you are asked. The
repository is private unless --public is given. See docs/sharing.md.
"""

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

from slivit.checkpoints import checkpoint
from slivit.checkpoints.checkpoint import CheckpointHeader
from slivit.checkpoints.hub_upload import token, upload
from slivit.checkpoints.model_card import is_solved
from slivit.checkpoints.sharing import readable, removed, shared_header
from slivit.cli import types
from slivit.report.hub_card import write_hub_card
from slivit.utils.errors import UserError, run_script
from slivit.utils.log import LOG, setup_logging
from slivit.utils.output_dir import check_out_dir, open_out_dir

NAMES = {"slivit": "slivit.safetensors", "backbone": "backbone.safetensors"}
MEGABYTE = 1e6


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this program's options."""
    parser = argparse.ArgumentParser(
        prog="python -m slivit.share", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("checkpoint", type=types.path, metavar="FILE",
                        help="slivit.safetensors of finetune.py, or backbone.safetensors of "
                             "bb_train.py")
    parser.add_argument("--to", type=types.hub_repository, required=True, metavar="OWNER/NAME",
                        help="repository on the Hub, created unless it exists")
    parser.add_argument("--public", action="store_true",
                        help="let everybody read the repository (default: private)")
    parser.add_argument("--license", type=types.licence, metavar="ID",
                        help="licence of the model by the Hub's identifier, such as cc-by-4.0 "
                             "(default: none stated)")
    parser.add_argument("--yes", action="store_true", help="upload without asking")
    parser.add_argument("--out_dir", type=types.path, metavar="DIR",
                        help="write the files to this folder instead of uploading them")
    parser.add_argument("--overwrite", action="store_true",
                        help="replace files of the same names, in the repository or in --out_dir")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Read, remove what is of people, show the rest, ask, upload."""
    args = build_parser().parse_args(argv)
    setup_logging()
    if args.out_dir is not None:
        check_out_dir(args.out_dir, overwrite=args.overwrite, inputs=(args.checkpoint,))
    elif not args.yes and not sys.stdin.isatty():
        raise UserError("there is no terminal to ask on before the upload; look at the files first "
                        "with --out_dir DIR, then add --yes")
    else:
        token()
    card, state = checkpoint.read(args.checkpoint)
    checkpoint.restore(args.checkpoint, card, state)  # no tensor that is not the model's
    validation = checkpoint.read_validation(args.checkpoint)
    shared = shared_header(card, validation)
    show(args, shared, removed(card, validation), sum(one.nbytes for one in state.values()))

    def write(folder: Path) -> None:
        checkpoint.write(folder / NAMES[card.kind], state, shared)
        write_hub_card(folder / "README.md", shared, args.to, args.license)

    if args.out_dir is not None:
        with open_out_dir(args.out_dir, False, args.overwrite, (args.checkpoint,)):
            write(args.out_dir)
        LOG.info("written to %s, nothing was uploaded", args.out_dir)
    elif args.yes or agreed(args):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder))
            name = upload(Path(folder), args.to, args.public, args.overwrite)
        LOG.info("uploaded to %s as %s", name.partition("@")[0], name)
    else:
        LOG.info("nothing was uploaded")


def show(args: argparse.Namespace, shared: CheckpointHeader, gone: list[str], size: int) -> None:
    """Print what is removed from the file, and all that stays beside weights of `size` bytes."""
    content = dataclasses.asdict(shared)
    if is_solved(shared):  # its other sizes are a transformer's
        content["integrator"] = {"kind": shared.integrator.kind}
    LOG.info("%s, to be shared as %s", args.checkpoint, args.to)
    LOG.info("removed:%s", "".join(f"\n  {line}" for line in gone) or " nothing")
    LOG.info("stays, beside %.1f MB of weights:\n%s", size / MEGABYTE,
             "\n".join(readable(content)))


def agreed(args: argparse.Namespace) -> bool:
    """Ask whether to upload; return whether the answer is yes."""
    who = "everybody" if args.public else "only you, or your organisation,"
    try:
        answer = input(f"Upload this to {args.to}, where {who} can read it? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in ("y", "yes")


if __name__ == "__main__":
    run_script(main)
