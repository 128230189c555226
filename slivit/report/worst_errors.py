"""The worst errors of an evaluation, with pictures of what the model saw."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from slivit.config import Preprocess, Target
from slivit.data.datasets import prepare
from slivit.data.scan_table import ScanTable
from slivit.data.transforms import pick_slices
from slivit.metrics.operating_point import Threshold
from slivit.report.contact_sheet import GAP, GREY, place_slice
from slivit.report.html import Case
from slivit.utils.files import atomic_write

HALF = 0.5      # the threshold of a label without an operating point
ACROSS = 4      # slices in a row
ROWS = 2        # rows of a volume in one view; of several views, one row each
CELL = 160      # pixels a slice
ALONE = 320     # pixels of an image that is one slice


@dataclass(frozen=True)
class Miss:
    """An error: position in `rows`, what is said of it, and how bad it is among its label's."""

    at: int
    label: int
    size: float
    words: str
    facts: tuple[tuple[str, str], ...]


def worst_cases(scans: ScanTable, rows: np.ndarray, pred: np.ndarray, target: Target,
                preprocess: Preprocess, thresholds: Sequence[Threshold | None] | None,
                folder: Path, count: int = 5) -> list[Case]:
    """Find the most confident errors and draw them.

    Of each label the worst is taken first, then the second of each, and so on; a scan stands for
    one error only. Scans whose label is unknown are passed over. How bad an error is: binary and
    multi-label, how far beyond the threshold the probability lies, as a share of how far it could;
    several classes, the probability of the wrong class; regression, the absolute error.

    Args:
        scans, rows: what was predicted.
        pred: (n, K) probabilities or values.
        target: of the model.
        preprocess: of the model; the pictures are in its grey values.
        thresholds: of each label; 0.5 where there is none.
        folder: gets worst_1.png, ...; is made.
        count: at most so many in total.

    Returns:
        The cases, the worst first.

    Raises:
        ReadError: a scan cannot be read any more.
    """
    truth = scans.labels[rows]
    if target.task == "multiclass":
        misses = _wrong_classes(truth, pred, target)
    elif target.task == "regression":
        misses = _far_values(truth, pred, target)
    else:
        misses = _wrong_sides(truth, pred, target, thresholds or [None] * len(target.labels))
    cases = []
    for miss in _by_rank(misses, count):
        row = int(rows[miss.at])
        folder.mkdir(parents=True, exist_ok=True)
        picture = folder / f"worst_{len(cases) + 1}.png"
        draw_scan(scans, row, preprocess, picture)
        facts = miss.facts
        if scans.patients is not None:
            facts += (("Patient", scans.patients[row]),)
        cases.append(Case(f"{scans.ids[row]}: {miss.words}", facts, picture))
    return cases


def draw_scan(scans: ScanTable, row: int, preprocess: Preprocess, path: Path) -> None:
    """Write a PNG of slices of a scan, spread over it, in the grey values that the model sees."""
    prepared = prepare(scans, row, preprocess)
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


def _wrong_sides(truth: np.ndarray, pred: np.ndarray, target: Target,
                 thresholds: Sequence[Threshold | None]) -> list[Miss]:
    misses = []
    for k, (name, chosen) in enumerate(zip(target.labels, thresholds, strict=True)):
        limit = HALF if chosen is None else chosen.value
        for at in np.flatnonzero(((pred[:, k] >= limit) != truth[:, k]) & ~np.isnan(truth[:, k])):
            found = float(pred[at, k])
            room = limit if truth[at, k] else 1 - limit
            misses.append(Miss(
                int(at), k, abs(found - limit) / max(room, 1e-9),
                f"false {'negative' if truth[at, k] else 'positive'} for {name}",
                (("Truth", f"{truth[at, k]:g}"), ("Predicted", f"{found:.3f}"),
                 ("Threshold", f"{limit:.3f}"))))
    return misses


def _wrong_classes(truth: np.ndarray, pred: np.ndarray, target: Target) -> list[Miss]:
    misses = []
    for at in np.flatnonzero(~np.isnan(truth).any(axis=1)):
        true, said = int(truth[at].argmax()), int(pred[at].argmax())
        if true != said:
            misses.append(Miss(
                int(at), 0, float(pred[at, said]),
                f"{target.labels[true]} taken for {target.labels[said]}",
                (("Truth", target.labels[true]), ("Predicted", target.labels[said]),
                 ("Probability", f"{pred[at, said]:.3f}"),
                 ("Of the truth", f"{pred[at, true]:.3f}"))))
    return misses


def _far_values(truth: np.ndarray, pred: np.ndarray, target: Target) -> list[Miss]:
    misses = []
    for k, name in enumerate(target.labels):
        for at in np.flatnonzero(np.abs(pred[:, k] - truth[:, k]) > 0):  # false where unknown
            error = float(pred[at, k] - truth[at, k])
            misses.append(Miss(
                int(at), k, abs(error),
                f"{name} {abs(error):.4g} too {'high' if error > 0 else 'low'}",
                (("Truth", f"{truth[at, k]:.4g}"), ("Predicted", f"{pred[at, k]:.4g}"))))
    return misses


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
