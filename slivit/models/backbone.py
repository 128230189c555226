"""The backbone: a timm ConvNeXt over single slices."""

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from slivit.models.depthwise import speed_up_depthwise
from slivit.utils.errors import UserError, nearest

SCRATCH = "_bn"  # ends the names of backbones to be trained from random weights


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm that accepts a training batch of a single cell, for which it uses its averages."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (B, C, H, W)."""
        if self.training and x.numel() == x.shape[1]:
            return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight,
                                            self.bias, eps=self.eps)
        return super().forward(x)


def for_scratch(name: str) -> bool:
    """Return whether a name is that of a backbone to be trained from random weights."""
    return name.endswith(SCRATCH)


def check_name(name: str) -> None:
    """Refuse a name that is not a ConvNeXt of timm, or a tag that it does not have.

    Raises:
        UserError: see name_fault.
    """
    if fault := name_fault(name):
        raise UserError(f"--backbone {fault}")


def name_fault(name: str) -> str | None:
    """Return why a name is not a ConvNeXt of timm, with the nearest names or the available tags.

    None where it is one.
    """
    known = timm.list_models(["convnext_*", "convnextv2_*"])
    if name.removesuffix(SCRATCH) in known:
        return None
    base, dot, tag = name.partition(".")
    if base not in known:
        return (f"{name}: not a ConvNeXt of timm. Nearest: {nearest(base, known)}. Available: "
                f"{', '.join(known)}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")]
    if dot and tag not in tags:
        return (f"{name}: {base} has no weights tagged {tag!r}; available: "
                f"{', '.join(tags) or 'none'}")
    return None


def create_backbone(name: str, num_classes: int = 0, drop_path: float = 0.0) -> nn.Module:
    """Create a timm ConvNeXt with random weights.

    With `_bn` after its name it is one to be trained from them, on a few thousand images:
    BatchNorm (Ioffe and Szegedy 2015, algorithm 1) takes off what all images have in common, which
    LayerNorm leaves; weights begin as He et al. 2015 (section 2.2) derive, and layer scale (Liu et
    al. 2022, section 3) at 1, where timm's small ones keep every block near the identity for more
    steps than there are.

    Args:
        name: any ConvNeXt or ConvNeXt V2 of timm, with or without a tag, or with `_bn` after it.
        num_classes: outputs of the classifier; 0 omits the whole head.
        drop_path: stochastic depth rate.

    Returns:
        The module: (B, 3, H, W) float32 -> (B, num_classes); its `forward_features` gives
        (B, C, h, w), the map of the last stage.

    Raises:
        UserError: unknown name or tag, with the nearest ones.
    """
    check_name(name)
    scratch = {"norm_layer": BatchNorm, "conv_mlp": True} if for_scratch(name) else {}
    model = timm.create_model(name.removesuffix(SCRATCH), pretrained=False, num_classes=num_classes,
                              drop_path_rate=drop_path, **scratch)
    if scratch:
        _start_large(model)
    if num_classes == 0:
        model.head = nn.Identity()
    speed_up_depthwise(model)
    return model.to(memory_format=torch.channels_last)


@torch.no_grad()
def _start_large(model: nn.Module) -> None:
    """Give every layer before the head weights that keep the size of its input, in place."""
    for name, weight in model.named_parameters():
        if name.startswith("head."):
            continue
        if weight.ndim > 1:
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
        elif name.endswith(".gamma"):
            nn.init.ones_(weight)


def keep_averages(backbone: nn.Module) -> None:
    """Let BatchNorm normalise by its averages in training too, so that scans stay independent."""
    for module in backbone.modules():
        if isinstance(module, BatchNorm):
            module.eval()


def feature_shape(backbone: nn.Module, img_size: int) -> tuple[int, int, int]:
    """Return (C, h, w) of the feature map of one slice of `img_size` pixels a side (32 or more)."""
    training = backbone.training
    backbone.eval()
    with torch.no_grad():
        shape = backbone.forward_features(torch.zeros(1, 3, img_size, img_size)).shape
    backbone.train(training)
    return tuple(shape[1:])


def input_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel (0..1 scale) that the weights expect.

    Raises:
        UserError: unknown name or tag.
    """
    check_name(name)
    config = timm.models.get_pretrained_cfg(name.removesuffix(SCRATCH), allow_unregistered=True)
    if config is None:
        return IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    return tuple(config.mean), tuple(config.std)
