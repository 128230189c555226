"""Depthwise convolution of small feature maps as matrix multiplication, for training on a CPU."""

import torch
import torch.nn.functional as F
from torch import nn

LARGEST_MAP = 16  # cells; above, the direct convolution is as fast


class DepthwiseConv(nn.Conv2d):
    """A depthwise nn.Conv2d (odd kernel, stride 1, same padding) that is fast on small maps.

    On a map of at most 4 x 4 cells most of a 7 x 7 kernel meets padding only, yet the backward pass
    of the CPU's direct convolution takes as long as on a large one. In training each channel's
    convolution is therefore written out there as a (cells, cells) matrix of kernel weights and
    applied by batched matrix multiplication: the same sums, so the same result up to rounding.
    Without gradients the direct convolution is the faster one.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve (B, C, H, W) -> (B, C, H, W)."""
        small = x.shape[2] * x.shape[3] <= LARGEST_MAP
        if x.device.type != "cpu" or not small or not torch.is_grad_enabled():
            return super().forward(x)
        batch, channels, height, width = x.shape
        taps = F.pad(self.weight.flatten(1), (0, 1))  # (C, k * k + 1), the last one 0
        matrix = taps[:, _tap_of_cells(height, width, self.kernel_size[0])]  # (C, in, out)
        maps = x.permute(1, 0, 2, 3).reshape(channels, batch, height * width)
        mapped = torch.bmm(maps, matrix)
        if self.bias is not None:
            mapped = mapped + self.bias[:, None, None]
        rows = mapped.permute(1, 2, 0).reshape(batch, height, width, channels)
        return rows.permute(0, 3, 1, 2)  # channels last in memory


def _tap_of_cells(height: int, width: int, kernel: int) -> torch.Tensor:
    """Return (cells, cells): the kernel tap that links an input cell (row) to an output cell
    (column); `kernel ** 2` where none does.
    """
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    y, x = y.flatten(), x.flatten()
    dy, dx = (a[:, None] - a[None] + kernel // 2 for a in (y, x))
    linked = (dy >= 0) & (dy < kernel) & (dx >= 0) & (dx < kernel)
    return torch.where(linked, dy * kernel + dx, kernel ** 2)


def speed_up_depthwise(module: nn.Module) -> None:
    """Replace, in place, the depthwise convolutions of a model; weights and their names stay."""
    for parent in list(module.modules()):
        for name, conv in list(parent.named_children()):
            if (type(conv) is nn.Conv2d and conv.groups == conv.in_channels == conv.out_channels
                    and conv.stride == (1, 1) and conv.dilation == (1, 1)
                    and conv.kernel_size[0] == conv.kernel_size[1]
                    and conv.padding == (conv.kernel_size[0] // 2,) * 2):
                fast = DepthwiseConv(conv.in_channels, conv.out_channels, conv.kernel_size,
                                     padding=conv.padding, groups=conv.groups,
                                     bias=conv.bias is not None, device="meta")
                fast.weight, fast.bias = conv.weight, conv.bias
                setattr(parent, name, fast)
