"""The depthwise convolution of small maps as a matrix: the same numbers as the direct one."""

import pytest
import timm
import torch
from torch import nn

from slivit.models.backbone import create_backbone
from slivit.models.depthwise import LARGEST_MAP, DepthwiseConv


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (4, 4), (2, 3), (5, 5)])
def test_equals_the_direct_convolution_forward_and_backward(height, width):
    torch.manual_seed(0)
    direct = nn.Conv2d(6, 6, 7, padding=3, groups=6).double()
    fast = DepthwiseConv(6, 6, 7, padding=3, groups=6).double()
    fast.load_state_dict(direct.state_dict())
    x = torch.randn(3, 6, height, width, dtype=torch.float64)
    results = []
    for conv in (direct, fast):
        image = x.clone().requires_grad_()
        out = conv(image)
        (out * torch.arange(out.numel()).view_as(out)).sum().backward()
        results.append((out, image.grad, conv.weight.grad, conv.bias.grad))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)
    assert (height * width > LARGEST_MAP) == (height == 5)


def test_backbone_has_it_everywhere_and_timms_names_and_output():
    torch.manual_seed(0)
    ours = create_backbone("convnext_atto", num_classes=3).eval()
    plain = timm.create_model("convnext_atto", num_classes=3).eval()
    plain.load_state_dict(ours.state_dict())
    assert sum(isinstance(module, DepthwiseConv) for module in ours.modules()) == 12
    image = torch.randn(2, 3, 64, 64)
    for gradients in (True, False):  # the matrix and the direct convolution
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(ours(image), plain(image), rtol=1e-4, atol=1e-5)
