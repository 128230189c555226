"""The sections of docs/results.md on grey values and on pre-training without labels."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from benchmarks.markdown import REGION_NAMES, interval, markdown, name, p_value

KINDS = {"vicreg": "VICReg, neighbouring slices", "masked": "masked autoencoder (FCMAE)",
         "order": "order and distance of slices"}


def regions(results: Path) -> str:
    """Return the tables and figures of the regions of a brain."""
    table = pd.read_csv(results / "regions.csv")
    ours = table[table["difference"].isna()]["method"].iloc[0]
    sizes = sorted(table["volumes"].unique())
    row_of = {(row.method, row.volumes): row for row in table.itertuples()}
    methods = list(dict.fromkeys(table["method"]))

    def rows(kept: list[str], cell: Callable) -> list[list[str]]:
        return [[name(method, REGION_NAMES), *(cell(row_of[method, size]) if (method, size)
                                               in row_of else "-" for size in sizes)]
                for method in kept]

    labels = list(table.columns[table.columns.get_loc("minutes") + 1:-1])
    most = table[table["volumes"] == sizes[-1]]
    parts, seeds = results / "regions_parts.csv", table["seeds"].max()
    fewer = "; * of fewer seeds" * bool((table["seeds"] < seeds).any())

    def score(row) -> str:
        return interval(row, "roc_auc") + ("*" if row.seeds < seeds else "")

    return "\n\n".join([
        "## On grey values",
        "`python -m benchmarks.regions`: crops of 24 x 48 x 48 voxels of one T1 scan of a brain, "
        "turned, of random gain and with noise; eight labels, each of which says whether a crop "
        "holds a region of the AAL atlas. Crops to learn from are of the left hemisphere, the 400 "
        "of the test are of the right one, mirrored. ROC-AUC as the mean of the eight labels and "
        f"of {seeds} seeds, by the number of labelled crops (training and validation together), "
        f"with 95 % intervals over the test crops{fewer}:",
        markdown(["", *sizes], rows(methods, score)),
        "![ROC-AUC by the number of labelled crops](../benchmarks/results/regions.png)",
        f"ROC-AUC of \"{name(ours, REGION_NAMES)}\" minus that of the others, paired, with "
        "p-values of the bootstrap over test crops (2,000 draws: at least 0.001) after Holm's "
        "correction over the methods of a size:",
        markdown(["", *sizes], rows(
            [method for method in methods if method != ours], lambda row: "-" if pd.isna(
                row.difference) else f"{interval(row, 'difference', sign=True)}, "
                                     f"p {p_value(row.p_holm)}")),
        *(_parts(pd.read_csv(parts), sizes[-1]) if parts.exists() else []),
        f"Each label with {sizes[-1]} crops, the standard deviation of the mean over seeds, and "
        "minutes on one core:",
        markdown(["", *labels, "SD", "minutes"],
                 [[name(row["method"], REGION_NAMES), *(f"{row[label]:.3f}" for label in labels),
                   "-" if pd.isna(row["seed_sd"]) else f"{row['seed_sd']:.3f}",
                   f"{row['minutes']:.1f}"] for _, row in most.iterrows()]),
        "What this is not: there is one person, anatomy alone and no disease. Crops overlap, and "
        "the halves of one brain are much alike, so the intervals say nothing about other people "
        "or scanners. They are of the test crops alone; the standard deviation tells how much the "
        "draw of labelled crops and weights matters.",
        "![Crops and the regions they hold](../benchmarks/results/regions_crops.png)"])


def _parts(table: pd.DataFrame, most: int) -> list[str]:
    """Return what each part adds where there are most labels."""
    rows = [[name(row.method, REGION_NAMES), name(row.without, REGION_NAMES),
             interval(row, "difference", sign=True), p_value(row.p_holm)]
            for row in table.itertuples()]
    return [f"What the parts add with {most} labelled crops: paired differences, p after Holm's "
            "correction over this table:",
            markdown(["", "minus", "difference (95 %)", "p"], rows)]


def tried(results: Path) -> str:
    """Return the settings that were tried on the training hemisphere, in their order."""
    table = pd.read_csv(results / "regions_search.csv")
    sizes = sorted(table["crops"].unique())
    cells = {(row.variant, row.crops): f"{row.roc_auc:.3f}" for row in table.itertuples()}
    best = table.groupby("variant")["roc_auc"].max().sort_values(ascending=False)
    return "\n\n".join([
        "## On grey values: what was tried",
        "`python -m benchmarks.regions_search`, whose source names the flags of each variant: "
        "ROC-AUC on 400 crops of the training hemisphere, which overlap with those learned from, "
        "so that scores are higher than above. One seed, by the number of labelled crops:",
        markdown(["variant", *sizes], [[f"`{variant}`", *(cells.get((variant, size), "-")
                                                         for size in sizes)]
                                       for variant in best.index])])


def without_labels(results: Path) -> str:
    """Return what was tried without labels, and which epoch would be kept by which rule."""
    table = pd.read_csv(results / "without_labels.csv")
    parts = ["## Without labels: what was tried",
             "`python -m benchmarks.without_labels`: each method pre-trains `convnext_atto_bn` "
             "from random weights for about the same time, on scans of benchmarks.regions_search "
             "and of the first fold of benchmarks.search; then a linear integrator learns from a "
             "few labelled scans. One seed. ROC-AUC of the last epoch, of the epoch of the lowest "
             "loss on validation, of that of the largest effective rank (RankMe), and the highest "
             "of all, which nobody knows without labels:"]
    for bed, of_bed in table.groupby("bed", sort=False):
        scores = [column for column in of_bed if column.startswith("roc_auc")
                  and of_bed[column].notna().any()]
        rows = []
        for method, epochs in of_bed.groupby("method", sort=False):
            chosen = {"last": epochs.iloc[-1], "loss": epochs.loc[epochs["val_loss"].idxmin()],
                      "rank": epochs.loc[epochs["rankme"].idxmax()]}
            cells = [_epochs(row, scores) for row in chosen.values()]
            best = " / ".join(f"{epochs[score].max():.3f}" for score in scores)
            rows.append([KINDS[method], len(epochs), f"{epochs['minutes'].iloc[-1]:.0f}", *cells,
                         best])
        numbers = " / ".join(score.removeprefix("roc_auc_") for score in scores)
        parts += [f"{bed.capitalize()}, with {numbers} labelled scans:",
                  markdown(["", "epochs", "minutes", "last epoch", "lowest loss", "largest rank",
                            "highest"], rows)]
    return "\n\n".join(parts)


def _epochs(row: pd.Series, scores: list[str]) -> str:
    """Return the scores of an epoch and its number."""
    return " / ".join(f"{row[score]:.3f}" for score in scores) + f" (epoch {row['epoch']})"
