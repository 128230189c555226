"""Logistic regression on the features of a frozen backbone: the plainest baselines of volumes."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.networks import CPU
from benchmarks.nodules import Fold, as_scans
from benchmarks.tasks import SMALLEST, Result, Task, pretrain
from slivit.checkpoints.pretrained import PretrainedBackbone, choose_start, read_start
from slivit.config import IntegratorConfig, Preprocess
from slivit.data.batch import model_inputs
from slivit.data.datasets import ScanDataset, make_loader
from slivit.models.slivit import SLIViT
from slivit.utils.files import atomic_write

LOGISTIC = {"Cs": 10, "scoring": "neg_log_loss", "max_iter": 2000}
INNER_FOLDS = 5  # in which the strength of the penalty is chosen
RANDOM = "convnext_atto_bn"
SIZE = 64  # pixels a side


def frozen_logistic(task: Task) -> Result:
    """Probe the plain recipe's backbone, which has seen images of all the fold's patients."""
    path, before = pretrain(task)
    return _probe_backbone(task, read_start(path), path.parent / "features.npz", before)


def probe_few_images(task: Task) -> Result:
    """Probe a backbone that has seen no more patients than there are volumes of."""
    return frozen_logistic(dataclasses.replace(task, pretraining=task.fold))


def probe_random(task: Task, window: str = "full") -> Result:
    """Probe a backbone that has learned nothing."""
    name = SMALLEST.split()[-1] if task.quick else RANDOM
    return _probe_backbone(task, choose_start("none", name),
                           task.scratch / "random" / f"{name}_seed_{task.seed}_{window}.npz",
                           window=window)


def _probe_backbone(task: Task, start: PretrainedBackbone, stored: Path, before: float = 0.0,
                    window: str = "full") -> Result:
    """Probe a backbone; the features of all scans, which all folds share, go to `stored`."""
    if not stored.exists():
        began = time.process_time()
        features = pooled_features(start, task.fold, task.seed, window)
        stored.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(stored) as part, part.open("wb") as file:
            np.savez(file, features=features, seconds=time.process_time() - began)
    with np.load(stored) as arrays:
        features, seconds = arrays["features"], float(arrays["seconds"])
    began = time.process_time()
    pred = probe(features, task.fold, task.seed)
    return Result(pred, (features.shape[1] + 1) * pred.shape[1],
                  before + seconds + time.process_time() - began)


def probe(features: np.ndarray, fold: Fold, seed: int) -> np.ndarray:
    """Fit logistic regression, a model for each label, on the fold's training and validation rows.

    The strength of its L2 penalty is chosen within them, in folds by patient.

    Args:
        features: (n, F), of all scans of the fold.
        fold: the data, with 0/1 labels.
        seed: of the inner folds.

    Returns:
        (n, K) probabilities of the fold's test rows, in the table's order.
    """
    known, test = fold.rows("train", "val"), fold.rows("test")
    table = fold.scans.table
    patients = table["patient" if "patient" in table else "nodule"].to_numpy()[known]
    preds = []
    for truth in fold.truth[known].T:
        count = min(INNER_FOLDS, int(truth.sum()), int((1 - truth).sum()))
        if count > 1:
            parts = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
            inner = list(parts.split(features[known], truth, patients))
            model = LogisticRegressionCV(**LOGISTIC, cv=inner)
        else:  # a class of one scan cannot be divided
            model = LogisticRegression(max_iter=LOGISTIC["max_iter"])
        model = make_pipeline(StandardScaler(), model).fit(features[known], truth)
        preds.append(model.predict_proba(features[test])[:, 1])
    return np.stack(preds, axis=1)


@torch.no_grad()
def pooled_features(start: PretrainedBackbone, fold: Fold, seed: int, window: str = "full"
                    ) -> np.ndarray:
    """Return mean and maximum over the slices of their features, (n, 2 F) float32, of all scans.

    Args:
        start: the weights.
        fold: the scans; all their slices are real.
        seed: of weights that are random.
        window: see config.Preprocess.
    """
    torch.manual_seed(seed)
    n_slices = fold.scans.scans.shape[1]
    preprocess = Preprocess(SIZE, window, start.mean, start.std, n_slices=n_slices)
    model = SLIViT(start.backbone, 1, preprocess, IntegratorConfig(token="pool"))
    start.load_into(model.backbone)
    model.eval()
    dataset = ScanDataset(as_scans(fold), np.arange(len(fold.scans)), preprocess)
    features = torch.cat([model.slice_features(*model_inputs(batch, preprocess))
                          for batch in make_loader(dataset, 32, 0, CPU)])
    return torch.cat([features.mean(dim=1), features.amax(dim=1)], dim=1).numpy()
