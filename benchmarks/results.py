"""Write the tables of docs/results.md from the result files.

    python -m benchmarks.results            # `make results` summarises the finished jobs first
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import pandas as pd

from benchmarks.markdown import interval, markdown, name, p_value
from benchmarks.region_section import regions, tried, without_labels
from benchmarks.speed_section import speed
from slivit.cli import types
from slivit.data.named_sets import DATA_DIR
from slivit.utils.errors import UserError, run_script
from slivit.utils.files import atomic_write

BEGIN, END = "<!-- results: written by make results -->", "<!-- end of results -->"


def main(argv: Sequence[str] | None = None) -> None:
    """Replace what is between the two marks in docs/results.md."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=types.path, metavar="DIR",
                        default=DATA_DIR.parent / "benchmarks/results",
                        help="(default benchmarks/results)")
    parser.add_argument("--page", type=types.path, default=DATA_DIR.parent / "docs/results.md",
                        metavar="FILE", help="(default docs/results.md)")
    args = parser.parse_args(argv)
    text = args.page.read_text(encoding="utf-8") if args.page.is_file() else ""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(f"{args.page}: expected a file with one line {BEGIN} and one line {END}")
    body = section(args.results)
    if not body:
        raise UserError(f"{args.results}: expected summaries such as accuracy.csv, found none; "
                        "`python -m benchmarks.accuracy --summary` writes that one")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    with atomic_write(args.page) as part:
        part.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}",
                        encoding="utf-8")
    print(f"written: the results section of {args.page}")


def section(results: Path) -> str:
    """Return the section in Markdown: a part for each result file that is there."""
    parts = [("accuracy.csv", accuracy), ("accuracy_seeds.csv", seeds),
             ("agreement.csv", agreement),
             ("learning_curve.csv", curve), ("regions.csv", regions),
             ("without_labels.csv", without_labels), ("regions_search.csv", tried),
             ("ratings_volumes.csv", ratings), ("search.csv", search),
             ("precision.csv", precision), ("speed_steps.csv", speed)]
    return "\n\n".join(make(results) for name, make in parts if (results / name).exists())


def accuracy(results: Path) -> str:
    """Return the accuracy benchmark's table and figure."""
    table = pd.read_csv(results / "accuracy.csv")
    most = table["n"].max()
    rows = [[name(row.method) + ("" if row.n == most else
                                 f" (fold {str(row.folds).replace(' ', ', ')} alone)"),
             interval(row, "roc_auc"), interval(row, "pr_auc"),
             interval(row, "difference", sign=True), p_value(row.p_delong_holm),
             "-" if pd.isna(row.parameters) else f"{int(row.parameters):,}",
             f"{row.minutes:.1f}"] for row in table.itertuples()]
    heads = ["", "ROC-AUC (95 %)", "PR-AUC (95 %)", "ROC-AUC minus SLIViT's (95 %)",
             "p (DeLong, Holm)", "parameters", "minutes"]
    return "\n\n".join([
        "## Malignant or benign: five folds by patient",
        f"`python -m benchmarks.accuracy`: {most:,} nodules, each predicted by a model that has "
        "not seen its patient, not even in pre-training; one seed; intervals by patient. Minutes "
        "are on one core, as the mean of the folds; the machines differed in speed, so compare "
        "them only roughly.",
        markdown(heads, rows), "![ROC-AUC of every method](../benchmarks/results/accuracy.png)"])


def seeds(results: Path) -> str:
    """Return the table of methods that were trained with several seeds."""
    table = pd.read_csv(results / "accuracy_seeds.csv")
    rows = [[name(row.method), row.seeds, f"{row.seed_mean:.3f}" if pd.isna(row.seed_sd) else
             f"{row.seed_mean:.3f} ({row.seed_sd:.3f})", interval(row, "roc_auc"),
             interval(row, "difference", sign=True), p_value(row.p_delong_holm)]
            for row in table.itertuples()]
    return "\n\n".join([
        f"The same with {table['seeds'].max()} seeds (`--seeds 0,1`): the ROC-AUC of a single seed "
        "(mean and standard deviation), and that of the predictions averaged over all seeds.",
        markdown(["", "seeds", "of one seed (SD)", "of their mean (95 %)",
                  "minus SLIViT's (95 %)", "p (DeLong, Holm)"], rows)])


