"""Networks to compare SLIViT with, behind the same batches, training loop and prediction."""

import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets import DenseNet, ResNet
from torch import nn

from benchmarks.nodules import Fold, as_scans
from slivit.config import FitOptions, Preprocess
from slivit.data.datasets import ScanDataset, make_loader, scan_training_set
from slivit.data.targets import resolve_task
from slivit.models.outputs import to_predictions
from slivit.prediction import predict, run_model
from slivit.training.losses import Objective
from slivit.training.optim import parameter_groups
from slivit.training.train_step import Phase
from slivit.training.trainer import Outputs, fit
from slivit.utils.session import Session

CPU = torch.device("cpu")
WEIGHT_DECAY = 0.05
VOLUME = Preprocess(img_size=28, window="full", mean=(0.0,) * 3, std=(1.0,) * 3, n_slices=28)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: AdamW, a warm-up epoch, a cosine; kept by validation loss."""

    lr: float
    b_size: int
    n_epochs: int


class DenseClassifier(nn.Module):
    """A network over whole scans, 3D of volumes or 2D of images: slices -> logits (B, K)."""

    def __init__(self, network: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.layout = (torch.contiguous_format if isinstance(network, DenseNet) else
                       torch.channels_last_3d if preprocess.n_slices else torch.channels_last)
        self.network = network.to(memory_format=self.layout)
        self.preprocess = preprocess

    def forward(self, slices: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the logits (B, K) of volumes, or of images, which have no mask; see SLIViT."""
        scans = slices.float() / 255 if mask is None else dense_volumes(slices, mask)
        return self.network(scans.contiguous(memory_format=self.layout))


def dense_volumes(slices: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return volumes (B, C, S, H, W) float32 in 0..1 of slices (n, C, H, W); padding is 0."""
    slices = slices.float() / 255
    volumes = slices.new_zeros((*mask.shape, *slices.shape[1:]))
    volumes[mask] = slices
    return volumes.transpose(1, 2)


def resnet18(widths: tuple[int, ...], n_outputs: int = 1) -> nn.Module:
    """Return a 3D ResNet-18 for small volumes; (64, 128, 256, 512) is full width."""
    return ResNet("basic", [2, 2, 2, 2], list(widths), n_input_channels=1, conv1_t_size=3,
                  conv1_t_stride=2, no_max_pool=True, num_classes=n_outputs)


def densenet(n_outputs: int = 1) -> nn.Module:
    """Return a small 3D DenseNet, without the pooling that four blocks leave no voxels for."""
    network = DenseNet(spatial_dims=3, in_channels=1, out_channels=n_outputs, init_features=16,
                       growth_rate=12, block_config=(3, 6, 12, 8))
    network.features.pool0 = nn.Identity()
    return network


class SliceMean(nn.Module):
    """In the integrator's place: a linear classifier of each slice, its logits averaged."""

    def __init__(self, in_dim: int, n_outputs: int = 1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(in_dim)
        self.head = nn.Linear(in_dim, n_outputs)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return (B, K) logits of features (B, S, in_dim), over the slices where `mask` is."""
        logits = self.head(self.norm(features)).masked_fill(~mask[..., None], 0.0)
        return logits.sum(dim=1) / mask.sum(dim=1, keepdim=True)


def train(model: nn.Module, fold: Fold, preprocess: Preprocess, recipe: Recipe, seed: int,
          out_dir: Path, phase: Phase | None = None) -> np.ndarray:
    """Train on the fold, keep the epoch of the lowest validation loss, predict the test part.

    Args:
        model: slices -> logits (B, K).
        fold: the data.
        preprocess: of the model.
        recipe: how.
        seed: of order, augmentation and dropout.
        out_dir: where the loop writes its log.
        phase: what learns from what; None for the whole model from the fold's scans, augmented.

    Returns:
        (n, K) predictions of the fold's test rows, in the table's order.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    scans, target = resolve_task(as_scans(fold), fold.target.task)
    run = Session(CPU, quiet=True)
    if phase is None:
        data = scan_training_set(scans, preprocess, scans.augmentation, run, recipe.b_size, seed)
        phase = Phase(1, recipe.n_epochs, parameter_groups(model, recipe.lr, WEIGHT_DECAY), data)
    best: dict[str, torch.Tensor] = {}

    def keep(epoch: int, scores: dict, kept: nn.Module, validation: object) -> None:
        best.update(copy.deepcopy(kept.state_dict()))

    options = FitOptions(n_epochs=recipe.n_epochs, b_size=recipe.b_size, warmup_epochs=1.0,
                         patience=0, seed=seed, select="loss")
    fit(model, [phase], Objective(target), options, run, Outputs(out_dir, keep))
    (out_dir / "last.pt").unlink()
    model.load_state_dict(best)
    model.eval()
    test = ScanDataset(scans, fold.rows("test"), preprocess)
    logits, _ = predict(partial(run_model, model), make_loader(test, recipe.b_size, 0, CPU), CPU)
    return to_predictions(logits, target)
