"""DeLong's variance and test, against published values and against its own definition."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from slivit.metrics.delong import auc_interval, compare_auc

# Aneurysmal subarachnoid haemorrhage, 113 patients: outcome (1 is poor), WFNS grade, S100beta and
# NDKA (Turck et al. 2010), data set aSAH of the R package pROC (Robin et al. 2011), in its order.
OUTCOME = ("00001101001011001011101000000000100110110000000001100010001010011101101111000110"
           "100000010000000000001111110001000")
WFNS = ("11113254125255125225211112121134214541425511241125521251222151125214524414121421"
        "232421451154221113125225552445111")
S100B = """
0.13 0.14 0.1 0.04 0.13 0.1 0.47 0.16 0.18 0.1 0.12 0.1 0.44 0.71 0.04 0.08 0.49 0.04 0.07 0.33
0.09 0.09 0.07 0.11 0.07 0.17 0.07 0.11 0.13 0.19 0.05 0.16 0.41 0.14 0.34 0.35 0.48 0.09 0.96 0.25
0.5 0.46 0.16 0.07 0.43 0.45 0.11 0.08 0.09 0.86 0.52 0.08 0.06 0.13 2.07 0.1 0.14 0.15 0.07 0.06
0.77 0.05 0.09 0.3 0.03 0.09 0.04 0.23 0.7 0.09 0.27 0.71 0.08 0.26 0.08 0.16 0.09 0.13 0.1 0.08
0.11 0.33 0.11 0.28 0.07 0.1 0.32 0.22 0.07 0.05 0.24 0.38 0.1 0.15 0.08 0.14 0.1 0.07 0.04 0.19
0.56 0.14 0.58 0.32 0.82 0.74 0.15 0.47 0.17 0.44 0.15 0.5 0.48"""
NDKA = """
3.01 8.54 8.09 10.42 17.4 12.75 6 13.2 15.54 6.01 15.96 17.86 5.18 8.9 13.41 20.75 11.6 16.11 32.37
54.82 32.41 49.94 40.34 9.47 6.29 12.53 6.54 6.3 80.3 12.8 9.8 9.81 9.85 18.21 5.03 14.04 21.93
8.02 7.42 8.38 6.59 9.63 13.12 7.96 14.34 41.43 7.63 7.06 12.59 13.56 3.87 9.44 7.66 12.98 419.19
27.19 22.27 9.95 21.22 11.73 10.4 58.83 6.39 11.09 12.22 13.67 17.21 22.63 12.9 9.7 21.57 8.23 72.57
15.54 10.51 10.6 14.57 5.19 9.63 4.61 21.48 17.3 12.71 9.44 11.07 19.46 10.83 5.37 11.97 7.75 9.83
10.55 28.49 8.53 12.57 12.9 46.83 11.68 12.67 9.01 9.57 34.06 11.72 14.26 47.61 11.67 24.58 10.33
13.87 15.89 22.43 6.79 13.45"""


def asah():
    """Return the outcome and the three markers, each (113,)."""
    markers = {"s100b": np.array(S100B.split(), float), "ndka": np.array(NDKA.split(), float),
               "wfns": np.array(list(WFNS), float)}
    return np.array(list(OUTCOME), int), markers


def test_interval_is_that_of_the_published_example():
    truth, markers = asah()
    # pROC's documentation prints 0.7314 (0.6301-0.8326); its own tests hold the digits of NDKA
    assert roc_auc_score(truth, markers["s100b"]) == pytest.approx(0.7314, abs=5e-5)
    assert auc_interval(truth, markers["s100b"]) == pytest.approx([0.6301, 0.8326], abs=5e-5)
    assert roc_auc_score(truth, markers["ndka"]) == pytest.approx(0.611957994579946, abs=1e-12)
    assert auc_interval(truth, markers["ndka"]) == pytest.approx(
        [0.501244999271703, 0.722670989888189], abs=1e-12)


@pytest.mark.parametrize(("a", "b", "z", "p", "low", "high"), [  # a - b, by pROC's own tests
    ("wfns", "s100b", 2.20898359144091, 0.0271757822291882, 0.0104061769564846,
     0.174214419249478),
    ("wfns", "ndka", 2.79777591868904, 0.00514557970691098, 0.0634011709339876,
     0.3600405634833566),
    ("ndka", "s100b", -1.39077002573558, 0.164295175223054, -0.2876917446341914,
     0.0488706064228094),
])
def test_paired_test_is_that_of_the_published_example(a, b, z, p, low, high):
    truth, markers = asah()
    found = compare_auc(truth, markers[b], markers[a])
    assert found.z == pytest.approx(z, rel=1e-10)
    assert found.p == pytest.approx(p, rel=1e-10)
    assert found.value - 1.959963984540054 * found.error == pytest.approx(low, rel=1e-9)
    assert found.value + 1.959963984540054 * found.error == pytest.approx(high, rel=1e-9)


def by_definition(truth, pred, groups):
    """Return Obuchowski's (1997) variance of the area from all pairs, one term after the other."""
    x, y = pred[truth == 1], pred[truth == 0]
    wins = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    area, m, n = wins.mean(), len(x), len(y)
    tens, ones = wins.mean(axis=1) - area, wins.mean(axis=0) - area
    s10 = s01 = s11 = 0.0
    for name in set(groups):
        ten = tens[groups[truth == 1] == name].sum()
        one = ones[groups[truth == 0] == name].sum()
        s10, s01, s11 = s10 + ten ** 2, s01 + one ** 2, s11 + ten * one
    i10, i01, i = (len(set(part)) for part in (groups[truth == 1], groups[truth == 0], groups))
    s10, s01, s11 = s10 * i10 / (i10 - 1) / m, s01 * i01 / (i01 - 1) / n, s11 * i / (i - 1)
    return s10 / m + s01 / n + 2 * s11 / (m * n)


