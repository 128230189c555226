"""`--folds`: train a model per fold, and pool the predictions for patients it has not seen."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from slivit import options
from slivit.cells import read_table, write_table
from slivit.measured import ReportOptions
from slivit.prediction import Prediction, load_trained
from slivit.report import write_report
from slivit.runtime import LOG, open_out_dir, versions, write_json
from slivit.scans import SPLITS, Scans
from slivit.session import Session
from slivit.subsets import make_folds
from slivit.tasks import divide_labels, fit_to_target

Train = Callable[[argparse.Namespace, Scans, Session, Path], None]


def cross_validate(args: argparse.Namespace, scans: Scans, run: Session, train: Train) -> None:
    """Train and measure every fold, then pool.

    In `--out_dir`: `fold_1`, `fold_2`, ... each with what a training leaves; `predictions.csv` with
    every patient predicted by the model that has not seen them, `metrics.json` and `folds.csv`.
    A test split that the table itself has is left out of all folds. With `--resume`, folds that are
    finished stay as they are.

    Args:
        args: of finetune.py.
        scans: the table.
        run: where it runs.
        train: (args, scans, run, out_dir) trains and measures one fold.
    """
    keep_test = not scans.drawn or args.split_ratio is not None
    predicted, _ = divide_labels(scans, args.auxiliary or (), args.pathologies)
    folds = list(make_folds(scans, args.folds, args.seed, keep_test and "test" in scans.split,
                            predicted))
    config = options.make_config(args, script="finetune", versions=versions(),
                                 data={"name": scans.name, "fingerprint": scans.fingerprint()})
    if run.world.main:
        if run.resume:
            options.check_resume(args.out_dir, config)
        open_out_dir(args.out_dir, args.overwrite)
        write_json(args.out_dir / "config.json", config)
        for old in args.out_dir.glob("fold_*") if args.overwrite else ():
            open_out_dir(old, overwrite=True)
    run.world.wait()
    if keep_test and len(scans.rows("test")):
        LOG.info("%s has a test split: its %d scans are left out of the folds; measure them with "
                 "evaluate.py", scans.name, len(scans.rows("test")))
    folders = [args.out_dir / f"fold_{k}" for k in range(1, args.folds + 1)]
    for k, (fold, folder) in enumerate(zip(folds, folders, strict=True), 1):
        if run.resume and (folder / "metrics.json").exists():
            LOG.info("fold %d of %d is finished", k, args.folds)
            continue
        LOG.info("fold %d of %d", k, args.folds)
        train(args, fold, dataclasses.replace(run, resume=(folder / "last.pt").exists()
                                              and run.resume), folder)
    if run.world.main:
        _pool(args, folds, folders, run)


def _pool(args: argparse.Namespace, folds: list[Scans], folders: list[Path], run: Session) -> None:
    """Write the predictions of all folds in the table's order, their scores, and a row per fold."""
    trained = [load_trained(folder / "slivit.safetensors", run.device) for folder in folders]
    card = trained[0].card
    scans = fit_to_target(folds[0], card.target)
    pred = np.full((len(scans), len(card.target.labels)), np.nan)
    number = np.zeros(len(scans), dtype=int)
    table = []
    for k, (fold, folder) in enumerate(zip(folds, folders, strict=True), 1):
        rows = fold.rows("test")
        found = read_table(folder / "predictions.csv")  # as text: floats to the last digit
        pred[rows] = found[[f"{name}_pred" for name in card.target.labels]].astype(float)
        number[rows] = k
        scores = pd.read_json(folder / "metrics.json", typ="series")
        table.append({"fold": k, **{split: len(fold.rows(split)) for split in SPLITS},
                      **{key: value for key, value in scores["mean"].items()
                         if not key.endswith("_ci")}})
    rows = np.flatnonzero(number)
    write_table(args.out_dir / "folds.csv", pd.DataFrame(table))
    LOG.info("\n%s", pd.DataFrame(table).to_string(index=False, float_format="%.3f"))
    found = Prediction(pred[rows], np.zeros(len(rows), dtype=bool))
    write_report(scans, rows, found, trained, "out-of-fold", args.out_dir, ReportOptions(args.seed),
                 run, facts={"folds": args.folds}, columns={"fold": number[rows]})
    LOG.info("models: %s", " ".join(str(folder / "slivit.safetensors") for folder in folders))
