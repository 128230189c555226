"""Pre-training without labels as benchmarks judge it: epochs, rules of choice, tables."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import learning_curve, nodules, pretraining, region_section, without_labels
from benchmarks.jobs import Job
from benchmarks.region_crops import REGIONS
from slivit.config import Augmentation, Target
from slivit.utils.errors import UserError


@pytest.fixture
def bed(tmp_path, monkeypatch):
    """Forty volumes of four slices, brighter at one end where the label is 1; ten are scored."""
    rng = np.random.default_rng(0)
    truth = np.arange(40) % 2
    scans = rng.integers(0, 120, (40, 4, 32, 32), dtype=np.uint8)
    scans[truth == 1, 3] += 130
    table = pd.DataFrame({"nodule": [f"n{k}" for k in range(40)],
                          "patient": [f"p{k}" for k in range(40)], "bright": truth})
    split = np.array(["train"] * 26 + ["val"] * 4 + ["test"] * 10)
    fold = nodules.Fold(0, nodules.Nodules(table, scans), 3, Target("binary", ("bright",)), split,
                        nodules.Nodules(table[:0], scans[:0]), Augmentation(flips="hv", jitter=0))
    one = without_labels.Bed(
        lambda _: fold, lambda fold, folder: without_labels.write_unlabelled(
            fold, folder, folder / "scans"), lambda fold, size: fold,
        "--n_cpu 0 --gpu_id cpu --quiet --overwrite --flips hv --jitter 0", 2, "full", (30,))
    monkeypatch.setitem(without_labels.BEDS, "outlines", one)
    monkeypatch.setattr(without_labels, "UNLABELLED", without_labels.UNLABELLED.replace(
        "--window percentile --", "--window full --").replace("atto_bn", "zepto_rms_bn"))
    monkeypatch.setattr(without_labels, "AMP", "off")
    return one


def test_each_epoch_is_scored_and_kept_once(bed, tmp_path, monkeypatch):
    without_labels.main(["--job", "outlines:order", "--scratch", str(tmp_path)])
    table = pd.read_csv(tmp_path / "without_labels/outlines/order/epochs.csv")
    assert table["epoch"].tolist() == [1, 2] and table["minutes"].is_monotonic_increasing
    assert np.isfinite(table[["val_loss", "rankme"]]).all(axis=None)
    assert table["roc_auc_30"].between(0.8, 1).all()  # grey values tell
    assert table["rankme"].between(1, 256).all()
    assert without_labels.is_done("outlines", "order", tmp_path)
    assert not without_labels.is_done("outlines", "masked", tmp_path)
    out = tmp_path / "results"
    monkeypatch.setattr(without_labels, "_start", lambda *_: pytest.fail("a finished job"))
    without_labels.main(["--beds", "outlines", "--methods", "order", "--scratch", str(tmp_path),
                         "--results", str(out)])
    assert len(pd.read_csv(out / "without_labels.csv")) == 2
    without_labels.summarise(tmp_path, out)  # what is there already is not doubled
    assert len(pd.read_csv(out / "without_labels.csv")) == 2


def test_effective_rank_counts_directions():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(200, 1)) @ rng.normal(size=(1, 8))
    assert without_labels.rankme(flat) == pytest.approx(1, abs=1e-3)
    assert without_labels.rankme(np.linalg.qr(rng.normal(size=(200, 8)))[0]) == pytest.approx(8)


def test_rules_of_choice_are_compared(tmp_path):
    pd.DataFrame({"bed": "regions", "method": "vicreg", "epoch": [1, 2, 3], "minutes": [1, 2, 3],
                  "val_loss": [3, 1, 2], "rankme": [9, 5, 4], "roc_auc_50": [0.7, 0.8, 0.75],
                  "roc_auc_200": np.nan, "settings": "s"}).to_csv(
        tmp_path / "without_labels.csv", index=False)
    text = region_section.without_labels(tmp_path)
    assert "Regions, with 50 labelled scans" in text
    assert ("| VICReg, neighbouring slices | 3 | 3 | 0.750 (epoch 3) | 0.800 (epoch 2) | "
            "0.700 (epoch 1) | 0.800 |") in text


def test_what_was_tried_is_sorted_by_its_best_score(tmp_path):
    pd.DataFrame({"variant": ["a", "b", "b"], "crops": [100, 25, 100],
                  "roc_auc": [0.8, 0.7, 0.9]}).to_csv(tmp_path / "regions_search.csv", index=False)
    assert region_section.tried(tmp_path).endswith(
        "| variant | 25 | 100 |\n| --- | --- | --- |\n| `b` | 0.700 | 0.900 |\n"
        "| `a` | - | 0.800 |")


def test_what_is_not_known_is_refused():
    with pytest.raises(UserError, match="found brains and vicreg"):
        without_labels.main(["--beds", "brains", "--methods", "vicreg"])


def test_no_labelled_crop_is_scored(monkeypatch):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"nodule": [f"c{k}" for k in range(1309)],
                          "hemisphere": ["left"] * 1300 + ["right"] * 9,
                          **{region: rng.integers(0, 2, 1309) for region in REGIONS}})
    crops = nodules.Nodules(table, np.zeros((1309, 1), np.uint8))
    monkeypatch.setattr(without_labels.regions, "crops_in", lambda *_: crops)
    bed = without_labels.BEDS["regions"]
    fold = bed.fold(None)
    few = bed.few(fold, 50)
    assert len(few.rows("train", "val")) == 50 and len(few.rows("test")) == 325
    assert (few.rows("test") == fold.rows("test")).all() and max(few.rows("test")) < 1300
    assert set(few.rows("train", "val")) <= set(fold.rows("train", "val"))


def test_unlabelled_scans_are_of_training_patients_and_images_are_volumes_of_one_slice(tmp_path):
    task = learning_curve.make_task(Job("ssl_few", 0, 0, 25), tmp_path, quick=False)
    whole = task.pretraining
    path = without_labels.write_unlabelled(whole, tmp_path, tmp_path / "scans")
    table = pd.read_csv(path)
    assert list(table) == ["F_Name", "Path", "patient", "Split"]
    tested = set(whole.scans.table["patient"][whole.rows("test")])
    assert not tested & set(table["patient"]) and set(table["Split"]) == {"train", "val"}
    single = table["Path"].str.endswith("_one_slice.npy")
    assert (~single).sum() == len(whole.rows("train", "val")) and single.sum() > 400
    shape = np.load(table.loc[single.idxmax(), "Path"]).shape
    assert shape[0] == 1 and len(shape) == 3
    assert len(task.fold.rows("train", "val")) == 25


def test_a_backbone_without_labels_serves_all_sizes_of_a_fold(tmp_path, monkeypatch):
    made = []

    def once(task, settings, kind, write, scans):
        made.append((settings, kind, str(scans)))
        return tmp_path / "b", 1.0
    monkeypatch.setattr(pretraining, "trained_once", once)
    monkeypatch.setattr(pretraining, "run_script", lambda *args: args)
    tasks = [learning_curve.make_task(Job("x", fold, 0, size), tmp_path, quick=False)
             for fold, size in ((0, 25), (0, 100), (1, 25))]
    for task in tasks:
        pretraining.ssl_few(task)
    assert made[0] == made[1] != made[2] and "--task ssl" in made[0][0]
    made.clear()
    for task in tasks:
        pretraining.ssl_few_images(task)
    assert made[0] == made[2] and len({one for one in made if one[1][:12] == "supervised_b"}) == 3
    assert f"--weights {tmp_path / 'b'}" in made[1][0] and "--n_epochs 96" in made[1][0]
