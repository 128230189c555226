"""Scores, their bootstrap intervals, and the predictions table."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers import label_scans
from scipy.stats import norm, spearmanr
from sklearn import metrics as sk

from slivit.config import Target
from slivit.metrics import delong
from slivit.metrics.evaluation import calibration_scores, evaluate
from slivit.metrics.operating_point import RATES, Threshold
from slivit.report.terminal import format_scores
from slivit.report.writer import predictions_table

RNG = np.random.default_rng(0)
BINARY = Target("binary", ("a",))
NAN = float("nan")


def test_point_scores_are_of_the_known_labels():
    truth = np.array([[1, 0], [0, NAN], [1, 1], [0, 0]], dtype=np.float32)
    pred = np.array([[0.9, 0.4], [0.2, 0.99], [0.1, 0.6], [0.05, 0.7]])
    found = evaluate(truth, pred, Target("multilabel", ("a", "b")), list("wxyz"))
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
        evaluate(truth, pred, BINARY, groups)["labels"]["a"]["roc_auc_ci"]
        for groups in (np.repeat(np.arange(40), 10), np.arange(400)))
    assert by_patient[1] - by_patient[0] > 2 * (by_row[1] - by_row[0])


def test_interval_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for trial in range(100):
        rng = np.random.default_rng(trial)
        truth = np.arange(120) % 2
        pred = norm.cdf(rng.normal(size=120) + truth)  # ROC-AUC = Phi(1 / sqrt(2)) = 0.760
        scores = evaluate(truth[:, None].astype(float), pred[:, None], BINARY, np.arange(120),
                          n_boot=200)["labels"]["a"]
        low, high = scores["roc_auc_ci"]
        hits += low <= 0.7602 <= high
    assert 87 <= hits <= 100


def test_calibration_alone_has_the_same_numbers():
    truth, pred = RNG.integers(0, 2, (40, 3)).astype(np.float32), RNG.random((40, 3))
    truth[:5, 0], truth[:, 2] = NAN, NAN
    target, groups = Target("multilabel", ("a", "b", "c")), np.arange(40) // 2
    alone = calibration_scores(truth, pred, target, groups, 1, 200)
    for name, scores in evaluate(truth, pred, target, groups, 1, 200)["labels"].items():
        assert alone[name] == {key: scores[key] for key in ("brier", "brier_ci", "ece", "ece_ci")}


def test_delongs_interval_stands_beside_the_bootstraps():
    truth = RNG.integers(0, 2, (300, 1)).astype(float)
    pred = RNG.random((300, 1)) * 0.7 + 0.3 * truth
    groups = np.arange(300) // 3
    found = evaluate(truth, pred, BINARY, groups)["labels"]["a"]
    assert found["roc_auc_delong_ci"] == delong.auc_interval(truth[:, 0], pred[:, 0], groups)
    assert found["roc_auc_ci"] == pytest.approx(found["roc_auc_delong_ci"], abs=0.015)


def test_scores_at_an_operating_point():
    truth = np.array([[1, 1], [1, 0], [0, 0], [0, NAN]])
    pred = np.array([[0.9, 0.8], [0.4, 0.7], [0.6, 0.2], [0.1, 0.9]])
    target = Target("multilabel", ("a", "b"))
    found = evaluate(truth, pred, target, list("wxyz"), n_boot=50,
                     thresholds=[Threshold("sensitivity=0.9", 0.5, "validation"), None])
    at = found["labels"]["a"]["operating_point"]
    assert (at["rule"], at["threshold"], at["chosen_on"]) == ("sensitivity=0.9", 0.5, "validation")
    assert (at["tp"], at["fp"], at["tn"], at["fn"]) == (1, 1, 1, 1)
    assert all(at[key] == 0.5 and len(at[f"{key}_ci"]) == 2 for key in RATES)
    assert found["labels"]["b"]["operating_point"] is None
    text = format_scores(found)
    assert "0.500 (sensitivity=0.9, validation)" in text


@pytest.mark.parametrize(("target", "truth"), [
    (BINARY, [[0.0], [0.0], [0.0]]),
    (BINARY, [[1.0], [1.0], [NAN]]),
    (BINARY, [[NAN], [NAN], [NAN]]),
    (BINARY, [[1.0]]),
    (BINARY, []),
    (Target("multilabel", ("a", "b")), [[1.0, NAN], [1.0, NAN], [1.0, 0.0]]),
    (Target("multiclass", ("a", "b")), [[1.0, 0.0], [1.0, 0.0], [NAN, NAN]]),
    (Target("multiclass", ("a", "b")), [[NAN, NAN]]),
    (Target("multiclass", ("a", "b")), []),
    (Target("regression", ("a",)), [[2.0], [2.0], [NAN]]),
    (Target("regression", ("a",)), [[2.0]]),
    (Target("regression", ("a",)), []),
])
@pytest.mark.parametrize("groups", ["abc", "ppp"])
def test_undefined_scores_are_none_and_valid_json(target, truth, groups):
    count = len(target.labels)
    truth = np.array(truth).reshape(-1, count)
    pred = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 1.0]])[:len(truth), :count]
    found = evaluate(truth, pred, target, list(groups)[:len(truth)], n_boot=40,
                     thresholds=[Threshold("youden", 0.2, "validation"), None][:count])
    json.dumps(found, allow_nan=False)
    key = "r2" if target.task == "regression" else "roc_auc"
    for scores in (*found["labels"].values(), found["mean"]):
        assert scores[key] is None
        assert scores[f"{key}_ci"] is None
    assert "-" in format_scores(found)


@pytest.mark.parametrize("pred", [np.full(6, 0.5), np.array([0.0, 1, 0, 1, 1, 0]),
                                  np.array([0.2, 0.2, 0.7, 0.7, 0.7, 0.2])])
@pytest.mark.parametrize("groups", [range(6), [0, 0, 1, 1, 2, 2], [0] * 6])
def test_ties_and_certain_predictions_are_scored(pred, groups):
    truth = np.array([0.0, 1, 0, 1, 1, 1])
    for target in (BINARY, Target("regression", ("a",))):
        found = evaluate(truth[:, None], pred[:, None], target, list(groups), n_boot=100,
                         thresholds=[Threshold("youden", 0.5, "validation")])
        json.dumps(found, allow_nan=False)
    scores = evaluate(truth[:, None], pred[:, None], BINARY, list(groups), n_boot=100)
    scores = scores["labels"]["a"]
    assert scores["roc_auc"] == sk.roc_auc_score(truth, pred)
    assert (scores["roc_auc_ci"] is None) == (len(set(groups)) == 1)


def test_regression_reports_agreement():
    truth = np.arange(10.0)[:, None]
    pred = truth + 1 + np.where(np.arange(10) % 2, 0.5, -0.5)[:, None]
    found = evaluate(truth, pred, Target("regression", ("a",)), np.arange(10), n_boot=100)
    scores, half = found["labels"]["a"], 1.96 * 0.5 * np.sqrt(10 / 9)
    assert scores["bias"] == pytest.approx(1)
    assert (scores["loa_low"], scores["loa_high"]) == pytest.approx((1 - half, 1 + half))
    assert scores["spearman"] == pytest.approx(spearmanr(truth[:, 0], pred[:, 0])[0])
    assert {f"{key}_ci" for key in ("r2", "pearson", "spearman", "mae", "rmse", "bias", "loa_low",
                                    "loa_high")} <= set(scores)
    assert "bias" not in found["mean"]


def test_multiclass_reports_the_likeliest_class():
    truth = np.eye(3)[[0, 1, 2, 2]]
    pred = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.3, 0.4, 0.3], [0.1, 0.2, 0.7]])
    found = evaluate(truth, pred, Target("multiclass", ("a", "b", "c")), list("wxyz"))
    assert found["mean"]["accuracy"] == 0.75
    assert found["mean"]["ece_top"] == pytest.approx((0.2 + 0.5 + 0.4 + 0.3) / 4)
    assert found["mean"]["roc_auc_weighted"] == pytest.approx(
        sk.roc_auc_score(truth.argmax(axis=1), pred, multi_class="ovr", average="weighted"))
    assert found["confusion"] == {"labels": ["a", "b", "c"],
                                  "counts": [[1, 0, 0], [0, 1, 0], [0, 1, 1]]}
    assert "Accuracy 0.750" in format_scores(found)
    assert "kappa 0.636" in format_scores(found)


def test_averages_over_classes_have_intervals_about_them():
    truth = np.eye(4)[RNG.choice(4, 200, p=[0.5, 0.3, 0.15, 0.05])]
    pred = RNG.dirichlet(np.ones(4), 200) * 0.6 + truth * 0.4
    mean = evaluate(truth, pred, Target("multiclass", tuple("abcd")), np.arange(200) // 2,
                    n_boot=300)["mean"]
    for key in ("accuracy", "balanced_accuracy", "kappa", "f1_macro", "f1_weighted",
                "precision_macro", "precision_weighted", "roc_auc_weighted", "pr_auc_weighted"):
        low, high = mean[f"{key}_ci"]
        assert low < mean[key] < high, key
        assert high - low < 0.3
    assert "recall_macro" not in mean


def test_order_of_rows_does_not_matter():
    truth = (RNG.random((80, 2)) < 0.4).astype(float)
    pred, groups, order = RNG.random((80, 2)), RNG.integers(0, 30, 80), RNG.permutation(80)
    target = Target("multilabel", ("a", "b"))
    a, b = (evaluate(truth[rows], pred[rows], target, groups[rows], n_boot=50)["labels"]
            for rows in (np.arange(80), order))
    for name in target.labels:
        for key, value in a[name].items():
            assert b[name][key] == (value if value is None else pytest.approx(value, abs=1e-12))


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


def test_predictions_table_of_labels_nobody_knows():
    target = Target("multilabel", ("L0", "L1", "L2"))
    scans = label_scans(np.full((2, 3), NAN))
    table = predictions_table(scans, np.array([0, 1]), np.full((2, 3), 0.5), target)
    assert table[list(target.labels)].isna().all(axis=None)
    assert ",,0.5,,0.5,,0.5" in table.to_csv(index=False)


def test_rows_of_the_same_name_are_different_rows():
    assert len(set(label_scans([[0], [1], [0]], ids=("x", "x", "x")).groups())) == 3