@pytest.mark.parametrize("per_group", [1, 3])
def test_variance_follows_the_definition(per_group):
    rng = np.random.default_rng(per_group)
    truth = rng.integers(0, 2, 60)
    pred = np.round(rng.random(60) + 0.3 * truth, 1)
    groups = np.arange(60) // per_group
    half = 1.959963984540054 * np.sqrt(by_definition(truth, pred, groups))
    area = roc_auc_score(truth, pred)
    assert auc_interval(truth, pred, groups) == pytest.approx([area - half, area + half])


def test_a_group_for_every_row_is_no_grouping():
    truth, markers = asah()
    names = [f"p{i}" for i in range(len(truth))]
    assert auc_interval(truth, markers["ndka"], names) == auc_interval(truth, markers["ndka"])


def test_repeated_scans_of_a_patient_add_nothing():
    truth, markers = asah()
    thrice, names = np.tile(truth, 3), np.tile(np.arange(len(truth)), 3)
    alone = auc_interval(truth, markers["wfns"])
    assert auc_interval(thrice, np.tile(markers["wfns"], 3), names) == pytest.approx(alone)
    wide, narrow = np.ptp(alone), np.ptp(auc_interval(thrice, np.tile(markers["wfns"], 3)))
    assert narrow < wide / 1.5


def test_interval_stays_within_0_and_1():
    truth = np.array([0, 0, 0, 1, 1, 1])
    low, high = auc_interval(truth, np.array([1.0, 2, 4, 3, 5, 6]))
    assert 0 <= low < 8 / 9 and high == 1
    assert auc_interval(truth, np.arange(6.0)) == [1, 1]


@pytest.mark.parametrize(("truth", "groups"), [
    ([1, 1, 1], None), ([0, 0, 0], None), ([1, 0], None), ([1, 0, 0], None), ([], None),
    ([1], None), ([1, 1, 0, 0], ["p"] * 4), ([1, 1, 0, 0], ["p", "p", "q", "r"])])
def test_too_few_patients_of_a_class_give_none(truth, groups):
    truth, pred = np.array(truth), np.arange(len(truth)) / 4
    assert auc_interval(truth, pred, groups) is None
    assert compare_auc(truth, pred, -pred, groups) is None


def test_predictors_that_rank_alike_do_not_differ():
    truth, markers = asah()
    found = compare_auc(truth, markers["ndka"], np.log(markers["ndka"]))
    assert (found.value, found.z, found.p) == (0, 0, 1)
    order = np.array([0.0, 0, 1, 1])
    assert compare_auc(order, order, 1 - order) is None  # 1 against 0, both without variance
