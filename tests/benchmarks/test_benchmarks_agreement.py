"""Agreement with radiologists: their ratings, groups of nodules, methods together."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import agreement, results
from benchmarks.accuracy_summary import flat
from slivit.utils.errors import UserError

SQUARE = np.array([[0, 0], [0, 4], [4, 4], [4, 0], [0, 0]]) + 100


def annotation(number, malignancy, shift=0):
    return {"id": number, "ratings": [1] * 8 + [malignancy],
            "outlines": [(0.0, False, SQUARE + shift)]}


def test_a_rating_is_compared_with_the_mean_of_the_others():
    nodule = [annotation(1, 5), annotation(2, 4), annotation(3, 2)]
    other = [annotation(4, 1, shift=200)]  # of one radiologist: nobody to compare with
    scan = {"patient": "p", "thickness": 1.0, "spacing": 0.7, "planes": np.array([0.0]),
            "annotations": nodule + other}
    table = agreement.one_of_them([scan])
    # the others of 5 are 4 and 2, whose mean is 3: left out
    assert table["pred"].tolist() == [0.75, 0.25]
    assert table["truth"].tolist() == [1.0, 1.0]


def made_up(n=40):
    rng = np.random.default_rng(0)
    truth = np.arange(n) % 2
    table = pd.DataFrame({"patient": [f"p{k}" for k in range(n)], "truth": truth,
                          "fold": np.arange(n) % 4 // 2, "n_annotators": np.arange(n) % 5 + 1,
                          "malignancy": 3 + np.where(truth == 1, 1, -1) * rng.uniform(0.1, 2, n)})
    for name in agreement.METHODS:
        table[name] = np.clip(0.25 + truth / 2 + rng.normal(0, 0.1, n), 0, 1)
    return table.assign(together=lambda found: agreement.together(found))


def test_every_nodule_is_in_one_group_of_each_kind():
    table = made_up()
    found = dict(agreement.groups(table))
    assert len(found.pop("all")) == 40
    by_count = [part for name, part in found.items() if "radiologist" in name]
    by_mean = [part for name, part in found.items() if "from 3" in name]
    assert len(by_count) == 4 and sum(map(len, by_count)) == 40
    assert len(by_mean) == 3 and sum(map(len, by_mean)) == 40
    assert set(found["4 radiologists or more"]["n_annotators"]) == {4, 5}


def test_together_does_not_depend_on_a_folds_scale():
    table = made_up()
    logit = np.log(table["slivit"] / (1 - table["slivit"]))
    squeezed = 1 / (1 + np.exp(-np.where(table["fold"] == 0, logit / 3 - 1, logit)))
    assert np.allclose(agreement.together(table.assign(slivit=squeezed)), table["together"])


def test_section_shows_the_radiologist_and_every_method(tmp_path):
    table = made_up()
    rows = [{"group": "g", "method": "one radiologist",
             **agreement.scores(table.assign(pred=table["volume"]))}]
    for group, part in agreement.groups(table):
        rows += [{"group": group, "method": name, **agreement.scores(part.assign(pred=part[name]))}
                 for name in [*agreement.METHODS, "together"]]
    flat(rows).to_csv(tmp_path / "agreement.csv", index=False)
    text = results.section(tmp_path)
    assert "ROC-AUC of 1.000 (1.000 to 1.000) (40 ratings," in text
    assert "| all | 40 | 50% | 1.000 (1.000 to 1.000) |" in text
    assert "mean of the three networks' logits |" in text


def test_unfinished_methods_are_listed_with_the_command_that_runs_them(tmp_path):
    with pytest.raises(UserError, match="volume, fold 4, seed 0. `python -m benchmarks.accuracy"):
        agreement.main(["--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())
