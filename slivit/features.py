"""Frozen backbone: the features of every volume, computed once, then batches of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from tqdm import tqdm

from slivit.config import Augmentation
from slivit.datasets import Batch, ScanDataset, TrainingSet, make_loader
from slivit.model import SLIViT
from slivit.runtime import derive_seed
from slivit.scans import Scans


@dataclass(frozen=True)
class Features:
    """Slice features of n volumes, in `copies` differently augmented versions.

    Attributes:
        x: float32 (copies, n, S, F), memory-mapped.
        mask: bool (n, S).
        y: float32 (n, K), NaN where unknown.
    """

    x: np.ndarray
    mask: torch.Tensor
    y: torch.Tensor

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, b_size: int, seed: int | None = None) -> Iterator[Batch]:
        """Yield every volume once; with a seed shuffled, each from a random copy."""
        order = np.arange(len(self))
        copy = np.zeros(len(self), dtype=int)
        if seed is not None:
            rng = np.random.default_rng(seed)
            order = rng.permutation(order)
            copy = rng.integers(len(self.x), size=len(self))
        for start in range(0, len(self), b_size):
            rows = order[start:start + b_size]
            yield Batch(torch.from_numpy(self.x[copy[rows], rows]), self.mask[rows], self.y[rows])


@torch.no_grad()
def compute_features(model: SLIViT, datasets: list[ScanDataset], b_size: int, n_workers: int,
                     device: torch.device, path: Path) -> Features:
    """Run the backbone, in evaluation mode, over every volume once for each data set.

    Args:
        model: on `device`.
        datasets: the same rows, plain or augmented with different seeds; one copy each.
        b_size: volumes at a time.
        n_workers: loading processes.
        device: where the backbone runs.
        path: the `.npy` file that holds the features, as long as they are needed.
    """
    model.eval()
    n, length = len(datasets[0]), model.preprocess.n_slices * len(model.preprocess.views)
    x = open_memmap(path, mode="w+", dtype=np.float32,
                    shape=(len(datasets), n, length, model.feature_dim))
    mask = torch.zeros((n, length), dtype=torch.bool)
    labels = []
    with tqdm(total=n * len(datasets), desc="slice features", unit="vol", leave=False) as bar:
        for copy, dataset in enumerate(datasets):
            done = 0
            for batch in make_loader(dataset, b_size, n_workers, device):
                moved = batch.to(device)
                rows = slice(done, done + len(batch.y))
                x[copy, rows] = model.slice_features(moved).cpu().numpy()
                if copy == 0:
                    mask[rows] = batch.mask
                    labels.append(batch.y)
                done += len(batch.y)
                bar.update(len(batch.y))
    return Features(x, mask, torch.cat(labels))


def frozen_training_set(model: SLIViT, scans: Scans, copies: int, b_size: int, seed: int,
                        augmentation: Augmentation, n_workers: int, device: torch.device,
                        folder: Path) -> TrainingSet:
    """Compute the features of training and validation volumes and return batches of them.

    Args:
        model: on `device`.
        scans: the volumes.
        copies: augmented versions of each training volume beside the plain one.
        b_size: volumes per step.
        seed, augmentation: of the augmented versions.
        n_workers, device: how to run.
        folder: where the features lie while they are needed.
    """
    rows = scans.rows("train")
    versions = [ScanDataset(scans, rows, model.preprocess)]
    versions += [ScanDataset(scans, rows, model.preprocess, augmentation, derive_seed(seed, copy))
                 for copy in range(copies)]
    training = compute_features(model, versions, b_size, n_workers, device, folder / "train.npy")
    validation = compute_features(model, [ScanDataset(scans, scans.rows("val"), model.preprocess)],
                                  b_size, n_workers, device, folder / "val.npy")
    return TrainingSet(lambda epoch: training.batches(b_size, derive_seed(seed, epoch)),
                       -(-len(training) // b_size), lambda: validation.batches(b_size))
