"""Scans as a torch Dataset, batches with padded and masked slices, and their loaders."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from slivit.config import Augmentation, Preprocess
from slivit.data.batch import Batch, model_inputs
from slivit.data.cache import Prepared, cached
from slivit.data.readers.orientation import cut
from slivit.data.samplers import balanced, count_batches, make_batches, shuffled
from slivit.data.scan_table import FileSource, ScanTable
from slivit.data.transforms import (
    draw_transform,
    has_fixed_range,
    pick_slices,
    resize,
    to_uint8,
    window_range,
)
from slivit.utils.distributed import ProcessGroup
from slivit.utils.errors import RunError, UserError
from slivit.utils.runtime import begin_worker, derive_seed, starting_workers
from slivit.utils.session import Session

FIND_ALL = "python -m slivit.check, or --check_scans, finds all such scans before a training"
PREFETCH = 2  # batches a loading process is ahead; more of large ones would fill its shared memory


@dataclass(frozen=True)
class Item:
    """One prepared scan, its label (K,), its random transform (9,) or None.

    Of slices drawn without labels (see slice_sets), the transform of each, (S, 9), and their
    places, (S,).
    """

    prepared: Prepared
    label: torch.Tensor
    transform: torch.Tensor | None
    places: torch.Tensor | None = None


class ScanDataset(Dataset):
    """Some rows of a table, pre-processed: Item, or the error of a scan that cannot be read.

    The random transform of an item depends on (seed, row) alone, so neither loading processes nor
    a restart change it.
    """

    def __init__(self, scans: ScanTable, rows: np.ndarray, preprocess: Preprocess,
                 augmentation: Augmentation | None = None, seed: int = 0) -> None:
        self.scans = scans
        self.rows = rows
        self.preprocess = preprocess
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Item | UserError | RunError:
        """Return an item; that of ~index is the same without its label."""
        return self.item(index, self.seed)

    def item(self, index: int, seed: int) -> Item | UserError | RunError:
        """Return an item with the transform of this seed."""
        row = int(self.rows[index if index >= 0 else ~index])
        try:
            prepared = prepare(self.scans, row, self.preprocess)
        except (UserError, RunError) as error:  # raised in the main process, see Loader
            return error
        transform = None
        if self.augmentation is not None:
            rng = np.random.default_rng(derive_seed(seed, row))
            transform = draw_transform(rng, self.augmentation)
        label = torch.from_numpy(self.scans.labels[row])
        return Item(prepared, label if index >= 0 else torch.full_like(label, torch.nan), transform)


def prepare(scans: ScanTable, row: int, preprocess: Preprocess) -> Prepared:
    """Return a scan's slices as they are sent to the device, from the cache where there is one.

    Slices larger than the model's input are made as small here; smaller ones are enlarged on the
    device (see `model_slices`).

    Raises:
        ReadError: the scan cannot be read.
        RunError: the cache cannot be written.
    """
    if scans.cache_dir is None or not isinstance(scans.read, FileSource):
        return _prepare(scans, row, preprocess)
    return cached(scans.cache_dir, scans.read.paths[row], scans.read.identity(row), preprocess,
                  lambda: _prepare(scans, row, preprocess))


def _prepare(scans: ScanTable, row: int, preprocess: Preprocess) -> Prepared:
    """Read, cut the views, choose slices, map grey values over the whole scan, shrink."""
    def pick(count: int) -> np.ndarray:
        wanted = preprocess.n_slices or 1
        return pick_slices(count, wanted, preprocess.slice_sampling)

    few = preprocess.views == ("acquisition",) and preprocess.window != "percentile"
    volume = scans.read(row, pick if few else None)
    if few and preprocess.window == "full" and not has_fixed_range(volume.slices.dtype):
        few, volume = False, scans.read(row)  # here the whole scan's range is the window
    low, high = window_range(volume.slices, preprocess.window)
    views = [cut(volume.slices, volume.axes, view) for view in preprocess.views]
    views = [view if few else view[pick(len(view))] for view in views]
    views = [_channels_first(to_uint8(view, low, high)) for view in views]
    size = preprocess.img_size
    one_shape = len({view.shape[2:] for view in views}) == 1
    views = [resize(view, size) if view.shape[2] * view.shape[3] > size ** 2 or not one_shape
             else view for view in views]
    return Prepared(torch.cat(views).numpy(), tuple(map(len, views)))


def _channels_first(slices: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(slices))
    return tensor[:, None] if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class Collate:
    """Make a Batch of items, or pass on the first error among them."""

    preprocess: Preprocess

    def __call__(self, items: list[Item | UserError | RunError]) -> Batch | UserError | RunError:
        for item in items:
            if not isinstance(item, Item):
                return item
        stacks = [torch.from_numpy(item.prepared.slices) for item in items]
        if len({stack.shape[2:] for stack in stacks}) > 1:
            stacks = [resize(stack, self.preprocess.img_size) for stack in stacks]
        length = self.preprocess.n_slices or 1
        total = length * len(self.preprocess.views)
        channels = max(stack.shape[1] for stack in stacks)
        x = torch.zeros((len(items), total, channels, *stacks[0].shape[2:]), dtype=torch.uint8)
        mask = torch.zeros((len(items), total), dtype=torch.bool)
        for i, (item, stack) in enumerate(zip(items, stacks, strict=True)):
            for view, part in enumerate(stack.split(list(item.prepared.counts))):
                x[i, view * length:view * length + len(part)] = part
                mask[i, view * length:view * length + len(part)] = True
        transforms, places = (
            None if getattr(items[0], name) is None else torch.stack(
                [getattr(item, name) for item in items]) for name in ("transform", "places"))
        return Batch(x, mask, torch.stack([item.label for item in items]), transforms, places)


@dataclass(frozen=True)
class Loader:
    """Batches of a data set; a scan that cannot be read ends them with its error.

    Attributes:
        batches: what loads them.
        items: those of each batch, put in `batches` before it begins; None where it has its own.
    """

    batches: DataLoader
    items: list[list] | None = None

    def __iter__(self) -> Iterator[Batch]:
        if self.items is not None:
            self.batches.batch_sampler[:] = self.items
        with starting_workers() if self.batches.num_workers else contextlib.nullcontext():
            batches = iter(self.batches)
        for batch in batches:
            if isinstance(batch, UserError):
                raise UserError(f"{batch}\n{FIND_ALL}") from batch
            if not isinstance(batch, Batch):
                raise batch
            yield batch

    def __len__(self) -> int:
        return len(self.batches if self.items is None else self.items)


@dataclass(frozen=True)
class TrainingScans(Dataset):
    """The scans of training and of validation, for one set of loading processes.

    An item is named by (seed of the epoch, position in `training`), or (None, position in
    `validation`), so that what a process gives depends on nothing that happened before.
    """

    training: ScanDataset
    validation: ScanDataset

    def __len__(self) -> int:
        return len(self.training) + len(self.validation)

    def __getitem__(self, name: tuple[int | None, int]) -> Item | UserError | RunError:
        seed, index = name
        return self.validation[index] if seed is None else self.training.item(index, seed)


class KeptLoader:
    """Batches from loading processes that are kept: as many passes as wanted, one after another.

    Args:
        scans: what is loaded.
        n_workers, device: see make_loader.
    """

    def __init__(self, scans: TrainingScans, n_workers: int, device: torch.device) -> None:
        self._loader = _data_loader(scans, [], n_workers, device,
                                    Collate(scans.training.preprocess), kept=n_workers > 0)

    def load(self, seed: int | None, batches: list[list[int]]) -> Loader:
        """Return batches of training in the epoch of this seed, or of validation (None)."""
        return Loader(self._loader, [[(seed, index) for index in batch] for batch in batches])

    def close(self) -> None:
        """End the loading processes; a later pass has new ones."""
        if self._loader._iterator is not None:  # there is no public way to end them at once
            self._loader._iterator._shutdown_workers()
            self._loader._iterator = None


def make_loader(dataset: ScanDataset, batches: list[list[int]] | int, n_workers: int,
                device: torch.device) -> Loader:
    """Return a loader of Batch.

    Args:
        dataset: the scans.
        batches: positions in `dataset` of each batch; or a number, that many at a time in order.
        n_workers: loading processes; 0 for none.
        device: on which the batches will go.
    """
    if isinstance(batches, int):
        batches = make_batches(range(len(dataset)), batches, ProcessGroup())
    return Loader(_data_loader(dataset, batches, n_workers, device, Collate(dataset.preprocess)))


def _data_loader(dataset: Dataset, batches: list[list], n_workers: int, device: torch.device,
                 collate: Collate, kept: bool = False) -> DataLoader:
    return DataLoader(dataset, batch_sampler=batches, num_workers=n_workers, collate_fn=collate,
                      generator=torch.Generator(),  # leaves torch's own one alone
                      worker_init_fn=begin_worker, persistent_workers=kept,
                      prefetch_factor=PREFETCH if n_workers else None,
                      pin_memory=device.type == "cuda")


@dataclass(frozen=True)
class TrainingSet:
    """Where the loop's batches come from.

    Attributes:
        batches: (epoch from 1, batches that are done) -> the other batches of the epoch, already
            shuffled and augmented; the same for the same epoch, whatever ran before.
        count: batches in an epoch.
        validation: this process's share of the validation scans, in order.
        inputs: what the model, or the part of it that is trained, takes of a batch.
        close: ends the loading processes. Until then `batches` and `validation` share them, so
            that one of them is gone through at a time.
    """

    batches: Callable[[int, int], Iterable[Batch]]
    count: int
    validation: Callable[[], Iterable[Batch]]
    inputs: Callable[[Batch], tuple[torch.Tensor, ...]]
    close: Callable[[], None] = lambda: None


def scan_training_set(scans: ScanTable, preprocess: Preprocess, augmentation: Augmentation,
                      run: Session, b_size: int, seed: int, weights: np.ndarray | None = None
                      ) -> TrainingSet:
    """Return batches of scans, shuffled and augmented differently in each epoch.

    With `weights`, of the training scans, as many are drawn with replacement in proportion to them.
    """
    rows = scans.rows("train")
    training = ScanDataset(scans, rows, preprocess, augmentation)
    validation = ScanDataset(scans, run.world.shard(scans.rows("val")), preprocess)
    loader = KeptLoader(TrainingScans(training, validation), run.n_workers, run.device)

    def batches(epoch: int, done: int) -> Loader:
        epoch_seed = derive_seed(seed, epoch)
        order = (shuffled(len(rows), epoch_seed) if weights is None
                 else balanced(weights, epoch_seed))
        return loader.load(epoch_seed, make_batches(order, b_size, run.world, done))

    def validate() -> Loader:
        return loader.load(None, make_batches(range(len(validation)), b_size, ProcessGroup()))

    return TrainingSet(batches, count_batches(len(rows), b_size), validate,
                       lambda batch: model_inputs(batch, preprocess), loader.close)
