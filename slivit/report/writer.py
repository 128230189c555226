"""Evaluate trained models on a split and write what was found: the end of all three scripts."""

from pathlib import Path

import numpy as np
import pandas as pd

from slivit.checkpoints import model_card
from slivit.checkpoints.hub import title_of
from slivit.checkpoints.trained import Trained
from slivit.config import Target
from slivit.data.scan_table import ScanTable
from slivit.explain.cases import ExplainedCase, write_explanations
from slivit.prediction import average, predict_scans
from slivit.report.evaluation import (
    EvaluationResult,
    ReportOptions,
    choose_thresholds,
    find_scores,
    keep_labels,
    short_names,
)
from slivit.report.html import Case, Report, write_html, write_markdown
from slivit.report.plots.draw import plot_scores
from slivit.report.terminal import (
    EXTREMES,
    MOST_LABELS,
    format_comparison,
    format_groups,
    format_scores,
)
from slivit.report.worst_errors import worst_cases
from slivit.utils.cells import write_table
from slivit.utils.files import write_json
from slivit.utils.log import LOG, short
from slivit.utils.manifest import read_manifest, written_by_runs
from slivit.utils.session import Session

WRITTEN = ("predictions.csv", "metrics.json", "report.html", "report.md")  # the last one last
LAST = "last.pt"
KEPT = ("config.json", "split.csv", "log.csv", "slivit.safetensors", *WRITTEN)  # of a fold
SPLIT_WORDS = {"train": "training", "val": "validation", "test": "test", "all": "all"}


def is_finished(out_dir: Path) -> bool:
    """Return whether a run has written all that it ends with, and all of that is there still.

    Of a run whose last.pt is gone, the pictures, which nothing can make again, need not be there.
    """
    sizes = read_manifest(out_dir)
    if sizes is None:  # of an earlier version
        return all((out_dir / name).is_file() for name in WRITTEN)
    whole = set(written_by_runs(out_dir, sizes))
    needed = {name for name, known in sizes.items() if known != {None}} - {LAST}
    return set(KEPT) <= whole and (needed <= whole or LAST not in whole)


def closing_split(scans: ScanTable, chosen: bool) -> str:
    """Return the split to evaluate a finished training on: test, else validation, and say so.

    `chosen`: whether validation has chosen the epoch.
    """
    if len(scans.rows("test")):
        return "test"
    LOG.info("%s has no test split: the scores below are from the validation split%s", scans.name,
             ", on which the epoch was chosen" * chosen)
    return "val"


def measure(trained: list[Trained], scans: ScanTable, split: str, run: Session, b_size: int,
            out_dir: Path, options: ReportOptions) -> None:
    """Predict every row of a split in order; write and print what was found.

    Args:
        trained: the models; of several, the predictions are averaged.
        scans: with the label columns of the models.
        split: `train`, `val`, `test` or `all`.
        run: where it runs.
        b_size: scans at a time.
        out_dir: gets what `write_report` writes.
        options: see ReportOptions.
    """
    rows = scans.rows(split)
    each = [predict_scans(one, scans, rows, run, b_size, split, options.how) for one in trained]
    if not run.world.is_main:
        return
    mean = average(each)
    if mean.blank.any():
        LOG.warning("warning: %d of these scans show nothing in the window %s (all pixels are "
                    "equal) and are scored nevertheless; metrics.json lists them", mean.blank.sum(),
                    trained[0].card.preprocess.window)
    names = short_names([one.path for one in trained]) if len(trained) > 1 else []
    measured = EvaluationResult(
        scans, rows, trained[0].card.target, split, mean,
        choose_thresholds(trained, options.rule, options.how.calibrate),
        dict(zip(names, (one.pred for one in each), strict=False)))
    write_report(measured, trained, out_dir, options)


def write_report(measured: EvaluationResult, trained: list[Trained], out_dir: Path,
                 options: ReportOptions, facts: dict | None = None, columns: dict | None = None
                 ) -> None:
    """Write and print what was found of predictions that are already made.

    Writes `predictions.csv`, and where a label is known `metrics.json`, the plots, `report.html`
    and `report.md`.

    Args:
        measured: the predictions, of all labels of the models.
        trained: the models; the first is explained.
        out_dir: where it is written.
        options: see ReportOptions.
        facts: to be recorded in `metrics.json` too.
        columns: of `predictions.csv`, beside its own.
    """
    kept = keep_labels(measured, options.only) if options.only else measured
    scans, target, split, std = kept.scans, kept.target, kept.split, kept.predicted.std
    table = predictions_table(scans, kept.rows, kept.predicted.pred, target, split == "all")
    if std is not None:
        columns = {f"{name}_std": std[:, k] for k, name in enumerate(target.labels)
                   } | (columns or {})
    write_table(out_dir / "predictions.csv", table.assign(**columns or {}))
    explained = []
    if options.explain:
        explained = write_explanations(
            trained[0], measured.scans, measured.rows, measured.predicted.pred,
            measured.thresholds, options.explain, out_dir)
    pictures = [one.picture for one in explained]
    unknown = np.isnan(kept.truth).all()
    if unknown:
        LOG.info("%s: no labels, so no scores\n%s", scans.name, _listed(kept))
        written = [out_dir / "predictions.csv", *pictures]
    else:
        metrics = find_scores(kept, options) | (facts or {})
        metrics["models"] = len(trained)
        write_json(out_dir / "metrics.json", metrics)
        plots = plot_scores(kept.truth, kept.predicted.pred, target, metrics, out_dir,
                            kept.predicted.uncalibrated)
        LOG.info("%s, %s: %d scans, intervals by %s\n%s", scans.name, split, len(kept.rows),
                 metrics["intervals_by"], format_scores(metrics))
        if metrics["comparison"]:
            LOG.info(format_comparison(metrics["comparison"]))
        if options.group_by:
            LOG.info(format_groups(metrics["by_group"]))
        report = _assemble(kept, trained, metrics, plots, explained, out_dir)
        write_html(report, out_dir / "report.html")
        write_markdown(report, out_dir / "report.md")
        written = [out_dir / name for name in WRITTEN] + plots + pictures
    names = [path.name for path in written if path.parent == out_dir]
    more = f", {len(pictures)} explanations" * bool(pictures)
    LOG.info("written to %s: %s%s", out_dir, ", ".join(names), more)
    LOG.info("%s", out_dir / ("predictions.csv" if unknown else "report.html"))


