"""VICReg: two views of a slice, or of neighbouring slices, are to have the same features."""

import torch
import torch.nn.functional as F
from torch import nn

from slivit.config import Preprocess
from slivit.models.slivit import feature_maps
from slivit.training.self_supervised.method import SelfSupervisedMethod
from slivit.utils.errors import UserError

INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0  # weights of the terms, as in the paper
EPSILON = 1e-4
WIDTH = 512  # of the projector; the paper's are wider, and of batches of 2048
COLLAPSED = 0.97  # variance term from which next to nothing tells slices apart


class VICReg(SelfSupervisedMethod):
    """Variance-invariance-covariance regularisation. Source: Bardes et al. 2022, section 4.

    In volumes the two views are of neighbouring slices, which mostly show the same; in images they
    are of the same one. Features are the means of the last feature map; a projector follows, which
    is thrown away afterwards. Both views go through in one batch, so that BatchNorm sees both.
    """

    name, views, reach = "vicreg", 2, 1

    def __init__(self, backbone_name: str, preprocess: Preprocess, drop_path: float = 0.0) -> None:
        super().__init__(backbone_name, preprocess, drop_path)
        # Its BatchNorm keeps no averages: validation compares slices as training does.
        self.projector = nn.Sequential(
            nn.Linear(self.backbone.num_features, WIDTH),
            nn.BatchNorm1d(WIDTH, track_running_stats=False), nn.ReLU(),
            nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH, track_running_stats=False), nn.ReLU(),
            nn.Linear(WIDTH, WIDTH, bias=False))

    def heads(self) -> nn.Module:
        """Return the projector."""
        return self.projector

    def forward(self, views: torch.Tensor, places: torch.Tensor, scans: torch.Tensor
                ) -> dict[str, torch.Tensor]:
        """Return the loss and its three terms; arguments as of SelfSupervisedMethod.

        Raises:
            UserError: a batch of one slice, which has nothing to be compared with.
        """
        if len(views) < 2:
            raise UserError("a batch has a single slice: its volumes have no other one that shows "
                            "something, and the loss compares the slices of a batch. Give a larger "
                            "--b_size")
        maps = feature_maps(self, views.transpose(0, 1).flatten(0, 1))
        return vicreg_loss(*self.projector(maps.mean(dim=(2, 3))).chunk(2))

    def complaint(self, terms: dict[str, float]) -> str:
        """Tell of projections that are all alike."""
        if not terms["variance"] >= COLLAPSED:  # NaN has a message of its own
            return ""
        return (f"different slices have almost the same features (variance term "
                f"{terms['variance']:.2f} of 1): the training has collapsed. Try a larger --b_size "
                "or another --lr")


def vicreg_loss(a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return VICReg's loss of two views' projections, and its terms without their weights.

    Args:
        a, b: float (n, D), row by row of the same slice.

    Returns:
        Scalars. `invariance`: mean squared difference of the views. `variance`: by how much the
        standard deviation of a feature stays below 1, mean over features and views; 1 where all
        slices are alike. `covariance`: squared covariances of different features, summed and
        divided by D, mean of the views.
    """
    invariance = F.mse_loss(a, b)
    variances, covariances = [], []
    for z in (a, b):
        centred = z - z.mean(dim=0)
        covariance = centred.T @ centred / max(1, len(z) - 1)
        own = covariance.diagonal()
        variances.append(F.relu(1 - torch.sqrt(own + EPSILON)).mean())
        covariances.append((covariance - own.diag()).square().sum() / z.shape[1])
    variance, covariance = sum(variances) / 2, sum(covariances) / 2
    loss = INVARIANCE * invariance + 2 * (VARIANCE * variance + COVARIANCE * covariance)
    return {"loss": loss, "invariance": invariance, "variance": variance, "covariance": covariance}
