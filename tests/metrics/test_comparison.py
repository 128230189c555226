"""Paired comparison of models."""

import json

import numpy as np
import pytest

from slivit.config import Target
from slivit.metrics import delong
from slivit.metrics.comparison import bootstrap_p, compare, holm
from slivit.metrics.evaluation import evaluate
from slivit.report.terminal import format_comparison

BINARY = Target("binary", ("a",))
VALUES = Target("regression", ("v",))
NAN = float("nan")


def made_up(n=300, seed=0):
    """Return truth (n, 1) and the predictions of a good, a better and a useless model."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, (n, 1)).astype(float)
    shared = rng.normal(size=(n, 1))
    good, better = truth + shared, truth + 0.7 * shared
    return truth, [1 / (1 + np.exp(-x)) for x in (good, better, rng.normal(size=(n, 1)))]


def test_holm_is_the_published_example():
    # Four hypotheses as in the encyclopaedia's worked example: at 0.05 the first and last fall
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, None, 0.5, 0.9]) == [pytest.approx(0.03), None, 1, 1]
    assert holm([]) == []


def test_p_value_counts_the_smaller_tail_and_is_never_0():
    assert bootstrap_p(np.arange(1.0, 100)) == 2 / 100
    assert bootstrap_p(np.array([-1.0] * 3 + [1] * 96)) == pytest.approx(2 * 4 / 100)
    assert bootstrap_p(np.array([0.0, 0, NAN])) == 1


def test_rows_hold_both_models_and_both_tests():
    truth, preds = made_up()
    groups = np.arange(300) // 2
    rows = compare(truth, preds[:2], ["a.pt", "b.pt"], BINARY, groups, n_boot=400)
    assert [row["score"] for row in rows] == ["roc_auc", "pr_auc"]
    auc = rows[0]
    for model, pred in zip("ab", preds, strict=False):
        alone = evaluate(truth, pred, BINARY, groups, n_boot=2)["labels"]["a"]["roc_auc"]
        assert auc[f"value_{model}"] == alone
    assert auc["difference"] == pytest.approx(auc["value_b"] - auc["value_a"])
    assert auc["difference_ci"][0] < auc["difference"] < auc["difference_ci"][1]
    test = delong.compare_auc(truth[:, 0], preds[0][:, 0], preds[1][:, 0], groups)
    assert auc["p_delong"] == auc["p_delong_holm"] == test.p
    assert np.diff(auc["difference_ci"])[0] == pytest.approx(2 * 1.96 * test.error, rel=0.15)
    assert auc["p_bootstrap"] < 0.05 and auc["p_delong"] < 0.05
    assert rows[1]["p_delong"] is None


def test_pairing_makes_a_small_difference_certain():
    truth, (good, better, _) = made_up()
    row = compare(truth, [good, better], ["a", "b"], BINARY, np.arange(300), n_boot=300)[0]
    apart = [evaluate(truth, pred, BINARY, np.arange(300), n_boot=300)["labels"]["a"][
        "roc_auc_ci"] for pred in (good, better)]
    assert np.ptp(row["difference_ci"]) < 0.7 * np.hypot(*np.ptp(apart, axis=1))


def test_every_pair_is_compared_and_corrected_for():
    truth, preds = made_up()
    rows = compare(truth, preds, ["a", "b", "c"], BINARY, np.arange(300), n_boot=200)
    assert [(row["a"], row["b"]) for row in rows[::2]] == [("a", "b"), ("a", "c"), ("b", "c")]
    found = [row["p_delong"] for row in rows[::2]]
    assert [row["p_delong_holm"] for row in rows[::2]] == holm(found)
    text = format_comparison(rows)
    assert len(text.splitlines()) == 7
    assert "a, c" in text and "< 0.001" in text


def test_regression_compares_errors():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(100, 1))
    truth[0] = NAN
    preds = [truth + rng.normal(size=(100, 1)) * size for size in (0.5, 0.2)]
    preds = [np.nan_to_num(pred) for pred in preds]
    mae, r2 = compare(truth, preds, ["a", "b"], VALUES, np.arange(100), n_boot=200)
    assert (mae["score"], r2["score"]) == ("mae", "r2")
    assert mae["difference"] < 0 < r2["difference"]
    assert mae["p_bootstrap"] == 2 / 201
    assert mae["p_delong"] is None


def test_a_model_does_not_differ_from_itself():
    truth, (good, *_) = made_up(40)
    for row in compare(truth, [good, good], ["a", "a"], BINARY, np.arange(40), n_boot=50):
        assert (row["difference"], row["difference_ci"], row["p_bootstrap"]) == (0, [0, 0], 1)
        assert row["p_delong"] in (1, None)


@pytest.mark.parametrize("truth", [[[1], [1], [1]], [[NAN], [NAN], [NAN]], [[1], [0], [NAN]], []])
def test_what_is_undefined_is_none(truth):
    truth = np.array(truth, float).reshape(-1, 1)
    pred = np.linspace(0, 1, len(truth))[:, None]
    rows = compare(truth, [pred, 1 - pred], ["a", "b"], BINARY, list("ppp")[:len(truth)],
                   n_boot=30)
    json.dumps(rows, allow_nan=False)
    assert rows[0]["p_delong_holm"] is None and rows[0]["p_bootstrap_holm"] is None or (
        truth[0] != truth[1])
    assert "-" in format_comparison(rows)
