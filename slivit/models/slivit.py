"""The two models: a backbone that classifies images, and SLIViT over volumes."""

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from slivit.config import TILINGS, IntegratorConfig, Preprocess
from slivit.data.transforms import to_input
from slivit.models.backbone import create_backbone, feature_shape, keep_averages
from slivit.models.integrator import create_integrator
from slivit.utils.errors import UserError
from slivit.utils.precision import multiplying_in

CPU_PIXELS = 2 ** 18  # of slices at a time on a CPU: larger tensors fall out of its caches
STEADY = {"cpu": (32, CPU_PIXELS), "cuda": (2048, 2 ** 21)}  # most slices, and pixels, at a time


class ImageClassifier(nn.Module):
    """Backbone with its classifier: images -> logits (B, K).

    Attributes:
        preprocess: how images become input.
        precision: type of number in which the backbone multiplies; its classifier takes float32.
        embed_dim: length of the vectors of `embed`.
    """

    def __init__(self, backbone_name: str, n_outputs: int, preprocess: Preprocess,
                 drop_path: float = 0.0) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.precision = torch.float32
        self.backbone = create_backbone(backbone_name, n_outputs, drop_path)
        self.embed_dim = self.backbone.head_hidden_size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K) of images, uint8 (B, C, img_size, img_size), C 1 or 3."""
        return self.backbone.forward_head(feature_maps(self, images))

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features (B, C) of images, of which the classifier makes the logits."""
        return self.backbone.forward_head(feature_maps(self, images), pre_logits=True)


