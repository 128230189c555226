"""Failures that are nobody's bug: memory, disk, a process that was killed; each in one message."""

from collections.abc import Mapping

import torch

from slivit.utils.errors import NotWritten, RunError, first_line
from slivit.utils.files import FULL
from slivit.utils.ranks import started_by_torchrun

PEER_GONE = ("closed by peer", "reset by peer", "was likely closed")  # says torch.distributed
COMPILERS = ("torch._dynamo", "torch._inductor")  # where errors of torch.compile are defined
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


def explain(error: BaseException, settings: Mapping[str, object]) -> RunError | None:
    """Return the message for an error that the user can do something about, else None.

    Args:
        error: as it came out of torch or the system.
        settings: the script's options by name, which say what can be lowered.
    """
    text = str(error)
    again = ("continue with --resume" if "resume" in settings else
             "run the command again, with --overwrite")
    if isinstance(error, NotWritten):
        return NotWritten(error.path, error.reason, error.full, again)
    if started_by_torchrun() and any(sign in text for sign in PEER_GONE):
        ended = RunError("another process of this run has ended; its own message says why")
        ended.by_one = False
        return ended
    if "DataLoader worker" in text:
        n_cpu = settings.get("n_cpu")
        if not getattr(error, "can_resume", False):  # an --out_dir of an earlier run is as it was
            again = "run the command again"
        return RunError(f"a data-loading process died ({first_line(error)}), perhaps because the "
                        f"machine ran out of memory. {again.capitalize()}, and lower --n_cpu"
                        + (f": {n_cpu // 2} instead of {n_cpu}" if n_cpu else ""))
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
            sign in text for sign in OUT_OF_MEMORY):
        return RunError(f"out of memory ({first_line(error)[:200]}). {_what_to_lower(settings)}")
    if type(error).__module__.startswith(COMPILERS):
        return RunError(f"torch.compile failed ({first_line(error)[:200]}). It needs a C++ "
                        "compiler, and a run that was stopped while it compiled may have left "
                        "damaged files in its cache: remove that folder (torchinductor_USER in "
                        f"the system's temporary folder, or TORCHINDUCTOR_CACHE_DIR), and {again}. "
                        "Or start anew without --compile")
    if isinstance(error, OSError) and error.errno in FULL:
        return NotWritten(error.filename or settings["out_dir"], error.strerror, then=again)
    return None


def _what_to_lower(settings: Mapping[str, object]) -> str:
    """Return which option to lower, from what to what."""
    b_size, accumulate = settings["b_size"] or 1, settings.get("accumulate", 1)
    whole = settings.get("task") == "ssl"  # whose loss is of a whole batch
    advice = []
    slices = settings.get("n_slices")
    if slices is not None and not settings.get("freeze_backbone"):
        now = settings.get("slices_per_step") or b_size * slices
        if now > 1:
            advice.append(f"--slices_per_step {max(1, now // 4)} (now {now}; the same result, "
                          "up to rounding)")
    if b_size > 1:
        steps = (f" with --accumulate {accumulate * 2}" if "accumulate" in settings and not whole
                 else "")
        advice.append(f"--b_size {b_size // 2}{steps} (now {b_size})")
    if settings.get("img_size"):
        advice.append(f"a smaller --img_size (now {settings['img_size']})")
    return "Try " + ", or ".join(advice or ["a smaller --img_size or --backbone"])
