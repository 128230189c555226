"""Scores of weighted replicates: equal to scikit-learn and SciPy on the rows repeated."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics as sk

from slivit.metrics import bootstrap
from slivit.metrics.evaluation import class_scores
from slivit.metrics.scores import point_scores

RNG = np.random.default_rng(0)
WEIGHTS = RNG.integers(0, 4, (12, 60)).astype(float)


def repeated(weights, *arrays):
    """Return each array with every row as often as its weight says."""
    rows = np.repeat(np.arange(len(weights)), weights.astype(int))
    return [array[rows] for array in arrays]


def check(scorer, expected, *arrays, rel=1e-9):
    """Compare every replicate of a scorer with `expected(*rows repeated)`."""
    found = scorer(WEIGHTS)
    for i, weights in enumerate(WEIGHTS):
        for key, value in expected(*repeated(weights, *arrays)).items():
            assert found[key][i] == pytest.approx(value, rel=rel, abs=1e-12), key


@pytest.mark.parametrize("decimals", [1, 6])  # with many ties and without
def test_ranking_and_probability_scores_weigh_rows_as_repeating_them(decimals):
    truth = RNG.integers(0, 2, 60)
    pred = np.clip(np.round(RNG.random(60) * 0.7 + 0.3 * truth, decimals), 0, 1)
    check(bootstrap.combine(bootstrap.ranking(truth, pred), bootstrap.probability(truth, pred)),
          lambda t, p: {"roc_auc": sk.roc_auc_score(t, p),
                        "pr_auc": sk.average_precision_score(t, p),
                        "brier": sk.brier_score_loss(t, p),
                        "ece": point_scores(t, p, "binary")["ece"]}, truth, pred)


def test_calibration_error_is_the_definition():
    truth, pred = RNG.integers(0, 2, 300), np.round(RNG.random(300), 2)
    pred[:2] = 0, 1
    edges = np.linspace(0, 1, 16)
    total = 0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (pred > low) & (pred <= high) | (pred == 0) & (low == 0)
        if inside.any():
            total += inside.mean() * abs(truth[inside].mean() - pred[inside].mean())
    assert point_scores(truth, pred, "binary")["ece"] == pytest.approx(total)


def test_decision_scores_weigh_rows_as_repeating_them():
    truth, pred = RNG.integers(0, 2, 60), np.round(RNG.random(60), 1)

    def expected(t, p):
        said = (p >= 0.4).astype(int)
        return {"sensitivity": sk.recall_score(t, said),
                "specificity": sk.recall_score(t, said, pos_label=0),
                "ppv": sk.precision_score(t, said), "npv": sk.precision_score(t, said, pos_label=0),
                "f1": sk.f1_score(t, said), "accuracy": sk.accuracy_score(t, said),
                "balanced_accuracy": sk.balanced_accuracy_score(t, said)}

    check(bootstrap.decision(truth, pred, 0.4), expected, truth, pred)


@pytest.mark.parametrize(("unit", "decimals"), [(1.0, 8), (1.0, 0), (1e-9, 8), (1e6, 8)])
def test_regression_scores_weigh_rows_as_repeating_them(unit, decimals):
    truth = np.round(RNG.normal(size=60) * 2 + 30, decimals) * unit
    value = truth + np.round(RNG.normal(size=60) + 0.3, decimals) * unit

    def expected(t, v):
        off = v - t
        return {"r2": sk.r2_score(t, v), "pearson": pearsonr(t, v)[0],
                "spearman": spearmanr(t, v)[0], "mae": sk.mean_absolute_error(t, v),
                "rmse": sk.root_mean_squared_error(t, v), "bias": off.mean(),
                "loa_low": off.mean() - 1.96 * off.std(ddof=1),
                "loa_high": off.mean() + 1.96 * off.std(ddof=1)}

    check(bootstrap.regression(truth, value), expected, truth, value, rel=1e-6)


@pytest.mark.filterwarnings("ignore:y_pred contains classes")  # scikit-learn's, of rare classes
def test_confusion_scores_weigh_rows_as_repeating_them():
    truth, said = RNG.integers(0, 4, 60), RNG.integers(0, 5, 60)
    truth[RNG.random(60) < 0.5] = 1
    truth[:2] = 3  # in some replicates a class is missing from the truth

    def expected(t, s):
        averages = {f"{name}_{how}": score(t, s, average=how, zero_division=0)
                    for name, score in (("f1", sk.f1_score), ("precision", sk.precision_score))
                    for how in ("macro", "weighted")}
        return {"accuracy": sk.accuracy_score(t, s), "kappa": sk.cohen_kappa_score(t, s),
                "balanced_accuracy": sk.balanced_accuracy_score(t, s), **averages}

    check(bootstrap.confusion(truth, said, 5), expected, truth, said)


@pytest.mark.parametrize(("first", "second", "kappa"), [
    ((40, 60, 0), ((20, 20, 0), (10, 50, 0)), 0.348),  # Artstein & Poesio 2008, table 1
    ((46, 44, 10), ((46, 0, 0), (6, 32, 6), (0, 0, 10)), 0.8013),  # and table 4
])
def test_kappa_is_the_published_one(first, second, kappa):
    cells = [(i, j, count) for i, row in enumerate(second) for j, count in enumerate(row)]
    truth = np.repeat([i for i, _, _ in cells], [count for _, _, count in cells])
    said = np.repeat([j for _, j, _ in cells], [count for _, _, count in cells])
    assert tuple(np.bincount(truth, minlength=3)) == first
    found = bootstrap.confusion(truth, said, 3)(np.ones((1, 100)))["kappa"][0]
    assert found == pytest.approx(kappa, abs=6e-4)
    assert class_scores(np.eye(3)[truth], np.eye(3)[said])["kappa"] == pytest.approx(found)


def test_replicates_that_define_nothing_are_nan():
    truth, pred = np.array([0, 1, 1]), np.array([0.2, 0.2, 0.9])
    none = np.array([[0.0, 0, 0], [0, 1, 2]])
    found = bootstrap.combine(bootstrap.ranking(truth, pred), bootstrap.probability(truth, pred),
                             bootstrap.decision(truth, pred, 0.5))(none)
    assert np.isnan(found["roc_auc"]).all() and np.isnan(found["specificity"]).all()
    assert np.isnan(found["brier"]).tolist() == [True, False]
    assert np.isnan(bootstrap.regression(pred, pred)(none)["r2"][0])
    assert np.isnan(bootstrap.confusion(truth, truth, 2)(none)["kappa"]).all()


def test_rows_of_a_group_are_drawn_together():
    member = RNG.integers(0, 20, 60)
    drawn = RNG.integers(0, 4, (12, 21)).astype(float)  # the last group has no row
    truth, pred = RNG.integers(0, 2, 60), np.round(RNG.random(60), 1)
    for make in (bootstrap.ranking, bootstrap.probability, bootstrap.regression,
                 lambda *rows: bootstrap.decision(*rows[:2], 0.4, *rows[2:]),
                 lambda *rows: bootstrap.confusion(rows[0], (rows[1] > 0.5).astype(int), 2,
                                                   *rows[2:])):
        grouped, plain = make(truth, pred, member)(drawn), make(truth, pred)(drawn[:, member])
        for key, values in plain.items():
            np.testing.assert_allclose(grouped[key], values, rtol=1e-12, atol=1e-14)
