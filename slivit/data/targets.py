"""Tasks: which one a table asks for, and how logits become predictions."""

from collections.abc import Sequence

import numpy as np

from slivit.config import Target
from slivit.data.scan_table import SPLITS, ScanTable, match_names
from slivit.data.splits import UNUSED
from slivit.utils.errors import UserError, listing
from slivit.utils.log import LOG, counted, short

FEW = 6  # labels that are named in a line
GIVE_ROWS = ("Assign rows to it in the Split column or by the folders in Path; without such a "
             "column and such folders, --split_ratio divides the rows")
CHOOSE = "Name the 0/1 columns with --pathologies, or (volumes) use --task regression"
CORRECT = "The model expects 0 and 1; correct them, or clear the cells of unknown labels"


def check_validation(scans: ScanTable) -> None:
    """Refuse validation scans without any known label: they choose the epoch that is kept.

    Raises:
        UserError: saying how many there are.
    """
    rows = scans.rows("val")
    if np.isnan(scans.labels[rows]).all():
        raise UserError(f"{scans.name}: none of the {len(rows)} scans in the split val has a label "
                        f"of {', '.join(map(short, scans.label_names))}, but they choose the epoch "
                        "that is kept. Move labelled scans there, or give --select last")


def resolve_task(scans: ScanTable, requested: str = "auto") -> tuple[ScanTable, Target]:
    """Find the task and check that the labels fit it.

    Args:
        scans: the table; `multiclass` takes K columns of which one is 1 in each row, or one
            column of class numbers, which becomes such columns here.
        requested: `auto` or one of config.TASKS.

    Returns:
        The scans with the label columns of the task, and the target (for regression with the
        mean and standard deviation of the training labels).

    Raises:
        UserError: labels that do not fit the task, listing them, or a label with one value only
            in training.
    """
    known = scans.labels[~np.isnan(scans.labels)]
    zero_one = bool(np.isin(known, (0, 1)).all())
    if requested == "auto":
        if scans.task is not None and (scans.task != "multiclass" or _one_hot_rows(scans).all()):
            requested = scans.task
        elif not zero_one:
            requested = "regression"
            _check_one_kind(scans)
        else:
            requested = "binary" if len(scans.label_names) == 1 else "multilabel"
        if requested == "multilabel" and len(scans.label_names) == 1:
            requested = "binary"
    count = len(scans.label_names)
    if requested == "binary" and count != 1:
        raise UserError(f"--task binary: found {count} label columns "
                        f"({', '.join(scans.label_names)}); name one with --pathologies")
    column = None
    if requested == "multiclass":
        if count == 1:
            column = scans.label_names[0]
            scans = expand_classes(scans, column)
        _check_one_hot(scans)
    elif requested in ("binary", "multilabel"):
        _check_zero_one(scans)
    if requested == "regression":
        mean, std = _moments(scans)
        target = Target("regression", scans.label_names, mean=mean, std=std)
    else:
        _check_both_values(scans)
        target = Target(requested, scans.label_names, column=column)
    return scans, target


def describe_task(target: Target, auxiliary: int = 0) -> str:
    """Return the task and its labels in a line; of many, the first few."""
    names = target.labels[:FEW]
    text = f"task: {target.task}, predicting {', '.join(map(short, names))}"
    if len(target.labels) > len(names):
        text += f" and {len(target.labels) - len(names)} more labels"
    learned = f"; also learned: {counted(auxiliary, 'auxiliary label')}"
    return text + learned * bool(auxiliary)


def divide_labels(scans: ScanTable, auxiliary: Sequence[str], predicted: Sequence[str] | None = None
                  ) -> tuple[list[str], list[str]]:
    """Return the names of the labels to predict, and of those that are only learned.

    Args:
        scans: the table with all these labels.
        auxiliary: names of the latter; `all` alone for every label that is not predicted; none
            for none.
        predicted: names of the former; None for all that are not auxiliary.

    Raises:
        UserError: an unknown name, one in both, or none left of either.
    """
    if not auxiliary:
        return list(scans.label_names), []
    what, known = f"label columns of {scans.name}", scans.label_names
    own = match_names(predicted or (), known, what)
    if list(auxiliary) == ["all"]:
        others = [k for k in range(len(known)) if k not in own]
    else:
        others = match_names(auxiliary, known, what)
    if predicted is None:
        own = [k for k in range(len(known)) if k not in others]
    twice = [known[k] for k in own if k in others]
    if twice or not own or not others:
        wrong = (f"{', '.join(twice)} cannot be both predicted and auxiliary" if twice else
                 "names no label other than those to predict" if own else
                                                                          "leaves no label to "
                                                                          "predict")
        raise UserError(f"--auxiliary {','.join(auxiliary)}: {wrong}; available: "
                        f"{', '.join(known)}. Name the labels to predict with --pathologies, "
                        "others with --auxiliary")
    return [known[k] for k in own], [known[k] for k in others]


