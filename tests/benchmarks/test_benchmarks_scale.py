"""The benchmark of large cohorts, on tiny ones."""

import os

import pandas as pd
import pytest

import bb_train
from benchmarks import scale, scale_probe, scale_report, scale_runs
from benchmarks.scale_data import LABELS, write_images, write_volumes
from slivit.data.meta_csv import read_meta
from slivit.report import writer
from slivit.training import train_step


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The table of a few images."""
    return write_images(tmp_path_factory.mktemp("cohort") / "images", 60)


def test_cohorts_are_read_as_they_were_made(images, tmp_path):
    scans = read_meta(images, 2)
    assert scans.label_names == LABELS and len(set(scans.patients)) > 10
    assert all(len(scans.rows(split)) for split in ("train", "val", "test"))
    assert scans.read(0).slices.shape == (1, 64, 64)
    volumes = read_meta(write_volumes(tmp_path / "volumes", 4), 3)
    assert volumes.read(3).slices.shape == (28, 128, 128)


def test_report_and_bookkeeping_give_a_row_for_each_part(images, tmp_path, monkeypatch):
    for name in scale_report.PARTS:
        monkeypatch.setattr(writer, name, getattr(writer, name))  # restored after the test
    rows = scale_report._report(images, 20, tmp_path)
    assert {row["part"] for row in rows} == {"report", "memory", "size"}
    seconds = [row["value"] for row in rows if row["part"] == "report"]
    assert len(seconds) == 6 and seconds[0] > max(seconds[1:])
    rows = scale_report._bookkeeping(images, tmp_path)
    assert len(rows) == 6 and all(row["cpu"] >= 0 for row in rows)


@pytest.mark.usefixtures("unmeasured")
def test_script_notes_when_it_gets_where(images, tmp_path, monkeypatch):
    for module, name in ((bb_train, "load_scans"), (bb_train, "check_headers"),
                         (train_step, "update_weights")):
        monkeypatch.setattr(module, name, getattr(module, name))  # restored after the test
    options = ["--meta_csv", str(images), *scale_runs.TINY, *scale_runs.IMAGES, "--n_cpu", "0",
               "--out_dir", str(tmp_path / "out")]
    scale_probe.main(["bb_train", str(tmp_path / "marks"), "0", *options])
    marks = scale_runs.read_marks(tmp_path / "marks")
    assert list(marks) == ["imports", "table", "headers", "step", "end"]
    assert [*marks.values()] == sorted(marks.values())
    assert [row["what"] for row in scale_runs.size_rows(tmp_path / "out", "few")] == [
        "few: backbone.safetensors", "few: last.pt", "few: split.csv"]


def test_memory_of_a_process_and_its_children():
    memory = scale_runs.memory_of(os.getpid())
    assert 0 < memory["private"] <= memory["pss"] <= memory["rss"]
    assert scale_runs.memory_of(2 ** 30) == {} and scale_runs.children_of(2 ** 30) == []


def test_table_is_written_with_the_machine(tmp_path, monkeypatch):
    row = scale_runs.make_row("start", "10 images: headers known after", 1.23456, "s", 0.5)
    monkeypatch.setattr(scale, "measure", lambda folder, images, volumes: [row])
    scale.main(["--quick", "--scratch", str(tmp_path), "--results", str(tmp_path)])
    table = pd.read_csv(tmp_path / "scale.csv")
    assert table.loc[0, ["part", "value", "unit", "cpu"]].tolist() == ["start", 1.235, "s", 0.5]
    assert table.loc[0, "threads"] >= 1 and table.loc[0, "processor"]
    assert [path.name for path in tmp_path.iterdir()] == ["scale.csv"]
