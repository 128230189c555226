"""The learning curves' table, their figure, and how many times fewer volumes SLIViT needs."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.ticker import NullLocator
from sklearn.isotonic import IsotonicRegression

from benchmarks.jobs import Done, pooled
from benchmarks.nodules import N_FOLDS
from slivit.metrics import bootstrap
from slivit.metrics.comparison import bootstrap_p, holm
from slivit.metrics.evaluation import N_BOOT
from slivit.report.formatting import score_text
from slivit.report.plots.style import new_figure, save_figure
from slivit.utils.files import atomic_write, write_json

OURS = "few_volumes"  # of SLIViT's recipes, the one for few volumes
LINE = "volume"  # does not learn: a line in the figure
STARTS = ("few_volumes", "few_images", "ssl_few", "ssl_few_images")  # of that recipe's backbone
NOT_DRAWN = ("frozen_logistic", "plain_few_images", "plain_random", "probe_few_images",
             "resnet18_half_rate", "shape_boosting")  # the table has them
THEIRS = ("resnet18_narrow", "resnet18_half_rate", "densenet")


def summarise(jobs: list[Done], results: Path) -> str:
    """Write learning_curve.csv, .json and .png from finished jobs; return the table as text.

    Every method is scored on the folds that all methods have at all their sizes. Those that have
    all folds are scored on these too, in learning_curve_all_folds.csv, if they are not all methods.
    What the recipe for few volumes starts from is compared with LINE in learning_curve_starts.csv.
    """
    cells: dict[tuple[str, int], list[Done]] = {}
    for one in jobs:
        cells.setdefault((one.job.method, one.job.size), []).append(one)
    learning = {method for method, size in cells if size}  # all volumes alone: no curve
    cells = {key: mine for key, mine in cells.items() if key[0] in learning}
    there = {method: set.intersection(*({one.job.fold for one in mine} for (name, _), mine
                                        in cells.items() if name == method)) for method in learning}
    folds = set.intersection(*there.values()) if there else set()
    rows, replicates = compare(cells, folds)
    if not rows:
        return "no fold is finished by all methods"
    results.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows)
    _write(table, results / "learning_curve.csv")
    whole = {method for method, mine in there.items() if len(mine) == N_FOLDS}
    parts = {"all_folds": (whole if len(whole) < len(learning) else set(), set(range(N_FOLDS)),
                           OURS),
             "starts": ({LINE, *STARTS} & learning, folds, LINE)}
    for part, (methods, on, base) in parts.items():
        path = results / f"learning_curve_{part}.csv"
        path.unlink(missing_ok=True)
        if base in methods and len(methods) > 1:
            mine = {key: done for key, done in cells.items() if key[0] in methods}
            _write(pd.DataFrame(compare(mine, on, base)[0]), path)
    savings = {other: saving(table, replicates, other) for other in THEIRS}
    savings = {other: value for other, value in savings.items() if value}
    write_json(results / "learning_curve.json", savings)
    draw(table[~table["method"].isin(NOT_DRAWN)], results / "learning_curve.png")
    return as_text(rows, savings)


def _write(table: pd.DataFrame, path: Path) -> None:
    with atomic_write(path) as part:
        table.round(5).to_csv(part, index=False)


def compare(cells: dict[tuple[str, int], list[Done]], folds: set[int], base: str = OURS
            ) -> tuple[list[dict], dict[tuple[str, int], np.ndarray]]:
    """Return a row per method and size, and the scores' replicates by method and size.

    The score is the mean of the folds' ROC-AUCs: predictions of models trained on few volumes are
    on different scales, so that pooled ones would also measure how well those agree. `difference`
    is the score of `base` less the method's, paired; its p-value is of the bootstrap,
    Holm-corrected over the methods of a size.

    Args:
        cells: jobs by method and size; 0: all volumes.
        folds: to score; none: no rows.
        base: the method that the others are compared with.
    """
    methods = sorted({method for method, _ in cells},
                     key=lambda name: (name != base, name != "slivit", name))
    rows, replicates = [], {}
    for size in sorted({size for _, size in cells}, key=lambda size: size or np.inf):
        before = len(rows)
        for method in [name for name in methods if (name, size) in cells and folds]:
            mine = [one for one in cells[method, size] if one.job.fold in folds]
            row, draws = score(mine)  # of the same scans and draws of patients for each method
            count = size or round(len(pooled(mine)) / len(folds) * 4)  # four fifths of the volumes
            replicates[method, count] = draws
            low, high, gain, p = np.nan, np.nan, np.nan, None
            if method == base:
                first = row
            elif (base, count) in replicates:
                gain = first["roc_auc"] - row["roc_auc"]
                gains = replicates[base, count] - draws
                low, high = bootstrap.interval(gains) or (low, high)
                p = bootstrap_p(gains)
            row |= {"difference": gain, "difference_low": low, "difference_high": high, "p": p}
            rows.append({"method": method, "volumes": count, "all": not size,
                         "folds": " ".join(map(str, sorted(folds))), **row})
        for row, p in zip(rows[before:], holm([row["p"] for row in rows[before:]]), strict=True):
            row["p"] = p
    return rows, replicates


def score(mine: list[Done]) -> tuple[dict, np.ndarray]:
    """Return the mean of the folds' ROC-AUCs with its interval by patient, and its replicates."""
    table = pooled(mine)
    truth = table["truth"].to_numpy()
    counts, member = bootstrap.cluster_counts(table["patient"].tolist(), truth == 1, N_BOOT, 0)
    values, draws = [], []
    for fold in sorted(table["fold"].unique()):
        here = np.flatnonzero(table["fold"] == fold)
        scorer = bootstrap.ranking(truth[here], table["pred"].to_numpy()[here], member[here])
        values.append(float(scorer(np.ones((1, counts.shape[1])))["roc_auc"][0]))
        draws.append(bootstrap.replicate(scorer, counts, member[here])["roc_auc"])
    replicates = np.mean(draws, axis=0)
    low, high = bootstrap.interval(replicates) or (np.nan, np.nan)
    return {"roc_auc": float(np.mean(values)), "roc_auc_low": low, "roc_auc_high": high,
            "seeds": len({one.job.seed for one in mine}), "scans": len(table)}, replicates


