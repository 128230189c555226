"""Made-up metrics in the form of metrics.json, and reports that show them."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import confusion_matrix, roc_auc_score

from slivit.config import Target
from slivit.explain.heatmaps import ViewSaliency
from slivit.explain.strips import ScanStrips, make_strips
from slivit.report.html import Case, Report
from slivit.report.plots.draw import plot_scores

POINT = ("sensitivity", "specificity", "ppv", "npv", "f1", "accuracy", "balanced_accuracy")
VALUES = ("r2", "pearson", "spearman", "mae", "rmse")
OVERALL = ("accuracy", "balanced_accuracy", "kappa", "f1_macro", "f1_weighted", "precision_macro",
           "precision_weighted", "roc_auc_weighted", "pr_auc_weighted", "ece_top")


def with_intervals(half: float = 0.04, **scores: float | None) -> dict:
    """Return scores, each with an interval around it."""
    found = {}
    for key, value in scores.items():
        found[key] = value
        found[f"{key}_ci"] = None if value is None else [value - half, value + half]
    return found


def point_of(truth: np.ndarray, pred: np.ndarray, threshold: float) -> dict:
    """Return an operating point with the counts that it has."""
    yes, real = pred >= threshold, truth == 1
    tp, fp = int((yes & real).sum()), int((yes & ~real).sum())
    fn, tn = int((~yes & real).sum()), int((~yes & ~real).sum())
    return {"rule": "youden", "threshold": threshold, "chosen_on": "validation", "tp": tp,
            "fp": fp, "tn": tn, "fn": fn,
            **with_intervals(**dict.fromkeys(POINT, 0.8))
            | with_intervals(sensitivity=tp / (tp + fn), specificity=tn / (tn + fp))}


def binary_scores(truth: np.ndarray, pred: np.ndarray, point: bool = True) -> dict:
    """Return SCORES of a label; undefined ones where it has one class only."""
    known = ~np.isnan(truth)
    truth, pred = truth[known], pred[known]
    both = 0 < truth.sum() < len(truth)
    auc = float(roc_auc_score(truth, pred)) if both else None
    return {"n": len(truth), "n_pos": int(truth.sum()), "prevalence": float(truth.mean()),
            **with_intervals(roc_auc=auc, pr_auc=auc and auc - 0.1, brier=0.11, ece=0.054),
            "roc_auc_delong_ci": auc and [auc - 0.036, auc + 0.036],
            "operating_point": point_of(truth, pred, 0.413) if point and both else None}


def draw_data(target: Target, n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return truth (n, K) with unknown ones, and predictions (n, K) that fit it somewhat."""
    rng = np.random.default_rng(seed)
    count = len(target.labels)
    if target.task == "regression":
        truth = rng.normal(55, 12, (n, count))
        return truth, truth * 0.8 + 10 + rng.normal(0, 5, (n, count))
    if target.task == "multiclass":
        classes = rng.integers(0, count, n)
        truth = np.eye(count)[classes]
        logits = 2 * truth + rng.normal(0, 1, (n, count))
        return truth, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (rng.random((n, count)) < np.linspace(0.2, 0.5, count)).astype(float)
    pred = 1 / (1 + np.exp(-(1.7 * truth - 1.2 + rng.normal(0, 1, (n, count)))))
    truth[rng.random((n, count)) < 0.03] = np.nan
    return truth, pred


def metrics_of(target: Target, truth: np.ndarray, pred: np.ndarray, point: bool = True) -> dict:
    """Return the content of metrics.json."""
    labels = {}
    for k, name in enumerate(target.labels):
        if target.task == "regression":
            labels[name] = {"n": len(truth), **with_intervals(
                r2=0.71, pearson=0.85, spearman=0.84, mae=4.21, rmse=5.33),
                **with_intervals(0.6, bias=-0.73, loa_low=-11.2, loa_high=9.76)}
        else:
            labels[name] = binary_scores(truth[:, k], pred[:, k], point)
    keys = VALUES if target.task == "regression" else ("roc_auc", "pr_auc", "brier", "ece")
    mean = {}
    for key in keys:
        values = [scores[key] for scores in labels.values() if scores[key] is not None]
        mean |= with_intervals(0.02, **{key: float(np.mean(values)) if values else None})
    metrics = {"split": "test", "n": len(truth), "n_groups": len(truth) // 2, "task": target.task,
               "labels": labels, "mean": mean,
               "bootstrap": {"replicates": 2000, "seed": 0, "level": 0.95},
               "data": "sites.csv", "intervals_by": "patient", "blank_scans": [], "models": 1}
    if target.task == "multiclass":
        metrics["mean"] |= with_intervals(**dict.fromkeys(OVERALL, 0.77))
        counts = confusion_matrix(truth.argmax(axis=1), pred.argmax(axis=1))
        metrics["confusion"] = {"labels": list(target.labels), "counts": counts.tolist()}
    return metrics


def add_groups(metrics: dict, target: Target, truth: np.ndarray, pred: np.ndarray, column: str,
               names: list[str]) -> None:
    """Add the scores of made-up groups."""
    parts = np.array_split(np.arange(len(truth)), len(names))
    metrics["by_group"] = {"column": column, "groups": {
        name: metrics_of(target, truth[rows], pred[rows]) for name, rows in
        zip(names, parts, strict=True)}}


