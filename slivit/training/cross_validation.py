"""`--folds`: train a model per fold, and pool the predictions for patients it has not seen."""

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import pandas as pd
from pydantic import Field

from slivit.checkpoints.trained import load_trained
from slivit.config import Target
from slivit.data.scan_table import SPLITS, ScanTable
from slivit.data.splits import make_folds
from slivit.data.targets import divide_labels, fit_to_target
from slivit.metrics.evaluation import quick_scores
from slivit.prediction import Prediction
from slivit.report.evaluation import EvaluationResult, ReportOptions, choose_thresholds
from slivit.report.formatting import NAMES
from slivit.report.writer import is_finished, write_report
from slivit.utils.cells import read_table, write_table
from slivit.utils.errors import UserError, first_line
from slivit.utils.files import write_json
from slivit.utils.log import LOG
from slivit.utils.output_dir import check_out_dir, check_resume, make_config, open_out_dir
from slivit.utils.precision import precision_name
from slivit.utils.records import Misfit, from_values, parse_object
from slivit.utils.runtime import versions
from slivit.utils.session import Session

FOLD = re.compile(r"fold_[0-9]+")
Score = Annotated[float | None, Field(allow_inf_nan=False)]
T = TypeVar("T")
Train = Callable[[ScanTable, Path], None]  # takes the scans of a fold, and where its files go


@dataclass(frozen=True)
class FoldOptions:
    """A cross-validation: how many folds, and what they are made of.

    Attributes:
        count: folds.
        out_dir: where everything goes.
        seed, split_ratio: of the division of a table.
        predicted, auxiliary: names of labels, None for all and for none.
        settings: all options of the script by name, for config.json.
    """

    count: int
    out_dir: Path
    seed: int
    split_ratio: str | None
    predicted: list[str] | None
    auxiliary: list[str] | None
    settings: Mapping[str, object]


def cross_validate(options: FoldOptions, scans: ScanTable, run: Session, train: Train) -> None:
    """Train and measure every fold, then pool.

    In `--out_dir`: `fold_1`, `fold_2`, ... each with what a training leaves; `predictions.csv` with
    every patient predicted by the model that has not seen them, `metrics.json` and `folds.csv`.
    A test split that the table itself has is left out of all folds. With `--resume`, folds that are
    finished stay as they are.

    Args:
        options: see FoldOptions.
        scans: the table.
        run: where it runs.
        train: trains and measures one fold.
    """
    keep_test = not scans.drawn or options.split_ratio is not None
    predicted, _ = divide_labels(scans, options.auxiliary or (), options.predicted)
    folds = list(make_folds(scans, options.count, options.seed, keep_test and "test" in scans.split,
                            predicted))
    config = make_config(options.settings, script="finetune", versions=versions(),
                         precision=precision_name(run.precision),
                         data={"name": scans.name, "fingerprint": scans.fingerprint()})
    folders = [options.out_dir / f"fold_{k}" for k in range(1, options.count + 1)]
    with contextlib.ExitStack() as stack:
        if run.world.is_main:
            if run.resume:
                check_resume(options.out_dir, config)
            inputs = [*run.inputs, *scans.read.files()]
            for folder in (options.out_dir, *sorted({*folders, *_older_folds(options.out_dir)})):
                check_out_dir(folder, run.resume, run.overwrite, inputs)
            stack.enter_context(open_out_dir(options.out_dir, run.resume, run.overwrite, inputs))
            for folder in _older_folds(options.out_dir) if run.overwrite else ():
                with open_out_dir(folder, False, True, inputs):
                    pass  # its files are removed
            write_json(options.out_dir / "config.json", config)
        run.world.barrier()
        if keep_test and len(scans.rows("test")):
            LOG.info("%s has a test split: its %d scans are left out of the folds; evaluate them "
                     "with evaluate.py", scans.name, len(scans.rows("test")))
        for k, (fold, folder) in enumerate(zip(folds, folders, strict=True), 1):
            if run.resume and is_finished(folder):
                LOG.info("fold %d of %d is finished", k, options.count)
                continue
            LOG.info("fold %d of %d", k, options.count)
            train(fold, folder)
        if run.world.is_main:
            _pool(options, folds, folders, run)