class SLIViT(nn.Module):
    """Backbone over the slices, integrator over the volume.

    Args:
        backbone_name: timm's name.
        n_outputs: K.
        preprocess: gives img_size, n_slices, mean and std.
        config: kind and sizes of the integrator.
        drop_path: stochastic depth rate of the backbone.

    Attributes:
        backbone_name, preprocess, config: as given.
        precision: type of number in which the backbone multiplies; the integrator, which takes
            little time, keeps float32, so that predictions have all digits.
        tokens_are_slices: False of models of the original SLIViT (see IntegratorConfig.token).
        slices_per_step: slices that the backbone takes at a time, so that training needs memory
            for so many only; 0 for all at once (on a CPU: as many as are fastest). The result is
            the same, up to rounding.
        embed_dim: length of the vectors of `embed`.
    """

    def __init__(self, backbone_name: str, n_outputs: int, preprocess: Preprocess,
                 config: IntegratorConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.backbone_name, self.config = backbone_name, config
        self.token, self.tokens_are_slices = config.token, config.tokens_are_slices
        self.slices_per_step, self.precision = 0, torch.float32
        self.backbone = create_backbone(backbone_name, 0, drop_path)
        channels, height, width = feature_shape(self.backbone, preprocess.img_size)
        self.feature_dim = channels * (1 if self.token == "pool" else height * width)
        self.integrator = create_integrator(self.feature_dim, preprocess.n_slices, n_outputs,
                                            config, len(preprocess.views))
        self.embed_dim = self.integrator.embed_dim

    def train(self, mode: bool = True) -> "SLIViT":
        """Set training or evaluation mode; a backbone's BatchNorm keeps its averages in both."""
        super().train(mode)
        keep_averages(self.backbone)
        return self

    def compile(self, **options) -> None:
        """Compile backbone and integrator; which slices are looked at depends on the data."""
        self._features = torch.compile(self._features, dynamic=False, **options)
        self.integrator.compile(**options)

    def slice_features(self, slices: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Run the backbone over every real slice, each on its own; padding is never looked at.

        Args:
            slices, mask: see forward.

        Returns:
            (B, S, feature_dim) float32: the slice's own feature map, flattened or averaged over
            its cells (`token`); 0 for padding. Slices of zeros are all alike, so that one of
            them is run for all.

        Raises:
            UserError: the model's tokens are not slices.
        """
        require_slice_tokens(self, "features of single slices")
        full = (slices != 0).flatten(1).any(dim=1)
        distinct = torch.cat([slices[full], slices[~full][:1]])
        which = torch.where(full, full.cumsum(0) - 1, full.sum())
        with multiplying_in(self.precision, slices.device):  # here, it casts the weights only once
            parts = _split(distinct, self._step(distinct), self.precision)
            flat = torch.cat([self._run(part) for part in parts])
        features = flat.new_zeros((*mask.shape, self.feature_dim))
        features[mask] = flat[which]
        return features

    def _step(self, slices: torch.Tensor) -> int:
        """Return how many slices, or pictures of them, the backbone takes at a time."""
        if self.slices_per_step or slices.device.type != "cpu":
            return self.slices_per_step or max(1, len(slices))
        return max(1, CPU_PIXELS // (slices.shape[2] * slices.shape[3]))

    def _run(self, slices: torch.Tensor) -> torch.Tensor:
        """Return the features (n, feature_dim) of uint8 slices (n, C, H, W).

        With `slices_per_step`, what the backbone computes on the way is thrown away and computed
        again in the backward pass.
        """
        if self.slices_per_step and torch.is_grad_enabled():
            return checkpoint(self._features, slices, use_reentrant=False)
        return self._features(slices)

    def _features(self, slices: torch.Tensor) -> torch.Tensor:
        maps = _maps(self, slices)
        return maps.flatten(1) if self.token == "flatten" else maps.mean(dim=(2, 3))

    def token_features(self, slices: torch.Tensor, mask: torch.Tensor
                       ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the tokens are made of, (B, S, feature_dim), and which are real, (B, S)."""
        if self.tokens_are_slices:
            return self.slice_features(slices, mask), mask
        return self._channel_blocks(slices, mask), torch.ones_like(mask)

    def _channel_blocks(self, slices: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the features (B, N, feature_dim) of the original SLIViT (IntegratorConfig.token).

        A volume of fewer than N slices has some of them repeated, evenly.
        """
        count, wanted = mask.shape
        slices = slices[_evenly(mask.sum(dim=1).tolist(), wanted)]
        volumes = slices.unflatten(0, (count, wanted))  # (B, N, C, H, W)
        if self.token == TILINGS["height"]:
            pictures = volumes.transpose(1, 2).flatten(2, 3)  # (B, C, N * H, W)
        else:
            pictures = volumes.permute(0, 2, 3, 1, 4).flatten(3)  # (B, C, H, N * W)
        maps = [_maps(self, part) for part in pictures.split(self._step(pictures))]
        return torch.cat(maps).reshape(count, wanted, self.feature_dim)

    def forward(self, slices: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K).

        Args:
            slices: uint8 (n, C, img_size, img_size), the real slices of all volumes, one volume
                after the other; of one channel or three.
            mask: bool (B, S), True at the n places of real slices, in the same order. S is the
                number of views times `n_slices`.
        """
        return self.integrator(*self.token_features(slices, mask))

    def embed(self, slices: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return one vector a volume, (B, embed_dim), see the integrator's `encode`."""
        return self.integrator.encode(*self.token_features(slices, mask))


def feature_maps(model: ImageClassifier | SLIViT, slices: torch.Tensor) -> torch.Tensor:
    """Return the last map of a model's backbone, float32 (n, C, h, w), of slices (n, C, H, W)."""
    step = getattr(model, "slices_per_step", 0) or len(slices)
    parts = [_maps(model, part) for part in _split(slices, step, model.precision)]
    return torch.cat(parts)[:len(slices)]


def _split(slices: torch.Tensor, step: int, precision: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Return slices in parts of `step`; for predictions in half precision, in parts of one size.

    The size of a part decides which kernel multiplies, and so the last digit of a product, which
    shows in half precision. A backbone that predicts therefore always takes the same number of
    slices at a time, the last part filled up with zeros: the prediction of a scan does not depend
    on those beside it.
    """
    if precision == torch.float32 or torch.is_grad_enabled():
        return slices.split(step)
    most, pixels = STEADY[slices.device.type]
    step = min(most, max(1, pixels // (slices.shape[2] * slices.shape[3])))
    padding = slices.new_zeros((-len(slices) % step, *slices.shape[1:]))
    return torch.cat([slices, padding]).split(step)


def _maps(model: ImageClassifier | SLIViT, slices: torch.Tensor) -> torch.Tensor:
    images = to_input(slices, model.preprocess.mean, model.preprocess.std)
    with multiplying_in(model.precision, slices.device):
        return model.backbone.forward_features(images).float()


def require_slice_tokens(model: nn.Module, what: str) -> None:
    """Refuse what makes sense only where each token is of one slice.

    Raises:
        UserError: the model is one of the original SLIViT.
    """
    if not getattr(model, "tokens_are_slices", True):
        raise UserError(f"{what}: this is a model of the original SLIViT, whose tokens are blocks "
                        "of channels over all slices, so that nothing in it belongs to one slice; "
                        "omit the option, or train a model with finetune.py")


def _evenly(counts: list[int], wanted: int) -> list[int]:
    """Return positions of `wanted` slices of each volume, whose slices follow each other."""
    starts = np.cumsum([0, *counts[:-1]])
    return np.concatenate([start + np.round(np.linspace(0, count - 1, wanted)).astype(int)
                           for start, count in zip(starts, counts, strict=True)]).tolist()
