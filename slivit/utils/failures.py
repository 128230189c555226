"""Failures that are nobody's bug: memory, disk, a process that was killed; each in one message."""

import argparse

import torch

from slivit.utils.errors import NotWritten, RunError, first_line
from slivit.utils.files import FULL

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def explain(error: BaseException, args: argparse.Namespace) -> RunError | None:
    """Return the message for an error that the user can do something about, else None.

    Args:
        error: as it came out of torch or the system.
        args: the script's options, which say what can be lowered.
    """
    text = str(error)
    again = ("go on with --resume" if hasattr(args, "resume") else
             "run the command again, with --overwrite")
    if isinstance(error, NotWritten):
        return NotWritten(error.path, error.reason, error.full, again)
    if "DataLoader worker" in text:
        n_cpu = getattr(args, "n_cpu", None)
        return RunError(f"a data-loading process died ({first_line(error)}), perhaps because the "
                        f"machine ran out of memory. {again.capitalize()}, and a lower --n_cpu"
                        + (f": {n_cpu // 2} for {n_cpu}" if n_cpu else ""))
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
            sign in text for sign in OUT_OF_MEMORY):
        return RunError(f"out of memory ({first_line(error)[:200]}). {_what_to_lower(args)}")
    if isinstance(error, OSError) and error.errno in FULL:
        return NotWritten(error.filename or args.out_dir, error.strerror, then=again)
    return None


def _what_to_lower(args: argparse.Namespace) -> str:
    """Return which option to lower, from what to what."""
    b_size, accumulate = args.b_size, getattr(args, "accumulate", 1)
    advice = []
    slices = getattr(args, "n_slices", None)
    if slices is not None and not getattr(args, "freeze_backbone", False):
        now = getattr(args, "slices_per_step", 0) or b_size * slices
        if now > 1:
            advice.append(f"--slices_per_step {max(1, now // 4)} (now {now}; the result is the "
                          "same)")
    if b_size > 1:
        steps = f" with --accumulate {accumulate * 2}" if hasattr(args, "accumulate") else ""
        advice.append(f"--b_size {b_size // 2}{steps} (now {b_size})")
    if getattr(args, "img_size", None):
        advice.append(f"a smaller --img_size (now {args.img_size})")
    return "Try " + ", or ".join(advice or ["a smaller --img_size or --backbone"])
