"""mixup: training on blends of two scans and of their labels."""

import dataclasses

import numpy as np
import torch

from slivit.data.batch import Batch


def mix(batch: Batch, alpha: float, seed: int) -> Batch:
    """Blend each scan of a batch with another one. Source: Zhang et al. 2018, section 2.

    Scans of a batch must have the same height and width as they come (those of one data set do).
    A slice that only one of the two has is blended with black; a label that is unknown in either
    is unknown in the blend.

    Args:
        batch: on any device, of slices or of slice features.
        alpha: of the Beta distribution from which the batch's share is drawn; 0 leaves it as it is.
        seed: of the share and of the pairs.
    """
    if not alpha:
        return batch
    rng = np.random.default_rng(seed)
    share = float(rng.beta(alpha, alpha))
    other = torch.from_numpy(rng.permutation(len(batch.y))).to(batch.y.device)
    x = batch.x * share + batch.x[other] * (1 - share)
    if not batch.x.is_floating_point():
        x = x.round().to(torch.uint8)
    return dataclasses.replace(batch, x=x, mask=batch.mask | batch.mask[other],
                               y=batch.y * share + batch.y[other] * (1 - share))
