"""Methods of pre-training without labels, and what each of their epochs is worth.

    python -m benchmarks.without_labels                     # what is not finished yet
    python -m benchmarks.without_labels --beds regions --methods vicreg
    python -m benchmarks.without_labels --summary

Each method gets about as much processor time as the others. It learns from unlabelled scans of
patients (on regions: crops) that may be looked at: those of benchmarks.regions_search, and of the
first fold of benchmarks.search. After each epoch the backbone so far is scored as the recipe for
few volumes is: a linear integrator learns from a few labelled scans and predicts others. What
is known without labels stands beside it: the loss on validation, and RankMe (Garrido et al. 2023,
section 3), the effective rank of the features. Results are in RESULTS/without_labels.csv.
"""

import argparse
import dataclasses
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

import bb_train
from benchmarks import nodules, regions, regions_search, search, tasks
from benchmarks.candidates.masked import Masked
from benchmarks.candidates.order import Order
from benchmarks.jobs import Job
from benchmarks.nodule_files import write_unlabelled
from benchmarks.nodules import Fold, as_scans
from benchmarks.region_methods import AMP, UNLABELLED, write_pool
from benchmarks.region_methods import COMMON as REGIONS_COMMON
from slivit.checkpoints.pretrained import input_statistics
from slivit.cli import types
from slivit.config import PRECISIONS, IntegratorConfig, Preprocess
from slivit.data.batch import model_inputs
from slivit.data.datasets import ScanDataset, make_loader
from slivit.data.named_sets import DATA_DIR
from slivit.models.slivit import SLIViT
from slivit.training.linear import solve
from slivit.training.losses import Objective
from slivit.training.self_supervised.method import SelfSupervisedMethod
from slivit.training.self_supervised.vicreg import VICReg
from slivit.utils.errors import UserError, run_script
from slivit.utils.files import atomic_write

SEED, SIZE = 0, 64  # pixels a side
KINDS = {"vicreg": VICReg, "masked": Masked, "order": Order}
SHARE = {"vicreg": 1.0, "masked": 1.6, "order": 1.0}  # of a bed's epochs, for the same time
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Bed:
    """Scans to learn from without labels, and labelled ones by which that is judged.

    Attributes:
        fold: scratch folder -> the scans; those of `test` are scored.
        write: (fold, scratch) -> the table of unlabelled scans for bb_train.py.
        few: (fold, number of labelled scans) -> the fold with so many.
        flags: of bb_train.py, beside those of the method.
        n_epochs: of a method whose SHARE is 1.
        window: of the grey values.
        labelled: numbers of labelled scans.
    """

    fold: Callable[[Path], Fold]
    write: Callable[[Fold, Path], Path]
    few: Callable[[Fold, int], Fold]
    flags: str
    n_epochs: int
    window: str
    labelled: tuple[int, ...]


def _regions(scratch: Path) -> Fold:
    return regions_search.make_task(Job("", 0, SEED, regions.MOST), scratch, quick=False).fold


def _few_regions(fold: Fold, size: int) -> Fold:
    few = regions.make_fold(fold.scans, size, SEED)
    return dataclasses.replace(few, split=np.where(fold.split == "test", "test", np.where(
        few.split == "test", nodules.LEFT_OUT, few.split)))


def _outlines(scratch: Path) -> Fold:
    return search.make_task(Job("", 0, SEED), scratch, quick=False).fold


def _write_outlines(fold: Fold, scratch: Path) -> Path:
    return write_unlabelled(fold, scratch / "unlabelled", scratch / "scans")


BEDS = {
    "regions": Bed(_regions, write_pool, _few_regions, REGIONS_COMMON, 10, "percentile",
                   (50, 100)),
    "outlines": Bed(_outlines, _write_outlines, lambda fold, size: nodules.with_few(
        fold, size, SEED), f"{tasks.COMMON} --flips hv --window full", 6, "full", (50, 200)),
}