def resolve_with_auxiliary(scans: ScanTable, requested: str, own: Sequence[str],
                           others: Sequence[str]) -> tuple[ScanTable, Target]:
    """Do what resolve_task does, where some labels are learned besides those that are predicted.

    Args:
        scans: the table with all these labels.
        requested: as in resolve_task, of the labels that are predicted.
        own: their names.
        others: names of the auxiliary ones, none or more.

    Returns:
        The scans with all of them, the auxiliary ones last, and a target of all of them.

    Raises:
        UserError: auxiliary labels of a multi-class task; and see resolve_task.
    """
    resolved, target = resolve_task(scans.select_labels(own), requested)
    if not others:
        return resolved, target
    if target.task == "multiclass":
        raise UserError("--auxiliary applies to 0/1 labels and to numbers; the task is multiclass")
    kind = "regression" if target.task == "regression" else "multilabel"
    return resolve_task(scans.select_labels([*own, *others]), kind)


def _check_one_kind(scans: ScanTable) -> None:
    binary = [name for name, column in zip(scans.label_names, scans.labels.T, strict=True)
              if np.isin(column[~np.isnan(column)], (0, 1)).all()]
    others = [name for name in scans.label_names if name not in binary]
    if binary:
        raise UserError(f"{scans.name}: {', '.join(binary)} contain only 0 and 1, "
                        f"{', '.join(others)} also other numbers; choose the labels with "
                        "--pathologies, or use all with --task regression")


def fit_to_target(scans: ScanTable, target: Target) -> ScanTable:
    """Return the scans with the label columns of a trained model's target.

    Raises:
        UserError: a label is missing, or its values do not fit the task.
    """
    if target.column is not None and len(scans.label_names) == 1:
        scans = expand_classes(scans.select_labels([target.column]), target.column, target.labels)
    scans = scans.select_labels(target.labels)
    if target.task == "multiclass":
        _check_one_hot(scans)
    elif target.task != "regression":
        _check_zero_one(scans, CORRECT)
    return scans


def expand_classes(scans: ScanTable, column: str, labels: Sequence[str] | None = None) -> ScanTable:
    """Turn one column of class numbers into 0/1 columns called `COLUMN_NUMBER`."""
    _check_exact(scans, [column])
    values = scans.labels[:, 0]
    known = ~np.isnan(values)
    if not (values[known] == np.round(values[known])).all() or (values[known] < 0).any():
        raise UserError(f"--task multiclass: column {column} must contain class numbers 0, 1, 2, "
                        f"..., found {', '.join(f'{v:g}' for v in np.unique(values[known])[:10])}")
    if labels is None:
        labels = [f"{column}_{int(value)}" for value in np.unique(values[known])]
    names = np.array([f"{column}_{int(v)}" if k else "" for v, k in zip(values, known,
                                                                        strict=True)])
    strange = sorted(set(names[known]) - set(labels))
    if strange:
        raise UserError(f"{scans.name}: column {column} contains classes that the model does not "
                        f"know: {', '.join(strange)}; it knows {', '.join(labels)}. Correct them, "
                        "or clear the cells of unknown labels")
    hot = (names[:, None] == np.array(labels)[None, :]).astype(np.float32)
    hot[~known] = np.nan
    return scans.with_labels(labels, hot)


def _one_hot_rows(scans: ScanTable) -> np.ndarray:
    unknown = np.isnan(scans.labels).all(axis=1)
    hot = np.isin(scans.labels, (0, 1)).all(axis=1) & (scans.labels.sum(axis=1) == 1)
    return unknown | hot


