"""Scans as a torch Dataset, batches with padded and masked slices, and the three loaders."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from slivit.config import Augmentation, Preprocess
from slivit.runtime import derive_seed
from slivit.scans import Scans
from slivit.transforms import augment, pick_slices, resize, window_to_uint8


@dataclass
class Batch:
    """A batch of B scans.

    Attributes:
        x: uint8 (B, C, H, W) for images; (B, S, C, H, W) for volumes, padded with 0 at the end.
        mask: bool (B, S), True where a slice is real; None for images.
        y: float32 (B, K), NaN where unknown.
    """

    x: torch.Tensor
    mask: torch.Tensor | None
    y: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on another device."""
        mask = None if self.mask is None else self.mask.to(device, non_blocking=True)
        return Batch(self.x.to(device, non_blocking=True), mask,
                     self.y.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Return the batch in pinned memory (called by the loader)."""
        mask = None if self.mask is None else self.mask.pin_memory()
        return Batch(self.x.pin_memory(), mask, self.y.pin_memory())


class ScanDataset(Dataset):
    """Some rows of a table, pre-processed.

    An item is (slices, label): uint8 (S, C, H, W), with S = 1 for an image and S at most
    `n_slices` for a volume, and float32 (K,). C is 1 or 3. The random transform of an item
    depends on (seed, row) alone, so neither workers nor a restart change it.
    """

    def __init__(self, scans: Scans, rows: np.ndarray, preprocess: Preprocess,
                 augmentation: Augmentation | None = None, seed: int = 0) -> None:
        self.scans = scans
        self.rows = rows
        self.preprocess = preprocess
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        row = int(self.rows[index])
        slices = load_slices(self.scans.read(row), self.scans.ndim, self.preprocess)
        if self.augmentation is not None:
            rng = np.random.default_rng(derive_seed(self.seed, row))
            slices = augment(slices, rng, self.augmentation)
        return slices, torch.from_numpy(self.scans.labels[row])


def load_slices(scan: np.ndarray, ndim: int, preprocess: Preprocess) -> torch.Tensor:
    """Pre-process one scan: window over the whole scan, choose slices, resize.

    Args:
        scan: (H, W[, 3]) for `ndim` 2, (N, H, W[, 3]) for 3.
        ndim: 2 or 3.
        preprocess: how.

    Returns:
        uint8 (S, C, img_size, img_size).
    """
    scan = window_to_uint8(scan, preprocess.window)
    if ndim == 2:
        scan = scan[None]
    else:
        scan = scan[pick_slices(len(scan), preprocess.n_slices, preprocess.slice_sampling)]
    return resize(scan, preprocess.img_size)


@dataclass(frozen=True)
class Collate:
    """Make a Batch of items; `n_slices` 0 for images, else the length volumes are padded to."""

    n_slices: int

    def __call__(self, items: list[tuple[torch.Tensor, torch.Tensor]]) -> Batch:
        channels = max(slices.shape[1] for slices, _ in items)
        size = items[0][0].shape[-2:]
        y = torch.stack([label for _, label in items])
        length = self.n_slices or 1
        x = torch.zeros((len(items), length, channels, *size), dtype=torch.uint8)
        mask = torch.zeros((len(items), length), dtype=torch.bool)
        for i, (slices, _) in enumerate(items):
            x[i, :len(slices)] = slices
            mask[i, :len(slices)] = True
        return Batch(x, mask, y) if self.n_slices else Batch(x[:, 0], None, y)


def make_loader(dataset: ScanDataset, b_size: int, n_workers: int, device: torch.device,
                shuffle_seed: int | None = None) -> DataLoader:
    """Return a loader of Batch; every row once, in order unless `shuffle_seed` is given."""
    generator = None
    if shuffle_seed is not None:
        generator = torch.Generator().manual_seed(shuffle_seed)
    return DataLoader(dataset, batch_size=b_size, shuffle=shuffle_seed is not None,
                      generator=generator, num_workers=n_workers,
                      collate_fn=Collate(dataset.preprocess.n_slices),
                      pin_memory=device.type == "cuda")


@dataclass(frozen=True)
class TrainingSet:
    """Where the loop's batches come from.

    Attributes:
        batches: epoch (from 1) -> the epoch's batches, already shuffled and augmented; the same
            for the same epoch, whatever ran before.
        steps: batches in an epoch.
        validation: the validation batches, in order.
    """

    batches: Callable[[int], Iterable[Batch]]
    steps: int
    validation: Callable[[], Iterable[Batch]]


def scan_training_set(scans: Scans, preprocess: Preprocess, b_size: int, seed: int,
                      augmentation: Augmentation, n_workers: int,
                      device: torch.device) -> TrainingSet:
    """Return batches of scans, shuffled and augmented anew in each epoch."""
    rows = scans.rows("train")
    validation = ScanDataset(scans, scans.rows("val"), preprocess)

    def batches(epoch: int) -> DataLoader:
        epoch_seed = derive_seed(seed, epoch)
        dataset = ScanDataset(scans, rows, preprocess, augmentation, epoch_seed)
        return make_loader(dataset, b_size, n_workers, device, shuffle_seed=epoch_seed)

    return TrainingSet(batches, -(-len(rows) // b_size),
                       lambda: make_loader(validation, b_size, n_workers, device))
