"""Finished jobs in an archive: the same to the last digit, and still finished."""

import pandas as pd
import pytest
from benchmark_jobs import PREDS, write_done

from benchmarks import archive
from benchmarks.accuracy_summary import summarise
from benchmarks.jobs import Done, Job


def test_packed_jobs_are_read_as_before_and_still_finished(tmp_path):
    jobs = [write_done(tmp_path, "slivit", [value / 3 for value in PREDS], fold) for fold in (0, 1)]
    before = [(one.read_facts(), one.read_predictions()) for one in jobs]
    assert archive.pack(tmp_path) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs.csv", "predictions.csv.gz"]
    for one, (facts, table) in zip(jobs, before, strict=True):
        assert one.finished and one.read_facts() == {"method": "slivit", **facts}
        found = one.read_predictions().reset_index(drop=True)
        pd.testing.assert_frame_equal(found, table, check_exact=True)
    assert archive.pack(tmp_path) == 0
    assert not Done(jobs[0].predictions, jobs[0].job, "other settings").finished
    assert not Done(tmp_path / "slivit/fold_7_seed_0.csv", Job("slivit", 7, 0), "s").finished


def test_a_job_that_is_trained_again_replaces_its_archive(tmp_path):
    first = write_done(tmp_path, "a", PREDS)
    write_done(tmp_path, "b", PREDS)
    archive.pack(tmp_path)
    content = (tmp_path / "predictions.csv.gz").read_bytes()
    write_done(tmp_path, "a", [0.25] * 8, settings="s")
    assert first.read_predictions()["pred"].tolist() == [0.25] * 4
    assert archive.pack(tmp_path) == 1
    assert first.read_predictions()["pred"].tolist() == [0.25] * 4
    assert len(pd.read_csv(tmp_path / "jobs.csv")) == 2
    write_done(tmp_path, "a", PREDS)
    archive.pack(tmp_path)
    assert (tmp_path / "predictions.csv.gz").read_bytes() == content


def test_summary_of_packed_jobs_is_the_same(tmp_path):
    jobs = {name: [write_done(tmp_path / "made", name, PREDS, fold) for fold in (0, 1)]
            for name in ("slivit", "same")}
    archive.pack(tmp_path / "made")
    summarise(jobs, tmp_path)
    table = pd.read_csv(tmp_path / "accuracy.csv").set_index("method")
    assert table.loc["slivit", "roc_auc"] == pytest.approx(15 / 16)
    assert table.loc["slivit", "minutes"] == pytest.approx(1.5)
