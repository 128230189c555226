"""Several processes, as torchrun starts them; one process needs none of it."""

import datetime
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

from slivit.utils.errors import RunError, UserError
from slivit.utils.ranks import started_by_torchrun

T = TypeVar("T")
MEETING = ("MASTER_ADDR", "MASTER_PORT", "RANK")  # torchrun sets these for every process
PATIENCE = datetime.timedelta(hours=12)  # for what one process does while the others wait


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run: this one's number from 0, and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is rank 0, which alone writes and logs."""
        return self.rank == 0

    def shard(self, items: Sequence) -> Sequence:
        """Return this process's share: every `size`-th item from the `rank`-th on."""
        return items[self.rank::self.size]

    def all_gather(self, shares: object) -> list:
        """Return the shares of all processes, in the order of their ranks."""
        if self.size == 1:
            return [shares]
        gathered = [None] * self.size
        dist.all_gather_object(gathered, shares)
        return gathered

    def gather_work(self, work: Callable[[], T]) -> list[T]:
        """Do a part of some work in each process; return all results, in the order of the ranks.

        Raises:
            UserError, RunError: from `work` of any process, and then in all of them, so that none
                waits for one that has ended.
        """
        if self.size == 1:
            return [work()]
        try:
            mine = work()
        except (UserError, RunError) as error:
            error.by_one = False
            mine = error
        results = self.all_gather(mine)
        for one in results:
            if isinstance(one, UserError | RunError):
                raise one
        return results

    def all_reduce_sum(self, number: float) -> float:
        """Return the sum of a number over all processes."""
        if self.size == 1:
            return number
        value = torch.tensor(number, dtype=torch.float64)
        value = value.cuda() if dist.get_backend() == "nccl" else value
        dist.all_reduce(value)
        return float(value)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


def join_world(device: torch.device) -> ProcessGroup:
    """Join the other processes of a torchrun, or return a world of one.

    Raises:
        UserError: the environment says that there are several, but not where they meet.
    """
    if not started_by_torchrun():
        return ProcessGroup()
    if missing := [name for name in MEETING if not os.environ.get(name)]:
        raise UserError(f"WORLD_SIZE={os.environ['WORLD_SIZE']} in the environment means that "
                        f"torchrun has started this process, but {' and '.join(missing)} "
                        f"{'is' if len(missing) == 1 else 'are'} not set; start it by torchrun, or "
                        "unset WORLD_SIZE")
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return ProcessGroup(dist.get_rank(), dist.get_world_size())


def leave_world() -> None:
    """Part from the other processes, if there are any."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
