"""Write the tables of docs/results.md from the result files.

    python -m benchmarks.results            # `make results` summarises the finished jobs first
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from slivit.cli import types
from slivit.data.named_sets import DATA_DIR
from slivit.utils.errors import UserError, run_script
from slivit.utils.files import atomic_write

BEGIN, END = "<!-- results: written by make results -->", "<!-- end of results -->"
NAMES = {
    "slivit": "**SLIViT, recommended**",
    "slivit_mean_logits": "SLIViT, recommended, without integrator: mean of slice logits",
    "plain": "SLIViT, plain recipe",
    "end_to_end": "plain recipe, trained on end to end",
    "no_pretraining": "plain recipe without 2D pre-training, end to end",
    "mean_logits": "plain recipe without integrator: mean of slice logits",
    "original_tokens": "plain recipe with the original's tokens",
    "plain_few_images": "plain recipe, images of the same patients alone",
    "resnet18_narrow": "3D ResNet-18, a quarter of the width",
    "resnet18_half_rate": "3D ResNet-18, a quarter of the width, half the rate",
    "resnet18_ratings": "3D ResNet-18, a quarter of the width, ratings as labels",
    "resnet18_full": "3D ResNet-18",
    "densenet": "3D DenseNet, small",
    "shape_boosting": "gradient boosting on shape features",
    "volume": "nodule volume alone",
    "frozen_logistic": "plain recipe, logistic regression as integrator",
    "image_backbone": "ConvNeXt of the plain recipe",
    "image_backbone_bn": "ConvNeXt with BatchNorm (`convnext_atto_bn`)",
    "image_resnet18": "ResNet-18",
    "image_shape_boosting": "gradient boosting on shape features",
    "image_area": "area alone",
    "together": "mean of the three networks' logits",
}


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
             ("learning_curve.csv", curve),
             ("ratings_volumes.csv", ratings), ("search.csv", search),
             ("speed_steps.csv", speed)]
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


def curve(results: Path) -> str:
    """Return the learning curves' table, figure and savings."""
    table = pd.read_csv(results / "learning_curve.csv")
    methods = list(dict.fromkeys(table["method"]))
    cells = {(row.method, row.volumes): [interval(row, "roc_auc"),
                                         interval(row, "difference", sign=True)]
             for row in table.itertuples()}
    heads = ["volumes"]
    for method in methods:
        heads += [name(method), "plain recipe minus it"]
    rows = [[f"{size:,}", *sum((cells.get((method, size), ["-", "-"]) for method in methods), [])]
            for size in sorted(table["volumes"].unique())]
    heads, rows = heads[:2] + heads[3:], [row[:2] + row[3:] for row in rows]  # itself
    savings = json.loads((results / "learning_curve.json").read_text(encoding="utf-8"))
    needs = [_saving(other, row) for other, saved in savings.items() for row in saved]
    folds = str(table["folds"].iloc[0]).split()
    return "\n\n".join([
        "## Few volumes",
        "`python -m benchmarks.learning_curve`: mean ROC-AUC of "
        f"{len(folds)} of the five folds, by the number of volumes for training and validation, "
        "with 95 % intervals by patient; differences are paired. The backbones of both recipes "
        "have seen labelled 2D images of all training patients: one image of each nodule (plain), "
        "or a dozen slices of each volume (recommended).",
        markdown(heads, rows),
        "![Learning curves](../benchmarks/results/learning_curve.png)",
        "How many volumes the plain recipe needs to reach the score of a 3D network (25 is the "
        "smallest number measured; 0.0 in an interval means out of reach):",
        markdown(["3D network", "with volumes", "ROC-AUC", "it needs", "times fewer (95 %)"],
                 needs)])


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


