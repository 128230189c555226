"""Operating points: rules, thresholds and the scores at them."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from slivit.metrics.operating_point import Rule, Threshold, choose, parse_rule, point

RNG = np.random.default_rng(0)
NAN = float("nan")


def rates_at(truth, pred, threshold):
    """Return sensitivity and specificity."""
    found = point(truth, pred, threshold)
    return found["sensitivity"], found["specificity"]


@pytest.mark.parametrize(("text", "rule"), [
    ("youden", Rule("youden")), (" sensitivity = 0.95", Rule("sensitivity", 0.95)),
    ("specificity=1", Rule("specificity", 1.0))])
def test_rules_are_read_and_written_alike(text, rule):
    assert parse_rule(text) == rule
    assert str(rule) == text.replace(" ", "")


@pytest.mark.parametrize("text", ["", "best", "youden=1", "sensitivity", "sensitivity=", "f1=0.5",
                                  "sensitivity=95", "specificity=0", "specificity=nan",
                                  "sensitivity=-0.1", "sensitivity=0.9=1"])
def test_other_rules_are_refused_with_what_is_expected(text):
    with pytest.raises(ValueError, match="expected youden, sensitivity=VALUE or specificity"):
        parse_rule(text)


@pytest.mark.parametrize("decimals", [1, 8])
def test_thresholds_do_what_the_rule_says(decimals):
    for _ in range(20):
        truth = RNG.integers(0, 2, 50).astype(float)
        pred = np.round(RNG.random(50) * 0.7 + 0.3 * truth, decimals)
        fpr, tpr, _ = roc_curve(truth, pred, drop_intermediate=False)
        found = choose(truth, pred, parse_rule("youden"), "validation")
        assert sum(rates_at(truth, pred, found)) - 1 == pytest.approx((tpr - fpr).max())
        found = choose(truth, pred, parse_rule("sensitivity=0.9"), "validation")
        low = fpr[tpr >= 0.9].min()
        assert rates_at(truth, pred, found) == pytest.approx((tpr[fpr == low].max(), 1 - low))
        found = choose(truth, pred, parse_rule("specificity=0.8"), "validation")
        high = tpr[1 - fpr >= 0.8].max()
        assert rates_at(truth, pred, found) == pytest.approx((high, 1 - fpr[tpr == high].min()))


def test_threshold_lies_between_the_scans_it_parts():
    truth, pred = np.array([0, 0, NAN, 1, 1]), np.array([0.1, 0.2, 0.45, 0.6, 0.9])
    found = choose(truth, pred, parse_rule("youden"), "validation")
    assert found == Threshold("youden", pytest.approx(0.4), "validation")


def test_a_rule_that_only_calling_nothing_positive_meets_has_a_finite_threshold():
    truth, pred = np.array([0, 1, 1, 0]), np.array([1.0, 1.0, 0.3, 0.2])
    found = choose(truth, pred, parse_rule("specificity=1"), "validation")
    assert np.isfinite(found.value)
    assert rates_at(truth, pred, found) == (0, 1)
    neighbours = np.array([0.5, np.nextafter(0.5, 1)])  # no number lies between
    found = choose(np.array([0, 1]), neighbours, parse_rule("youden"), "validation")
    assert rates_at(np.array([0, 1]), neighbours, found) == (1, 1)


@pytest.mark.parametrize("truth", [[], [1], [0, 0], [1, 1, NAN], [NAN, NAN]])
def test_validation_of_one_class_has_no_threshold(truth):
    assert choose(np.array(truth), np.linspace(0, 1, len(truth)), Rule("youden"), "v") is None


def test_constant_predictions_are_all_positive():
    truth, pred = np.array([0.0, 1, 1]), np.full(3, 0.5)
    for text in ("youden", "sensitivity=0.5"):
        assert rates_at(truth, pred, choose(truth, pred, parse_rule(text), "v")) == (1, 0)


def test_undefined_scores_at_a_point_are_none():
    found = point(np.array([0, 0]), np.array([0.1, 0.2]), Threshold("youden", 0.5, "v"))
    assert (found["tp"], found["fp"], found["tn"], found["fn"]) == (0, 0, 2, 0)
    assert found["specificity"] == found["npv"] == found["accuracy"] == 1
    assert [key for key, value in found.items() if value is None] == [
        "sensitivity", "ppv", "f1", "balanced_accuracy"]
