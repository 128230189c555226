"""Frozen backbone: slice features of volumes, computed once (see feature_store), then batches."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from slivit.config import Augmentation
from slivit.data.batch import Batch, model_inputs
from slivit.data.datasets import ScanDataset, TrainingSet, make_loader
from slivit.data.parallel import in_threads
from slivit.data.samplers import balanced, make_batches
from slivit.data.scan_table import FileSource, ScanTable
from slivit.models.slivit import SLIViT
from slivit.training.feature_store import FeatureStore, make_store, open_store
from slivit.utils.distributed import ProcessGroup
from slivit.utils.log import LOG
from slivit.utils.precision import precision_name
from slivit.utils.runtime import derive_seed
from slivit.utils.session import Session

FORMAT = 2         # of a store's file


@dataclass(frozen=True)
class FeatureOptions:
    """How features are made and drawn.

    Attributes:
        copies: augmented versions of each volume, beside the plain one.
        augmentation: of these.
        b_size: volumes per batch.
        seed: of the augmentation, of the order, and of each volume's version in an epoch.
    """

    copies: int
    augmentation: Augmentation
    b_size: int
    seed: int


def open_stores(model: SLIViT, scans: ScanTable, options: FeatureOptions, folder: Path,
                world: ProcessGroup = ProcessGroup()) -> list[FeatureStore]:  # noqa: B008
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
        path = folder / f"{key}.{name}.features"
        record = np.dtype([("x", np.float32, (slices, model.feature_dim)),
                           ("mask", bool, (slices,)), ("batch", np.uint32),
                           ("size", np.uint32), ("sum", np.uint64)], align=True)
        if world.is_main:
            make_store(path, len(scans) * record.itemsize)
        world.barrier()
        stores.append(open_store(path, len(scans), record, dataset))
    return stores


def _key(model: SLIViT, scans: ScanTable) -> str:
    """Return a hash of all that the plain features depend on."""
    digest = hashlib.sha256(json.dumps(
        [FORMAT, asdict(model.preprocess), model.token, model.feature_dim,
         precision_name(model.precision)]).encode())
    for name, tensor in sorted(model.backbone.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    in_files = isinstance(scans.read, FileSource)
    for row in range(len(scans)):
        if in_files:
            digest.update(str(scans.read.paths[row].absolute()).encode())
        digest.update(scans.read.identity(row) if in_files else scans.read.describe(row))
    return digest.hexdigest()[:32]


@torch.no_grad()
def fill(store: FeatureStore, rows: np.ndarray, model: SLIViT, b_size: int, run: Session) -> None:
    """Run the backbone, in evaluation mode, over the volumes of these rows that are not done.

    Raises:
        RunError: the features cannot be written.
    """
    model.eval()
    missing = run.world.shard(_missing(store, rows, run.world))
    batches = [missing[i:i + b_size] for i in range(0, len(missing), b_size)]
    loader = make_loader(store.dataset, batches, run.n_workers, run.device)
    with tqdm(total=len(missing), desc="slice features", unit="vol", leave=False,
              disable=run.quiet or not run.world.is_main or None) as bar:
        for numbers, batch in zip(batches, loader, strict=True):
            inputs = model_inputs(batch.to(run.device), model.preprocess)
            features = model.slice_features(*inputs).cpu().numpy()
            store.write(numbers, features, batch.mask.numpy())
            bar.update(len(numbers))
    run.world.barrier()


def _missing(store: FeatureStore, rows: np.ndarray, world: ProcessGroup) -> list[int]:
    """Return the rows that are not done, with those of their batches; processes share the work."""
    share = world.shard(rows)
    done = in_threads(store.is_done, share, "stored features")
    mine = [int(row) for row, whole in zip(share, done, strict=True) if not whole]
    bad = [row for part in world.all_gather(mine) for row in part]
    damaged = int(np.count_nonzero(store.records["sum"][bad]))
    if damaged and world.is_main:
        LOG.warning("warning: the stored slice features of %d volumes are damaged and are "
                    "computed again", damaged)
    missing = sorted({*bad, *np.intersect1d(store.torn(bad), rows).tolist()}) if bad else []
    return world.all_gather(missing)[0]  # others may have begun to write


def frozen_training_set(model: SLIViT, scans: ScanTable, options: FeatureOptions, folder: Path,
                        run: Session, weights: np.ndarray | None = None) -> TrainingSet:
    """Compute the features of training and validation volumes and return batches of them.

    Args:
        model: on the device of `run`.
        scans: the volumes.
        options: how features are made and drawn.
        folder: where the features lie.
        run: where the backbone runs.
        weights: of the training volumes, by which they are drawn; None for each once.
    """
    stores = filled_stores(model, scans, options, folder, run)
    return stored_training_set(stores, scans, options, run.world, weights)


def filled_stores(model: SLIViT, scans: ScanTable, options: FeatureOptions, folder: Path,
                  run: Session) -> list[FeatureStore]:
    """Return the stores with all that a training needs; see frozen_training_set.

    The plain volumes come first; of these, validation is there too.
    """
    stores = open_stores(model, scans, options, folder, run.world)
    for store in stores:
        fill(store, scans.rows("train"), model, options.b_size, run)
    fill(stores[0], scans.rows("val"), model, options.b_size, run)
    return stores


def stored_training_set(stores: list[FeatureStore], scans: ScanTable, options: FeatureOptions,
                        world: ProcessGroup, weights: np.ndarray | None = None) -> TrainingSet:
    """Return batches of stored features; see frozen_training_set."""
    b_size, training, validation = options.b_size, scans.rows("train"), scans.rows("val")

    def batches(epoch: int, done: int) -> Iterator[Batch]:
        epoch_seed = derive_seed(options.seed, epoch)
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
        rows = world.shard(validation)
        for start in range(0, len(rows), b_size):
            part = rows[start:start + b_size]
            yield _batch([stores[0]] * len(part), part, torch.from_numpy(scans.labels[part]))

    return TrainingSet(batches, -(-len(training) // b_size), validate,
                       lambda batch: (batch.x, batch.mask))


def _batch(stores: list[FeatureStore], rows: np.ndarray, y: torch.Tensor) -> Batch:
    x = np.stack([store.x[row] for store, row in zip(stores, rows, strict=True)])
    return Batch(torch.from_numpy(x), torch.from_numpy(np.array(stores[0].mask[rows])), y)
