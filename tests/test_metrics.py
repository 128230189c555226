"""Scores, their bootstrap intervals, and the predictions table."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers import label_scans
from scipy.stats import norm, pearsonr
from sklearn import metrics as sk

from slivit import bootstrap
from slivit.config import Target
from slivit.metrics import evaluate, format_scores, predictions_table

RNG = np.random.default_rng(0)
BINARY = Target("binary", ("a",))
NAN = float("nan")


@pytest.mark.parametrize("decimals", [1, 6])  # with many ties and without
def test_weighted_ranking_scores_equal_scikit_learn(decimals):
    truth = RNG.integers(0, 2, 60)
    score = np.round(RNG.random(60) + 0.4 * truth, decimals)
    weights = RNG.integers(0, 4, (20, 60)).astype(float)
    roc_auc, pr_auc = bootstrap.ranking_scorer(truth, score)
    for ours, theirs in ((roc_auc, sk.roc_auc_score), (pr_auc, sk.average_precision_score)):
        expected = [theirs(truth, score, sample_weight=w) for w in weights]
        assert ours(weights) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e6])
def test_weighted_regression_scores_equal_scikit_learn(unit):
    truth = (RNG.normal(size=50) + 30) * unit
    value = truth + RNG.normal(size=50) * unit / 2
    weights = RNG.integers(0, 4, (10, 50)).astype(float)
    scorers = bootstrap.regression_scorers(truth, value)
    for i, w in enumerate(weights):
        many = np.repeat(np.arange(50), w.astype(int))
        expected = {"r2": sk.r2_score(truth, value, sample_weight=w),
                    "pearson": pearsonr(truth[many], value[many])[0],
                    "mae": sk.mean_absolute_error(truth, value, sample_weight=w),
                    "rmse": sk.root_mean_squared_error(truth, value, sample_weight=w)}
        for key, scorer in scorers.items():
            assert scorer(weights)[i] == pytest.approx(expected[key], rel=1e-6)


def test_point_scores_are_of_the_known_labels():
    truth = np.array([[1, 0], [0, NAN], [1, 1], [0, 0]], dtype=np.float32)
    pred = np.array([[0.9, 0.4], [0.2, 0.99], [0.1, 0.6], [0.05, 0.7]])
    found = evaluate(truth, pred, Target("multilabel", ("a", "b")), list("wxyz"), "test")
    a, b, mean = found["labels"]["a"], found["labels"]["b"], found["mean"]
    assert (a["n"], a["n_pos"], b["n"], b["n_pos"]) == (4, 2, 3, 1)
    assert a["roc_auc"] == 0.75
    assert b["roc_auc"] == 0.5
    assert mean["roc_auc"] == 0.625
    assert a["brier"] == pytest.approx((0.01 + 0.04 + 0.81 + 0.0025) / 4)
    assert a["roc_auc_ci"][0] <= 0.75 <= a["roc_auc_ci"][1]


def test_interval_by_patient_is_wider_than_by_row():
    truth = np.repeat(RNG.integers(0, 2, (40, 1)), 10, axis=0).astype(np.float32)
    pred = np.repeat(RNG.random((40, 1)), 10, axis=0)
    by_patient, by_row = (
        evaluate(truth, pred, BINARY, groups, "test")["labels"]["a"]["roc_auc_ci"]
        for groups in (np.repeat(np.arange(40), 10), np.arange(400)))
    assert by_patient[1] - by_patient[0] > 2 * (by_row[1] - by_row[0])


def test_interval_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for trial in range(100):
        rng = np.random.default_rng(trial)
        truth = np.arange(120) % 2
        pred = norm.cdf(rng.normal(size=120) + truth)  # ROC-AUC = Phi(1 / sqrt(2)) = 0.760
        low, high = evaluate(truth[:, None].astype(float), pred[:, None], BINARY, np.arange(120),
                             "test", n_boot=200)["labels"]["a"]["roc_auc_ci"]
        hits += low <= 0.7602 <= high
    assert 87 <= hits <= 100


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


@pytest.mark.parametrize(("target", "truth"), [
    (BINARY, [[0.0], [0.0], [0.0]]),
    (BINARY, [[NAN], [NAN], [NAN]]),
    (Target("multilabel", ("a", "b")), [[1.0, NAN], [1.0, NAN], [1.0, 0.0]]),
    (Target("regression", ("a",)), [[2.0], [2.0], [NAN]]),
])
def test_undefined_scores_are_none_and_valid_json(target, truth):
    found = evaluate(np.array(truth), np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]), target,
                     list("abc"), "test")
    json.dumps(found, allow_nan=False)
    key = "r2" if target.task == "regression" else "roc_auc"
    for scores in (*found["labels"].values(), found["mean"]):
        assert scores[key] is None
        assert scores[f"{key}_ci"] is None
    assert "-" in format_scores(found)


def test_multiclass_reports_accuracy():
    truth = np.eye(3)[[0, 1, 2, 2]]
    pred = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.3, 0.4, 0.3], [0.1, 0.2, 0.7]])
    found = evaluate(truth, pred, Target("multiclass", ("a", "b", "c")), list("wxyz"), "test")
    assert found["mean"]["accuracy"] == 0.75
    assert "accuracy 0.750" in format_scores(found)


def test_predictions_table_keeps_order_and_leaves_unknown_truth_empty(tmp_path):
    scans = label_scans([[0, 1], [NAN, 0], [1, NAN]], ["val", "test", "test"],
                        patients=("P0", "P1", "P2"))
    pred = np.array([[0.1, 0.2], [0.3, 0.4]])
    table = predictions_table(scans, np.array([1, 2]), pred, Target("multilabel", ("L0", "L1")))
    table.to_csv(tmp_path / "p.csv", index=False)
    assert (tmp_path / "p.csv").read_text().splitlines() == [
        "id,patient,L0,L0_pred,L1,L1_pred", "r1,P1,,0.1,0,0.2", "r2,P2,1,0.3,,0.4"]


def test_predictions_of_values_keep_their_decimals():
    table = predictions_table(label_scans([[1.5], [NAN]]), np.array([0, 1]),
                              np.array([[1.25], [2.5]]), Target("regression", ("L0",)), True)
    assert list(table.columns) == ["id", "split", "L0", "L0_pred"]
    assert table["L0"].iloc[0] == 1.5
    assert pd.isna(table["L0"].iloc[1])


def test_rows_of_the_same_name_are_different_rows():
    assert len(set(label_scans([[0], [1], [0]], ids=("x", "x", "x")).groups())) == 3
