"""The benchmarks of accuracy: folds, networks, summaries, and quick jobs."""

import numpy as np
import pandas as pd
import pytest
import torch
from benchmark_jobs import PREDS, TRUTH, write_done

from benchmarks import accuracy, job_options, jobs, networks, nodules
from benchmarks.accuracy_summary import summarise
from benchmarks.jobs import Benchmark, Done, Job, jobs_of
from benchmarks.methods import METHODS
from benchmarks.shapes import shape_features
from benchmarks.tasks import Method
from slivit.utils.errors import UserError


@pytest.fixture(scope="module")
def data():
    return nodules.load()


@pytest.mark.parametrize("number", range(nodules.N_FOLDS))
def test_a_fold_shares_no_patient_between_its_parts_nor_with_its_images(data, number):
    fold = nodules.make_fold(number, *data)
    patients = fold.scans.table["patient"].to_numpy()
    of = {split: set(patients[fold.rows(split)]) for split in ("train", "val", "test")}
    assert not of["train"] & of["val"] and not (of["train"] | of["val"]) & of["test"]
    assert len(fold.rows("train", "val", "test")) == len(patients) == 2004
    images = nodules.image_table(fold)
    by_split = images.groupby("Split")["patient"].agg(set)
    assert set(by_split.index) == {"train", "val"}
    assert not (by_split["train"] | by_split["val"]) & of["test"]
    assert not by_split["train"] & by_split["val"]
    assert images["of_volume"].sum() == len(fold.rows("train", "val"))
    assert (~images["of_volume"]).sum() > 300


def test_every_volume_is_tested_once(data):
    tested = [nodules.make_fold(k, *data).rows("test") for k in range(nodules.N_FOLDS)]
    assert sorted(np.concatenate(tested)) == list(range(2004))


def test_images_and_labels_are_those_of_the_embedded_set(data):
    stored = pd.read_csv(nodules.DATA_DIR / "noduleshapes2d.csv", dtype={"nodule": str})
    with np.load(nodules.DATA_DIR / "noduleshapes2d.npz") as arrays:
        slices = np.concatenate([arrays["train_images"], arrays["val_images"]])
    volumes, _ = data
    row_of = {nodule: row for row, nodule in enumerate(volumes.table["nodule"])}
    names = list(nodules.IMAGE_LABELS)
    for k in range(0, len(stored), 50):
        row = row_of.get(stored["nodule"][k])
        if row is not None:
            assert (nodules.largest_slice(volumes.scans[row]) == slices[k]).all()
            assert volumes.table.loc[row, names].tolist() == stored.loc[k, names].tolist()


def test_dense_volumes_put_slices_where_the_mask_says():
    slices = torch.tensor([51, 102, 255, 204], dtype=torch.uint8)[:, None, None, None]
    mask = torch.tensor([[True, True, True], [True, False, False]])
    found = networks.dense_volumes(slices.expand(-1, 1, 4, 4), mask)
    assert found.shape == (2, 1, 3, 4, 4)
    assert found[:, 0, :, 0, 0].flatten().tolist() == pytest.approx([0.2, 0.4, 1, 0.8, 0, 0])


def test_slice_mean_averages_real_slices_alone():
    head = networks.SliceMean(4)
    features = torch.randn(2, 3, 4)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    found = head(features, mask)
    each = head.head(head.norm(features))
    assert torch.allclose(found[0], each[0, :2].mean(dim=0))
    assert torch.allclose(found[1], each[1].mean(dim=0))


def test_networks_have_the_stated_parameters():
    volumes = torch.zeros(2, 1, 28, 28, 28)
    narrow = networks.resnet18((16, 32, 64, 128))
    assert sum(p.numel() for p in narrow.parameters()) == 2_073_713
    assert narrow(volumes).shape == networks.densenet()(volumes).shape == (2, 1)


def test_shape_features_of_a_cuboid():
    cuboid = np.zeros((28, 28, 28), np.uint8)
    cuboid[2:4, 5:8, 10:14] = 255
    found = shape_features(cuboid)
    assert found[:5] == [24, 2, 3, 4, 52]
    assert found[6:] == pytest.approx([52 / 24, 1, 255])


