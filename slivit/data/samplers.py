"""Which scans each step of training is of."""

from collections.abc import Sequence

import numpy as np
import torch

from slivit.utils.distributed import ProcessGroup


def shuffled(count: int, seed: int) -> list[int]:
    """Return 0..count-1 in a random order, the one in which torch's DataLoader shuffles."""
    generator = torch.Generator().manual_seed(seed)
    torch.empty((), dtype=torch.int64).random_(generator=generator)  # the DataLoader's own draw
    return torch.randperm(count, generator=generator).tolist()


def balanced(weights: np.ndarray, seed: int) -> list[int]:
    """Return as many draws as there are weights, with replacement, in proportion to them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(torch.from_numpy(weights), len(weights), replacement=True,
                             generator=generator).tolist()


def count_batches(rows: int, b_size: int, drop_last: bool = False) -> int:
    """Return how many batches an epoch has.

    With `drop_last`, one that would not be whole is left out, unless it is the only one.
    """
    return max(1, rows // b_size) if drop_last else -(-rows // b_size)


def make_batches(order: Sequence[int], b_size: int, world: ProcessGroup, start: int = 0
                 ) -> list[list[int]]:
    """Divide an epoch's order into batches, and each batch among the processes.

    Args:
        order: positions of the scans, in the order of the epoch.
        b_size: scans per batch, over all processes.
        world: the processes.
        start: batches to leave out, because they are done.

    Returns:
        This process's share of every batch from `start` on. Where the last batch leaves it
        nothing, it gets a scan whose label does not count, coded as ~position (see
        datasets.ScanDataset), since every process has to take part in every step.
    """
    batches = [list(order[i:i + b_size]) for i in range(0, len(order), b_size)]
    return [list(world.shard(batch)) or [~batch[0]] for batch in batches[start:]]


def interleave(shares: list[np.ndarray]) -> np.ndarray:
    """Return the rows of all processes in the order from which ProcessGroup.shard took them."""
    if len(shares) == 1:
        return shares[0]
    rows = np.empty((sum(map(len, shares)), *shares[0].shape[1:]), dtype=shares[0].dtype)
    for rank, share in enumerate(shares):
        rows[rank::len(shares)] = share
    return rows
