"""Learning curves, ratings and the results page of results."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks import (
    accuracy_summary,
    curve_summary,
    jobs,
    learning_curve,
    nodules,
    ratings,
    results,
    search,
    variants,
)
from benchmarks.jobs import Done, Job
from benchmarks.shapes import shape_features
from slivit.utils.errors import UserError
from slivit.utils.files import write_json


@pytest.fixture(scope="module")
def fold():
    return nodules.make_fold(1, *nodules.load())


def test_fewer_volumes_are_nested_by_patient_and_leave_the_test_part_alone(fold):
    before = set()
    for size in (25, 100, 800):
        few = nodules.with_few(fold, size, seed=3)
        rows = few.rows("train", "val")
        assert len(rows) == size and set(rows) >= before
        assert (few.rows("test") == fold.rows("test")).all()
        assert set(few.rows("train")) <= set(fold.rows("train"))
        for part in ("train", "val"):
            assert set(few.truth[few.rows(part), 0]) == {0, 1}
        before = set(rows)
    patients = fold.scans.table["patient"].to_numpy()
    whole = [set(rows) >= set(np.flatnonzero((patients == name) & (fold.split == "train")))
             for name in set(patients[few.rows("train")])]
    assert np.mean(whole) > 0.98  # all but the last patient, and the two that bring a class
    assert set(nodules.with_few(fold, 25, 0).rows("train")) != set(
        nodules.with_few(fold, 25, 1).rows("train"))


def test_images_of_few_patients_are_of_those_alone(fold):
    few = nodules.with_few(fold, 100, 0)
    table = nodules.image_table(few)
    patients = few.scans.table["patient"].to_numpy()
    assert set(table["patient"]) == set(patients[few.rows("train", "val")])
    assert table["of_volume"].sum() == 100


def test_fewer_volumes_train_for_more_epochs_in_smaller_batches(tmp_path):
    task = learning_curve.make_task(Job("slivit", 0, 0, 100), tmp_path, quick=False)
    there = len(task.pretraining.rows("train", "val"))
    assert there > 1500
    assert task.epochs(12) == round(12 * (there / 100) ** 0.5) and task.b_size == 12
    assert learning_curve.make_task(Job("slivit", 0, 0, 25), tmp_path, False).b_size == 8
    assert learning_curve.make_task(Job("slivit", 0, 0), tmp_path, False).epochs(12) == 12


def test_volumes_needed_for_a_score_are_read_off_the_risen_curve():
    sizes, curve = [25, 100, 400], [0.7, 0.8, 0.9]
    assert curve_summary.volumes_for(0.8, sizes, curve) == pytest.approx(100)
    assert curve_summary.volumes_for(0.85, sizes, curve) == pytest.approx(200)
    assert curve_summary.volumes_for(0.6, sizes, curve) == 25
    assert curve_summary.volumes_for(0.95, sizes, curve) == np.inf
    assert curve_summary.volumes_for(0.75, sizes, [0.8, 0.7, 0.9]) == 25  # as if it rose


def write_done(folder, method, size, good, labels=None, seed=0, fold=0):
    """Write a finished job of 40 scans; a share `good` of them is ranked right."""
    rng = np.random.default_rng(0)
    truth = np.arange(40) % 2
    pred = np.where(np.arange(40) < 40 * good, truth, 1 - truth) + rng.random(40) / 10
    table = pd.DataFrame({"nodule": [f"n{fold}{k:02d}" for k in range(40)],
                          "patient": [f"p{fold}{k // 2:02d}" for k in range(40)]})
    for end in [""] if labels is None else [f"_{label}" for label in labels]:
        table[f"truth{end}"], table[f"pred{end}"] = truth, pred
    one = Done(folder / f"{method}_{size}_{fold}_{seed}.csv", Job(method, fold, seed, size), "s")
    table.to_csv(one.predictions, index=False)
    write_json(one.facts, {"settings": "s", "parameters": 3, "seconds": 60})
    return one


def test_summary_of_curves_says_how_many_times_fewer(tmp_path):
    found = [write_done(tmp_path, "few_volumes", 8, 0.7),
             write_done(tmp_path, "few_volumes", 16, 0.9),
             write_done(tmp_path, "resnet18_narrow", 8, 0.6),
             write_done(tmp_path, "resnet18_narrow", 16, 0.7)]
    text = curve_summary.summarise(found, tmp_path / "out")
    saved = json.loads((tmp_path / "out/learning_curve.json").read_text())["resnet18_narrow"]
    assert [row["volumes"] for row in saved] == [8, 16]
    assert saved[1]["needed"] == 8 and saved[1]["times_fewer"] == 2 and saved[1]["at_least"]
    assert "16 at" in text and "2.0 times fewer" in text
    table = pd.read_csv(tmp_path / "out/learning_curve.csv")
    assert (table["roc_auc_low"] <= table["roc_auc"]).all()
    other = table[table["method"] == "resnet18_narrow"]
    gain = table[table["method"] == "few_volumes"]["roc_auc"].to_numpy() - other["roc_auc"]
    assert other["difference"].tolist() == pytest.approx(gain.tolist(), abs=2e-5)
    assert (other["difference_low"] < other["difference"]).all()
    assert other["p"].between(2 / 2001, 1).all() and other["p"].iloc[1] < 0.05
    assert (tmp_path / "out/learning_curve.png").stat().st_size > 5000
    assert curve_summary.summarise([], tmp_path / "none") == "no fold is finished by all methods"


def test_methods_on_all_folds_and_starts_have_tables_of_their_own(tmp_path):
    found = [write_done(tmp_path, method, 8, good, fold=fold) for fold in range(nodules.N_FOLDS)
             for method, good in (("few_volumes", 0.9), ("volume", 0.7))]
    curve_summary.summarise(found, tmp_path)
    assert not (tmp_path / "learning_curve_all_folds.csv").exists()  # it would be the same twice
    curve_summary.summarise([*found, write_done(tmp_path, "ssl_few", 8, 0.8)], tmp_path)
    assert set(pd.read_csv(tmp_path / "learning_curve.csv")["folds"]) == {0}
    whole = pd.read_csv(tmp_path / "learning_curve_all_folds.csv")
    assert whole["method"].tolist() == ["few_volumes", "volume"]
    assert set(whole["folds"]) == {"0 1 2 3 4"} and set(whole["scans"]) == {200}
    starts = pd.read_csv(tmp_path / "learning_curve_starts.csv").set_index("method")
    assert starts.index.tolist() == ["volume", "few_volumes", "ssl_few"]
    gain = starts.loc["volume", "roc_auc"] - starts.loc["few_volumes", "roc_auc"]
    assert gain < -0.1
    assert starts.loc["few_volumes", "difference"] == pytest.approx(gain, abs=2e-5)
    text = results.curve(tmp_path)
    assert "all five folds" in text and "The nodule volume alone minus" in text


def test_search_sees_no_test_patient_and_each_other_volume_once(tmp_path):
    embedded = nodules.load()[0].table
    held_out = set(embedded.loc[embedded["split"] == "test", "patient"])
    tested = []
    for number in range(search.N_FOLDS):
        fold = search.make_task(Job("base", number, 0), tmp_path, quick=False).fold
        patients = fold.scans.table["patient"].to_numpy()
        images = nodules.image_table(fold)
        assert not held_out & (set(patients) | set(images["patient"]))
        assert not set(images["patient"]) & set(patients[fold.rows("test")])
        tested += fold.scans.table["nodule"].to_numpy()[fold.rows("test")].tolist()
    assert sorted(tested) == sorted(embedded.loc[embedded["split"] != "test", "nodule"])


@pytest.mark.parametrize(("name", "count", "shape"), [("b64", 1, (28, 28)), ("ax3", 3, (28, 28)),
                                                      ("ord_adj32", 3, (28, 28, 3))])
def test_images_of_variants_have_their_number_shape_and_labels(name, count, shape, tmp_path):
    fold = search.make_task(Job(name, 0, 0), tmp_path, quick=True).fold
    variant = variants.VARIANTS[name]
    table = pd.read_csv(variants.write_images(fold, variant, tmp_path, tmp_path / "shared"))
    own = len(fold.rows("train", "val"))
    assert len(table) == len(set(table["F_Name"]))
    assert table["F_Name"].str.endswith("_0").sum() == len(table) - (count - 1) * own
    assert np.load(table["Path"][0]).shape == shape
    assert ("malignancy_2.7" in table) == variant.ordinal != ("spiculated" in table)
    if len(shape) == 3:
        nodule = table["F_Name"][1].rsplit("_", 2)[0]
        row = fold.scans.table.index[fold.scans.table["nodule"] == nodule][0]
        coronal = np.moveaxis(fold.scans.scans[row], 1, 0)
        best = coronal.sum(axis=(1, 2), dtype=int).argmax()
        assert (np.load(table["Path"][1])[..., 0] == coronal[best - 1]).all()


def test_images_of_all_nodules_are_a_fold_of_their_own():
    volumes, images = nodules.load()
    fold = nodules.make_fold(0, nodules.all_images(volumes, images), images, ratings.LABELS, 2)
    assert len(fold.scans) == len(volumes) + len(images) == len(fold.truth)
    assert fold.truth.shape[1] == 8 and fold.scans.scans.shape[1:] == (28, 28)
    patients = fold.scans.table["patient"].to_numpy()
    assert not set(patients[fold.rows("train", "val")]) & set(patients[fold.rows("test")])


def test_shape_features_of_a_square():
    square = np.zeros((28, 28), np.uint8)
    square[3:7, 5:9] = 255
    assert shape_features(square) == pytest.approx([16, 4, 4, 16, np.pi / 4, 1, 1, 255])


@pytest.mark.parametrize("method", ["slivit", "plain", "image_resnet18"])
def test_a_quick_job_predicts_the_ratings_of_its_method(method, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "FEW", 100)
    ratings.main(["--job", f"{method}:0:0:0", "--quick", "--results", str(tmp_path / "results"),
                  "--scratch", str(tmp_path / "scratch")])
    one = jobs.done(ratings.BENCHMARK, Job(method, 0, 0), tmp_path / "results")
    table = one.read_predictions()
    names = [name for name in table if name.startswith("pred")]
    assert one.finished and np.isfinite(table[names]).all(axis=None)
    assert len(names) == (8 if method == "image_resnet18" else 1)
    if method == "slivit":
        assert table["truth"].between(1, 5).all() and table["truth"].nunique() > 5


def test_results_section_replaces_what_stood_between_its_marks(tmp_path):
    labels = ratings.LABELS.labels
    ratings.summarise({
        "slivit": [write_done(tmp_path, "slivit", 0, 0.9)],
        "image_area": [write_done(tmp_path, "image_area", 0, 0.8, labels)],
        "volume": [Done(tmp_path / "no.csv", Job("volume", 0, 0), "s")]}, tmp_path)
    accuracy_summary.summarise({"slivit": [write_done(tmp_path, "slivit", 0, 0.9)]}, tmp_path)
    accuracy_summary.summarise({"slivit": [
        write_done(tmp_path, "slivit", 0, share, seed=seed) for seed, share in
        enumerate((0.9, 0.8))]}, tmp_path)
    curve_summary.summarise([write_done(tmp_path, "few_volumes", size, 0.9) for size in (0, 8)],
                            tmp_path)
    page = tmp_path / "results.md"
    page.write_text(f"a\n{results.BEGIN}\nstale\n{results.END}\nb\n")
    results.main(["--results", str(tmp_path), "--page", str(page)])
    text = page.read_text()
    assert text.startswith(f"a\n{results.BEGIN}\n") and text.endswith(f"{results.END}\nb\n")
    assert "stale" not in text and "| **SLIViT, recommended** |" in text and "area alone" in text
    assert "40 nodules" in text and "; one seed; " in text and "\n|  | 8 | 160 |" in text
    assert "| 2 | 0.838 (0.071) |" in text
    assert results.main(["--results", str(tmp_path), "--page", str(page)]) is None
    assert page.read_text() == text
    page.write_text("no marks")
    with pytest.raises(UserError, match="expected a file with one line"):
        results.main(["--results", str(tmp_path), "--page", str(page)])
    assert page.read_text() == "no marks"
