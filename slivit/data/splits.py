"""Train, validation and test: by patient, from a seed, and never overlapping."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from slivit.utils.errors import UserError, listing

SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val",
               "validation": "val", "test": "test", "testing": "test"}


def parse_ratio(text: str) -> tuple[float, float, float]:
    """Return the three fractions of `--split_ratio`, such as `0.7,0.15,0.15`.

    Raises:
        UserError: not three numbers from 0 to 1 that add up to 1, or no training share.
    """
    try:
        parts = tuple(float(part) for part in text.split(","))
    except ValueError:
        parts = ()
    good = len(parts) == 3 and all(0 <= part <= 1 for part in parts)  # NaN is not
    if not good or abs(sum(parts) - 1) > 1e-6 or parts[0] == 0:
        raise UserError(f"--split_ratio {text}: expected three fractions for train, val and test "
                        "that add up to 1, such as 0.7,0.15,0.15")
    return parts


def split_by_group(groups: Sequence[str], ratio: tuple[float, float, float],
                   seed: int) -> np.ndarray:
    """Assign whole groups (patients) to train, val and test.

    Shares are rounded; of three groups or more, each share above 0 gets at least one.

    Args:
        groups: the group of each of n rows.
        ratio: fractions of the groups for train, val and test.
        seed: of the permutation of the sorted group names.

    Returns:
        (n,) array of `train`, `val` or `test`.
    """
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    sizes = np.diff(np.round(np.cumsum([0, *ratio]) * len(names)).astype(int))
    for k in range(3):
        if len(names) >= 3 and ratio[k] > 0 and sizes[k] == 0:
            sizes[k], sizes[sizes.argmax()] = 1, sizes.max() - 1
    edges = np.cumsum(sizes)
    of_group = {names[k]: ("train" if rank < edges[0] else "val" if rank < edges[1] else "test")
                for rank, k in enumerate(order)}
    return np.array([of_group[group] for group in groups])


def check_no_overlap(groups: Sequence[str], split: np.ndarray, what: str) -> None:
    """Refuse a table in which one group stands in two splits.

    Raises:
        UserError: listing every such patient (or file) with its splits.
    """
    bad = in_several(groups, split)
    if bad:
        raise UserError(overlap_text(list(bad.values()), what))


def overlap_text(bad: Sequence[str], what: str) -> str:
    """Return what is said of patients (or files) in several splits, each with a line of its own."""
    return (f"{len(bad)} {what} stand in more than one split, which would make every "
            f"score too good:\n{listing(bad)}\nGive each of them one split.")


def in_several(groups: Sequence[str], split: Sequence[str]) -> dict[str, str]:
    """Return the groups that stand in more than one split, each with a line that says in which."""
    first: dict[str, str] = {}
    several: dict[str, set[str]] = {}
    for group, name in zip(groups, map(str, split), strict=False):
        if first.setdefault(group, name) != name:
            several.setdefault(group, {first[group]}).add(name)
    return {group: f"{group}: {', '.join(sorted(names))}"
            for group, names in sorted(several.items())}


def written_alike(patients: Sequence[str], split: Sequence[str]) -> list[str]:
    """Return the patients whose `plain_patient` is the same, a line of each few."""
    splits: dict[str, set[str]] = {}
    for patient, name in zip(patients, split, strict=True):
        splits.setdefault(patient, set()).add(str(name))
    alike: dict[str, list[str]] = {}
    for patient in sorted(splits):
        alike.setdefault(plain_patient(patient), []).append(patient)
    return [" and ".join(f"{name!r} ({', '.join(sorted(splits[name]))})" for name in names)
            for names in alike.values() if len(names) > 1]


def plain_patient(patient: str) -> str:
    """Return a patient without what programs change: case, blanks, leading zeros, `.0`, code.

    A table that went through a spreadsheet or pandas has 7 or 7.0 for 007.
    """
    text = unicodedata.normalize("NFKC", patient).casefold()
    text = "".join(sign for sign in text if not sign.isspace()
                   and unicodedata.category(sign) not in ("Cf", "Cc"))
    return re.sub(r"(?<![\d.])0+(?=\d)", "", re.sub(r"^(\d+)\.0+$", r"\1", text))
