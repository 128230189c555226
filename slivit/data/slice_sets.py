"""Slices to learn from without labels: drawn anew in each epoch, each in one view or more.

A view is a slice after a random transform of its own.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from slivit.config import Augmentation, Preprocess
from slivit.data.batch import Batch
from slivit.data.cache import Prepared
from slivit.data.datasets import (
    Item,
    KeptLoader,
    Loader,
    ScanDataset,
    TrainingScans,
    TrainingSet,
    prepare,
)
from slivit.data.samplers import count_batches, make_batches, shuffled
from slivit.data.scan_table import ScanTable
from slivit.data.transforms import augment, draw_transform, resize
from slivit.utils.distributed import ProcessGroup
from slivit.utils.errors import RunError, UserError
from slivit.utils.runtime import derive_seed
from slivit.utils.session import Session

WHOLE = 2 ** 16  # `n_slices` of a volume that is prepared with all of them
CROP = 0.5  # with jitter 1, the least side of a random crop, as a share of the slice's


@dataclass(frozen=True)
class SliceSampling:
    """Which slices of a scan are shown in an epoch, and how often.

    Attributes:
        slices: of each volume, evenly spaced from a random first one on; all of a shorter volume.
        views: of each of them.
        reach: how many slices from that of the first view those of the others may be; where it is
            0, and in an image, they are of the same slice, else of another one.
    """

    slices: int = 1
    views: int = 1
    reach: int = 0


def whole_scans(preprocess: Preprocess, ndim: int) -> Preprocess:
    """Return how scans are prepared from which slices are drawn: volumes with all their slices.

    So the cache serves every epoch, whichever slices it draws.
    """
    return dataclasses.replace(preprocess, n_slices=WHOLE if ndim == 3 else 0)


def draw_slices(rng: np.random.Generator, shown: np.ndarray, sampling: SliceSampling
                ) -> np.ndarray:
    """Draw slices of a volume.

    Args:
        rng: random numbers.
        shown: numbers of the slices to choose from, ascending, at least one.
        sampling: how many.

    Returns:
        int (n, views), n at most `sampling.slices`: of each slice drawn, those of its views.
    """
    count = min(sampling.slices, len(shown))
    places = (np.arange(count) + rng.random()) * len(shown) / count
    first = shown[np.minimum(places.astype(int), len(shown) - 1)]
    rows = []
    for number in first:
        near = shown[(np.abs(shown - number) <= sampling.reach) & (shown != number)]
        near = near if len(near) else np.array([number])
        rows.append([number, *rng.choice(near, sampling.views - 1)])
    return np.array(rows)


def draw_view(rng: np.random.Generator, augmentation: Augmentation) -> torch.Tensor:
    """Draw the random transform of a view, as transforms.augment takes it.

    It is that of a training scan and, unless there is no jitter, a random square crop, which two
    views need to differ enough (Chen et al. 2020, section 3). At jitter 1 its side is 0.5 to 1 of
    the slice's.
    """
    transform = draw_transform(rng, augmentation)
    if augmentation.jitter:
        side = rng.uniform(1 - (1 - CROP) * min(1.0, augmentation.jitter), 1)
        transform[4] -= np.log(side) / np.log(1.1)  # a scale of 1 / side
        transform[5:7] += torch.from_numpy(rng.uniform(-1, 1, 2) * (1 - side) / 0.1)
    return transform


class SliceDataset(ScanDataset):
    """Slices of some rows of a table, with the transforms and the places of their views.

    What is drawn depends on (seed, row) alone. Slices of one grey value show nothing and are passed
    over, unless a scan has no others.

    Args:
        scans, rows, preprocess: as of ScanDataset; the model's own pre-processing, of images.
        sampling: which slices, and how many views of each.
        augmentation, seed: of the views.
    """

    def __init__(self, scans: ScanTable, rows: np.ndarray, preprocess: Preprocess,
                 sampling: SliceSampling, augmentation: Augmentation, seed: int = 0) -> None:
        shown = sampling.slices * sampling.views  # in a batch
        super().__init__(scans, rows, dataclasses.replace(preprocess, n_slices=shown),
                         augmentation, seed)
        self.whole, self.sampling = whole_scans(preprocess, scans.ndim), sampling

    def item(self, index: int, seed: int) -> Item | UserError | RunError:
        """Return what is drawn of a scan with this seed: the views of a slice one after another."""
        row = int(self.rows[index])
        try:
            slices = prepare(self.scans, row, self.whole).slices
        except (UserError, RunError) as error:  # raised in the main process, see Loader
            return error
        rng = np.random.default_rng(derive_seed(seed, row))
        shown = varied(slices)
        shown = shown if len(shown) else np.arange(len(slices))
        which = draw_slices(rng, shown, self.sampling).ravel()
        transforms = torch.zeros(self.preprocess.n_slices, 9, dtype=torch.float64)
        places = torch.zeros(self.preprocess.n_slices)
        for k, number in enumerate(which):
            transforms[k] = draw_view(rng, self.augmentation)
            places[k] = number / max(1, len(slices) - 1)
        return Item(Prepared(slices[which], (len(which),)), torch.empty(0), transforms, places)


def varied(slices: np.ndarray) -> np.ndarray:
    """Return the numbers of the slices (S, C, h, w) that have more than one grey value."""
    flat = slices.reshape(len(slices), -1)
    return np.flatnonzero(flat.min(axis=1) < flat.max(axis=1))


@torch.no_grad()
def slice_views(batch: Batch, img_size: int, views: int
                ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the views of a batch of SliceDataset's, on its device.

    Returns:
        uint8 (n, views, C, img_size, img_size), the n slices of all scans, resized and transformed;
        float32 (n, views), the place in its volume of the slice of each view, 0 to 1; int64 (n,),
        which scan of the batch each is of.
    """
    mask = batch.mask.cpu()
    slices = resize(batch.x[batch.mask], img_size)
    parts = [augment(one[None], how) for one, how in zip(slices, batch.transforms[mask],
                                                         strict=True)]
    places = batch.places[mask].to(slices.device)
    scans = batch.mask.nonzero()[::views, 0]
    return torch.cat(parts).unflatten(0, (-1, views)), places.unflatten(0, (-1, views)), scans


def slice_training_set(scans: ScanTable, preprocess: Preprocess, sampling: SliceSampling,
                       augmentation: Augmentation, run: Session, b_size: int, seed: int
                       ) -> TrainingSet:
    """Return batches of slices of `b_size` scans, drawn, shuffled and transformed in each epoch.

    A last batch that would not be whole is left out of the epoch: for a loss that compares the
    slices of a batch it would be another task. Validation, always of the same views, leaves nothing
    out; its batches are as large, or larger.
    """
    rows = scans.rows("train")
    training, validation = (
        SliceDataset(scans, part, preprocess, sampling, augmentation, seed)
        for part in (rows, scans.rows("val")))
    loader = KeptLoader(TrainingScans(training, validation), run.n_workers, run.device)
    count = count_batches(len(rows), b_size, drop_last=True)

    def batches(epoch: int, done: int) -> Loader:
        epoch_seed = derive_seed(seed, epoch)
        order = shuffled(len(rows), epoch_seed)[:count * b_size]
        return loader.load(epoch_seed, make_batches(order, b_size, ProcessGroup(), done))

    def validate() -> Loader:
        parts = count_batches(len(validation), b_size, drop_last=True)
        return loader.load(None, [part.tolist() for part in
                                  np.array_split(np.arange(len(validation)), parts)])

    return TrainingSet(batches, count, validate,
                       lambda batch: slice_views(batch, preprocess.img_size, sampling.views),
                       loader.close)
