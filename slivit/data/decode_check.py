"""The check before a run writes anything: scans are decoded, a few of each split or all."""

import functools

import numpy as np

from slivit.config import Preprocess
from slivit.data.datasets import prepare
from slivit.data.header_check import missing_or_unreadable
from slivit.data.parallel import in_processes
from slivit.data.readers import ReadError
from slivit.data.scan_table import SPLITS, FileSource, ScanTable
from slivit.utils.distributed import ProcessGroup
from slivit.utils.errors import RunError


def check_decoding(scans: ScanTable, preprocess: Preprocess, few: int | None,
                   splits: tuple[str, ...] = SPLITS, n_cpu: int | None = None,
                   world: ProcessGroup = ProcessGroup()) -> None:  # noqa: B008
    """Decode scans as a run will, so that damage behind a good header is found before it begins.

    What is decoded goes to the cache where there is one, so that the time is not lost. Of several
    processes, rank 0 decodes, and all end with what it has found.

    Args:
        scans: the table, its headers checked.
        preprocess: how scans become input; mean and standard deviation do not matter here.
        few: of each split, so many from its beginning; None for all.
        splits: which splits; `all` for every row.
        n_cpu: processes that decode; None for one on every core.
        world: the processes of the run.

    Raises:
        UserError: listing every scan that cannot be decoded.
        RunError: the cache cannot be written.
    """
    if not isinstance(scans.read, FileSource):
        return

    def decode() -> None:
        if world.is_main:
            rows = np.concatenate([scans.rows(split)[:few] for split in splits])
            what = "scans" if few is None else "scans that were tried"
            _decode(scans, preprocess, rows, n_cpu, what)

    world.gather_work(decode)


def _decode(scans: ScanTable, preprocess: Preprocess, rows: np.ndarray, n_cpu: int | None,
            what: str) -> None:
    """Raise the first failure to write, else the error that lists all damaged scans."""
    faults = [fault for fault in in_processes(functools.partial(_fault, scans, preprocess), rows,
                                              "scans", n_cpu) if fault is not None]
    failures = [fault for fault in faults if isinstance(fault, RunError)]
    if failures:
        raise failures[0]
    if faults:
        raise missing_or_unreadable(faults, len(rows), what)


def _fault(scans: ScanTable, preprocess: Preprocess, row: int) -> ReadError | RunError | None:
    try:
        prepare(scans, int(row), preprocess)
    except (ReadError, RunError) as error:
        return error
    return None
