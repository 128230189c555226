"""The training loop that both training scripts share."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from slivit.checkpoints.checkpoint import Validation
from slivit.config import FitOptions
from slivit.report.formatting import NAMES
from slivit.report.plots.draw import plot_history
from slivit.training.losses import Objective, Validated, check_finite
from slivit.training.optim import moving_average
from slivit.training.progress import Progress
from slivit.training.resume import restore, save_state
from slivit.training.train_step import Loop, Phase, start_phase, train_epoch
from slivit.utils.files import atomic_write
from slivit.utils.log import LOG
from slivit.utils.session import Session
from slivit.utils.signals import Stopped


@dataclass(frozen=True)
class Outputs:
    """Where goes what an epoch gives.

    Attributes:
        folder: gets log.csv, history.png and last.pt.
        save_best: called after an epoch that is the best so far, with its number, its scores, the
            model with the weights to keep, and what that gave on validation, if it predicts.
        track: called with each row of the log.
    """

    folder: Path
    save_best: Callable[[int, dict, nn.Module, Validation | None], None]
    track: Callable[[dict], None] | None = None


def fit(model: nn.Module, phases: list[Phase], objective: Objective, options: FitOptions,
        run: Session, outputs: Outputs, start: tuple[Progress, dict] | None = None) -> list[dict]:
    """Train with AdamW, keep the best epoch by validation score, stop early.

    After each epoch `log.csv`, `history.png` and `last.pt` are written whole, and `save_best` is
    called when the validation score (mean ROC-AUC, or R2 for regression) is the best so far; with
    `select="loss"`, or where no label has a score on validation, when the validation loss is; and
    with `select="last"` always.

    Args:
        model: on the device.
        phases: one after the other; each with an optimizer and a learning-rate curve of its own.
            Early stopping is the last one's.
        objective: gives the loss and the score.
        options: see config.FitOptions.
        run: device, processes, signals.
        outputs: where the results of each epoch go.
        start: where an earlier run stands, of resume.find_state; None to begin.

    Returns:
        The log, a row per epoch.

    Raises:
        RunError: the loss is not finite; the last good files stay.
        Stopped: a signal came; `last.pt` holds the last whole step.
    """
    progress, saved = start or (Progress(), None)
    if saved is not None:
        write_log(progress.log, objective, outputs.folder, run)  # it may have been damaged since
        LOG.info("resuming after %s", f"epoch {progress.epoch - 1} of {options.n_epochs}" if not
                 progress.step else f"step {progress.step} of epoch {progress.epoch}")
    ema = moving_average(model, options.ema) if options.ema else None
    if options.compile:
        model.compile()
    for number, phase in enumerate(phases):
        if progress.epoch > phase.last:
            continue
        loop = start_phase(model, ema, phase, objective, options, run)
        if saved is not None:
            parts = loop.parts()
            if progress.phase != number:
                parts = {"model": model, "ema": ema}
            restore(outputs.folder / "last.pt", saved, parts, run.world)
            saved = None
        if progress.phase != number:
            progress.phase, progress.stale = number, 0
        patience = options.patience if phase is phases[-1] else 0
        with run.stop.deferred(), _closing(phase, run):
            while progress.epoch <= phase.last and not (patience and progress.stale >= patience):
                _epoch(loop, progress, outputs)
    if len(progress.log) < options.n_epochs:
        LOG.info("stopped early: no better validation score in %d epochs", options.patience)
    return progress.log


@contextlib.contextmanager
def _closing(phase: Phase, run: Session) -> Iterator[None]:
    """End the loading processes with this block; a signal ends them without waiting, see errors."""
    try:
        yield
    finally:
        if not run.stop.received:
            phase.data.close()


def _epoch(loop: Loop, progress: Progress, outputs: Outputs) -> None:
    """Train what is left of an epoch, validate, and write."""
    options, world, last = loop.options, loop.run.world, outputs.folder / "last.pt"
    start = time.monotonic() - progress.seconds

    def save() -> None:
        progress.seconds = time.monotonic() - start
        save_state(last, progress, loop.parts(), world)

    try:
        train_epoch(loop, progress, save)
        model = loop.model if loop.ema is None else loop.ema.module
        module = model.eval().get_submodule(loop.phase.part)
        found = loop.objective.validate(module, loop.phase.data, loop.run, progress.epoch)
    except Stopped:
        with loop.run.stop.deferred():
            save()
        raise
    row = _log_row(loop, progress, found)
    row["seconds"] = round(time.monotonic() - start, 1)
    value = _value(row, options.select, loop.objective.score)
    row["best"] = value > progress.best
    progress.stale = 0 if row["best"] else progress.stale + 1
    progress.log.append(row)
    if row["best"]:
        progress.best = value
        if world.is_main:
            scores = {key.removeprefix("val_"): kept for key, kept in row.items()
                      if key.startswith("val_")}
            outputs.save_best(progress.epoch, {"val_loss": scores.pop("loss"), **scores}, model,
                              found.outputs)
    write_log(progress.log, loop.objective, outputs.folder, loop.run)
    if world.is_main and outputs.track is not None:
        outputs.track(row)
    progress.epoch, progress.step = progress.epoch + 1, 0
    progress.loss_sum, progress.seen, progress.seconds = 0.0, 0, 0.0
    save_state(last, progress, loop.parts(), world)
    left = float(np.mean([one["seconds"] for one in progress.log])) * (
        options.n_epochs - progress.epoch + 1)
    LOG.info("epoch %d/%d: training loss %.4f, validation loss %.4f%s%s (%.0f s%s)",
             row["epoch"], options.n_epochs, row["train_loss"], row["val_loss"],
             _score_text(row, loop.objective.score),
             ", best so far" if row["best"] and options.select != "last" else "", row["seconds"],
             f", {_duration(left)} left" if left else "")


def _log_row(loop: Loop, progress: Progress, found: Validated) -> dict:
    check_finite(found.loss, f"validation loss became {found.loss} in epoch {progress.epoch}")
    return {"epoch": progress.epoch, "lr": loop.optimizer.param_groups[0]["lr"],
            "train_loss": progress.loss_sum / max(1, progress.seen), "val_loss": found.loss,
            **{f"val_{key}": value for key, value in found.scores.items()}, "best": False}


def _value(row: dict, select: str, score: str | None) -> float:
    """Return by what an epoch is kept, the highest; see config.FitOptions.select."""
    if select == "last":
        return float(row["epoch"])
    known = row.get(f"val_{score}")
    return -row["val_loss"] if select == "loss" or known is None else known


def _score_text(row: dict, score: str | None) -> str:
    if score is None:
        return ""
    value = row[f"val_{score}"]
    return f", {NAMES[score]} {'-' if value is None else f'{value:.4f}'}"


def write_log(log: list[dict], objective: Objective, out_dir: Path, run: Session) -> None:
    """Write `log.csv` and `history.png`, of the epochs that are finished."""
    if not log or not run.world.is_main:
        return
    with atomic_write(out_dir / "log.csv") as part:
        pd.DataFrame(log).to_csv(part, index=False)
    plot_history(log, objective.score, out_dir / "history.png")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