def _on_validation(epoch: bool, point: bool) -> list[str]:
    """Return a note on scores of validation scans, by which an epoch, or a point, was chosen."""
    if not epoch and not point:
        return []
    if epoch:
        what = "the epoch, and the operating point, were" if point else "the epoch was"
        return [f"These are the validation scans: {what} chosen on them, so the scores are too "
                "optimistic."]
    return ["These are the validation scans: the operating point was chosen on them, so the scores "
            "at it are too optimistic."]


def _assemble(measured: EvaluationResult, trained: list[Trained], metrics: dict, plots: list[Path],
              explained: list[ExplainedCase], out_dir: Path) -> Report:
    """Gather what the report shows."""
    scans, target, card = measured.scans, measured.target, trained[0].card
    split = SPLIT_WORDS.get(measured.split, measured.split)
    cohorts = {f"evaluated: {split}": model_card.cohort(scans, measured.rows, target)}
    cohorts |= {f"model: {SPLIT_WORDS[name]}": facts
                for name, facts in card.training.get("cohort", {}).items() if name != "test"}
    how = metrics["test_time"]
    about = [("Models", ", ".join(title_of(one.path) for one in trained)
              + ("; predictions averaged" if len(trained) > 1 else "")),
             ("Data", f"{scans.name}, {split}: {metrics['n']} scans"),
             ("Task", f"{target.task}: {', '.join(target.labels)}"),
             ("Intervals", f"95 %, {metrics['bootstrap']['replicates']} bootstrap draws by "
                           f"{metrics['intervals_by']} ({metrics['n_groups']})"),
             ("Test time", ", ".join(
                 [text for text, used in (
                     ("averaged over flips", how["flips"]),
                     ("temperature scaling", how["calibrate"]),
                     (f"{how['mc_dropout']} passes with dropout", how["mc_dropout"])) if used])
              or "a single pass")]
    notes = []
    if metrics["blank_scans"]:
        notes.append(f"{len(metrics['blank_scans'])} scans show nothing in the window: "
                     + ", ".join(metrics["blank_scans"][:20]))
    if measured.split == "val" or (metrics["split"] == "val"):
        notes += _on_validation(any(model_card.epoch_chosen(one.card) for one in trained),
                                any(measured.thresholds or ()))
    if target.task != "regression" and not any(measured.thresholds):
        notes.append("No operating point: the checkpoint contains no validation predictions, or "
                     "they lack a class."
                     + " A shared checkpoint has one for --operating_point youden alone, without "
                     "--calibrate and other checkpoints." * (card.thresholds is not None))
    worst = worst_cases(measured, card.preprocess, out_dir / "worst", explained=explained)
    return Report(f"SLIViT: {', '.join(target.labels)}", tuple(about),
                  model_card.cohort_table(cohorts, target), metrics, tuple(plots), tuple(worst),
                  tuple(Case(one.title, one.facts, one.picture, one.strips) for one in explained),
                  model_card.card_rows(card, [one.model.precision for one in trained]),
                  model_card.provenance([one.path for one in trained], scans.fingerprint()),
                  tuple(notes))


def _listed(measured: EvaluationResult, most: int = 10) -> str:
    """Return the first predictions, a line each; of many labels, the highest."""
    lines, names = [], measured.target.labels
    for i, row in enumerate(measured.rows[:most]):
        parts = []
        order = range(len(names))
        if len(names) > MOST_LABELS:
            order = np.argsort(-measured.predicted.pred[i], kind="stable")[:EXTREMES]
        for k in order:
            text = f"{short(names[k])} {measured.predicted.pred[i, k]:.4g}"
            if measured.predicted.std is not None:
                text += f" ± {measured.predicted.std[i, k]:.2g}"
            limit = measured.thresholds[k]
            if limit is not None and measured.target.task != "multiclass":
                side = "above" if measured.predicted.pred[i, k] >= limit.value else "below"
                text += f" ({side} the operating point {limit.value:.3g})"
            parts.append(text)
        if len(parts) < len(names):
            parts.append(f"and {len(names) - len(parts)} lower ones")
        lines.append(f"  {measured.scans.ids[row]}: {', '.join(parts)}")
    if len(measured.rows) > most:
        lines.append(f"  … and {len(measured.rows) - most} more in predictions.csv")
    return "\n".join(lines)


def predictions_table(scans: ScanTable, rows: np.ndarray, pred: np.ndarray, target: Target,
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
