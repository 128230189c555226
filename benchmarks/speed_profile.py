"""Where the time of backbone and training step goes, and their rate beside matrix products'."""

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as record
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.loading import in_turn
from benchmarks.speed_steps import CPU, HALF, make_steps
from slivit.models.backbone import create_backbone
from slivit.utils.precision import has_bfloat16

TOP = 8  # operators listed


def profile(quick: bool, repeats: int, threads: int) -> list[dict]:
    """Measure the backbone's forward pass and the training step, plain and by operator.

    Returns:
        Rows of case, what, seconds, share (of the case's time), gflops (per second; one
        multiplication and addition are two) and of_matmul (that rate over that of multiplying
        square matrices of the case's dtype, in turn in the same process).
    """
    cases = [("convnext_zepto_rms", 32, 4)] if quick else [
        ("convnext_tiny", 256, 28), ("convnext_tiny", 256, 4), ("convnext_atto", 32, 256)]
    side, n_slices, (name, size, _) = 256 if quick else 2048, 4 if quick else 28, cases[0]
    rows = []
    for backbone, pixels, count in cases:
        rows += _measure(f"{backbone}, {count} slices of {pixels}", "forward",
                         _forward(backbone, pixels, count), side, torch.float32, repeats)
    for ending in ("", HALF) if has_bfloat16(CPU) else ("",):
        step = make_steps(f"slivit{ending}", size, n_slices, name)["training step"]
        rows += _measure(f"{name}, {n_slices} slices of {size}, training step{ending}",
                         "training step", step, side,
                         torch.bfloat16 if ending else torch.float32, repeats)
    return rows


def _forward(name: str, size: int, count: int) -> Callable[[], None]:
    """Return the forward pass of a backbone over `count` slices of `size` pixels a side."""
    torch.manual_seed(0)
    model = create_backbone(name).eval()
    x = torch.randn(count, 3, size, size).contiguous(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode():
            model.forward_features(x)

    return run


def _measure(case: str, what: str, run: Callable[[], None], side: int, dtype: torch.dtype,
             repeats: int) -> list[dict]:
    """Return the row of a whole case, and those of the operators that take most of it."""
    a, b = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    with FlopCounterMode(display=False) as counter:
        run()
    seconds, multiply = in_turn(run, lambda: a @ b, repeats)
    ours, best = counter.get_total_flops() / seconds / 1e9, 2 * side ** 3 / multiply / 1e9
    with record(activities=[ProfilerActivity.CPU]) as recorded:
        run()
    averages = sorted(recorded.key_averages(), key=lambda one: -one.self_cpu_time_total)
    total = sum(one.self_cpu_time_total for one in averages)
    whole = {"case": case, "what": what, "seconds": round(seconds, 4), "share": 1.0,
             "gflops": round(ours), "of_matmul": round(ours / best, 2)}
    return [whole, *({"case": case, "what": one.key,
                      "seconds": round(one.self_cpu_time_total / 1e6, 4),
                      "share": round(one.self_cpu_time_total / total, 3)}
                     for one in averages[:TOP])]