def main(argv: list[str] | None = None) -> None:
    """Run what is not finished, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beds", type=types.names, default=list(BEDS), metavar="A,B",
                        help=f"of {', '.join(BEDS)} (default: all)")
    parser.add_argument("--methods", type=types.names, default=list(KINDS), metavar="A,B",
                        help=f"of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--workers", type=types.positive_int, default=2, metavar="N",
                        help="trainings at a time (default %(default)s)")
    parser.add_argument("--summary", action="store_true", help="train nothing")
    parser.add_argument("--results", type=types.path, default=Path("benchmarks/results"),
                        metavar="DIR", help="(default %(default)s)")
    parser.add_argument("--scratch", type=types.path, default=Path("runs/benchmarks"),
                        metavar="DIR", help="for the trainings' own files (default %(default)s)")
    parser.add_argument("--job", help=argparse.SUPPRESS)  # in this process
    args = parser.parse_args(argv)
    if not (set(args.beds) <= set(BEDS) and set(args.methods) <= set(KINDS)):
        raise UserError(f"expected --beds of {', '.join(BEDS)} and --methods of "
                        f"{', '.join(KINDS)}; found {', '.join(args.beds)} and "
                        f"{', '.join(args.methods)}")
    args.results, args.scratch = args.results.absolute(), args.scratch.absolute()
    if args.job:
        bed, method = args.job.split(":")
        run_job(bed, method, args.scratch)
        return
    wanted = [(bed, method) for bed in args.beds for method in args.methods
              if not args.summary and not is_done(bed, method, args.scratch)]
    with ThreadPoolExecutor(args.workers) as pool:
        list(pool.map(lambda one: _start(*one, args), wanted))
    print(summarise(args.scratch, args.results))


def _start(bed: str, method: str, args: argparse.Namespace) -> None:
    subprocess.run([sys.executable, "-m", "benchmarks.without_labels", "--job", f"{bed}:{method}",
                    "--scratch", str(args.scratch)], cwd=DATA_DIR.parent, check=True,
                   env={**os.environ, "OMP_NUM_THREADS": "1"})


def flags_of(bed: str, method: str) -> str:
    """Return the flags of bb_train.py."""
    n_epochs = round(BEDS[bed].n_epochs * SHARE[method])
    return f"{UNLABELLED} {BEDS[bed].flags} --seed {SEED} --amp {AMP} --n_epochs {n_epochs}"


def run_job(bed: str, method: str, scratch: Path) -> None:
    """Train one method on one bed, score the backbone of each epoch, write what was found."""
    one, flags, folder = BEDS[bed], flags_of(bed, method), _folder(bed, method, scratch)
    fold = one.fold(scratch)
    table = one.write(fold, folder)
    kept = Kept()
    bb_train.main(["--meta_csv", str(table), *shlex.split(flags), "--out_dir",
                   str(folder / "run")], keeping(KINDS[method], kept))
    history = pd.read_csv(folder / "run" / "log.csv")
    rows = []
    for epoch, (state, seconds) in enumerate(zip(kept.states, kept.seconds, strict=True), 1):
        found = score(state, fold, one)
        loss = history.loc[history["epoch"] == epoch, "val_loss"].item()
        rows.append({"bed": bed, "method": method, "epoch": epoch, "minutes": seconds / 60,
                     "val_loss": loss, **found, "settings": flags})
    with atomic_write(folder / "epochs.csv") as part:
        pd.DataFrame(rows).to_csv(part, index=False)


class Kept:
    """The backbone of each epoch, and the processor time until then."""

    def __init__(self) -> None:
        self.start, self.states, self.seconds = time.process_time(), [], []


def keeping(kind: type[SelfSupervisedMethod], kept: Kept) -> type[SelfSupervisedMethod]:
    """Return the method, which also keeps its backbone after each epoch's validation."""
    class Keeping(kind):
        def complaint(self, terms: dict[str, float]) -> str:  # asked once an epoch
            kept.states.append({name: tensor.detach().clone() for name, tensor
                                in self.backbone.state_dict().items()})
            kept.seconds.append(time.process_time() - kept.start)
            return super().complaint(terms)

    return Keeping