def speed(results: Path) -> str:
    """Return the tables of speed."""
    table = pd.read_csv(results / "speed_steps.csv")
    parts = ["## Speed", f"`python -m benchmarks.speed` on {table['processor'].iloc[0]}, "
             f"{table['threads'].iloc[0]} threads, medians of alternating runs. The paper's "
             "configuration (`convnext_tiny`, 28 slices of 256 pixels), for one volume:",
             markdown(["", "way", "seconds", "times SLIViT's", "peak MB"],
                      [[row.what, row.way, f"{row.seconds:.2f}", f"{row.ratio:.2f}",
                        f"{row.peak_mb:,.0f}"] for row in table.itertuples()])]
    for part, make in (("frozen", _frozen), ("recipes", _recipes), ("growth", _growth),
                       ("profile", _profile)):
        path = results / f"speed_{part}.csv"
        if path.exists():
            parts += make(pd.read_csv(path))
    return "\n\n".join(parts)


def _frozen(table: pd.DataFrame) -> list[str]:
    return [f"The recommended recipe's model on {table['volumes'].iloc[0]} nodules: stored slice "
            "features (computed once, and once more for each augmented version), compared with "
            "end-to-end training:",
            markdown(["", "seconds", "times faster than an epoch end to end"],
                     [[row.what, f"{row.seconds:.2f}", f"{row.ratio:.1f}"]
                      for row in table.itertuples()])]


def _recipes(table: pd.DataFrame) -> list[str]:
    rows = []
    for recipe, part in table.groupby("recipe", sort=False):
        last, tuned = part.iloc[-1], part[part["stage"] == "finetune"]
        rows.append([recipe, f"{last['minutes']:.1f}", f"{tuned['val_roc_auc'].max():.3f}",
                     f"{last['minutes_to_goal']:.1f}"])
    goal = table["goal"].dropna().iloc[0]
    return ["Time to reach a validation score, for two recipes that start from random weights on "
            "the embedded sets, one run each, pre-training included. Both reach "
            f"{goal:.3f} (on 206 volumes, so with a standard error of about 0.03):",
            markdown(["recipe", "minutes in all", "best validation ROC-AUC",
                      f"minutes to {goal:.3f}"], rows)]


def _growth(table: pd.DataFrame) -> list[str]:
    return ["Prediction while the number of volumes, or of slices per volume, doubles (a small "
            "model, reading from files):",
            markdown(["volumes", "slices", "MB on disk", "seconds", "ms per slice", "peak MB"],
                     [[row.volumes, row.slices, row.mb_on_disk, f"{row.seconds:.2f}",
                       f"{row.ms_per_slice:.2f}", f"{row.peak_mb:.0f}"]
                      for row in table.itertuples()])]


def _profile(table: pd.DataFrame) -> list[str]:
    whole = table[table["what"] == "forward"]
    rows = []
    for row in whole.itertuples():
        parts = table[(table["case"] == row.case) & (table["what"] != "forward")].head(3)
        rows.append([row.case, f"{row.seconds:.3f}", f"{row.gflops:.0f}", f"{row.of_matmul:.0%}",
                     ", ".join(f"{part.what} {part.share:.0%}" for part in parts.itertuples())])
    return ["The backbone's forward pass, compared with the rate at which large float32 matrices "
            "are multiplied (on a CPU, SLIViT processes 4 slices of 256 pixels at a time):",
            markdown(["", "seconds", "GFLOP/s", "of matrix multiplication", "most time in"],
                     rows)]


def name(method: str) -> str:
    """Return a method's name to show."""
    return NAMES.get(method, method)


def interval(row, key: str, sign: bool = False) -> str:
    """Return a score and its interval, of a row that has KEY, KEY_low and KEY_high."""
    get = row.get if isinstance(row, pd.Series) else (lambda one: getattr(row, one))
    value, low, high = get(key), get(f"{key}_low"), get(f"{key}_high")
    if pd.isna(value):
        return "-"
    form = "+.3f" if sign else ".3f"
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def p_value(value: float) -> str:
    """Return a p-value to show."""
    return "-" if pd.isna(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def markdown(heads: Sequence[str], rows: Sequence[Sequence]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    run_script(main)
