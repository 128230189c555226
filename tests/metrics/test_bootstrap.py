"""Draws of whole groups within strata."""

import numpy as np
import pytest

from slivit.metrics import bootstrap


def test_no_replicate_lacks_the_rare_class():
    positive = np.arange(50) < 2
    counts, member = bootstrap.cluster_counts(np.arange(50), positive, 500, seed=0)
    assert (counts[:, member] * positive).sum(axis=1).tolist() == [2] * 500
    assert (counts.sum(axis=1) == 50).all()


def test_groups_are_drawn_whole():
    groups = ["p", "q", "p", "r", "q"]
    counts, member = bootstrap.cluster_counts(groups, None, 30, seed=0)
    of_rows = counts[:, member]
    assert (of_rows[:, 0] == of_rows[:, 2]).all()
    assert (of_rows[:, 1] == of_rows[:, 4]).all()
    assert (counts.sum(axis=1) == 3).all()


def test_strata_are_patterns_over_labels_and_lone_ones_are_pooled():
    #            a, a      b, b      none       a+b   c  (patients of two rows each)
    pattern = np.array([[1, 0, 0]] * 3 + [[0, 1, 0]] * 2 + [[0, 0, 0]] * 4 + [[1, 1, 0]]
                       + [[0, 0, 1]], dtype=bool)
    truth = np.repeat(pattern, 2, axis=0)
    truth[::2] = False  # one positive row makes the patient one with a positive
    counts, _ = bootstrap.cluster_counts(np.repeat(np.arange(11), 2), truth, 400, seed=1)
    for part, size in ((slice(0, 3), 3), (slice(3, 5), 2), (slice(5, 9), 4), (slice(9, 11), 2)):
        assert (counts[:, part].sum(axis=1) == size).all()
    assert counts[:, 9].std() > 0


def test_each_group_is_drawn_once_on_average_and_by_the_seed():
    counts, _ = bootstrap.cluster_counts(np.arange(20), None, 4000, seed=0)
    assert counts.mean(axis=0) == pytest.approx(np.ones(20), abs=0.08)
    assert counts.var(axis=0) == pytest.approx(np.full(20, 0.95), abs=0.15)
    again, _ = bootstrap.cluster_counts(np.arange(20), None, 4000, seed=0)
    other, _ = bootstrap.cluster_counts(np.arange(20), None, 4000, seed=1)
    assert (counts == again).all()
    assert (counts != other).any()


def test_order_of_rows_does_not_change_the_draws():
    rng = np.random.default_rng(0)
    groups, truth = rng.integers(0, 8, 40).astype(str), rng.random((40, 2)) < 0.2
    order = rng.permutation(40)
    counts, member = bootstrap.cluster_counts(groups, truth, 50, seed=0)
    shuffled, member_shuffled = bootstrap.cluster_counts(groups[order], truth[order], 50, seed=0)
    assert (counts == shuffled).all()
    assert (member[order] == member_shuffled).all()


def test_many_rows_are_scored_in_parts(monkeypatch):
    counts, member = bootstrap.cluster_counts(np.arange(30) // 2, None, 100, seed=0)

    def score(drawn):
        return {"sum": drawn @ np.arange(15.0)}

    whole = bootstrap.replicate(score, counts, member)
    monkeypatch.setattr(bootstrap, "CELLS", 70)
    assert (bootstrap.replicate(score, counts, member)["sum"] == whole["sum"]).all()
    assert len(whole["sum"]) == 100
