"""Train, validation and test, fractions and folds: by patient, from a seed, never overlapping."""

import dataclasses
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from slivit.data.ratio import SPLIT_RATIO, parse_ratio
from slivit.data.scan_table import ScanTable
from slivit.utils.errors import UserError, listing

SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val",
               "validation": "val", "test": "test", "testing": "test"}
UNUSED = "unused"  # the split of a scan that is left out
UNKNOWN = -1  # the class of a scan without the label


@dataclass(frozen=True)
class Splitting:
    """How a table's scans are divided.

    Attributes:
        ratio: fractions for train, val and test of a table that does not say the splits itself.
        seed: of that division, which is by patient.
        refuse_overlap: whether a patient or a file in two splits is an error.
        may_be_empty: whether rows may have no split where others have one; see `fill_in`.
    """

    ratio: tuple[float, float, float] = parse_ratio(SPLIT_RATIO)
    seed: int = 0
    refuse_overlap: bool = True
    may_be_empty: bool = False


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


def fill_in(split: np.ndarray, *groupings: Sequence[str]) -> np.ndarray:
    """Return the splits with the rows that have none in `train`, as far as they may be.

    Args:
        split: (n,), empty where there is none.
        groupings: what must not be in two splits, such as the patient of each row.

    Returns:
        (n,); `unused` for rows of a group that validation or test has, and for those of a group of
        such rows: a file that has two patients' names makes them one.
    """
    taken, before = np.isin(split, ("val", "test")), -1
    while taken.sum() > before:
        before = taken.sum()
        for groups in groupings:
            held = {group for group, kept in zip(groups, taken, strict=True) if kept}
            taken |= np.array([group in held for group in groups], dtype=bool)
    return np.where(split == "", np.where(taken, UNUSED, "train"), split)


def check_no_overlap(groups: Sequence[str], split: np.ndarray, what: str) -> None:
    """Refuse a table in which one group is in two splits.

    Raises:
        UserError: listing every such patient (or file) with its splits.
    """
    bad = in_several(groups, split)
    if bad:
        raise UserError(overlap_text(list(bad.values()), what))


def overlap_text(bad: Sequence[str], what: str) -> str:
    """Return the message on patients (or files) in several splits, a line for each."""
    return (f"{len(bad)} {what} are in more than one split, which would inflate every "
            f"score:\n{listing(bad)}\nAssign each of them to one split.")


def in_several(groups: Sequence[str], split: Sequence[str]) -> dict[str, str]:
    """Return the groups that are in more than one split, each with a line that says in which.

    What is `unused` is in none.
    """
    first: dict[str, str] = {}
    several: dict[str, set[str]] = {}
    for group, name in zip(groups, map(str, split), strict=False):
        if name == UNUSED:
            continue
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


def take_fraction(scans: ScanTable, fraction: float, seed: int, labels: Sequence[str] | None = None
                  ) -> ScanTable:
    """Leave out training patients (rows, where none are known) until `fraction` of them are left.

    Patients with and without a positive of the rarest of `labels` (None: all) are kept in
    proportion. A smaller fraction is part of a larger one under the same seed, so that the points
    of a learning curve differ only by what is added.
    """
    if fraction == 1:
        return scans
    groups = np.array(scans.groups())
    training = scans.rows("train")
    kinds = _strata(scans, training, labels)
    kind_of: dict[str, int] = {}
    for group, kind in zip(groups[training], kinds, strict=True):
        kind_of[group] = max(kind, kind_of.get(group, 0))
    rng = np.random.default_rng(seed)
    names = np.array(sorted(kind_of))
    names = names[rng.permutation(len(names))]
    place = {}  # of a patient among those of its kind, 0 to 1
    for kind in sorted(set(kind_of.values())):
        same = [name for name in names if kind_of[name] == kind]
        place |= {name: (rank + 0.5) / len(same) for rank, name in enumerate(same)}
    kept = sorted(names, key=place.__getitem__)[:max(1, round(fraction * len(names)))]
    split = scans.split.astype(f"<U{len(UNUSED)}")  # the name needs room
    split[training[~np.isin(groups[training], kept)]] = UNUSED
    return dataclasses.replace(scans, split=split)


def make_folds(scans: ScanTable, count: int, seed: int, keep_test: bool,
               labels: Sequence[str] | None = None) -> Iterator[ScanTable]:
    """Yield the table once for each fold, divided differently.

    In fold k, the k-th part of the patients is `test`, the next part `val`, the rest `train`; the
    parts have about the same share of the rarest of `labels`. Every row is in `test` once.

    Args:
        scans: the table.
        count: of folds, 3 or more.
        seed: of the division.
        keep_test: leave the rows of the table's own test split out of it.
        labels: names of those whose rarest is shared out; None for all.

    Raises:
        UserError: fewer patients than folds, or too few with the rarest label.
    """
    pool = np.flatnonzero(scans.split != "test") if keep_test else np.arange(len(scans))
    groups, strata = np.array(scans.groups())[pool], _strata(scans, pool, labels)
    if len(set(groups)) < count:
        raise UserError(f"--folds {count}: there are only {len(set(groups))} patients; each fold "
                        "needs at least one")
    held_by = {kind: len(set(groups[strata == kind])) for kind in set(strata)}
    if held_by.get(UNKNOWN, count) < count:  # too few to share out
        strata[strata == UNKNOWN] = max(held_by, key=held_by.__getitem__)
    few = min((n for kind, n in held_by.items() if kind != UNKNOWN), default=count)
    if few < count:
        raise UserError(f"--folds {count}: only {few} patients have the rarest label value; each "
                        "fold needs at least one. Use fewer folds, or other --pathologies")
    dealer = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    parts = [pool[held] for _, held in dealer.split(pool, strata, groups)]
    for k in range(count):
        split = np.full(len(scans), UNUSED, dtype=f"<U{len(UNUSED)}")
        split[pool] = "train"
        split[parts[(k + 1) % count]] = "val"
        split[parts[k]] = "test"
        yield dataclasses.replace(scans, split=split)


def _strata(scans: ScanTable, rows: np.ndarray, names: Sequence[str] | None) -> np.ndarray:
    """Return a class for each row: the rarest 0/1 label's, else a quarter, 0 to 3; or UNKNOWN."""
    labels = (scans if names is None else scans.select_labels(names)).labels[rows]
    if not labels.shape[1]:
        return np.zeros(len(rows), dtype=int)
    known = ~np.isnan(labels)
    binary = [k for k in range(labels.shape[1]) if np.isin(labels[known[:, k], k], (0, 1)).all()]
    if binary:
        k = min(binary, key=lambda k: np.nansum(labels[:, k]))
        return np.where(known[:, k], labels[:, k], UNKNOWN).astype(int)
    column = labels[:, 0]
    edges = np.nanquantile(column, (0.25, 0.5, 0.75))
    return np.where(known[:, 0], np.digitize(column, edges), UNKNOWN).astype(int)
