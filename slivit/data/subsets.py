"""Parts of a table: fewer training patients, and the folds of a cross-validation."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from slivit.data.scan_table import ScanTable
from slivit.utils.errors import UserError

UNUSED = "unused"  # the split of a scan that is left out
UNKNOWN = -1  # the class of a scan without the label


def take_fraction(scans: ScanTable, fraction: float, seed: int, labels: Sequence[str] | None = None
                  ) -> ScanTable:
    """Leave out training patients (rows, where none are known) until `fraction` of them are left.

    Patients with and without a positive of the rarest of `labels` (None: all) are kept in
    proportion. A smaller fraction is part of a larger one under the same seed, so that the points
    of a learning curve differ by what is added only.
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
    """Yield the table once for each fold, divided anew.

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
        raise UserError(f"--folds {count}: there are {len(set(groups))} patients; each fold needs "
                        "one at least")
    held_by = {kind: len(set(groups[strata == kind])) for kind in set(strata)}
    if held_by.get(UNKNOWN, count) < count:  # too few to share out
        strata[strata == UNKNOWN] = max(held_by, key=held_by.__getitem__)
    few = min((n for kind, n in held_by.items() if kind != UNKNOWN), default=count)
    if few < count:
        raise UserError(f"--folds {count}: only {few} patients have the rarest label value; each "
                        "fold needs one at least. Take fewer folds, or other --pathologies")
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
    known = ~np.isnan(labels)
    binary = [k for k in range(labels.shape[1]) if np.isin(labels[known[:, k], k], (0, 1)).all()]
    if binary:
        k = min(binary, key=lambda k: np.nansum(labels[:, k]))
        return np.where(known[:, k], labels[:, k], UNKNOWN).astype(int)
    column = labels[:, 0]
    edges = np.nanquantile(column, (0.25, 0.5, 0.75))
    return np.where(known[:, 0], np.digitize(column, edges), UNKNOWN).astype(int)
