"""`--explain N`: pictures and heat maps of where a model looked in the scans it is surest of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slivit.checkpoints.trained import Trained
from slivit.config import Target
from slivit.data.scan_table import ScanTable
from slivit.explain.explanation import explain_scan, file_name
from slivit.explain.strips import ScanStrips, make_strips
from slivit.metrics.confidence import judge, ranked
from slivit.metrics.operating_point import Threshold


@dataclass(frozen=True)
class Case:
    """A scan to be explained.

    Attributes:
        index: of its row in the predictions.
        label: k, of the output that is explained.
        kind: `right`, `wrong` or, where the truth is unknown, `highest`.
        rank: from 1, the surest.
        about: what `kind` and `rank` mean, in words.
    """

    index: int
    label: int
    kind: str
    rank: int
    about: str


@dataclass(frozen=True)
class ExplainedCase:
    """What a report shows of an explained scan.

    Attributes:
        row: of the scan in its table.
        label: name of the output that is explained.
        title: which scan it is, and why it was chosen.
        facts: what was predicted, and the truth.
        picture: a PNG.
        strips: slices and heat maps, for the report's viewer.
    """

    row: int
    label: str
    title: str
    facts: tuple[tuple[str, str], ...]
    picture: Path
    strips: ScanStrips


def write_explanations(trained: Trained, scans: ScanTable, rows: np.ndarray, pred: np.ndarray,
                       thresholds: Sequence[Threshold | None] | None, n: int, out_dir: Path
                       ) -> list[ExplainedCase]:
    """Write a picture of each chosen scan, and a NIfTI heat map beside it where it has a grid.

    `explain/LABEL_right_1_ID.png`, and `..._heat.nii.gz` of kinds that have a grid.

    Args:
        trained: the model that is explained.
        scans, rows: what was predicted.
        pred: (len(rows), K) probabilities, or values for regression.
        thresholds: of each label, by which a prediction counts as positive; default 0.5.
        n: scans of each kind, at most.
        out_dir: gets the folder `explain`.

    Raises:
        ReadError: a scan cannot be read.
    """
    folder = out_dir / "explain"
    explained, taken = [], set()
    for case in choose_cases(scans.labels[rows], pred, trained.card.target, thresholds, n):
        row = int(rows[case.index])
        found = explain_scan(trained, scans, row, case.label, pred[case.index], case.about)
        name = _untaken(file_name(found.scan, found.label, case.kind, str(case.rank)), taken)
        title = f"{found.scan}: {found.label}, {case.about}"
        explained.append(ExplainedCase(row, found.label, title, found.facts,
                                       found.save(folder, name), make_strips(found.views)))
    return explained


def choose_cases(truth: np.ndarray, pred: np.ndarray, target: Target,
                 thresholds: Sequence[Threshold | None] | None, n: int) -> list[Case]:
    """Return the scans to explain: of each label the n surest right and the n surest wrong.

    How sure, says `confidence.Verdict`; of several classes, a scan is shown under the predicted
    one. For regression, the smallest errors are right and the largest wrong, none of them both.
    Where no truth is known, the highest predictions.

    Args:
        truth: (m, K), NaN where unknown.
        pred: (m, K).
        target, thresholds, n: see write_explanations.
    """
    verdict, cases = judge(truth, pred, target, thresholds), []
    for k in range(pred.shape[1]):
        known, right, size = (part[:, k] for part in (verdict.known, verdict.right, verdict.size))
        if np.isnan(truth[:, k]).all():
            order = ranked(np.ones(len(pred), dtype=bool), pred[:, k])
            cases += [Case(int(i), k, "highest", rank, f"no. {rank} of the highest")
                      for rank, i in enumerate(order[:n], start=1)]
        elif target.task == "regression":
            cases += _by_error(known, size, k, n)
        else:
            cases += [Case(int(i), k, kind, rank, f"{kind}; no. {rank} by confidence")
                      for kind, chosen in (("right", known & right), ("wrong", known & ~right))
                      for rank, i in enumerate(ranked(chosen, size)[:n], start=1)]
    return cases


def _by_error(known: np.ndarray, size: np.ndarray, k: int, n: int) -> list[Case]:
    """Return the cases of a label of regression, from the sizes (m,) of its errors."""
    order = ranked(known, -size)
    half = -(-len(order) // 2)
    best, worst = order[:half][:n], order[half:][::-1][:n]
    return [Case(int(i), k, kind, rank, f"{kind}: no. {rank} of the {which} errors")
            for kind, which, chosen in (("right", "smallest", best), ("wrong", "largest", worst))
            for rank, i in enumerate(chosen, start=1)]


def _untaken(wanted: str, taken: set[str]) -> str:
    """Return a name that differs from those taken, and note it among them."""
    name, count = wanted, 1
    while name.lower() in taken:
        count += 1
        name = f"{wanted}-{count}"
    taken.add(name.lower())
    return name
