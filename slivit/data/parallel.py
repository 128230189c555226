"""Looking at every row of a table in parallel: in threads, or in processes."""

import concurrent.futures
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from slivit.utils.log import LOG
from slivit.utils.runtime import begin_worker, starting_workers, usable_cpus

FEW = 64     # rows that are looked at sooner than processes start
AT_ONCE = 8  # rows that a process looks at before it hands over what it found


def in_threads(look: Callable[[int], object], rows: Iterable[int], what: str) -> list:
    """Return `look(row)` of every row, in order, read in parallel with a progress bar.

    An error, or a signal, does not wait for the rows that others are looking at.
    """
    rows = list(rows)
    pool = concurrent.futures.ThreadPoolExecutor(usable_cpus())
    try:
        return list(tqdm(pool.map(look, rows), total=len(rows), desc=what, leave=False,
                         disable=LOG.level >= logging.ERROR or None))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def in_processes(look: Callable[[int], object], rows: Iterable[int], what: str,
                 n_cpu: int | None = None) -> list:
    """Do what `in_threads` does, in `n_cpu` processes, for work that holds Python's lock.

    Args:
        look: can be pickled, as what it returns can.
        rows: where they are few, threads do.
        what: named by the progress bar.
        n_cpu: processes; None for one on every core, 0 or 1 for none.
    """
    rows, count = list(rows), usable_cpus() if n_cpu is None else min(n_cpu, usable_cpus())
    if count < 2 or len(rows) < FEW:
        return in_threads(look, rows, what)
    loader = DataLoader(_Looks(look, rows), batch_size=AT_ONCE, num_workers=count,
                        collate_fn=list, worker_init_fn=begin_worker)
    with starting_workers():
        parts = iter(loader)
    results = []
    with tqdm(total=len(rows), desc=what, leave=False,
              disable=LOG.level >= logging.ERROR or None) as bar:
        for part in parts:
            results += part
            bar.update(len(part))
    return results


@dataclass(frozen=True)
class _Looks(Dataset):
    look: Callable[[int], object]
    rows: list[int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> object:
        return self.look(self.rows[index])