def test_summary_scores_and_compares_what_is_finished(tmp_path):
    jobs = {"slivit": [write_done(tmp_path, "slivit", PREDS, fold) for fold in (0, 1)],
            "same": [write_done(tmp_path, "same", PREDS, fold) for fold in (0, 1)],
            "part": [write_done(tmp_path, "part", PREDS, 0)],
            "half": [write_done(tmp_path, "half", PREDS, 0),
                     Done(tmp_path / "no.csv", Job("half", 1, 0), "s")],
            "old": [write_done(tmp_path, "old", PREDS, 0, settings="other")]}
    text = summarise(jobs, tmp_path)
    table = pd.read_csv(tmp_path / "accuracy.csv").set_index("method")
    assert set(table.index) == {"slivit", "same", "part", "half"}
    assert table.loc["slivit", "roc_auc"] == pytest.approx(15 / 16)
    assert table.loc["slivit", "within_fold_roc_auc"] == pytest.approx((3 / 4 + 1) / 2)
    assert table.loc["slivit", "minutes"] == pytest.approx(1.5)
    assert table.loc["same", "difference"] == 0
    assert table.loc["same", "p_delong"] == table.loc["same", "p_delong_holm"] == 1
    for method in ("part", "half"):  # on the finished fold
        assert table.loc[method, "n"] == 4 and table.loc[method, "difference"] == 0
    assert "half: not finished, so not in the table: fold 1 seed 0" in text
    assert "old: not finished, so not in the table: fold 0 seed 0" in text  # other settings
    assert (tmp_path / "accuracy.png").exists()


def test_summary_averages_seeds_and_gives_their_spread(tmp_path):
    perfect = [float(value) for value in TRUTH]
    jobs = [write_done(tmp_path, "slivit", preds, fold, seed)
            for seed, preds in enumerate((PREDS, perfect)) for fold in (0, 1)]
    summarise({"slivit": jobs}, tmp_path)
    assert not (tmp_path / "accuracy.csv").exists()
    row = pd.read_csv(tmp_path / "accuracy_seeds.csv").iloc[0]
    assert row["seed_mean"] == pytest.approx(31 / 32)
    assert row["roc_auc"] == 1  # 0.3 against 0.7 where one seed alone is wrong
    assert row["seed_sd"] == pytest.approx(1 / 16 / 2 ** 0.5, abs=1e-6)


def test_methods_that_are_not_run_everywhere_have_fewer_jobs():
    assert len(jobs_of(accuracy.BENCHMARK, "slivit", [0, 1], [0, 1, 2])) == 6
    assert len(jobs_of(accuracy.BENCHMARK, "volume", [0, 1], [0, 1, 2])) == 2
    assert len(jobs_of(accuracy.BENCHMARK, "resnet18_full", [0, 1], [0, 1])) == 1


def test_summary_after_some_jobs_is_of_all_that_is_finished(tmp_path):
    made = Benchmark("made", {name: Method(lambda task: None, "s") for name in "abc"},
                     lambda *job: None, n_folds=2)
    for method, seed in (("a", 0), ("a", 1), ("b", 0)):
        for fold in (0, 1):
            write_done(tmp_path / "made", method, PREDS, fold, seed)
    shown = []
    for options in ("--methods a", "--methods a --seeds 1 --resume",
                    "--methods a,c --folds 1 --summary"):
        args = job_options.build_parser(made, "").parse_args([*options.split(), "--results",
                                                       str(tmp_path)])
        job_options.check(args, made)
        jobs.run(made, args, lambda found, results: shown.append(
            {method: [(one.job.fold, one.job.seed) for one in mine]
             for method, mine in found.items()}))
    first = [(0, 0), (1, 0)]
    assert shown == [{"a": first, "b": first},
                     {name: [*first, (0, 1), (1, 1)] for name in "ab"},
                     {"a": [(1, 0)], "c": [(1, 0)]}]


def test_unknown_method_is_refused():
    with pytest.raises(UserError, match="slivitt"):
        accuracy.main(["--methods", "slivitt"])


@pytest.mark.parametrize("method", ["slivit", "slivit_mean_logits", "resnet18_narrow"])
def test_a_quick_job_leaves_its_facts_and_a_prediction_a_volume(method, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "FEW", 100)
    results = tmp_path / "results"
    accuracy.main(["--job", f"{method}:0:0:0", "--quick", "--results", str(results),
                   "--scratch", str(tmp_path / "scratch")])
    job = Done(results / "accuracy" / method / "fold_0_seed_0.csv", Job(method, 0, 0),
               METHODS[method].settings)
    assert job.finished and job.read_facts()["parameters"] > 100_000
    table = job.read_predictions()
    assert table["pred"].between(0, 1).all() and set(table["truth"]) == {0, 1}
    assert not list(tmp_path.rglob("last.pt"))
