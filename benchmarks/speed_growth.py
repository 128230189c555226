"""Seconds and memory of prediction, as volumes and their slices grow in number."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.memory import peak_memory
from slivit.config import IntegratorConfig, Preprocess
from slivit.data.datasets import ScanDataset, make_loader
from slivit.data.meta_csv import read_meta
from slivit.models.slivit import SLIViT
from slivit.prediction import predict, run_model

SIZE, BACKBONE = 32, "convnext_zepto_rms"
MEAN = STD = (0.5, 0.5, 0.5)


def growth(quick: bool, repeats: int, threads: int) -> list[dict]:
    """Measure 1, 2, 4 and 8 times the volumes, then the slices; the least of `repeats` seconds."""
    volumes, slices, factors = (4, 4, (1, 2)) if quick else (64, 28, (1, 2, 4, 8))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for what, cases in (("volumes", [(volumes * k, slices) for k in factors]),
                            ("slices", [(volumes, slices * k) for k in factors])):
            for n_volumes, n_slices in cases:
                folder = Path(name) / f"{n_volumes}_{n_slices}"
                table = write_volumes(folder, n_volumes, n_slices)
                work = prediction(str(table), n_slices)
                seconds = min(_timed(work) for _ in range(repeats))
                rows.append({
                    "grows": what, "volumes": n_volumes, "slices": n_slices,
                    "mb_on_disk": round(sum(path.stat().st_size
                                            for path in folder.glob("*.npy")) / 1e6, 2),
                    "seconds": round(seconds, 3),
                    "ms_per_slice": round(1000 * seconds / n_volumes / n_slices, 3),
                    "peak_mb": round(peak_memory(prediction, threads, str(table), n_slices))})
    return rows


def write_volumes(folder: Path, n_volumes: int, n_slices: int) -> Path:
    """Write made-up volumes of 64 x 64 pixels a slice, and their table, where not yet there."""
    table = folder / "meta.csv"
    if not table.exists():
        folder.mkdir()
        rng = np.random.default_rng(0)
        paths = [folder / f"{k}.npy" for k in range(n_volumes)]
        for path in paths:
            np.save(path, rng.integers(0, 256, (n_slices, 64, 64), dtype=np.uint8))
        pd.DataFrame({"F_Name": [path.stem for path in paths], "Path": paths,
                      "label": np.arange(n_volumes) % 2}).to_csv(table, index=False)
    return table


def prediction(table: str, n_slices: int) -> Callable[[], None]:
    """Return the prediction of a table's volumes, as evaluate.py does it."""
    scans = read_meta(Path(table), 3, ["label"])
    torch.manual_seed(0)
    preprocess = Preprocess(SIZE, "full", MEAN, STD, n_slices)
    model = SLIViT(BACKBONE, 1, preprocess, IntegratorConfig(dim=64, depth=2, heads=2,
                                                             head_dim=32, mlp_dim=64)).eval()
    dataset = ScanDataset(scans, np.arange(len(scans)), preprocess)

    def run() -> None:
        loader = make_loader(dataset, 4, 0, torch.device("cpu"))
        predict(partial(run_model, model), loader, torch.device("cpu"))

    return run


def _timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
