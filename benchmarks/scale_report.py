"""What a large cohort costs beside the network: the work around an epoch, and the report.

The parts are timed on their own, with the code of the scripts, on made-up logits.
"""

import multiprocessing
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from benchmarks.scale_runs import Row, make_row, size_rows
from slivit.checkpoints import checkpoint
from slivit.checkpoints.header import CheckpointHeader, Validation
from slivit.checkpoints.model_card import training_facts
from slivit.checkpoints.subjects import subject_facts
from slivit.checkpoints.trained import load_trained
from slivit.config import Augmentation, Preprocess, Target
from slivit.data.meta_csv import read_meta
from slivit.data.samplers import make_batches, shuffled
from slivit.data.scan_table import ScanTable
from slivit.metrics.evaluation import quick_scores
from slivit.models.outputs import to_predictions
from slivit.prediction import Prediction
from slivit.report import writer
from slivit.report.evaluation import EvaluationResult, ReportOptions, choose_thresholds
from slivit.training.calibration import temperature_of
from slivit.training.losses import Objective, plain_loss
from slivit.training.progress import Progress
from slivit.training.resume import save_state
from slivit.training.trainer import write_log
from slivit.utils.distributed import ProcessGroup
from slivit.utils.session import Session

BACKBONE, EPOCHS, B_SIZE = "convnext_zepto_rms", 50, 64
PARTS = {"find_scores": "scores and intervals", "plot_scores": "plots",
         "write_table": "predictions.csv", "worst_cases": "the worst errors",
         "write_html": "report.html"}  # of writer.write_report


def bookkeeping(table: Path, folder: Path) -> list[Row]:
    """Measure what an epoch on a table costs beside its steps."""
    return _in_process(_bookkeeping, table, folder)


def report(table: Path, count: int, folder: Path) -> list[Row]:
    """Measure the report on made-up predictions of the first `count` rows of a table."""
    return _in_process(_report, table, count, folder)


def _in_process(work: Callable[..., list[Row]], *args) -> list[Row]:
    """Return what a function returns in a fresh process, which its peak memory is of."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args).result()


def _bookkeeping(table: Path, folder: Path) -> list[Row]:
    scans, what = read_meta(table, 2), "an epoch's"
    target, logits = Target("multilabel", scans.label_names), made_up(scans)
    rows: list[Row] = []

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = now()
        yield
        rows.append(make_row("epoch", name, *passed(start)))

    training, val = scans.rows("train"), scans.rows("val")
    with timed(f"{what} order and batches, {len(training):,} scans"):
        make_batches(shuffled(len(training), 0), B_SIZE, ProcessGroup())
    known = Validation(logits[val], scans.labels[val])
    with timed(f"{what} scores on validation, {len(val):,} scans"):
        plain_loss(known.logits, known.labels, target)
        quick_scores(known.labels, to_predictions(known.logits, target), target)
    log = [{"epoch": k, "lr": 1e-4, "train_loss": 1 / k, "val_loss": 1 / k, "val_roc_auc": 0.5,
            "best": k == 1} for k in range(1, EPOCHS + 1)]
    with timed(f"{what} log.csv and history.png, after {EPOCHS} epochs"):
        write_log(log, Objective(target), folder, Session(torch.device("cpu"), quiet=True))
    with timed("what a run notes of the table: fingerprint, patients, cohort, split.csv"):
        card = card_of(scans, target)
        scans.save_split(folder / "split.csv")
    model = checkpoint.build(card)
    with timed(f"{what} temperature and checkpoint, with {len(val):,} validation outputs"):
        temperature_of(known, target)
        checkpoint.save(folder / "backbone.safetensors", model, card, known)
    optimizer = torch.optim.AdamW(model.parameters())
    with timed(f"{what} last.pt"):
        save_state(folder / "last.pt", Progress(log=log),
                   {"model": model, "optimizer": optimizer}, ProcessGroup())
    return rows


def _report(table: Path, count: int, folder: Path) -> list[Row]:
    scans = read_meta(table, 2)
    target, logits = Target("multilabel", scans.label_names), made_up(scans)
    val, rows = scans.rows("val"), np.arange(count)
    path = folder / "backbone.safetensors"
    card = card_of(scans, target)
    checkpoint.save(path, checkpoint.build(card), card, Validation(logits[val], scans.labels[val]))
    what, parts = f"report of {count:,} scans, 14 labels", []

    def timed(name: str) -> Callable:
        work = getattr(writer, name)

        def measured(*args, **kwargs) -> object:
            start = now()
            result = work(*args, **kwargs)
            parts.append(make_row("report", f"{what}: {PARTS[name]}", *passed(start)))
            return result

        return measured

    for name in PARTS:
        setattr(writer, name, timed(name))
    start = now()
    trained = [load_trained(path, torch.device("cpu"))]
    pred = Prediction(to_predictions(logits[rows], target), np.zeros(count, bool))
    options = ReportOptions()
    measured = EvaluationResult(scans, rows, target, "all", pred,
                                choose_thresholds(trained, options.rule))
    writer.write_report(measured, trained, folder, options)
    found = [make_row("report", f"{what}: all", *passed(start)), *parts,
             make_row("memory", f"{what}: highest, resident", _highest(), "MB")]
    names = ("predictions.csv", "metrics.json", "report.html")
    return found + size_rows(folder, what, names)


def now() -> tuple[float, float]:
    """Return the seconds of a clock, and the CPU seconds of this process."""
    return time.perf_counter(), time.process_time()


def passed(since: tuple[float, float]) -> tuple[float, str, float]:
    """Return what make_row takes of the time since then: seconds, their unit, CPU seconds."""
    clock, cpu = now()
    return clock - since[0], "s", cpu - since[1]


def made_up(scans: ScanTable) -> np.ndarray:
    """Return logits (n, K) that say something about the labels."""
    noise = np.random.default_rng(0).normal(-2, 1, scans.labels.shape)
    return (noise + np.nan_to_num(scans.labels)).astype(np.float32)


def card_of(scans: ScanTable, target: Target) -> CheckpointHeader:
    """Return the header of a model of images that was trained on a table."""
    facts = checkpoint.data_facts(scans, scans.fingerprint(), None, 0)
    facts |= subject_facts(scans, bytes(32))
    return CheckpointHeader("backbone", BACKBONE, None, target,
                            Preprocess(32, "percentile", (0.5,) * 3, (0.5,) * 3), facts,
                            training=training_facts(scans, target, Augmentation(), {}))


def _highest() -> float | None:
    """Return this process's highest resident memory in MB; None where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    text = status.read_text(encoding="utf-8")
    return int(re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024 / 1e6
