"""Milliseconds of the gradient of depthwise kernels on a CPU: PyTorch's, and SLIViT's.

    python -m benchmarks.kernel_gradient

On one thread, in turn, medians. Prints the table of docs/speed.md.
"""

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import torch

from benchmarks.loading import in_turn
from benchmarks.markdown import markdown
from slivit.models.depthwise import kernel_gradient
from slivit.utils.errors import run_script

SHAPES = ((4, 96, 64), (4, 192, 32), (4, 384, 16), (4, 768, 8), (448, 40, 16), (64, 160, 4))
TYPES = (torch.float32, torch.bfloat16)


def main(repeats: int = 9) -> None:
    """Measure every shape and type."""
    torch.set_num_threads(1)
    rows = []
    for count, channels, side in SHAPES:
        row = [f"{count}, {channels}, {side}"]
        for dtype in TYPES:
            x, grad = (torch.randn(count, channels, side, side).to(dtype)
                       .contiguous(memory_format=torch.channels_last) for _ in range(2))
            weight = torch.randn(channels, 1, 7, 7).to(dtype)
            theirs, ours = in_turn(
                lambda x=x, grad=grad, weight=weight: torch.ops.aten.convolution_backward(
                    grad, x, weight, None, [1, 1], [3, 3], [1, 1], False, [0, 0], len(weight),
                    [False, True, False]),
                lambda x=x, grad=grad, weight=weight: kernel_gradient(x, grad, weight), repeats)
            row += [f"{1000 * theirs:.1f}", f"{1000 * ours:.1f}"]
        rows.append(row)
    print(markdown(["slices, channels, side of the map", "float32: PyTorch", "slivit",
                    "bfloat16: PyTorch", "slivit"], rows))


if __name__ == "__main__":
    run_script(main)