def agreement(results: Path) -> str:
    """Return what the labels allow: one radiologist's score, and the methods' on clear labels."""
    table = pd.read_csv(results / "agreement.csv")
    one, rest = table.iloc[0], table.iloc[1:]
    methods = list(dict.fromkeys(rest["method"]))
    rows = []
    for group, part in rest.groupby("group", sort=False):
        cells = {row.method: interval(row, "roc_auc") if group == "all" else f"{row.roc_auc:.3f}"
                 for row in part.itertuples()}
        rows.append([group, f"{part['n'].iloc[0]:,}", f"{part['positive'].iloc[0]:.0%}",
                     *(cells[method] for method in methods)])
    return "\n\n".join([
        "## What the labels allow",
        "`python -m benchmarks.agreement`. The label is whether the radiologists' mean rating is "
        "over 3. The rating of a single radiologist, who has seen the CT, predicts the label that "
        f"the others would give with a ROC-AUC of {interval(one, 'roc_auc')} ({one['n']:,} "
        "ratings, of all nodules that several radiologists rated). The table scores the same "
        "predictions as above, grouped by how many radiologists rated a nodule, and by how far "
        "their mean is from 3:",
        markdown(["nodules", "n", "malignant", *map(name, methods)], rows)])


def precision(results: Path) -> str:
    """Return what bfloat16 costs the recommended recipe."""
    table = pd.read_csv(results / "precision.csv", dtype={"seeds": str})
    rows = [[row.precision, row.seeds, interval(row, "roc_auc"),
             interval(row, "difference", sign=True), f"{row.minutes:.1f}"]
            for row in table.itertuples()]
    folds = len(str(table["folds"].iloc[0]).split())
    return "\n\n".join([
        "## Numbers of half the size",
        f"`python -m benchmarks.precision`: the recommended recipe on {folds} folds of the "
        f"{table['n'].iloc[0]:,} nodules, pre-training included, with `--amp off` (float32) and "
        "`--amp bf16` (bfloat16), both on one machine. Of several seeds the predictions are "
        "averaged. Minutes are on one core, as the mean of the trainings.",
        markdown(["", "seeds", "ROC-AUC (95 %)", "minus float32's (95 %)", "minutes"], rows)])


def curve(results: Path) -> str:
    """Return the learning curves' table, figure and savings."""
    table = pd.read_csv(results / "learning_curve.csv")
    heads, scores, gains = _curves(table)
    savings = json.loads((results / "learning_curve.json").read_text(encoding="utf-8"))
    needs = [_saving(other, row) for other, saved in savings.items() for row in saved]
    folds = str(table["folds"].iloc[0]).split()
    return "\n\n".join([
        "## Few volumes",
        "`python -m benchmarks.learning_curve`: mean ROC-AUC of "
        f"{len(folds)} of the five folds, by the number of volumes for training and validation; "
        "intervals (by patient) are in [learning_curve.csv](../benchmarks/results/"
        "learning_curve.csv). The backbones of the plain and the recommended recipe, unless the "
        "name says otherwise, have seen labelled 2D images of all training patients: one image of "
        "each nodule (plain), or a dozen slices of each volume (recommended).",
        markdown(heads, scores),
        "![Learning curves of most of the methods](../benchmarks/results/learning_curve.png)",
        f"{name('few_volumes')} minus each of the others: paired difference with its 95 % "
        "interval, and p from the bootstrap, Holm-corrected over the methods of a size:",
        markdown(heads, gains), *_on_all_folds(results), *_starts(results),
        "How many volumes that recipe needs to reach the score of a 3D network (25 is the "
        "smallest number measured; 0.0 in an interval means out of reach):",
        markdown(["3D network", "with volumes", "ROC-AUC", "it needs", "times fewer (95 %)"],
                 needs)])


