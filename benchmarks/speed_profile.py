"""Where the backbone's time goes, and its rate beside that of matrix multiplication."""

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as record
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.loading import in_turn
from slivit.models.backbone import create_backbone

TOP = 8  # operators listed


@torch.inference_mode()
def profile(quick: bool, repeats: int, threads: int) -> list[dict]:
    """Measure the backbone's forward pass, plain and by operator.

    Returns:
        Rows of case, what, seconds, share (of the case's time), gflops (per second; one
        multiplication and addition are two) and of_matmul (that rate over that of multiplying
        square float32 matrices, in turn in the same process).
    """
    cases = [("convnext_zepto_rms", 32, 4)] if quick else [
        ("convnext_tiny", 256, 28), ("convnext_tiny", 256, 4), ("convnext_atto", 32, 256)]
    side = 256 if quick else 2048
    a, b = torch.randn(side, side), torch.randn(side, side)
    rows = []
    for name, size, count in cases:
        torch.manual_seed(0)
        model = create_backbone(name).eval()
        x = torch.randn(count, 3, size, size).contiguous(memory_format=torch.channels_last)
        with FlopCounterMode(display=False) as counter:
            model.forward_features(x)
        forward, multiply = in_turn(lambda m=model, x=x: m.forward_features(x), lambda: a @ b,
                                    repeats)
        ours, best = counter.get_total_flops() / forward / 1e9, 2 * side ** 3 / multiply / 1e9
        case = f"{name}, {count} slices of {size}"
        rows.append({"case": case, "what": "forward", "seconds": round(forward, 4), "share": 1.0,
                     "gflops": round(ours), "of_matmul": round(ours / best, 2)})
        with record(activities=[ProfilerActivity.CPU]) as recorded:
            model.forward_features(x)
        averages = sorted(recorded.key_averages(), key=lambda one: -one.self_cpu_time_total)
        total = sum(one.self_cpu_time_total for one in averages)
        rows += [{"case": case, "what": one.key, "seconds": round(one.self_cpu_time_total / 1e6, 4),
                  "share": round(one.self_cpu_time_total / total, 3)} for one in averages[:TOP]]
    return rows
