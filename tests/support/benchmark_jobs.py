"""Finished jobs of a benchmark, with made-up predictions."""

import pandas as pd

from benchmarks.jobs import Done, Job
from slivit.utils.files import write_json

TRUTH = [0, 0, 1, 1, 0, 1, 0, 1]
PREDS = [0.1, 0.6, 0.4, 0.9, 0.2, 0.8, 0.3, 0.7]  # one pair of sixteen is in the wrong order


def write_done(folder, method, preds, fold=0, seed=0, settings="s"):
    """Write a finished job of four scans of a fold; its settings are always `s`."""
    job = Done(folder / method / f"fold_{fold}_seed_{seed}.csv", Job(method, fold, seed), settings)
    job.predictions.parent.mkdir(exist_ok=True, parents=True)
    rows = range(fold * 4, fold * 4 + 4)
    pd.DataFrame({"nodule": [f"n{k}" for k in rows], "patient": [f"p{k}" for k in rows],
                  "truth": [TRUTH[k] for k in rows], "pred": [preds[k] for k in rows]}
                 ).to_csv(job.predictions, index=False)
    write_json(job.facts, {"parameters": 7, "seconds": 60 + 60 * fold, "settings": "s"})
    return job
