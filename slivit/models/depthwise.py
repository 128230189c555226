"""Depthwise convolution whose gradient is as fast as its forward pass on a CPU."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

CELLS = 2 ** 18  # of the maps whose kernel's gradient is computed at a time: what caches hold


class DepthwiseConv(nn.Conv2d):
    """A depthwise nn.Conv2d (odd kernel, stride 1, same padding) that trains fast on a CPU.

    PyTorch's backward pass takes many times as long there as the forward pass; here it is made of
    forward convolutions (see _Depthwise). The parts of a kernel that meet padding only, most of a
    7 x 7 kernel on a map of 2 x 2 cells, are left out. The sums are the same, so the result is the
    same up to rounding.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve (B, C, H, W) -> (B, C, H, W)."""
        if x.device.type != "cpu":
            return super().forward(x)
        reach = [min(k // 2, size - 1) for k, size in zip(self.kernel_size, x.shape[2:],
                                                          strict=True)]
        rows, columns = (slice(k // 2 - r, k // 2 + r + 1)
                         for k, r in zip(self.kernel_size, reach, strict=True))
        return _Depthwise.apply(x, self.weight[:, :, rows, columns], self.bias)


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution of (B, C, H, W) by (C, 1, 2 * r + 1, 2 * q + 1), r < H and q < W.

    The gradient of the input is the convolution of the output's with the kernel turned around. That
    of the kernel is the correlation of input and output's gradient: the B * C maps as groups of one
    convolution, whose kernels are the maps of the gradient, summed over B.
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
                ) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight = x.to(dtype), weight.to(dtype)
            bias = bias if bias is None else bias.to(dtype)
        ctx.save_for_backward(x, weight)
        with torch.autocast("cpu", enabled=False):
            return _convolve(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            return (_convolve(grad, weight.flip(2, 3)) if ctx.needs_input_grad[0] else None,
                    kernel_gradient(x, grad, weight) if ctx.needs_input_grad[1] else None,
                    grad.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None)


def _convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
              ) -> torch.Tensor:
    height, width = weight.shape[2:]
    if height == width == 1:  # which PyTorch's convolution is slow at
        scaled = x * weight.view(1, -1, 1, 1)
        return scaled if bias is None else scaled + bias.view(1, -1, 1, 1)
    return F.conv2d(x, weight, bias, padding=(height // 2, width // 2), groups=len(weight))


def kernel_gradient(x: torch.Tensor, grad: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the gradient of a depthwise kernel, in its shape.

    Args:
        x: the input, (B, C, H, W).
        grad: gradient of the output, of the same shape and dtype.
        weight: the kernel, (C, 1, 2 * r + 1, 2 * q + 1).

    Returns:
        float32, or float64 where `x` is; of a kernel of one tap, the dtype of `x`.
    """
    if weight[0].numel() == 1:
        return (x * grad).sum(dim=(0, 2, 3)).view_as(weight)
    count = max(1, CELLS // x[0].numel())
    return sum(_of_maps(*part, weight.shape)
               for part in zip(x.split(count), grad.split(count), strict=True))


def _of_maps(x: torch.Tensor, grad: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    groups, (height, width) = x.shape[0] * x.shape[1], x.shape[2:]
    maps = F.conv2d(x.reshape(1, groups, height, width), grad.reshape(groups, 1, height, width),
                    padding=(shape[2] // 2, shape[3] // 2), groups=groups)
    return maps.view(len(x), *shape).sum(dim=0, dtype=torch.promote_types(x.dtype, torch.float32))


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
