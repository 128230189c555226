"""FCMAE, a masked autoencoder of convolutions: what is hidden of a slice is to be predicted."""

import contextlib
import functools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from timm.models.convnext import ConvNeXtBlock
from torch import nn

from slivit.config import Preprocess
from slivit.data.transforms import to_input
from slivit.models.backbone import BatchNorm, for_scratch
from slivit.models.depthwise import speed_up_depthwise
from slivit.models.slivit import feature_maps
from slivit.training.self_supervised.method import SelfSupervisedMethod
from slivit.utils.precision import multiplying_in

PATCH, HIDDEN = 16, 0.6  # side in pixels, share; the paper's 32 give 64 pixels 4 patches
STRIDE = 32  # pixels from one cell of the last map to the next
WIDTH = 256  # of the decoder
WHOLE = 4  # one of so many slices is shown whole, for BatchNorm's averages
FLAT = 1e-4  # variance of grey values (0 to 1) below which a patch counts as flat
IDLE = 0.97  # of the error of grey patches, from which next to nothing is predicted


class Masked(SelfSupervisedMethod):
    """Fully convolutional masked autoencoder. Source: Woo et al. 2023 (ConvNeXt V2), section 3.

    Hidden cells are 0 in the input, after the stem and after each block, which stands in for the
    paper's sparse convolutions. A cell of a map is hidden where all patches that it covers are. A
    decoder of one block predicts the pixels of all patches; those hidden count. BatchNorm
    normalises the visible cells by their own mean and variance, in validation too; the averages
    that it keeps for later are of whole slices, as later ones are.
    """

    name = "masked"

    def __init__(self, backbone_name: str, preprocess: Preprocess, drop_path: float = 0.0) -> None:
        super().__init__(backbone_name, preprocess, drop_path)
        self.averages = for_scratch(backbone_name)
        self.decoder = Decoder(self.backbone.num_features)

    def heads(self) -> nn.Module:
        """Return the decoder."""
        return self.decoder

    def forward(self, views: torch.Tensor, places: torch.Tensor, scans: torch.Tensor
                ) -> dict[str, torch.Tensor]:
        """Return the terms of masked_loss; arguments as of SelfSupervisedMethod.

        Of slices whose side is not a multiple of STRIDE, the last pixels, which the backbone leaves
        out too, are not looked at.
        """
        side = views.shape[-1] // STRIDE * STRIDE
        slices = views[:, 0, :, :side, :side]
        if self.training and self.averages:
            with torch.no_grad():
                feature_maps(self, slices[::WHOLE])
        targets = normalised(patches(slices.float().mean(dim=1) / 255))
        hidden = draw_hidden(*targets.shape[:2]).to(slices.device)
        return masked_loss(self.predict(slices, hidden), targets, hidden)

    def predict(self, slices: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Return the predicted pixels of all patches, float32 (n, P, PATCH ** 2).

        Args:
            slices: uint8 (n, C, side, side), a multiple of STRIDE.
            hidden: bool (n, P), the patches that are not looked at, row by row.
        """
        cells = slices.shape[-1] // PATCH
        shown = (~hidden).float().view(-1, 1, cells, cells)
        backbone = self.backbone
        images = show(to_input(slices, self.preprocess.mean, self.preprocess.std), shown)
        with multiplying_in(self.precision, slices.device), visible_norms(backbone, shown):
            x = show(backbone.stem(images), shown)
            for stage in backbone.stages:
                x = show(stage.downsample(x), shown)
                for block in stage.blocks:
                    x = show(block(x), shown)
            x = backbone.norm_pre(x)
        return patches(self.decoder(x.float(), shown))

    def complaint(self, terms: dict[str, float]) -> str:
        """Tell of predictions that are no better than grey patches."""
        if terms["loss"] < IDLE * terms["grey"]:
            return ""
        return (f"hidden patches are predicted no better (error {terms['loss']:.3f}) than by grey "
                f"ones ({terms['grey']:.3f}): so far nothing is learned. Try "
                "another --lr, or more epochs")


class Decoder(nn.Module):
    """Last map (n, C, h, w) -> images (n, STRIDE * h, STRIDE * w), by one ConvNeXt block."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(WIDTH))  # stands where a cell is hidden
        self.enter = nn.Conv2d(n_features, WIDTH, 1)
        self.block = ConvNeXtBlock(WIDTH, conv_mlp=True, ls_init_value=None)
        self.leave = nn.Conv2d(WIDTH, STRIDE ** 2, 1)
        speed_up_depthwise(self)

    def forward(self, maps: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        """Return the images, float32; `shown` as of `show`."""
        hidden = self.token.view(1, -1, 1, 1) * (1 - _at(shown, maps))
        cells = self.leave(self.block(show(self.enter(maps), shown) + hidden))
        return F.pixel_shuffle(cells, STRIDE).squeeze(1)


@contextlib.contextmanager
def visible_norms(backbone: nn.Module, shown: torch.Tensor) -> Iterator[None]:
    """Have BatchNorm normalise visible cells alone within the context; see normalise_visible."""
    norms = [module for module in backbone.modules() if isinstance(module, BatchNorm)]
    for norm in norms:
        norm.forward = functools.partial(normalise_visible, norm, shown)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def normalise_visible(norm: BatchNorm, shown: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return (n, C, h, w), the visible cells by their own mean and variance, the others 0.

    A cell alone is normalised by the averages.
    """
    where, cells = _at(shown, x)[:, 0].bool(), x.permute(0, 2, 3, 1)
    rows = cells[where]
    known = (norm.running_mean, norm.running_var) if len(rows) == 1 else (None, None)
    rows = F.batch_norm(rows, *known, norm.weight, norm.bias, len(rows) > 1, eps=norm.eps)
    result = torch.zeros_like(cells, dtype=rows.dtype)
    result[where] = rows
    return result.permute(0, 3, 1, 2)


def _at(shown: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return `shown` in the height and width of `x`: 1 where any patch below a cell is."""
    return F.adaptive_max_pool2d(shown, x.shape[-2:])


def show(x: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Return a map (n, C, h, w), 0 where it is hidden; `shown`: float (n, 1, g, g), 0 or 1."""
    return x * _at(shown, x).to(x.dtype)


def draw_hidden(count: int, n_patches: int) -> torch.Tensor:
    """Return which patches of each slice are hidden, bool (count, n_patches): HIDDEN of them."""
    return torch.rand(count, n_patches).argsort(dim=1) < round(HIDDEN * n_patches)


def patches(images: torch.Tensor) -> torch.Tensor:
    """Return images (n, H, W) as patches (n, P, PATCH ** 2), row by row."""
    cut = images.unflatten(1, (-1, PATCH)).unflatten(3, (-1, PATCH))
    return cut.transpose(2, 3).flatten(3).flatten(1, 2)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Return patches (n, P, D) less their own mean, by their own standard deviation."""
    centred = pixels - pixels.mean(dim=2, keepdim=True)
    return centred * (centred.square().mean(dim=2, keepdim=True) + FLAT).rsqrt()


def masked_loss(predicted: torch.Tensor, targets: torch.Tensor, hidden: torch.Tensor
                ) -> dict[str, torch.Tensor]:
    """Return the mean squared error of the hidden patches as `loss`, and as `grey` that of zeros.

    Args:
        predicted, targets: float (n, P, D), the targets as of `normalised`.
        hidden: bool (n, P).
    """
    return {"loss": F.mse_loss(predicted[hidden], targets[hidden]),
            "grey": targets[hidden].square().mean()}
