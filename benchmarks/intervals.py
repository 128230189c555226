"""Seconds for all scores of a label with 95 % intervals, against the straightforward way.

    python -m benchmarks.intervals

The straightforward way draws patients with replacement in a loop, gathers their rows, and calls
scikit-learn for every score. It runs for a few replicates only, and its time is scaled to all of
them. Both ways run in turn in one process on the same made-up predictions (A, B, A, B, ...); the
table shows medians and their ratio.
"""

import argparse
import os
from collections.abc import Callable

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import numpy as np
from sklearn import metrics as sk

from benchmarks.loading import in_turn
from slivit.cli import types
from slivit.config import Target
from slivit.metrics.evaluation import N_BOOT, evaluate
from slivit.metrics.operating_point import Threshold, choose, parse_rule
from slivit.metrics.scores import expected_calibration_error


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's options."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=types.positive_int, default=10_000, metavar="N",
                        help="scans (default %(default)s)")
    parser.add_argument("--patients", type=types.positive_int, default=2_500, metavar="N",
                        help="they are of (default %(default)s)")
    parser.add_argument("--replicates", type=types.positive_int, default=N_BOOT, metavar="N",
                        help="of the bootstrap (default %(default)s)")
    parser.add_argument("--loop", type=types.positive_int, default=20, metavar="N",
                        help="replicates that the straightforward way runs (default %(default)s)")
    parser.add_argument("--repeats", type=types.positive_int, default=5, metavar="N",
                        help="times each way runs (default %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Make the predictions, time every pair, print the table."""
    args = build_parser().parse_args(argv)
    rng = np.random.default_rng(0)
    patients = rng.integers(0, args.patients, args.rows)
    print(f"{args.rows} rows of {len(np.unique(patients))} patients, {args.replicates} replicates "
          f"(straightforward: {args.loop}, scaled), medians of {args.repeats}, "
          f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}\n")
    print(f"{'labels':8s}{'straightforward':>18s}{'slivit':>12s}{'ratio':>8s}")
    for count in (1, 14):
        fast, slow = ways(rng, patients, count, args.replicates, args.loop)
        a, b = in_turn(slow, fast, args.repeats)
        a *= args.replicates / args.loop
        print(f"{count:<8d}{a:16.1f} s{b:10.2f} s{a / b:8.0f}")


def ways(rng: np.random.Generator, patients: np.ndarray, count: int, replicates: int,
         loop: int) -> tuple[Callable, Callable]:
    """Return our way and the straightforward one, on `count` labels of the patients' scans."""
    truth = (rng.random((len(patients), count)) < 0.3).astype(float)
    pred = 1 / (1 + np.exp(1 - 1.3 * truth - rng.normal(size=truth.shape)))
    thresholds = [choose(t, p, parse_rule("youden"), "validation")
                  for t, p in zip(truth.T, pred.T, strict=True)]
    target = Target("binary" if count == 1 else "multilabel",
                    tuple(f"label {k}" for k in range(count)))
    return (lambda: evaluate(truth, pred, target, patients, n_boot=replicates,
                             thresholds=thresholds),
            lambda: straight(truth, pred, patients, loop, thresholds))


def straight(truth: np.ndarray, pred: np.ndarray, patients: np.ndarray, replicates: int,
             thresholds: list[Threshold]) -> np.ndarray:
    """Return the scores of every replicate (replicates, K, 11), one resampled table at a time."""
    rng = np.random.default_rng(0)
    rows_of = {name: np.flatnonzero(patients == name) for name in np.unique(patients)}
    with_positive = {name for name in rows_of if truth[rows_of[name]].any()}
    strata = [[name for name in rows_of if (name in with_positive) == side]
              for side in (True, False)]
    draws = []
    for _ in range(replicates):
        drawn = [name for stratum in strata if stratum
                 for name in rng.choice(stratum, len(stratum))]
        rows = np.concatenate([rows_of[name] for name in drawn])
        draws.append([one_label(truth[rows, k], pred[rows, k], threshold.value)
                      for k, threshold in enumerate(thresholds)])
    return np.array(draws)


def one_label(truth: np.ndarray, pred: np.ndarray, threshold: float) -> list[float]:
    """Return the scores of one label of one table."""
    predicted = (pred >= threshold).astype(float)
    return [sk.roc_auc_score(truth, pred), sk.average_precision_score(truth, pred),
            sk.brier_score_loss(truth, pred), expected_calibration_error(truth, pred),
            sk.recall_score(truth, predicted), sk.recall_score(truth, predicted, pos_label=0),
            sk.precision_score(truth, predicted), sk.precision_score(truth, predicted, pos_label=0),
            sk.f1_score(truth, predicted), sk.accuracy_score(truth, predicted),
            sk.balanced_accuracy_score(truth, predicted)]


if __name__ == "__main__":
    main()
