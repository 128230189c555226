"""Scores with 95 % intervals, and the predictions table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import pearsonr
from sklearn import metrics as sk

from slivit import bootstrap
from slivit.config import Target
from slivit.scans import Scans

N_BOOT = 1000


def point_scores(truth: np.ndarray, pred: np.ndarray, task: str) -> dict[str, float | None]:
    """Score one label.

    Args:
        truth: (n,) known labels.
        pred: (n,) probabilities, or values for regression.
        task: of config.TASKS.

    Returns:
        n, n_pos, prevalence, roc_auc, pr_auc, brier; or n, r2, pearson, mae, rmse. A score that
        the rows do not define (one class only, fewer than two different values) is None.
    """
    if task == "regression":
        spread = len(truth) > 1 and np.ptp(truth) > 0
        error = truth - pred
        return {
            "n": len(truth),
            "r2": float(sk.r2_score(truth, pred)) if spread else None,
            "pearson": float(pearsonr(truth, pred)[0]) if spread and np.ptp(pred) > 0 else None,
            "mae": float(np.abs(error).mean()) if len(truth) else None,
            "rmse": float(np.sqrt((error ** 2).mean())) if len(truth) else None,
        }
    n, n_pos = len(truth), int(truth.sum())
    both = 0 < n_pos < n
    return {
        "n": n,
        "n_pos": n_pos,
        "prevalence": n_pos / n if n else None,
        "roc_auc": float(sk.roc_auc_score(truth, pred)) if both else None,
        "pr_auc": float(sk.average_precision_score(truth, pred)) if both else None,
        "brier": float(sk.brier_score_loss(truth, pred)) if n else None,
    }


def mean_scores(labels: dict[str, dict]) -> dict[str, float | None]:
    """Return the unweighted mean over the labels that have a score, for every score."""
    first = next(iter(labels.values()))
    means = {}
    for key in first:
        if key in ("n", "n_pos", "prevalence") or key.endswith("_ci"):
            continue
        values = [scores[key] for scores in labels.values() if scores[key] is not None]
        means[key] = float(np.mean(values)) if values else None
    return means


def quick_scores(truth: np.ndarray, pred: np.ndarray, target: Target) -> dict[str, float | None]:
    """Return the mean scores over labels without intervals (after each epoch).

    Args:
        truth: (n, K), NaN where unknown.
        pred: (n, K) probabilities or values.
        target: what the columns are.
    """
    known = ~np.isnan(truth)
    return mean_scores({name: point_scores(truth[known[:, k], k], pred[known[:, k], k],
                                           target.task)
                        for k, name in enumerate(target.labels)})


def evaluate(truth: np.ndarray, pred: np.ndarray, target: Target, groups: Sequence[str],
             split: str, seed: int = 0, n_boot: int = N_BOOT) -> dict:
    """Return the content of `metrics.json`.

    Intervals are percentile bootstrap intervals over whole groups (Efron & Tibshirani 1993,
    chapter 13; clusters as in Field & Welsh 2007); for a single binary label the groups are drawn
    within those with and those without a positive.

    Args:
        truth: (n, K), NaN where unknown.
        pred: (n, K) probabilities or values.
        target: what the columns are.
        groups: patient (or row id) of each row.
        split: name of the split, to be recorded.
        seed: of the bootstrap.
        n_boot: replicates.
    """
    strata = truth[:, 0] == 1 if target.task == "binary" else None
    counts, member = bootstrap.cluster_counts(groups, strata, n_boot, seed)
    labels, draws = {}, {}
    for k, name in enumerate(target.labels):
        known = ~np.isnan(truth[:, k])
        t, p = truth[known, k].astype(np.float64), pred[known, k]
        scores = point_scores(t, p, target.task)
        for key, scorer in _scorers(t, p, target.task).items():
            replicates = np.full(n_boot, np.nan)
            if scores[key] is not None:
                replicates = bootstrap.replicate(scorer, counts, member[known])
            draws.setdefault(key, []).append(replicates)
            scores[f"{key}_ci"] = bootstrap.interval(replicates)
        labels[name] = scores
    mean = mean_scores(labels)
    for key, replicates in draws.items():
        defined = [r for r in replicates if np.isfinite(r).any()]
        mean[f"{key}_ci"] = bootstrap.interval(np.mean(defined, axis=0)) if defined else None
    if target.task == "multiclass":
        known = ~np.isnan(truth).any(axis=1)
        right = (truth[known].argmax(axis=1) == pred[known].argmax(axis=1)).astype(np.float64)
        mean["accuracy"] = float(right.mean()) if len(right) else None
        mean["accuracy_ci"] = bootstrap.interval(bootstrap.replicate(
            bootstrap.weighted_mean(right), counts, member[known])) if len(right) else None
    return {"split": split, "n": len(truth), "n_groups": int(member.max()) + 1,
            "task": target.task, "labels": labels, "mean": mean,
            "bootstrap": {"replicates": n_boot, "seed": seed, "level": 0.95}}


def _scorers(truth: np.ndarray, pred: np.ndarray, task: str) -> dict:
    if len(truth) == 0:
        keys = ("r2", "pearson", "mae", "rmse") if task == "regression" else (
            "roc_auc", "pr_auc", "brier")
        return dict.fromkeys(keys)
    if task == "regression":
        return bootstrap.regression_scorers(truth, pred)
    roc_auc, pr_auc = bootstrap.ranking_scorer(truth, pred)
    return {"roc_auc": roc_auc, "pr_auc": pr_auc,
            "brier": bootstrap.weighted_mean((truth - pred) ** 2)}


def predictions_table(scans: Scans, rows: np.ndarray, pred: np.ndarray, target: Target,
                      with_split: bool = False) -> pd.DataFrame:
    """Return the content of `predictions.csv`: a row per scan, in the data's order.

    Columns: id, patient where known, split if asked for, then for each label its truth (empty if
    unknown) and `LABEL_pred`.
    """
    table = pd.DataFrame({"id": [scans.ids[row] for row in rows]})
    if scans.patients is not None:
        table["patient"] = [scans.patients[row] for row in rows]
    if with_split:
        table["split"] = scans.split[rows]
    for k, name in enumerate(target.labels):
        truth = scans.labels[rows, k]
        whole = target.task != "regression"
        table[name] = pd.array(truth, dtype="Float64").astype("Int64") if whole else truth
        table[f"{name}_pred"] = pred[:, k]
    return table


def format_scores(metrics: dict) -> str:
    """Return the scores as a table to print, a line per label and one for the mean."""
    keys = [key for key in ("roc_auc", "pr_auc", "r2", "pearson", "mae")
            if key in metrics["mean"]]
    heads = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC", "r2": "R2", "pearson": "Pearson",
             "mae": "MAE"}
    width = max(len("label"), *(len(name) for name in metrics["labels"])) + 2
    lines = ["  " + "label".ljust(width) + "n".rjust(6)
             + ("positive".rjust(10) if "roc_auc" in keys else "")
             + "".join(f"{heads[key]} (95 % interval)".rjust(30) for key in keys)]
    rows = dict(metrics["labels"])
    if len(rows) > 1:
        rows["mean"] = metrics["mean"]
    for name, scores in rows.items():
        line = "  " + name.ljust(width) + str(scores.get("n", "")).rjust(6)
        if "roc_auc" in keys:
            line += str(scores.get("n_pos", "")).rjust(10)
        lines.append(line + "".join(score_text(scores, key).rjust(30) for key in keys))
    if "accuracy" in metrics["mean"]:
        lines.append(f"  accuracy {score_text(metrics['mean'], 'accuracy')}")
    return "\n".join(lines)


def score_text(scores: dict, key: str) -> str:
    """Return a score with its interval, such as `0.912 (0.880-0.941)`, or `-` if undefined."""
    if scores.get(key) is None:
        return "-"
    text = f"{scores[key]:.3f}"
    if scores.get(f"{key}_ci"):
        text += " ({:.3f} to {:.3f})".format(*scores[f"{key}_ci"])
    return text
