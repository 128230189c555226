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
from slivit.data.samplers import interleave
from slivit.metrics.evaluation import quick_scores
from slivit.models.outputs import to_predictions
from slivit.prediction import predict
from slivit.report.formatting import NAMES
from slivit.report.plots.draw import plot_history
from slivit.training.losses import Objective, plain_loss
from slivit.training.optim import moving_average
from slivit.training.progress import Progress
from slivit.training.resume import restore, save_state
from slivit.training.train_step import Loop, Phase, check_finite, start_phase, train_epoch
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
            model with the weights to keep, and what that gave on validation.
        track: called with each row of the log.
    """

    folder: Path
    save_best: Callable[[int, dict, nn.Module, Validation], None]
    track: Callable[[dict], None] | None = None


def fit(model: nn.Module, phases: list[Phase], objective: Objective, options: FitOptions,
        run: Session, outputs: Outputs, start: tuple[Progress, dict] | None = None) -> list[dict]:
    """Train with AdamW, keep the best epoch by validation score, stop early.

    After each epoch `log.csv`, `history.png` and `last.pt` are written whole, and `save_best` is
    called when the validation score (mean ROC-AUC, or R2 for regression) is the best so far; with
    `select="loss"`, or where no label has a score on validation, when the validation loss is.

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
        logits, labels = _validate(loop, model)
    except Stopped:
        with loop.run.stop.deferred():
            save()
        raise
    row = _log_row(loop, progress, logits, labels)
    own = len(loop.objective.scored.labels)
    row["seconds"] = round(time.monotonic() - start, 1)
    score = score_name(loop.objective)
    by_loss = options.select == "loss" or row[f"val_{score}"] is None
    value = -row["val_loss"] if by_loss else row[f"val_{score}"]
    row["best"] = value > progress.best
    progress.stale = 0 if row["best"] else progress.stale + 1
    progress.log.append(row)
    if row["best"]:
        progress.best = value
        if world.is_main:
            scores = {key.removeprefix("val_"): kept for key, kept in row.items()
                      if key.startswith("val_")}
            outputs.save_best(progress.epoch, {"val_loss": scores.pop("loss"), **scores}, model,
                      Validation(logits[:, :own], labels[:, :own]))
    write_log(progress.log, loop.objective, outputs.folder, loop.run)
    if world.is_main and outputs.track is not None:
        outputs.track(row)
    progress.epoch, progress.step = progress.epoch + 1, 0
    progress.loss_sum, progress.seen, progress.seconds = 0.0, 0, 0.0
    save_state(last, progress, loop.parts(), world)
    left = float(np.mean([one["seconds"] for one in progress.log])) * (
        options.n_epochs - progress.epoch + 1)
    LOG.info("epoch %d/%d: training loss %.4f, validation loss %.4f, %s %s%s (%.0f s%s)",
             row["epoch"], options.n_epochs, row["train_loss"], row["val_loss"], NAMES[score],
             "-" if row[f"val_{score}"] is None else f"{row[f'val_{score}']:.4f}",
             ", best so far" if row["best"] else "", row["seconds"],
             f", {_duration(left)} left" if left else "")


def _validate(loop: Loop, model: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels of all validation scans, from all processes, in order."""
    run, phase = loop.run, loop.phase
    module = model.eval().get_submodule(phase.part)
    with run.stop.allowed(run.world):
        shares = predict(lambda batch: module(*phase.data.inputs(batch)),
                         phase.data.validation(), run.device,
                         "validation" if run.world.is_main and not run.quiet else None)
    run.stop.check(run.world)
    logits, labels = (interleave(run.world.all_gather(share)) for share in shares)
    return logits, labels


def _log_row(loop: Loop, progress: Progress, logits: np.ndarray, labels: np.ndarray) -> dict:
    target = loop.objective.target
    check_finite(float(np.abs(logits).max()),
                 f"model's outputs became NaN or infinite in epoch {progress.epoch}")
    val_loss = plain_loss(logits, labels, target)
    check_finite(val_loss, f"validation loss became {val_loss} in epoch {progress.epoch}")
    scored = loop.objective.scored
    own = len(scored.labels)
    scores = quick_scores(labels[:, :own], to_predictions(logits, target)[:, :own], scored)
    return {"epoch": progress.epoch, "lr": loop.optimizer.param_groups[0]["lr"],
            "train_loss": progress.loss_sum / max(1, progress.seen), "val_loss": val_loss,
            **{f"val_{key}": value for key, value in scores.items()}, "best": False}


def write_log(log: list[dict], objective: Objective, out_dir: Path, run: Session) -> None:
    """Write `log.csv` and `history.png`, of the epochs that are finished."""
    if not log or not run.world.is_main:
        return
    with atomic_write(out_dir / "log.csv") as part:
        pd.DataFrame(log).to_csv(part, index=False)
    plot_history(log, score_name(objective), out_dir / "history.png")


def score_name(objective: Objective) -> str:
    """Return the name of the score by which an epoch is kept."""
    return "r2" if objective.target.task == "regression" else "roc_auc"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
