"""The depthwise convolution whose gradient is fast: the same numbers as PyTorch's own."""

import pytest
import timm
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from slivit.models import depthwise
from slivit.models.backbone import create_backbone
from slivit.models.depthwise import DepthwiseConv


@pytest.fixture(autouse=True)
def few_cells(monkeypatch):
    """Let the kernel's gradient be computed in several parts."""
    monkeypatch.setattr(depthwise, "CELLS", 100)


def pair():
    """Return PyTorch's convolution and ours, with the same float64 weights."""
    torch.manual_seed(0)
    direct = nn.Conv2d(6, 6, 7, padding=3, groups=6).double()
    fast = DepthwiseConv(6, 6, 7, padding=3, groups=6).double()
    fast.load_state_dict(direct.state_dict())
    return direct, fast


def results(conv, x, run=lambda conv, image: conv(image)):
    """Return the output and the gradients of input, kernel and bias."""
    image = x.clone().requires_grad_()
    out = run(conv, image)
    gradients = torch.autograd.grad((out * torch.arange(out.numel()).view_as(out)).sum(),
                                    [image, conv.weight, conv.bias])
    return out, *gradients


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (1, 4), (2, 3), (5, 5), (9, 8)])
def test_equals_the_direct_convolution_forward_and_backward(height, width):
    direct, fast = pair()
    x = torch.randn(3, 6, height, width, dtype=torch.float64)
    for expected, found in zip(results(direct, x), results(fast, x), strict=True):
        torch.testing.assert_close(found, expected)


def test_recomputed_it_has_the_same_gradient_bit_for_bit():
    _, fast = pair()
    x = torch.randn(3, 6, 5, 5, dtype=torch.float64)
    again = results(fast, x, lambda conv, image: checkpoint(conv, image, use_reentrant=False))
    assert all(torch.equal(a, b) for a, b in zip(results(fast, x), again, strict=True))


@pytest.mark.parametrize("side", [1, 4, 9])
def test_under_autocast_the_gradient_of_the_weights_is_float32_and_near(side):
    direct, fast = pair()
    x = torch.randn(3, 6, side, side)
    expected = results(direct, x.double())
    with torch.autocast("cpu", torch.bfloat16):
        found = results(fast.float(), x)
    assert found[0].dtype == torch.bfloat16
    assert {one.dtype for one in found[1:]} == {torch.float32}
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() < 0.02 * b.norm()
    half = x.bfloat16()  # parts are summed in float32
    gradient = depthwise.kernel_gradient(half, half, fast.weight[:, :, 2:5, 2:5])
    assert gradient.dtype == torch.float32


def test_a_frozen_one_gives_the_gradient_of_its_input_only():
    _, fast = pair()
    image = torch.randn(1, 6, 5, 5, dtype=torch.float64, requires_grad=True)
    fast.requires_grad_(False)(image).sum().backward()
    assert fast.weight.grad is None
    assert image.grad is not None


def test_backbone_has_it_everywhere_and_timms_names_and_output():
    torch.manual_seed(0)
    ours = create_backbone("convnext_atto", num_classes=3).eval()
    plain = timm.create_model("convnext_atto", num_classes=3).eval()
    plain.load_state_dict(ours.state_dict())
    assert sum(isinstance(module, DepthwiseConv) for module in ours.modules()) == 12
    image = torch.randn(2, 3, 64, 64)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(ours(image), plain(image), rtol=1e-4, atol=1e-5)
