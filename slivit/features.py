"""Frozen backbone: the features of every volume, computed once, then batches of them."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from tqdm import tqdm

from slivit.config import Augmentation
from slivit.datasets import Batch, ScanDataset, TrainingSet, make_loader
from slivit.errors import RunError
from slivit.model import SLIViT
from slivit.parallel import World
from slivit.runtime import derive_seed
from slivit.sampling import balanced, make_batches
from slivit.scans import Scans
from slivit.sources import FileSource


@dataclass(frozen=True)
class Store:
    """The slice features of all volumes of a table, plain or augmented, as far as they are known.

    Attributes:
        x: float32 (n, S, F), memory-mapped.
        mask: bool (n, S), memory-mapped; all False where a volume is not done yet.
        dataset: the volumes, all rows.
    """

    x: np.ndarray
    mask: np.ndarray
    dataset: ScanDataset


@dataclass(frozen=True)
class FeatureOptions:
    """How features are made: augmented versions beside the plain one, and what they depend on.

    `quiet` leaves the progress bar away.
    """

    copies: int
    seed: int
    augmentation: Augmentation
    b_size: int
    n_workers: int
    quiet: bool = False


def open_stores(model: SLIViT, scans: Scans, options: FeatureOptions, folder: Path,
                world: World = World()) -> list[Store]:  # noqa: B008
    """Open the stores of the plain volumes and of each augmented version.

    A store's name tells weights, data and pre-processing apart, so that it serves later runs, and
    the folds of a cross-validation.

    Args:
        model: gives the weights of the backbone.
        scans: the table.
        options: see FeatureOptions.
        folder: where they lie.
        world: the processes.

    Raises:
        RunError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = _key(model, scans)
    stores = []
    rows = np.arange(len(scans))
    slices = model.preprocess.n_slices * len(model.preprocess.views)
    for copy in range(options.copies + 1):
        augmentation = options.augmentation if copy else None
        seed = derive_seed(options.seed, copy - 1) if copy else 0
        dataset = ScanDataset(scans, rows, model.preprocess, augmentation, seed)
        name = "plain" if not copy else hashlib.sha256(json.dumps(
            [asdict(options.augmentation), seed]).encode()).hexdigest()[:16]
        paths = [folder / f"{key}.{name}.{part}.npy" for part in ("mask", "x")]
        if world.main:
            _make(paths[0], (len(scans), slices), np.dtype(bool))
            _make(paths[1], (len(scans), slices, model.feature_dim), np.dtype(np.float32))
        world.wait()
        mask, x = (np.load(path, mmap_mode="r+") for path in paths)
        stores.append(Store(x, mask, dataset))
    return stores


def _make(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Make an array file of zeros, if there is not a whole one; it takes room as it is filled."""
    try:
        found = np.load(path, mmap_mode="r")
        if found.shape == shape and found.dtype == dtype:
            return
    except (OSError, ValueError, EOFError):
        pass
    try:
        open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    except OSError as error:
        raise RunError(f"slice features: cannot write {path} ({error.strerror}); make room, or "
                       "name another --cache_dir") from None


def _key(model: SLIViT, scans: Scans) -> str:
    """Return a hash of all that the plain features depend on."""
    digest = hashlib.sha256(json.dumps(
        [asdict(model.preprocess), model.token, model.feature_dim]).encode())
    for name, tensor in sorted(model.backbone.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    in_files = isinstance(scans.read, FileSource)
    for row in range(len(scans)):
        if in_files:
            digest.update(str(scans.read.paths[row].absolute()).encode())
        digest.update(scans.read.identity(row) if in_files else scans.read.describe(row))
    return digest.hexdigest()[:32]


@torch.no_grad()
def fill(store: Store, rows: np.ndarray, model: SLIViT, options: FeatureOptions,
         device: torch.device, world: World = World()) -> None:  # noqa: B008
    """Run the backbone, in evaluation mode, over the volumes of these rows that are not done."""
    model.eval()
    missing = [int(row) for row in rows if not store.mask[row].any()]
    missing = world.share(world.join(missing)[0])
    batches = [missing[i:i + options.b_size] for i in range(0, len(missing), options.b_size)]
    loader = make_loader(store.dataset, batches, options.n_workers, device)
    with tqdm(total=len(missing), desc="slice features", unit="vol", leave=False,
              disable=options.quiet or not world.main or None) as bar:
        for numbers, batch in zip(batches, loader, strict=True):
            store.x[numbers] = model.slice_features(batch.to(device)).float().cpu().numpy()
            store.x.flush()  # a volume counts as done when its features are on disk
            store.mask[numbers] = batch.mask.numpy()
            bar.update(len(numbers))
    store.mask.flush()
    world.wait()


def frozen_training_set(model: SLIViT, scans: Scans, options: FeatureOptions, b_size: int,
                        seed: int, device: torch.device, folder: Path,
                        weights: np.ndarray | None = None,
                        world: World = World()) -> TrainingSet:  # noqa: B008
    """Compute the features of training and validation volumes and return batches of them.

    Args:
        model: on `device`.
        scans: the volumes.
        options: how features are made.
        b_size: volumes per batch.
        seed: of the order and of the version of each volume in an epoch.
        device: where the backbone runs.
        folder: where the features lie.
        weights: of the training volumes, by which they are drawn; None for each once.
        world: the processes.
    """
    stores = open_stores(model, scans, options, folder, world)
    training, validation = scans.rows("train"), scans.rows("val")
    for store in stores:
        fill(store, training, model, options, device, world)
    fill(stores[0], validation, model, options, device, world)

    def batches(epoch: int, done: int) -> Iterator[Batch]:
        epoch_seed = derive_seed(seed, epoch)
        rng = np.random.default_rng(epoch_seed)
        order = rng.permutation(len(training))
        copy = rng.integers(len(stores), size=len(training))
        if weights is not None:
            order = balanced(weights, epoch_seed)
        for batch in make_batches(order, b_size, world, done):
            known = [index if index >= 0 else ~index for index in batch]
            y = torch.from_numpy(scans.labels[training[known]])
            y[[index < 0 for index in batch]] = torch.nan
            yield _batch([stores[k] for k in copy[known]], training[known], y)

    def validate() -> Iterator[Batch]:
        rows = world.share(validation)
        for start in range(0, len(rows), b_size):
            part = rows[start:start + b_size]
            yield _batch([stores[0]] * len(part), part, torch.from_numpy(scans.labels[part]))

    return TrainingSet(batches, -(-len(training) // b_size), validate)


def _batch(stores: list[Store], rows: np.ndarray, y: torch.Tensor) -> Batch:
    x = np.stack([store.x[row] for store, row in zip(stores, rows, strict=True)])
    return Batch(torch.from_numpy(x), torch.from_numpy(np.array(stores[0].mask[rows])), y)
