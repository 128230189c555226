"""The worst errors of an evaluation, with pictures of what the model saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from slivit.config import Preprocess, Target
from slivit.data.cache import Prepared
from slivit.data.datasets import prepare
from slivit.data.scan_table import ScanTable
from slivit.data.transforms import pick_slices
from slivit.explain.cases import ExplainedCase
from slivit.explain.explanation import views_seen
from slivit.explain.strips import ScanStrips, make_strips
from slivit.metrics.confidence import judge, limits, ranked
from slivit.report.contact_sheet import GAP, GREY, place_slice
from slivit.report.evaluation import EvaluationResult
from slivit.report.html import Case
from slivit.utils.files import atomic_write

ACROSS = 4      # slices in a row
ROWS = 2        # rows of a volume in one view; of several views, one row each
CELL = 160      # pixels a slice
ALONE = 320     # pixels of an image that is one slice


@dataclass(frozen=True)
class Miss:
    """An error: position in `rows`, its description, and how bad it is among its label's.

    `output` is the name of the label that the model predicts wrongly.
    """

    at: int
    label: int
    output: str
    size: float
    words: str
    facts: tuple[tuple[str, str], ...]


def worst_cases(measured: EvaluationResult, preprocess: Preprocess, folder: Path,
                count: int = 5, explained: Sequence[ExplainedCase] = ()) -> list[Case]:
    """Find the most confident errors and draw them.

    Of each label the worst is taken first, then the second of each, and so on; a scan stands for
    one error only. Scans whose label is unknown are passed over. How bad an error is, says
    `confidence.Verdict`.

    Args:
        measured: what was predicted.
        preprocess: of the model; the pictures are in its grey values.
        folder: gets worst_1.png, ...; is made.
        count: at most so many in total.
        explained: what was explained; an error among it is shown with its heat map and weights.

    Returns:
        The cases, the worst first.

    Raises:
        ReadError: a scan cannot be read any more.
    """
    scans, cases = measured.scans, []
    known = {(one.row, one.label): one.strips for one in explained}
    for miss in _by_rank(_misses(measured, count), count):
        row = int(measured.rows[miss.at])
        folder.mkdir(parents=True, exist_ok=True)
        picture = folder / f"worst_{len(cases) + 1}.png"
        prepared = prepare(scans, row, preprocess)
        draw_scan(prepared, picture)
        strips = known.get((row, miss.output)) or _plain_strips(scans, row, prepared, preprocess)
        facts = miss.facts
        if scans.patients is not None:
            facts += (("Patient", scans.patients[row]),)
        cases.append(Case(f"{scans.ids[row]}: {miss.words}", facts, picture, strips))
    return cases


def draw_scan(prepared: Prepared, path: Path) -> None:
    """Write a PNG of slices of a scan, spread over it, in the grey values that the model sees."""
    views = np.split(prepared.slices, np.cumsum(prepared.counts)[:-1])
    wanted = ACROSS * ROWS if len(views) == 1 else ACROSS
    shown = []
    for view in views:
        chosen = list(view[pick_slices(len(view), wanted, "uniform")].transpose(0, 2, 3, 1))
        shown += [chosen[i:i + ACROSS] for i in range(0, len(chosen), ACROSS)]
    side = ALONE if len(prepared.slices) == 1 else CELL
    width, height = max(map(len, shown)), len(shown)
    sheet = Image.new("RGB", (width * (side + GAP) - GAP, height * (side + GAP) - GAP), GREY)
    for down, line in enumerate(shown):
        for across, one in enumerate(line):
            pixels = one[..., 0] if one.shape[2] == 1 else one
            place_slice(sheet, pixels, across * (side + GAP), down * (side + GAP), side)
    with atomic_write(path) as part:
        sheet.save(part)


def _plain_strips(scans: ScanTable, row: int, prepared: Prepared, preprocess: Preprocess
                  ) -> ScanStrips:
    """Return all slices of a scan that is not explained."""
    header = scans.read.header(row)
    shape = (1, *header.shape[:2]) if scans.ndim == 2 else header.shape[:3]
    return make_strips(views_seen(prepared, preprocess, shape, header.spacing, header.axes))


def _misses(measured: EvaluationResult, most: int) -> list[Miss]:
    """Return the errors of each label, the `most` confident of them."""
    truth, pred, target = measured.truth, measured.predicted.pred, measured.target
    verdict = judge(truth, pred, target, measured.thresholds)
    limit = limits(measured.thresholds, len(target.labels))
    misses = []
    for k, name in enumerate(target.labels):
        wrong = verdict.known[:, k] & ~verdict.right[:, k]
        for at in ranked(wrong, verdict.size[:, k])[:most]:
            true, value = truth[at, k], pred[at, k]
            if target.task == "multiclass":
                words, facts = _wrong_class(truth[at], pred[at], target)
            elif target.task == "regression":
                words = f"{name} {abs(value - true):.4g} too {'high' if value > true else 'low'}"
                facts = ("Truth", f"{true:.4g}"), ("Predicted", f"{value:.4g}")
            else:
                words = f"false {'negative' if true else 'positive'} for {name}"
                facts = (("Truth", f"{true:g}"), ("Predicted", f"{value:.3f}"),
                         ("Threshold", f"{limit[k]:.3f}"))
            classes = target.task == "multiclass"  # of which the worst of all is first
            misses.append(Miss(
                int(at), 0 if classes else k, target.labels[pred[at].argmax()] if classes else name,
                float(verdict.size[at, k]), words, facts))
    return misses


def _wrong_class(truth: np.ndarray, pred: np.ndarray, target: Target
                 ) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return words and facts about a scan of another class than the predicted one; both (K,)."""
    true, predicted = int(truth.argmax()), int(pred.argmax())
    return f"{target.labels[true]} predicted as {target.labels[predicted]}", (
        ("Truth", target.labels[true]), ("Predicted", target.labels[predicted]),
        ("Probability", f"{pred[predicted]:.3f}"),
        ("Probability of the true class", f"{pred[true]:.3f}"))


def _by_rank(misses: list[Miss], count: int) -> list[Miss]:
    """Return the worst: first of every label, then the second of every label; a scan once."""
    ranks: dict[int, int] = {}
    ordered = []
    for miss in sorted(misses, key=lambda miss: -miss.size):
        ordered.append((ranks.setdefault(miss.label, 0), miss))
        ranks[miss.label] += 1
    ordered.sort(key=lambda pair: pair[0])  # stable: within a rank the worst stays first
    chosen: dict[int, Miss] = {}
    for _, miss in ordered:
        if len(chosen) < count:
            chosen.setdefault(miss.at, miss)
    return list(chosen.values())
