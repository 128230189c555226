"""The benchmark of bfloat16 against float32: its summary, and what it gives the scripts."""

import pandas as pd
import pytest
from benchmark_jobs import PREDS, write_done

from benchmarks import methods, precision, results
from benchmarks.jobs import Job
from benchmarks.tasks import Task


def test_the_summary_compares_what_is_finished_in_both_types(tmp_path):
    done = {name: [write_done(tmp_path, name, preds, fold, seed) for fold in (0, 1)
                   for seed in seeds]
            for name, preds, seeds in (("float32", PREDS, (0, 1)),
                                       ("bfloat16", PREDS[::-1], (0,)))}
    precision.summarise(done, tmp_path)
    table = pd.read_csv(tmp_path / "precision.csv").set_index("precision")
    assert list(table["seeds"]) == [0, 0] and list(table["n"]) == [8, 8]
    assert table.loc["float32", "roc_auc"] == 15 / 16
    assert table.loc["bfloat16", "difference"] == pytest.approx(
        table.loc["bfloat16", "roc_auc"] - 15 / 16, abs=1e-6)
    assert "minus float32's" in results.precision(tmp_path)


def test_of_two_seeds_the_mean_is_scored_too(tmp_path):
    done = {name: [write_done(tmp_path, name, PREDS, fold, seed) for fold in (0, 1)
                   for seed in (0, 1)] for name in ("float32", "bfloat16")}
    precision.summarise(done, tmp_path)
    table = pd.read_csv(tmp_path / "precision.csv", dtype={"seeds": str})
    assert list(table["seeds"]) == ["0", "0", "1", "1", "0 1", "0 1"]


def test_nothing_is_said_of_one_type_alone(tmp_path):
    done = {"float32": [write_done(tmp_path, "float32", PREDS)], "bfloat16": []}
    assert precision.summarise(done, tmp_path) == "no fold is finished in both types of number"
    assert not (tmp_path / "precision.csv").exists()


@pytest.mark.parametrize(("name", "amp"), [("float32", "off"), ("bfloat16", "bf16")])
def test_each_way_has_its_type(name, amp, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(methods, "slivit", lambda task: seen.append(task.amp))
    job = Job(name, 0, 0)
    task = Task(None, job.seed, tmp_path, True, None, "fold_0_seed_0")
    precision.BENCHMARK.methods[name].run(task)
    assert seen == [amp]