@torch.no_grad()
def score(state: dict[str, torch.Tensor], fold: Fold, bed: Bed) -> dict[str, float]:
    """Return the ROC-AUC by the number of labelled scans, and RankMe, of a backbone.

    Args:
        state: the backbone's tensors.
        fold: the scans; those of `test` are predicted.
        bed: what they are of.
    """
    folds = {size: bed.few(fold, size) for size in bed.labelled}
    rows = np.unique(np.concatenate([few.rows("train", "test") for few in folds.values()]))
    words = shlex.split(UNLABELLED)
    name = words[words.index("--backbone") + 1]
    preprocess = Preprocess(SIZE, bed.window, *input_statistics(name),
                            n_slices=fold.scans.scans.shape[1])
    labels = fold.target.labels
    model = SLIViT(name, len(labels), preprocess, IntegratorConfig(kind="linear", token="pool"))
    model.backbone.load_state_dict(state)
    model.precision = getattr(torch, PRECISIONS[AMP])
    model.eval()
    dataset = ScanDataset(as_scans(fold), rows, preprocess)
    shape = (len(fold.scans), preprocess.n_slices, model.feature_dim)
    store = Features(np.zeros(shape, np.float32), np.ones(shape[:2], bool))
    store.x[rows] = np.concatenate([model.slice_features(*model_inputs(batch, preprocess)).numpy()
                                    for batch in make_loader(dataset, 32, 0, CPU)])
    found = {"rankme": rankme(store.x[rows].reshape(-1, model.feature_dim))}
    for size, few in folds.items():
        solve(model.integrator, [store], as_scans(few), Objective(few.target), SEED)
        test = few.rows("test")
        logits = model.integrator(torch.from_numpy(store.x[test]),
                                  torch.from_numpy(store.mask[test]))
        found[f"roc_auc_{size}"] = float(np.mean([
            roc_auc_score(truth, column) for truth, column
            in zip(few.truth[test].T, logits.numpy().T, strict=True)]))
    return found


@dataclass(frozen=True)
class Features:
    """Slice features of all scans, as training.linear takes them: `x` (n, S, F), `mask` (n, S)."""

    x: np.ndarray
    mask: np.ndarray


def rankme(features: np.ndarray) -> float:
    """Return the effective rank of features (n, F): e to the entropy of their singular values."""
    values = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    share = values / values.sum()
    return float(np.exp(-(share[share > 0] * np.log(share[share > 0])).sum()))


def _folder(bed: str, method: str, scratch: Path) -> Path:
    return scratch / "without_labels" / bed / method


def is_done(bed: str, method: str, scratch: Path) -> bool:
    """Return whether a job has been run with the settings of today."""
    path = _folder(bed, method, scratch) / "epochs.csv"
    return path.exists() and (pd.read_csv(path)["settings"] == flags_of(bed, method)).all()


def summarise(scratch: Path, results: Path) -> str:
    """Write without_labels.csv: what is finished, after what it holds of others; return it."""
    done = [_folder(bed, method, scratch) / "epochs.csv" for bed in BEDS for method in KINDS
            if is_done(bed, method, scratch)]
    path, key = results / "without_labels.csv", ["bed", "method"]
    parts = ([pd.read_csv(path)] if path.exists() else []) + [pd.read_csv(one) for one in done]
    if not parts:
        return "no method is finished"
    table = pd.concat(parts).drop_duplicates([*key, "epoch"], keep="last")
    table = table.sort_values([*key, "epoch"], kind="stable").round(4)
    results.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        table.to_csv(part, index=False)
    return table.drop(columns="settings").to_string(index=False)


if __name__ == "__main__":
    run_script(main)