def _older_folds(out_dir: Path) -> list[Path]:
    """Return the folders of folds that are there."""
    return [folder for folder in out_dir.glob("fold_*") if FOLD.fullmatch(folder.name)
            and folder.is_dir() and not folder.is_symlink()]


def _pool(options: FoldOptions, folds: list[ScanTable], folders: list[Path],
          run: Session) -> None:
    """Write the predictions of all folds in the table's order, their scores, and a row per fold."""
    trained = [load_trained(folder / "slivit.safetensors", run.device, options.settings["amp"])
               for folder in folders]
    card = trained[0].card
    scans = fit_to_target(folds[0], card.target)
    pred = np.full((len(scans), len(card.target.labels)), np.nan)
    number = np.zeros(len(scans), dtype=int)
    table = []
    for k, (fold, folder) in enumerate(zip(folds, folders, strict=True), 1):
        rows = fold.rows("test")
        pred[rows] = read_back(folder / "predictions.csv", lambda path, fold=fold: _predictions(
            path, fold, card.target))
        number[rows] = k
        scores = read_back(folder / "metrics.json", lambda path, rows=rows: _mean_scores(
            path, quick_scores(scans.labels[rows], pred[rows], card.target)))
        table.append({"fold": k, **{split: len(fold.rows(split)) for split in SPLITS}, **scores})
    rows = np.flatnonzero(number)
    write_table(options.out_dir / "folds.csv", pd.DataFrame(table))
    LOG.info("\n%s", pd.DataFrame(table).rename(columns=NAMES).to_string(index=False,
                                                                         float_format="%.3f"))
    LOG.info("models: %s", options.out_dir / "fold_*" / "slivit.safetensors")
    how = ReportOptions(options.seed)
    measured = EvaluationResult(
        scans, rows, card.target, "out-of-fold",
        Prediction(pred[rows], np.zeros(len(rows), dtype=bool)),
        choose_thresholds(trained, how.rule))
    write_report(measured, trained, options.out_dir, how, facts={"folds": options.count},
                 columns={"fold": number[rows]})


def read_back(path: Path, read: Callable[[Path], T]) -> T:
    """Return what a fold wrote.

    Raises:
        UserError: it has been damaged since.
    """
    try:
        return read(path)
    except (OSError, ValueError, KeyError, Misfit) as error:
        raise UserError(f"{path}: is not what its fold wrote ({first_line(error)[:200]}). "
                        "Remove it, and continue with --resume: the fold is evaluated "
                        "again") from None


def _predictions(path: Path, fold: ScanTable, target: Target) -> np.ndarray:
    """Return the predictions (n, K) of a fold's test scans."""
    table = read_table(path)  # as text: floats to the last digit
    if table["id"].tolist() != [fold.ids[row] for row in fold.rows("test")]:
        raise ValueError("its ids are not those of the scans that the fold evaluates")
    pred = table[[f"{name}_pred" for name in target.labels]].astype(float).to_numpy()
    low, high = (-np.inf, np.inf) if target.task == "regression" else (0, 1)
    if not np.isfinite(pred).all() or pred.min() < low or pred.max() > high:
        raise ValueError("it contains impossible predictions")
    return pred


def _mean_scores(path: Path, expected: dict[str, float | None]) -> dict[str, float | None]:
    """Return the scores of a fold, the mean over its labels, without intervals.

    `expected` are those that its predictions.csv gives.
    """
    content = parse_object(path.read_bytes())
    scores = from_values(dict[str, Score], {key: value for key, value in content["mean"].items()
                                            if not key.endswith("_ci")})
    if bad := [key for key, value in expected.items() if not _same(scores.get(key), value)]:
        raise ValueError(f"its {', '.join(bad)} do not match the predictions.csv beside it")
    return scores


def _same(a: float | None, b: float | None) -> bool:
    return a is b if a is None or b is None else bool(np.isclose(a, b, rtol=1e-6, atol=1e-9))
