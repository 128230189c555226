"""The table and the figures of benchmarks.regions."""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.curve_summary import as_text, draw
from benchmarks.jobs import Done
from benchmarks.nodules import Nodules
from benchmarks.region_crops import REGIONS
from slivit.metrics import bootstrap
from slivit.metrics.comparison import bootstrap_p, holm
from slivit.metrics.evaluation import N_BOOT
from slivit.report.plots.style import new_panels, save_figure
from slivit.utils.files import atomic_write

OURS = "ssl_few"  # from whose scores those of the others are subtracted
PARTS = (("supervised_slices", "end_to_end"), ("supervised_slices", "mean_logits"),
         ("supervised_slices", "original_tokens"), ("ssl_frozen", "supervised_slices"),
         ("ssl_slices", "ssl_frozen"), ("supervised_slices", "resnet18_narrow"),
         ("supervised_slices", "densenet"), ("ssl_frozen", "resnet18_narrow"),
         ("ssl_frozen", "densenet"))
SCORE = "ROC-AUC, mean of labels and seeds"

# Of one training: ROC-AUC as the mean over labels, its replicates (N_BOOT,), ROC-AUC of each label.
Scored = tuple[float, np.ndarray, dict[str, float]]


def summarise(jobs: list[Done], results: Path) -> str:
    """Write regions.csv, regions_parts.csv and regions.png of finished jobs; return it as text.

    A row is a method and a number of labelled crops. Its score is the mean over the labels of
    their ROC-AUCs, and over the seeds; `seed_sd` is the standard deviation over seeds, of which
    each has labelled crops and weights of its own. Intervals are of 2,000 draws of test crops, the
    same for all rows. `difference` is OURS's score less the method's, of the seeds that both have;
    `p` is the level at which its interval would just reach 0 (metrics.comparison.bootstrap_p),
    and `p_holm` is Holm's correction over the methods of a size. regions_parts.csv has the same of
    the pairs of PARTS with most labelled crops.
    """
    cells: dict[tuple[str, int], dict[int, Scored]] = {}
    facts: dict[tuple[str, int], list[dict]] = {}
    for one in jobs:
        key = one.job.method, one.job.size
        cells.setdefault(key, {})[one.job.seed] = score(one.read_predictions())
        facts.setdefault(key, []).append(one.read_facts())
    if not cells:
        return "no training is finished"
    order = sorted(cells, key=lambda key: (key[1], key[0] != OURS))
    rows = [{"method": method, "volumes": size, **_scores(cells[method, size]),
             **_difference(cells.get((OURS, size)) if method != OURS else None,
                           cells[method, size]),
             "minutes": np.mean([one["seconds"] for one in facts[method, size]]) / 60,
             **_label_means(cells[method, size])} for method, size in order]
    most = max(size for _, size in cells)
    parts = [{"method": method, "without": other, "volumes": most,
              **_difference(cells[method, most], cells[other, most])} for method, other in PARTS
             if {(method, most), (other, most)} <= cells.keys()]
    sizes = {size for _, size in cells}
    of_a_size = [[row for row in rows if row["volumes"] == size] for size in sizes]
    for several in (*of_a_size, parts):
        for row, p in zip(several, holm([row["p"] for row in several]), strict=True):
            row["p_holm"] = p
    results.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows)
    for name, content in (("regions", table), ("regions_parts", pd.DataFrame(parts))):
        if len(content):
            with atomic_write(results / f"{name}.csv") as part:
                content.round(5).to_csv(part, index=False)
    draw(table, results / "regions.png", OURS, f"{SCORE}, 95 % interval")
    return as_text(rows, {}, f"{SCORE} (95 % interval)")


def score(table: pd.DataFrame) -> Scored:
    """Return the scores of a training's predictions of the test crops."""
    truth = table[[f"truth_{region}" for region in REGIONS]].to_numpy()
    counts, member = bootstrap.cluster_counts(table["nodule"].tolist(), truth == 1, N_BOOT, 0)
    values, draws = {}, []
    for k, region in enumerate(REGIONS):
        scorer = bootstrap.ranking(truth[:, k], table[f"pred_{region}"].to_numpy(), member)
        values[region] = float(scorer(np.ones((1, counts.shape[1])))["roc_auc"][0])
        draws.append(bootstrap.replicate(scorer, counts, member)["roc_auc"])
    return float(np.mean(list(values.values()))), np.mean(draws, axis=0), values


def _scores(seeds: dict[int, Scored]) -> dict:
    values = [value for value, _, _ in seeds.values()]
    low, high = _interval(np.mean([draws for _, draws, _ in seeds.values()], axis=0))
    return {"roc_auc": np.mean(values), "roc_auc_low": low, "roc_auc_high": high,
            "seeds": len(seeds), "seed_sd": np.std(values, ddof=1) if len(values) > 1 else np.nan}


def _difference(ours: dict[int, Scored] | None, other: dict[int, Scored]) -> dict:
    """Return OURS's score less another's, of the seeds that both have; NaN and None without."""
    both = sorted(set(ours or {}) & set(other))
    if not both:
        return {"difference": np.nan, "difference_low": np.nan, "difference_high": np.nan,
                "p": None}
    draws = np.mean([ours[seed][1] - other[seed][1] for seed in both], axis=0)
    low, high = _interval(draws)
    return {"difference": np.mean([ours[seed][0] - other[seed][0] for seed in both]),
            "difference_low": low, "difference_high": high,
            "p": bootstrap_p(draws) if np.isfinite(draws).any() else None}


def _label_means(seeds: dict[int, Scored]) -> dict[str, float]:
    return {region: np.mean([labels[region] for _, _, labels in seeds.values()])
            for region in REGIONS}


def _interval(draws: np.ndarray) -> list[float]:
    return bootstrap.interval(draws) or [np.nan, np.nan]


def draw_crops(crops: Nodules, path: Path, each: int = 5) -> None:
    """Draw the middle slice of some crops of each hemisphere, with the regions they hold."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, panels = new_panels(2 * each, each, 1.05, 1.6)
    sides = [np.flatnonzero(crops.table["hemisphere"] == side)[:each]
             for side in ("left", "right")]
    for axes, row in zip(panels, np.concatenate(sides), strict=False):
        one = crops.table.iloc[row]
        scan = crops.scans[row]
        axes.imshow(scan[len(scan) // 2], cmap="gray", vmin=0, vmax=160)
        axes.set_axis_off()
        text = [region for region in REGIONS if one[region]] or ["none"]
        axes.set_title(f"{one['hemisphere']}\n" + ",\n".join(text), fontsize=6)
    save_figure(figure, path)