def saving(table: pd.DataFrame, replicates: dict[tuple[str, int], np.ndarray], other: str
           ) -> list[dict]:
    """Return, for each size of another method, how many volumes SLIViT needs for its score.

    On SLIViT's curve over the logarithm of the volumes, made to rise (isotonic regression) and
    drawn straight between sizes. `times_fewer` is None where SLIViT does not reach the score with
    all volumes, and `at_least` is True where it does with its smallest size already. The interval
    is of replicates by patient (out of reach counts as 0).
    """
    ours = table[table["method"] == OURS]["volumes"].tolist()
    theirs = [size for size in table[table["method"] == other]["volumes"] if size in ours]
    value = {(row.method, row.volumes): row.roc_auc for row in table.itertuples()}
    rows = []
    for size in theirs:
        curve = [value[OURS, n] for n in ours]
        needed = volumes_for(value[other, size], ours, curve)
        draws = np.stack([replicates[OURS, n] for n in ours], axis=1)
        times = np.array([size / volumes_for(goal, ours, line) for goal, line
                          in zip(replicates[other, size][:500], draws[:500], strict=True)])
        rows.append({"volumes": int(size), "roc_auc": round(value[other, size], 4),
                     "needed": None if np.isinf(needed) else round(needed, 1),
                     "times_fewer": None if np.isinf(needed) else round(size / needed, 2),
                     "at_least": bool(needed <= min(ours)),
                     "times_fewer_ci": [round(edge, 2) for edge in np.percentile(
                         times, [2.5, 97.5])]})
    return rows


def volumes_for(goal: float, sizes: list[int], curve: list[float]) -> float:
    """Return how many volumes a curve needs for a score; infinity where it never gets there."""
    logs = np.log(sizes)
    rising = IsotonicRegression().fit_transform(logs, curve)
    if rising[-1] < goal:
        return float("inf")
    place = int(np.argmax(rising >= goal))
    if place == 0:
        return float(sizes[0])
    share = (goal - rising[place - 1]) / (rising[place] - rising[place - 1])
    return float(np.exp(logs[place - 1] + share * (logs[place] - logs[place - 1])))


def as_text(rows: list[dict], savings: dict[str, list[dict]],
            head: str = "ROC-AUC, mean of folds (95 % interval)") -> str:
    """Return the curves and the savings to print."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    sizes = sorted({row["volumes"] for row in rows})
    cell = {(row["method"], row["volumes"]): score_text(
        {"x": row["roc_auc"], "x_ci": [row["roc_auc_low"], row["roc_auc_high"]]}, "x")
        for row in rows}
    lines = [head, "  ".join(["volumes", *(name.rjust(22) for name in methods)])]
    lines += ["  ".join([str(size).rjust(7), *(cell.get((name, size), "-").rjust(22)
                                               for name in methods)]) for size in sizes]
    for other, saved in savings.items():
        lines.append(f"volumes that {OURS} needs for the score of {other}:")
        for row in saved:
            needed = ("out of reach" if row["needed"] is None else
                      f"{'at most ' if row['at_least'] else ''}{row['needed']:.0f}, "
                      f"{row['times_fewer']:.1f} times fewer (95 % interval "
                      f"{row['times_fewer_ci'][0]:.1f} to {row['times_fewer_ci'][1]:.1f})")
            lines.append(f"  {row['volumes']:5d} at {row['roc_auc']:.3f}: {needed}")
    return "\n".join(lines)


def draw(table: pd.DataFrame, path: Path, ours: str = OURS,
         score: str = "ROC-AUC, mean of folds, 95 % interval") -> None:
    """Draw the curves, that of `ours` thicker and with its intervals."""
    figure, axes = new_figure(8.2, 4.5)
    axes.set_prop_cycle(color=[*colormaps["tab10"].colors, *colormaps["Dark2"].colors])
    for name, part in table.groupby("method", sort=False):
        if name == LINE:
            axes.plot(part["volumes"], part["roc_auc"], "--", label=name, color="black")
            continue
        line = axes.plot(part["volumes"], part["roc_auc"], "o-", label=name, markersize=4,
                         linewidth=2.4 if name == ours else 1.2)[0]
        if name == ours:  # those of all would hide the lines
            axes.fill_between(part["volumes"], part["roc_auc_low"], part["roc_auc_high"],
                              alpha=0.1, color=line.get_color(), linewidth=0)
    sizes = sorted(table["volumes"].unique())
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sizes, map(str, sizes))
    axes.set(xlabel="volumes to learn from", ylabel=score)
    axes.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside right upper")
    save_figure(figure, path)
