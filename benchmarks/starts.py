"""Seconds until a cohort's headers are known: read in threads, in processes, or remembered."""

import dataclasses
import os
import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from slivit.data import header_memory
from slivit.data.header_check import header_of, read_headers
from slivit.data.meta_csv import read_meta
from slivit.data.parallel import in_threads
from slivit.data.scan_table import ScanTable

FILES = 60  # of a series


def series_rows(folder: Path, one: Path, count: int, repeats: int) -> list[tuple[str, float]]:
    """Measure the start of `count` DICOM series, each of the files of the series `one`.

    Returns:
        What, and the median of the seconds, of `repeats` turns.
    """
    for k in range(count):
        (folder / f"series/{k}").mkdir(parents=True)
        for file in one.iterdir():
            os.link(file, folder / f"series/{k}/{file.name}")
    scans = _table(folder, [f"series/{k}" for k in range(count)], 3)
    rows = np.arange(count)

    def first() -> None:
        scans.headers.unlink(missing_ok=True)
        read_headers(scans, rows)

    what = f"{count:,} series of {FILES} files"
    return _in_turn({
        f"{what}, in threads": lambda: in_threads(partial(header_of, scans.read), rows, "headers"),
        f"{what}, first start": first,
        f"{what}, second start": lambda: read_headers(scans, rows)}, repeats)


def image_rows(folder: Path, count: int, repeats: int) -> list[tuple[str, float]]:
    """Measure table and headers of `count` pictures; returns as `series_rows`."""
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "one.png")
    (folder / "images").mkdir()
    for k in range(count):
        shutil.copyfile(folder / "one.png", folder / f"images/{k}.png")
    names = [f"images/{k}.png" for k in range(count)]
    scans = _table(folder, names, 2)

    def start() -> None:
        again = dataclasses.replace(read_meta(folder / "2.csv", 2), headers=scans.headers)
        read_headers(again, np.arange(count))

    def first() -> None:
        scans.headers.unlink(missing_ok=True)
        start()

    what = f"{count:,} images, table and headers"
    return _in_turn({f"{what}, first start": first, f"{what}, second start": start}, repeats)


def _table(folder: Path, names: list[str], ndim: int) -> ScanTable:
    """Write a table of these scans; return it, with a file for its headers."""
    table = folder / f"{ndim}.csv"
    table.write_text("F_Name,Path,A,Split\n" + "".join(
        f"{k},{name},{k % 2},{('train', 'val')[k % 2]}\n" for k, name in enumerate(names)))
    return dataclasses.replace(read_meta(table, ndim),
                               headers=header_memory.memory_file(table, ndim, folder))


def _in_turn(ways: dict[str, Callable[[], object]], repeats: int) -> list[tuple[str, float]]:
    taken: dict[str, list[float]] = {what: [] for what in ways}
    for _ in range(repeats):
        for what, way in ways.items():
            start = time.perf_counter()
            way()
            taken[what].append(time.perf_counter() - start)
    return [(what, statistics.median(seconds)) for what, seconds in taken.items()]
