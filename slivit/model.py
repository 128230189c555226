"""The two models: a backbone that classifies images, and SLIViT over volumes."""

import torch
from torch import nn

from slivit.backbone import create_backbone, feature_shape
from slivit.config import IntegratorConfig, Preprocess
from slivit.datasets import Batch, model_slices
from slivit.integrator import Integrator
from slivit.transforms import to_input


class ImageClassifier(nn.Module):
    """Backbone with its classifier: Batch of images -> logits (B, K)."""

    def __init__(self, backbone_name: str, n_outputs: int, preprocess: Preprocess,
                 drop_path: float = 0.0) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.backbone = create_backbone(backbone_name, n_outputs, drop_path)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits (B, K)."""
        images = model_slices(batch, self.preprocess)
        return self.backbone(to_input(images, self.preprocess.mean, self.preprocess.std))


class SLIViT(nn.Module):
    """Backbone over the slices, integrator over the volume.

    Args:
        backbone_name: timm's name.
        n_outputs: K.
        preprocess: gives img_size, n_slices, mean and std.
        config: sizes of the integrator.
        drop_path: stochastic depth rate of the backbone.
    """

    def __init__(self, backbone_name: str, n_outputs: int, preprocess: Preprocess,
                 config: IntegratorConfig, drop_path: float = 0.0) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.token = config.token
        self.backbone = create_backbone(backbone_name, 0, drop_path)
        channels, height, width = feature_shape(self.backbone, preprocess.img_size)
        self.feature_dim = channels * (height * width if self.token == "flatten" else 1)
        self.integrator = Integrator(self.feature_dim, preprocess.n_slices, n_outputs, config,
                                     len(preprocess.views))

    def slice_features(self, batch: Batch) -> torch.Tensor:
        """Run the backbone over every real slice, each on its own; padding is never looked at.

        Returns:
            (B, S, feature_dim) float32: the slice's own feature map, flattened or averaged over
            its cells (`token`); 0 for padding. Slices of zeros are all alike, so that one of
            them is run for all.
        """
        slices = model_slices(batch, self.preprocess)  # (n, C, H, W)
        full = (slices != 0).flatten(1).any(dim=1)
        distinct = torch.cat([slices[full], slices[~full][:1]])
        which = torch.where(full, full.cumsum(0) - 1, full.sum())
        images = to_input(distinct, self.preprocess.mean, self.preprocess.std)
        maps = self.backbone.forward_features(images)  # (distinct, C, h, w)
        flat = maps.flatten(1) if self.token == "flatten" else maps.mean(dim=(2, 3))
        features = flat.new_zeros((*batch.mask.shape, self.feature_dim))
        features[batch.mask] = flat[which]
        return features

    def forward(self, batch: Batch) -> torch.Tensor:
        """Return the logits (B, K) of a batch of volumes."""
        return self.integrator(self.slice_features(batch), batch.mask)