def _curves(table: pd.DataFrame) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Return the heads of a table by size, scores, and the first method's minus the others'."""
    sizes = sorted(table["volumes"].unique())
    scores, gains = [], []
    for method, part in table.groupby("method", sort=False):
        cells = {row.volumes: row for row in part.itertuples()}
        scores.append([name(method), *(f"{cells[size].roc_auc:.3f}" if size in cells else "-"
                                       for size in sizes)])
        if part["difference"].notna().any():
            gains.append([name(method), *(_gain(cells.get(size)) for size in sizes)])
    return ["", *(f"{size:,}" for size in sizes)], scores, gains


def _on_all_folds(results: Path) -> list[str]:
    """Return the curves of the methods that were run on all folds."""
    path = results / "learning_curve_all_folds.csv"
    if not path.exists():
        return []
    heads, scores, gains = _curves(pd.read_csv(path))
    return ["The methods that were run on all five folds, scored on these:",
            markdown(heads, scores),
            f"{name('few_volumes')} minus the others there:", markdown(heads, gains)]


def _starts(results: Path) -> list[str]:
    """Return nodule volume alone against all that the recipe for few volumes starts from."""
    path = results / "learning_curve_starts.csv"
    if not path.exists():
        return []
    heads, _, gains = _curves(pd.read_csv(path))
    return ["The nodule volume alone minus the recipe for few volumes, by what its backbone has "
            "learned from (a negative number: the recipe is better):", markdown(heads, gains)]


def _gain(row) -> str:
    """Return a paired difference, its interval and its p-value; `-` where there is none."""
    if row is None or pd.isna(row.difference):
        return "-"
    p = p_value(row.p)
    return f"{interval(row, 'difference', sign=True)}, p {p}"


def _saving(other: str, row: dict) -> list[str]:
    start = [name(other), f"{row['volumes']:,}", f"{row['roc_auc']:.3f}"]
    if row["needed"] is None:
        return [*start, "out of reach", "-"]
    low, high = row["times_fewer_ci"]
    return [*start, f"{'at most ' if row['at_least'] else ''}{row['needed']:,.0f}",
            f"{'at least ' if row['at_least'] else ''}{row['times_fewer']:.1f} "
            f"({low:.1f} to {high:.1f})"]


def ratings(results: Path) -> str:
    """Return the tables of ratings."""
    table = pd.read_csv(results / "ratings_volumes.csv")
    parts = ["## Ratings: regression and multi-label",
             "`python -m benchmarks.ratings`, on the same five folds. Mean malignancy rating (1 to "
             f"5) of {table['n'].max():,} volumes:",
             markdown(["", "R² (95 %)", "Spearman (95 %)", "mean absolute error (95 %)"],
                      [[name(row.method), *(interval(row, key) for key in ("r2", "spearman",
                                                                            "mae"))]
                       for row in table.itertuples()])]
    path = results / "ratings_images.csv"
    if path.exists():
        table = pd.read_csv(path)
        labels = list(table.columns[table.columns.get_loc("pr_auc_high") + 1:])
        parts += [f"Eight labels of {table['n'].max():,} images; ROC-AUC, as the mean over the "
                  "labels and for each label:",
                  markdown(["", "mean (95 %)", *(label.replace("_", " ") for label in labels)],
                           [[name(row["method"]), interval(row, "roc_auc"),
                             *(f"{row[label]:.3f}" for label in labels)]
                            for _, row in table.iterrows()])]
    return "\n\n".join(parts)


def search(results: Path) -> str:
    """Return the table of what was tried."""
    table = pd.read_csv(results / "search.csv")
    return "\n\n".join([
        "## What was tried",
        f"`python -m benchmarks.search`: {table['folds'].max()} folds of the embedded training and "
        "validation patients, one seed. The gain is the ROC-AUC minus that of nodule volume alone, "
        "as the mean over the folds; rows are sorted by it. Its standard error is about 0.005, so "
        "neighbouring rows cannot be told apart.",
        markdown(["", "gain", "ROC-AUC, folds together"],
                 [[f"{row.what} (`{row.variant}`)", f"{row.gain:+.4f}", f"{row.roc_auc:.3f}"]
                  for row in table.itertuples()])])


if __name__ == "__main__":
    run_script(main)