def _check_exact(scans: ScanTable, names: Sequence[str]) -> None:
    """Refuse classes, and 0 and 1, that are not what the table says."""
    bad = [f"column {name}, {cell}" for name in names for cell in scans.rounded.get(name, ())]
    if bad:
        raise UserError(f"{scans.name}: {len(bad)} labels are so close to another whole number "
                        "that they would be rounded to it (float32 keeps 7 "
                        f"digits):\n{listing(bad)}\nNumber the classes 0, 1, 2, ...; write binary "
                        "labels as 0 and 1; or (volumes) use --task regression.")


def _check_one_hot(scans: ScanTable) -> None:
    _check_exact(scans, scans.label_names)
    good = _one_hot_rows(scans)
    if not good.all():
        rows = [f"{scans.ids[i]}: " + ", ".join(f"{v:g}" for v in scans.labels[i])
                for i in np.flatnonzero(~good)]
        raise UserError(f"--task multiclass: expected exactly one 1 among "
                        f"{', '.join(scans.label_names)}; {len(rows)} rows differ:\n"
                        f"{listing(rows)}\nUse --task multilabel, or correct them.")


def _check_zero_one(scans: ScanTable, advice: str = CHOOSE) -> None:
    _check_exact(scans, scans.label_names)
    rows, columns = np.nonzero(~(np.isnan(scans.labels) | np.isin(scans.labels, (0, 1))))
    if len(rows):
        bad = [f"{scans.ids[i]}: {scans.label_names[k]} = {scans.labels[i, k]:g}"
               for i, k in zip(rows, columns, strict=True)]
        raise UserError(f"{scans.name}: {len(bad)} labels are not 0, 1 or empty:\n"
                        f"{listing(bad)}\n{advice}.")


def _check_both_values(scans: ScanTable) -> None:
    bad = []
    for split in SPLITS:
        rows = scans.rows(split)
        for name, column in zip(scans.label_names, scans.labels[rows].T, strict=True):
            for value, word in ((1, "positives"), (0, "negatives")):
                if len(rows) and not (column == value).any():
                    if split == "train":
                        bad.append(f"{name}: no {word}")
                    else:
                        LOG.warning("warning: %s has no %s in %s: its scores there are left "
                                    "empty", name, word, split)
    if bad:
        ways = ["omit them with --pathologies"] * (len(scans.label_names) > 1) + [
            "split differently"] + ["raise --train_fraction"] * bool(
                (scans.split == UNUSED).any())
        advice = ", or ".join(ways)
        raise UserError(f"{scans.name}: these labels cannot be learned from the training split:\n"
                        f"{listing(bad)}\n{advice[0].upper()}{advice[1:]}.")


def _moments(scans: ScanTable) -> tuple[tuple[float, ...], tuple[float, ...]]:
    values = scans.labels[scans.rows("train")].astype(np.float64)
    lost = [f"{name}, such as {cells[0]}" for name, cells in scans.rounded.items()
            if name in scans.label_names and _varies_little(
                values[:, scans.label_names.index(name)])]
    if lost:
        raise UserError(f"{scans.name}: float32 keeps 7 digits, and these labels differ only "
                        f"beyond them:\n{listing(lost)}\nSubtract a constant (years since the "
                        "first one, not dates).")
    bad = [name for name, column in zip(scans.label_names, values.T, strict=True)
           if len(np.unique(column[~np.isnan(column)])) < 2]
    if bad:
        raise UserError(f"{scans.name}: these labels have fewer than two different values in the "
                        f"training split:\n{listing(bad)}")
    return tuple(np.nanmean(values, axis=0).tolist()), tuple(np.nanstd(values, axis=0).tolist())


def _varies_little(values: np.ndarray) -> bool:
    """Return whether numbers differ by less than 1 in 10000 of their size."""
    known = values[~np.isnan(values)]
    return known.size > 0 and float(np.ptp(known)) <= 1e-4 * float(np.abs(known).max())


def check_splits(scans: ScanTable, needed: Sequence[str], advice: str = GIVE_ROWS) -> None:
    """Refuse a table without rows in a split that is needed; `advice` says what to do.

    Raises:
        UserError: naming the empty splits and the sizes of the others.
    """
    counts = {split: len(scans.rows(split)) for split in SPLITS}
    empty = [split for split in needed if not counts.get(split, len(scans))]
    if empty:
        raise UserError(f"{scans.name}: no rows in the split {' and '.join(empty)}; found "
                        + ", ".join(f"{name} {n}" for name, n in counts.items())
                        + f". {advice}")