def add_comparison(metrics: dict, a: str, b: str) -> None:
    """Add a comparison of two models."""
    metrics["comparison"] = [
        {"label": label, "score": key, "a": a, "b": b, "value_a": 0.861, "value_b": 0.893,
         "difference": 0.032, "difference_ci": [0.011, 0.052], "p_bootstrap": 0.004,
         "p_bootstrap_holm": 0.012, "p_delong": 0.0004 if key == "roc_auc" else None,
         "p_delong_holm": 0.0012 if key == "roc_auc" else None}
        for label in metrics["labels"] for key in ("roc_auc", "pr_auc")]


def scan_picture(path: Path, width: int = 656, height: int = 328, seed: int = 0) -> Path:
    """Write a PNG of smooth noise, as of slices."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    small = Image.fromarray(rng.integers(0, 255, (12, 24), dtype=np.uint8))
    small.resize((width, height)).save(path)
    return path


def sample_look(view: str = "acquisition", count: int = 5, explained: bool = True
                ) -> ViewSaliency:
    """Return slices of 48 x 32 pixels, each of one grey, 20 brighter than the one before.

    The model looked at the left half of them, most at the last slice.
    """
    slices = np.zeros((count, 1, 48, 32), np.uint8)
    slices += (20 + 20 * np.arange(count, dtype=np.uint8))[:, None, None, None]
    look = ViewSaliency(view, (2 * count, 96, 64), 2 * np.arange(count), slices, (96.0, 64.0))
    if not explained:
        return look
    weights = np.arange(1, count + 1) / np.arange(1, count + 1).sum()
    cams = np.zeros((count, 2, 2)) + (1, 0)
    return dataclasses.replace(look, rollout=weights[::-1], relevance=weights, cams=cams, cell=0.5)


def sample_strips(explained: bool = True) -> ScanStrips:
    """Return the strips of a scan of two views, of 5 and of 3 slices."""
    return make_strips([sample_look("axial", 5, explained), sample_look("coronal", 3, explained)])


def sample_report(folder: Path, target: Target, groups: list[str], title: str,
                  point: bool = True, column: str = "site", plots: bool = True) -> Report:
    """Return a report with something in every section, its pictures in `folder`."""
    truth, pred = draw_data(target)
    metrics = metrics_of(target, truth, pred, point)
    if groups:
        add_groups(metrics, target, truth, pred, column, groups)
    if target.task != "regression":
        add_comparison(metrics, "runs/imagenet/slivit.safetensors",
                       "runs/kermany_pretrained_seed_1/slivit.safetensors")
    before = None if target.task == "regression" else pred ** 1.6
    files = plot_scores(truth, pred, target, metrics, folder, before) if plots else []
    cohort = pd.DataFrame({
        "": ["Scans", "Patients", "Age, mean", "Women", "Unknown"],
        "Training": [1204, 611, 63.217, "311 (51 %)", None],
        "Validation": [251, 130, 62.9, "70 (54 %)", None],
        "Test": [300, 150, 64.08, "74 (49 %)", 3]})
    worst = tuple(Case(
        f"volume_{i:03d}_OD: {target.labels[i % len(target.labels)]} missed",
        (("Truth", "1"), ("Predicted", "0.031"), ("Threshold", "0.413"), ("Patient", f"P{i:04d}")),
        scan_picture(folder / "worst" / f"{i + 1}.png", seed=i)) for i in range(5))
    return Report(
        title, (
            ("Model", "SLIViT, convnext_tiny, 28 slices, 23.4 million parameters"),
            ("Data", "three_sites.csv, split test: 300 scans of 150 patients"),
            ("Labels", ", ".join(target.labels)), ("Task", target.task),
            ("Checkpoint", "runs/kermany_pretrained_seed_1/slivit.safetensors")),
        cohort, metrics, tuple(files), worst,
        tuple(Case(f"volume_{i}: {target.labels[0]}, right", (("Predicted", "0.9"),),
                   scan_picture(folder / "explain" / f"right_{i}.png", 1200, 500, i))
              for i in range(2)),
        (("Intended use", "Research on macular volumes of adults; not for the care of patients."),
         ("Trained on", "1,204 volumes of 611 patients, seed 1"),
         ("Epoch kept", "14 of 30, by validation ROC-AUC 0.903")),
        (("Command", "python evaluate.py --checkpoint runs/kermany_pretrained_seed_1/"
          "slivit.safetensors --meta_csv /mnt/research/studies/2026/three_sites.csv --split test "
          "--operating_point youden --group_by site --explain 2"),
         ("Checkpoint SHA-256", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
         ("Data fingerprint", "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"),
         ("Versions", "slivit 0.5.0, python 3.11.9, torch 2.8.0, timm 1.0.24, numpy 2.3.4")),
        ("2 of 300 scans show nothing in the window (all pixels are equal) and are scored "
         "nevertheless: volume_017_OS, volume_203_OD.",
         "7 of 150 patients have ids that also appear in the training data of the checkpoint."))
