"""How reports, pictures and the terminal print scores: their names, and 0.896 (0.856 to 0.932)."""

from dataclasses import dataclass

NONE = "–"
NAMES = {  # of the scores in metrics.json
    "roc_auc": "ROC-AUC", "pr_auc": "PR-AUC", "brier": "Brier score", "ece": "ECE",
    "sensitivity": "Sensitivity", "specificity": "Specificity", "ppv": "PPV", "npv": "NPV",
    "f1": "F1", "accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy",
    "kappa": "Cohen's kappa", "f1_macro": "F1, macro", "f1_weighted": "F1, weighted",
    "precision_macro": "Precision, macro", "precision_weighted": "Precision, weighted",
    "roc_auc_weighted": "ROC-AUC, weighted", "pr_auc_weighted": "PR-AUC, weighted",
    "ece_top": "ECE of the predicted class", "r2": "R²", "pearson": "Pearson",
    "spearman": "Spearman", "mae": "MAE", "rmse": "RMSE", "bias": "Bias",
    "loa_low": "Lower limit", "loa_high": "Upper limit"}
MEDMNIST = {"auc": "AUC", "acc": "ACC"}  # as its tables call them
SHARES = ("roc_auc", "pr_auc")  # whose differences are shares of 1
OVER_CLASSES = NAMES | {  # where each class has its own too
    "roc_auc": "ROC-AUC, macro (one class against the rest)", "pr_auc": "PR-AUC, macro",
    "brier": "Brier score, mean over classes", "ece": "ECE, mean over classes"}


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: the value.
        interval: such as `(0.856 to 0.932)`, or empty.
        number: whether it is set as a number.
        bar: start, value and end of an interval as shares of its column's axis, or None.
        share: 0..1, how deep the cell is shaded, or None.
    """

    text: str
    interval: str = ""
    number: bool = False
    bar: tuple[float, float, float] | None = None
    share: float | None = None

    def __str__(self) -> str:
        return f"{self.text} {self.interval}".rstrip()


def number(value: float | None, share: bool = False) -> str:
    """Return a number with three decimals.

    Large and tiny ones have the digits that count; a `share`, of 1, never has more than three.
    """
    if value is None:
        return NONE
    size = abs(value)
    if size >= 1000:
        shown = f"{size:,.0f}"
    elif size >= 0.001 or size == 0 or share:
        shown = f"{size:.3f}" if size < 100 else f"{size:.1f}"
    else:
        shown = f"{size:.1e}"
    return f"−{shown}" if value < 0 and float(shown.replace(",", "")) else shown


def score(scores: dict, key: str, scale: tuple[float, float] | None = None,
          share: bool = False) -> Cell:
    """Return the score `key` with its interval `key_ci`, and a bar where there is an axis.

    `share` as in `number`.
    """
    value, interval = scores.get(key), scores.get(f"{key}_ci")
    between = "({} to {})".format(*(number(edge, share) for edge in interval)) if interval else ""
    bar = None
    if scale and interval and value is not None:
        low, high = scale
        bar = tuple(min(1.0, max(0.0, (one - low) / (high - low)))
                    for one in (interval[0], value, interval[1]))
    return Cell(number(value, share), between, number=True, bar=bar)


def p_value(value: float | None) -> Cell:
    """Return a p value; below 0.001 no digits."""
    if value is not None and value < 0.001:
        return Cell("< 0.001", number=True)
    return Cell(number(value), number=True)


def count(value: int | None) -> Cell:
    """Return a whole number."""
    return Cell(NONE if value is None else f"{value:,}", number=True)


def text(value: object) -> Cell:
    """Return a text; an empty one is undefined."""
    return Cell(str(value) or NONE)


def score_text(scores: dict, key: str, share: bool = False) -> str:
    """Return a score with its interval in plain text, `-` if undefined; `share` as in `number`."""
    return plain_text(score(scores, key, share=share))


def plain_text(cell: Cell) -> str:
    """Return a cell for a terminal or a picture: minus and dash are those of the keyboard."""
    return str(cell).replace("−", "-").replace(NONE, "-")
