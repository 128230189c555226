"""Fewer training patients, and the folds of a cross-validation."""

import numpy as np
import pytest
from helpers import label_scans

from slivit.data.splits import UNUSED, make_folds, take_fraction
from slivit.utils.errors import UserError

N = 200
LABELS = (np.arange(N) % 5 == 0).astype(float)[:, None]
PATIENTS = tuple(f"P{i // 2}" for i in range(N))  # two rows each
SPLIT = ["train"] * 140 + ["val"] * 30 + ["test"] * 30
SCANS = label_scans(LABELS, SPLIT, patients=PATIENTS)


def test_smaller_fractions_are_part_of_larger_ones():
    parts = [set(take_fraction(SCANS, share, 3).rows("train")) for share in (0.1, 0.3, 0.7, 1)]
    assert [len(part) for part in parts] == [14, 42, 98, 140]
    assert parts[0] < parts[1] < parts[2] < parts[3]
    assert parts[0] != set(take_fraction(SCANS, 0.1, 4).rows("train"))


def test_fractions_are_of_patients_and_keep_the_share_of_positives():
    part = take_fraction(SCANS, 0.3, 0)
    patients = {PATIENTS[row] for row in part.rows("train")}
    assert all((PATIENTS[row] in patients) == (part.split[row] == "train")
               for row in SCANS.rows("train"))
    assert SCANS.labels[part.rows("train")].mean() == pytest.approx(0.2, abs=0.03)
    assert all(np.array_equal(part.rows(name), SCANS.rows(name)) for name in ("val", "test"))
    assert set(part.split[SCANS.rows("train")]) == {"train", UNUSED}


def test_every_row_is_held_out_once_and_no_patient_is_on_both_sides():
    folds = list(make_folds(SCANS, 4, 0, keep_test=False))
    held = np.concatenate([fold.rows("test") for fold in folds])
    assert sorted(held) == list(range(N))
    for fold in folds:
        sides = [{PATIENTS[row] for row in fold.rows(name)} for name in ("train", "val", "test")]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
        assert len(fold.rows("train")) + len(fold.rows("val")) + len(fold.rows("test")) == N
        assert fold.labels[fold.rows("test")].mean() == pytest.approx(0.2, abs=0.05)
    again = list(make_folds(SCANS, 4, 0, keep_test=False))
    assert all((a.split == b.split).all() for a, b in zip(folds, again, strict=True))
    other = list(make_folds(SCANS, 4, 1, keep_test=False))
    assert any((a.split != b.split).any() for a, b in zip(folds, other, strict=True))


def test_test_split_of_the_table_is_left_out():
    folds = list(make_folds(SCANS, 3, 0, keep_test=True))
    assert all((fold.split[SCANS.rows("test")] == UNUSED).all() for fold in folds)
    assert sorted(np.concatenate([fold.rows("test") for fold in folds])) == list(range(170))


def test_few_unknown_labels_are_dealt_with_the_rest(recwarn):
    labels = LABELS.copy()
    labels[[2, 8]] = np.nan
    scans = label_scans(labels, SPLIT, patients=PATIENTS)
    folds = list(make_folds(scans, 4, 0, keep_test=False))
    assert sorted(np.concatenate([fold.rows("test") for fold in folds])) == list(range(N))
    assert not recwarn.list
    scans = label_scans(np.full((N, 1), np.nan), SPLIT, patients=PATIENTS)
    assert len(list(make_folds(scans, 4, 0, keep_test=False))) == 4


def test_rare_labels_beside_the_named_ones_do_not_matter():
    rare = np.zeros((N, 1))
    rare[0] = 1
    both = label_scans(np.hstack([LABELS, rare]), SPLIT, patients=PATIENTS)
    name = [both.label_names[0]]
    assert (take_fraction(both, 0.3, 0, name).split == take_fraction(SCANS, 0.3, 0).split).all()
    for fold, same in zip(make_folds(both, 4, 0, False, name), make_folds(SCANS, 4, 0, False),
                          strict=True):
        assert (fold.split == same.split).all()
    with pytest.raises(UserError, match="only 1 patients have the rarest label value"):
        list(make_folds(both, 4, 0, False))


def test_values_are_dealt_by_quarters():
    scans = label_scans(np.arange(60.0)[:, None], ["train"] * 60)
    means = [fold.labels[fold.rows("test")].mean()
             for fold in make_folds(scans, 3, 0, keep_test=False)]
    assert np.ptp(means) < 8


@pytest.mark.parametrize(("rows", "message"), [
    (range(4), "--folds 5: there are only 2 patients; each fold needs at least one"),
    (range(1, 22), "--folds 5: only 4 patients have the rarest label value"),
])
def test_too_few_patients_are_refused(rows, message):
    rows = list(rows)
    scans = label_scans(LABELS[rows], ["train"] * len(rows),
                        patients=tuple(PATIENTS[row] for row in rows))
    with pytest.raises(UserError, match=message):
        list(make_folds(scans, 5, 0, keep_test=False))
