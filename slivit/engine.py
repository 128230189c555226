"""The training loop that both training scripts share, and prediction."""

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from slivit.config import FitOptions, Target
from slivit.datasets import Batch, TrainingSet
from slivit.errors import RunError, UserError, first_line
from slivit.metrics import quick_scores
from slivit.plots import plot_history
from slivit.runtime import LOG, derive_seed, whole_file
from slivit.tasks import loss_per_label, to_predictions

Forward = Callable[[Batch], torch.Tensor]


def parameter_groups(module: nn.Module, lr: float, weight_decay: float) -> list[dict]:
    """Return AdamW groups: weight decay on matrices only, none on biases, norms and embeddings."""
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    embeddings = ("cls_token", "pos_embed", "view_embed")
    plain = [p for name, p in named if p.ndim < 2 or name.endswith(embeddings)]
    skip = {id(p) for p in plain}
    decayed = [p for _, p in named if id(p) not in skip]
    return [{"params": decayed, "lr": lr, "weight_decay": weight_decay},
            {"params": plain, "lr": lr, "weight_decay": 0.0}]


def lr_factor(step: int, warmup: int, total: int) -> float:
    """Return the learning rate's factor: linear warm-up, then half a cosine down to 1 %."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@torch.no_grad()
def predict(forward: Forward, batches: Iterable[Batch], device: torch.device,
            progress: str | None = None,
            total: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels of all batches, both float32 (n, K), in order.

    The caller has put the model in evaluation mode. With `progress`, a bar of that name over the
    `total` number of batches is shown.
    """
    logits, labels = [], []
    for batch in tqdm(batches, desc=progress, total=total, leave=False, disable=progress is None):
        logits.append(forward(batch.to(device)).float().cpu().numpy())
        labels.append(batch.y.numpy())
    return np.concatenate(logits), np.concatenate(labels)


def fit(module: nn.Module, groups: list[dict], forward: Forward, data: TrainingSet,
        target: Target, options: FitOptions, device: torch.device, out_dir: Path,
        save_best: Callable[[int, dict], None], resume: bool = False) -> list[dict]:
    """Train with AdamW, keep the best epoch by validation score, stop early.

    After each epoch `log.csv`, `history.png` and `last.pt` are written whole, and `save_best` is
    called when the validation score (mean ROC-AUC, or R2 for regression) is the best so far; with
    `select="loss"`, or where no label has a score on validation, when the validation loss is.

    Args:
        module: what is trained.
        groups: of parameter_groups; their `lr` is the peak.
        forward: batch on the device -> logits (B, K).
        data: training and validation batches.
        target: gives the loss and the score.
        options: see config.FitOptions.
        device: where batches go.
        out_dir: where files go.
        save_best: called with the epoch and its validation scores.
        resume: go on after the epoch stored in `last.pt`, if there is one.

    Returns:
        The log, a row per epoch.

    Raises:
        RunError: the loss is not finite; the files of the last good epoch stay.
    """
    optimizer = torch.optim.AdamW(groups)
    peaks = [group["lr"] for group in optimizer.param_groups]
    total, warmup = options.n_epochs * data.steps, int(options.warmup_epochs * data.steps)
    score = "r2" if target.task == "regression" else "roc_auc"
    log, best, stale = [], -math.inf, 0
    last = out_dir / "last.pt"
    if resume and last.exists():
        log, best, stale = _load_last(last, module, optimizer, device)
        LOG.info("resuming after epoch %d of %d", len(log), options.n_epochs)
    for epoch in range(len(log) + 1, options.n_epochs + 1):
        if options.patience and stale >= options.patience:
            break
        start = time.monotonic()
        torch.manual_seed(derive_seed(options.seed, epoch))
        train_loss = _train_epoch(module, optimizer, peaks, forward, data.batches(epoch), target,
                                  options, device, (epoch, data.steps, warmup, total), log, score)
        module.eval()
        logits, labels = predict(forward, data.validation(), device, "validation")
        _check_finite(float(np.abs(logits).max()),
                      f"model's outputs became NaN or infinite in epoch {epoch}")
        val_loss = float(loss_per_label(torch.from_numpy(logits), torch.from_numpy(labels), target))
        _check_finite(val_loss, f"validation loss became {val_loss} in epoch {epoch}")
        scores = quick_scores(labels, to_predictions(logits, target), target)
        row = {"epoch": epoch, "lr": optimizer.param_groups[0]["lr"], "train_loss": train_loss,
               "val_loss": val_loss, **{f"val_{key}": value for key, value in scores.items()},
               "best": False, "seconds": round(time.monotonic() - start, 1)}
        by_loss = options.select == "loss" or scores[score] is None
        value = -val_loss if by_loss else scores[score]
        row["best"], stale = (True, 0) if value > best else (False, stale + 1)
        log.append(row)
        if row["best"]:
            best = value
            save_best(epoch, {"val_loss": val_loss, **scores})
        with whole_file(out_dir / "log.csv") as part:
            pd.DataFrame(log).to_csv(part, index=False)
        plot_history(log, score, out_dir / "history.png")
        with whole_file(last) as part:
            torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict(),
                        "log": log, "best": best, "stale": stale}, part)
        LOG.info("epoch %d/%d: training loss %.4f, validation loss %.4f, %s %s%s (%.0f s)", epoch,
                 options.n_epochs, train_loss, val_loss, score,
                 "-" if scores[score] is None else f"{scores[score]:.4f}",
                 ", best so far" if row["best"] else "", row["seconds"])
    if len(log) < options.n_epochs:
        LOG.info("stopped early: no better validation score in %d epochs", options.patience)
    return log


def _train_epoch(module: nn.Module, optimizer: torch.optim.Optimizer, peaks: list[float],
                 forward: Forward, batches: Iterable[Batch], target: Target, options: FitOptions,
                 device: torch.device, clock: tuple[int, int, int, int], log: list[dict],
                 score: str) -> float:
    """Train one epoch and return the mean loss, weighted by batch size."""
    epoch, steps, warmup, total = clock
    module.train()
    loss_sum, seen = 0.0, 0
    bar = tqdm(batches, total=steps, desc=f"epoch {epoch}/{options.n_epochs}", leave=False)
    for i, batch in enumerate(bar):
        factor = lr_factor((epoch - 1) * steps + i, warmup, total)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        batch = batch.to(device)
        loss = loss_per_label(forward(batch), batch.y, target)
        value = float(loss.detach())
        _check_finite(value, f"training loss became {value} in epoch {epoch}, step {i + 1}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if options.clip_grad:
            nn.utils.clip_grad_norm_(module.parameters(), options.clip_grad)
        optimizer.step()
        loss_sum += value * len(batch.y)
        seen += len(batch.y)
        shown = {"loss": f"{loss_sum / seen:.4f}"}
        if log and log[-1].get(f"val_{score}") is not None:
            shown[f"val_{score}"] = f"{log[-1][f'val_{score}']:.4f}"
        bar.set_postfix(shown, refresh=False)
    return loss_sum / seen


def _check_finite(loss: float, what: str) -> None:
    if not math.isfinite(loss):
        raise RunError(f"the {what}; the files of the last good epoch are intact. Lower --lr (and "
                       "--bb_lr), then start again with --overwrite")


def _load_last(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer,
               device: torch.device) -> tuple[list[dict], float, int]:
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return state["log"], state["best"], state["stale"]
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise UserError(f"{path}: cannot be resumed from ({first_line(error)}); start "
                        "again with --overwrite") from None
