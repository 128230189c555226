"""The speed section of docs/results.md."""

from pathlib import Path

import pandas as pd

from benchmarks.markdown import markdown


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
                       ("profile", _profile), ("waiting", _waiting)):
        path = results / f"speed_{part}.csv"
        if path.exists():
            other = pd.read_csv(path)
            parts += make(other)
            if other["processor"].iloc[0] != table["processor"].iloc[0]:
                parts.append(f"(This part was measured on {other['processor'].iloc[0]}.)")
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
    whole_cases = table["what"].isin(("forward", "training step"))
    rows = []
    for row in table[whole_cases].itertuples():
        parts = table[(table["case"] == row.case) & ~whole_cases].head(3)
        rows.append([row.case, f"{row.seconds:.3f}", f"{row.gflops:.0f}", f"{row.of_matmul:.0%}",
                     ", ".join(f"{part.what} {part.share:.0%}" for part in parts.itertuples())])
    return ["The backbone's forward pass, and SLIViT's training step, compared with the rate at "
            "which large matrices of the same type are multiplied (on a CPU, SLIViT processes 4 "
            "slices of 256 pixels at a time):",
            markdown(["", "seconds", "GFLOP/s", "of matrix multiplication", "most time in"],
                     rows)]


def _waiting(table: pd.DataFrame) -> list[str]:
    settings = list(dict.fromkeys(table["setting"]))
    rows = []
    for (model, what, state), part in table.groupby(["model", "what", "state"], sort=False):
        by_setting = part.set_index("setting")
        rows.append([f"{model}, {what}", state, *(
            f"{one['seconds']:.3f} ({one['ratio']:.2f})" for _, one in
            by_setting.loc[settings].iterrows())])
    return ["Seconds of a step by [how threads wait](speed.md#beside-other-processes) for each "
            "other, and in parentheses how many times those of the best setting alone:",
            markdown(["", "", *settings], rows)]
