"""The speed benchmark at tiny sizes."""

import numpy as np
import pandas as pd
import torch
from scan_files import write_dicom_series

from benchmarks import speed, speed_section, speed_waiting, starts
from benchmarks.speed_recipes import with_goal
from benchmarks.speed_steps import HALF, WAYS, make_steps, make_way
from slivit.models.depthwise import DepthwiseConv


def test_training_steps_train_and_ways_of_slivit_share_their_weights():
    made = {way: make_steps(way, 32, 4, "convnext_zepto_rms")
            for way in (*WAYS[:4], WAYS[0] + HALF)}
    models = [next(cell.cell_contents for cell in steps["inference"].__closure__
                   if isinstance(cell.cell_contents, torch.nn.Module)) for steps in made.values()]
    first = {name: tensor.clone() for name, tensor in models[0].state_dict().items()}
    for model in models[1:]:
        assert all(torch.equal(first[name], tensor) for name, tensor in model.state_dict().items())
    for way in ("slivit" + HALF, "slivit"):
        made[way]["training step"]()
    assert any(not torch.equal(first[name], tensor)
               for name, tensor in models[0].state_dict().items())


def test_the_tiled_picture_runs_pytorchs_own_convolutions():
    fast, plain = (sum(isinstance(module, DepthwiseConv) for module in
                       make_way(way, 32, 4, "convnext_zepto_rms").modules()) for way in WAYS[2:4])
    assert (fast > 0, plain) == (True, 0)


def test_growth_writes_a_row_per_size(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.speed_growth.peak_memory", lambda make, *args: 12.0)  # slow
    speed.main(["--quick", "--parts", "growth", "--repeats", "1", "--threads", "1", "--results",
                str(tmp_path)])
    table = pd.read_csv(tmp_path / "speed_growth.csv")
    assert table["volumes"].tolist() == [4, 8, 4, 4]
    assert table["slices"].tolist() == [4, 4, 4, 8]
    assert table["mb_on_disk"].tolist() == [0.07, 0.13, 0.07, 0.13]
    assert (table["seconds"] > 0).all()


def test_the_goal_of_recipes_is_a_score_that_both_reach():
    rows = [{"recipe": recipe, "stage": stage, "minutes": minutes, "val_roc_auc": score}
            for recipe, stage, minutes, score in (
                ("a", "pretrain", 1, 0.99), ("a", "finetune", 2, 0.84), ("a", "finetune", 3, 0.88),
                ("b", "pretrain", 5, 0.70), ("b", "finetune", 9, 0.86), ("b", "finetune", 12, 0.8))]
    found = with_goal(rows)
    assert [row.get("goal") for row in found] == [None, None, 0.86, None, None, 0.86]
    assert (found[2]["minutes_to_goal"], found[5]["minutes_to_goal"]) == (3, 9)


def test_starts_are_measured_in_every_way(tmp_path):
    for folder in ("few", "images"):
        (tmp_path / folder).mkdir()
    write_dicom_series(tmp_path / "one", np.zeros((4, 8, 9), np.int16))
    found = starts.series_rows(tmp_path / "few", tmp_path / "one", 2, 1)
    found += starts.image_rows(tmp_path / "images", 3, 1)
    assert [what.rpartition(", ")[2] for what, _ in found] == [
        "in threads", "first start", "second start", "first start", "second start"]
    assert all(seconds > 0 for _, seconds in found)


def test_settings_of_waiting_are_compared_with_the_best_one_alone(monkeypatch):
    def measure(state, setting, quick, threads):
        slow = 3.0 if state != speed_waiting.STATES[0] else 1.1
        seconds = 0.5 if setting == "GOMP_SPINCOUNT=0" else 1.0
        return {("tiny", what): slow * seconds for what in ("training step", "inference")}

    monkeypatch.setattr(speed_waiting, "_measure", measure)
    table = pd.DataFrame(speed_waiting.waiting(True, 3, 1))
    assert len(table) == 2 * len(speed_waiting.STATES) * len(speed_waiting.SETTINGS)
    ours = table[(table["setting"] == speed_waiting.OURS) & (table["what"] == "inference")]
    assert ours["ratio"].tolist() == [2.0, 5.45, 5.45]
    assert "| tiny, inference | alone | 1.100 (2.00) |" in speed_section._waiting(table)[1]


def test_steps_of_waiting_are_timed():
    found = speed_waiting.timed_steps(True)
    assert {what for _, what, _ in found} == {"training step", "inference"}
    assert all(seconds > 0 for *_, seconds in found)
