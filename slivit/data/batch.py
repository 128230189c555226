"""A batch of scans as the loader gives it, and the slices of it that a model takes."""

import functools
from dataclasses import dataclass

import torch

from slivit.config import Preprocess
from slivit.data.transforms import adjacent, augment, resize


@dataclass
class Batch:
    """A batch of B scans, as it is sent to the device.

    Attributes:
        x: uint8 (B, S, C, h, w); slices not yet resized, padded with 0 at the end of each view.
            S is the number of views times `n_slices`, 1 for images. With a frozen backbone, the
            slices' features instead: float32 (B, S, F).
        mask: bool (B, S), True where a slice is real.
        y: float32 (B, K), NaN where unknown.
        transforms: float64 (B, 9) on the CPU, the random transform of each scan, or None; of slices
            that were drawn without labels, one of each, (B, S, 9).
        places: of such slices float32 (B, S) on the CPU, where in its volume each is, from 0, the
            first, to 1, the last; else None.
    """

    x: torch.Tensor
    mask: torch.Tensor
    y: torch.Tensor
    transforms: torch.Tensor | None = None
    places: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on another device.

        From pinned memory a GPU copies it while it still computes what it was given before.
        """
        tensors = (self.x, self.mask, self.y)
        if device.type != "cuda":
            return Batch(*(tensor.to(device) for tensor in tensors), self.transforms, self.places)
        computing, copying = torch.cuda.current_stream(device), _copying_stream(device)
        with torch.cuda.stream(copying):
            copies = [tensor.to(device, non_blocking=True) for tensor in tensors]
        computing.wait_stream(copying)
        for copy in copies:  # its memory is not to be used again before it has been computed with
            copy.record_stream(computing)
        return Batch(*copies, self.transforms, self.places)

    def pin_memory(self) -> "Batch":
        """Return the batch in pinned memory (called by the loader)."""
        return Batch(self.x.pin_memory(), self.mask.pin_memory(), self.y.pin_memory(),
                     self.transforms, self.places)


@functools.cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of a GPU on which batches are copied to it."""
    return torch.cuda.Stream(device)


def model_inputs(batch: Batch, preprocess: Preprocess) -> tuple[torch.Tensor, ...]:
    """Return what a model's `forward` takes: images, or the slices of volumes and their mask."""
    slices = model_slices(batch, preprocess)
    return (slices, batch.mask) if preprocess.n_slices else (slices,)


@torch.no_grad()
def model_slices(batch: Batch, preprocess: Preprocess) -> torch.Tensor:
    """Return the real slices of a batch, resized and augmented on the batch's device.

    Here alone: a model's `forward` changes neither the size nor the place of a pixel.

    Returns:
        uint8 (n, C, img_size, img_size), n slices where the mask is True, in its order.
    """
    slices = resize(batch.x[batch.mask], preprocess.img_size)
    beside = preprocess.channels == "adjacent"
    if batch.transforms is None and not beside:
        return slices
    views = preprocess.views
    counts = batch.mask.view(len(batch.mask), len(views), -1).sum(dim=2).tolist()
    parts = slices.split([count for row in counts for count in row])
    if batch.transforms is not None:
        drawn = [(transform, view) for transform in batch.transforms for view in views]
        parts = [augment(part, *how) for part, how in zip(parts, drawn, strict=True)]
    return torch.cat([adjacent(part) for part in parts] if beside else parts)
