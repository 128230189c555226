"""Order and distance of slices: which of two comes later in their volume, and by how much."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from slivit.config import Preprocess
from slivit.data.slice_sets import WHOLE
from slivit.models.slivit import feature_maps
from slivit.training.self_supervised.method import SelfSupervisedMethod

WIDTH = 256  # of the head
CHANCE = 0.97  # of what guessing gives, from which next to nothing is learned


class Order(SelfSupervisedMethod):
    """Tells of two slices of a volume their order and their signed distance.

    Where all volumes lie the same way, as scans of a body do, a slice shows how high it is; the
    place in its volume, which may begin anywhere, it does not show. So only differences are asked
    for, as in Yan et al. 2018 (body part regression by order and distance), there of one score a
    slice; here of the features of both, so that they may hold more than one number. All pairs of a
    volume's views in the batch are looked at. Features are the means of the last feature map.
    """

    name, views, reach = "order", 2, WHOLE  # the second view may be of any slice of the volume

    def __init__(self, backbone_name: str, preprocess: Preprocess, drop_path: float = 0.0) -> None:
        super().__init__(backbone_name, preprocess, drop_path)
        self.head = PairHead(self.backbone.num_features)

    def heads(self) -> nn.Module:
        """Return the head of pairs."""
        return self.head

    def forward(self, views: torch.Tensor, places: torch.Tensor, scans: torch.Tensor
                ) -> dict[str, torch.Tensor]:
        """Return the terms of order_loss; arguments as of SelfSupervisedMethod."""
        features = feature_maps(self, views.flatten(0, 1)).mean(dim=(2, 3))
        first, second = pairs(scans.repeat_interleave(views.shape[1]))
        flat = places.flatten()
        return order_loss(self.head(features, first, second), flat[second] - flat[first])

    def complaint(self, terms: dict[str, float]) -> str:
        """Tell of an order that is guessed, or that there is none to be learned."""
        if terms["far"] == 0:
            return ("no two slices are of different places in a volume: there is no order to be "
                    "learned. Give volumes of several slices")
        if terms["order"] < CHANCE * math.log(2):
            return ""
        return (f"the order of slices is guessed (cross-entropy {terms['order']:.3f}; guessing has "
                f"{math.log(2):.3f}): so far nothing is learned. Do all volumes lie the same way? "
                "If so, try another --lr, or more epochs")


class PairHead(nn.Module):
    """Features of slices -> of pairs, a logit that the second comes later, and its distance.

    A pair that is turned around has the negative of both.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        # It keeps no averages: validation compares slices as training does.
        self.norm = nn.BatchNorm1d(n_features, track_running_stats=False)
        self.pair = nn.Sequential(nn.Linear(2 * n_features, WIDTH), nn.GELU(), nn.Linear(WIDTH, 2))

    def forward(self, features: torch.Tensor, first: torch.Tensor, second: torch.Tensor
                ) -> torch.Tensor:
        """Return float (pairs, 2), of features (m, C) and the two rows of each pair."""
        features = self.norm(features)
        a, b = features[first], features[second]
        return self.pair(torch.cat([a, b], dim=1)) - self.pair(torch.cat([b, a], dim=1))


def pairs(scans: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of all pairs of the same scan, each once; `scans` (m,) says whose each is."""
    first, second = torch.triu_indices(len(scans), len(scans), 1, device=scans.device)
    same = scans[first] == scans[second]
    return first[same], second[same]


def order_loss(out: torch.Tensor, distance: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the loss of pairs and its terms.

    Args:
        out: float (pairs, 2), logit that the second slice comes later, and the signed distance.
        distance: float (pairs,), from the place of the first to that of the second, -1 to 1.

    Returns:
        Scalars. `order`: cross-entropy, each pair weighted by its distance, as near slices hardly
        tell; ln 2 where it is guessed. `distance`: mean squared error, divided by the mean square
        of what is asked; 1 where 0 is answered. `loss`: their sum. `far`: mean distance without its
        sign.
    """
    far, later = distance.abs(), (distance > 0).to(out.dtype)
    tiny = torch.finfo(out.dtype).tiny
    each = F.binary_cross_entropy_with_logits(out[:, 0], later, reduction="none")
    order = (each * far).sum() / far.sum().clamp_min(tiny)
    error = (out[:, 1] - distance).square().sum() / distance.square().sum().clamp_min(1e-3)
    return {"loss": order + error, "order": order, "distance": error,
            "far": far.sum() / max(1, len(far))}
