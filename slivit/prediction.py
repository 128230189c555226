"""Predictions of trained models: plain, averaged over flips and models, and how far they vary."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from slivit.checkpoints.header import CheckpointHeader
from slivit.checkpoints.trained import Trained
from slivit.data.batch import Batch, model_inputs
from slivit.data.datasets import ScanDataset, make_loader
from slivit.data.samplers import interleave
from slivit.data.scan_table import ScanTable
from slivit.models.outputs import to_predictions
from slivit.models.slivit import SLIViT
from slivit.utils.errors import RunError, UserError, listing
from slivit.utils.runtime import derive_seed
from slivit.utils.session import Session

Forward = Callable[[Batch], torch.Tensor]


@dataclass(frozen=True)
class InferenceOptions:
    """What is done at test time besides a single pass.

    Attributes:
        flips: average over every combination of the flips used in training.
        mc_dropout: passes with dropout, of which the standard deviation is reported; 0 for none.
        calibrate: divide logits by the checkpoint's temperature.
        seed: of the dropout.
    """

    __test__ = False  # no test, whatever its name begins with

    flips: bool = False
    mc_dropout: int = 0
    calibrate: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Prediction:
    """Predictions of some rows, in order.

    Attributes:
        pred: float64 (n, K) probabilities, or values in the label's own unit.
        blank: bool (n,), whether the model was shown zeros only.
        uncalibrated: (n, K), what `pred` would be without temperature; None where none is used.
        std: (n, K) standard deviation over passes with dropout, or None.
    """

    pred: np.ndarray
    blank: np.ndarray
    uncalibrated: np.ndarray | None = None
    std: np.ndarray | None = None


def check_test_time(trained: Trained, how: InferenceOptions) -> None:
    """Refuse what a checkpoint cannot do at test time.

    Raises:
        UserError: saying what it lacks.
    """
    card = trained.card
    if card.integrator and not card.integrator.tokens_are_slices:
        for flag, wanted, lack in (("tta flips", how.flips, "which flips it was trained with"),
                                   ("mc_dropout", how.mc_dropout, "which dropout it had"),
                                   ("calibrate", how.calibrate, "what it predicted on validation")):
            if wanted:
                raise UserError(f"--{flag}: {trained.path} is a model of the original SLIViT, and "
                                f"it is not known {lack}; omit --{flag.split()[0]}")
    if how.flips and not flip_letters(card):
        raise UserError(f"--tta flips: {trained.path} was trained without flips" if card.training
                        else f"--tta flips: {trained.path} does not say which flips it was trained "
                        "with; train it with this version, or omit --tta")
    if how.mc_dropout and not (card.integrator and (card.integrator.dropout
                                                    or card.integrator.emb_dropout)):
        raise UserError(f"--mc_dropout: {trained.path} has no dropout; train a model with "
                        "--dropout or --emb_dropout")
    if how.calibrate and card.temperature is None:
        raise UserError(f"--calibrate: {trained.path} contains no temperature: it is a regression "
                        "model, was written by an earlier version, or had no labels to fit it on")


def flip_letters(card: CheckpointHeader) -> str:
    """Return the flips used in training, letters of z, v and h; none where it is not known."""
    return card.training.get("augmentation", {}).get("flips", "")


def predict_scans(trained: Trained, scans: ScanTable, rows: np.ndarray, run: Session, b_size: int,
                  what: str, how: InferenceOptions = InferenceOptions()) -> Prediction:
    """Predict rows in order, each once; every process its share.

    Args:
        trained: its own pre-processing is applied.
        scans, rows: what to predict.
        run: where it runs.
        b_size: scans at a time.
        what: named by the progress bar.
        how: see InferenceOptions. Probabilities, not logits, are averaged over flips. Passes with
            dropout are of the plain scan (Gal & Ghahramani 2016, section 4).

    Raises:
        RunError: outputs that are not finite, naming the scans.
    """
    model, target = trained.model.eval(), trained.card.target
    share = run.world.shard(rows)
    loader = make_loader(ScanDataset(scans, share, model.preprocess), b_size, run.n_workers,
                         run.device)
    flips = flip_transforms(flip_letters(trained.card)) if how.flips else [None]
    shown = run.world.is_main and not run.quiet

    def predict_share() -> tuple[np.ndarray, np.ndarray]:
        if not len(share):
            width = (len(flips) + how.mc_dropout) * len(target.labels)
            return np.empty((0, width), np.float32), np.empty(0, dtype=bool)
        blank: list[bool] = []
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(how.seed, run.world.rank))
            passes, _ = predict(_passes(model, flips, how.mc_dropout), _note_blank(loader, blank),
                                run.device, f"predict {what}" if shown else None, len(loader))
        return passes, np.array(blank, dtype=bool)

    passes, blank = map(interleave, zip(*run.world.gather_work(predict_share), strict=True))
    logits = passes.reshape(len(passes), -1, len(target.labels)).swapaxes(0, 1)
    check_finite(logits, [scans.ids[row] for row in rows], trained.path)

    def values(some: np.ndarray, temperature: float) -> np.ndarray:
        return np.stack([to_predictions(one, target, temperature) for one in some])

    temperature = trained.card.temperature if how.calibrate else 1.0
    plain, dropped = logits[:len(flips)], logits[len(flips):]
    return Prediction(
        values(plain, temperature).mean(axis=0), blank,
        values(plain, 1.0).mean(axis=0) if how.calibrate else None,
        values(dropped, temperature).std(axis=0) if how.mc_dropout else None)


def check_finite(logits: np.ndarray, ids: list[str], path: Path) -> None:
    """Refuse logits (P, n, K) of n scans that are not finite.

    Raises:
        RunError: naming the scans.
    """
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=(0, 2)))
    if len(bad):
        error = RunError(
            f"{path}: its outputs for {len(bad)} of {len(ids)} scans are NaN or infinite:\n"
            f"{listing(ids[i] for i in bad)}\n"
            + ("That is all of them, so its weights are the likely cause: evaluate a "
               "checkpoint of another run" if len(bad) == len(ids) else
               "Check these scans, and evaluate without them, or with a checkpoint of another "
               "run"))
        error.by_one = False  # every process has all outputs
        raise error


def average(predictions: list[Prediction]) -> Prediction:
    """Return the mean of several models' predictions.

    The variance is the mean of theirs and the variance among them.
    """
    pred = np.stack([one.pred for one in predictions])
    std = None
    if predictions[0].std is not None:
        std = np.sqrt(np.mean([one.std ** 2 for one in predictions], axis=0) + pred.var(axis=0))
    raw = [one.uncalibrated for one in predictions]
    return Prediction(pred.mean(axis=0), np.all([one.blank for one in predictions], axis=0),
                      None if raw[0] is None else np.mean(raw, axis=0), std)


def flip_transforms(letters: str) -> list[torch.Tensor | None]:
    """Return every combination of flips as transforms.augment takes it; None for no flip."""
    choices = [(0.0, 1.0) if letter in letters else (0.0,) for letter in "zvh"]
    return [torch.tensor([*flips, *[0.0] * 6], dtype=torch.float64) if any(flips) else None
            for flips in product(*choices)]


def _passes(model: nn.Module, flips: list[torch.Tensor | None],
            mc_dropout: int) -> Callable[[Batch], torch.Tensor]:
    """Return Batch -> logits (B, P * K) of P passes: one for each flip, then those with dropout."""
    def forward(batch: Batch) -> torch.Tensor:
        logits = []
        for flip in flips:
            batch.transforms = None if flip is None else flip.expand(len(batch.x), -1)
            logits.append(run_model(model, batch))
        batch.transforms = None
        if mc_dropout:
            logits += _dropout_passes(model, batch, mc_dropout)
        return torch.cat(logits, dim=1)

    return forward


def _dropout_passes(model: SLIViT, batch: Batch, count: int) -> list[torch.Tensor]:
    features, mask = model.token_features(*model_inputs(batch, model.preprocess))
    model.integrator.train()
    logits = [model.integrator(features, mask) for _ in range(count)]
    model.integrator.eval()
    return logits


def _note_blank(batches: Iterable[Batch], blank: list[bool]) -> Iterator[Batch]:
    """Pass batches on, and note of each scan whether all of its pixels are 0."""
    for batch in batches:
        blank += (batch.x.flatten(1).amax(dim=1) == 0).tolist()
        yield batch


def run_model(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return the logits (B, K) of a batch on the model's device."""
    return model(*model_inputs(batch, model.preprocess))


@torch.no_grad()
def predict(forward: Forward, batches: Iterable[Batch], device: torch.device,
            progress: str | None = None,
            total: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return logits and labels of all batches, both float32 (n, K), in order.

    The caller has put the model in evaluation mode. With `progress`, a bar of that name over the
    `total` number of batches is shown.
    """
    logits, labels, waiting = [], [], []
    for batch in tqdm(batches, desc=progress, total=total, leave=False,
                      disable=progress is None or None):
        waiting.append(forward(batch.to(device)))
        labels.append(batch.y.numpy())
        if len(waiting) > 1:  # so that a GPU computes while the next batch is loaded and copied
            logits.append(waiting.pop(0).cpu().numpy())
    logits += [one.cpu().numpy() for one in waiting]
    return np.concatenate(logits), np.concatenate(labels)
