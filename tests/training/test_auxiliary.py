"""Labels that are learned beside those that are predicted."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers import RUN_3D

import evaluate
import finetune
from slivit.config import Target
from slivit.data.meta_csv import read_meta
from slivit.data.splits import make_folds, take_fraction
from slivit.data.targets import divide_labels, resolve_with_auxiliary
from slivit.utils.errors import UserError

ONE_EPOCH = [*RUN_3D, "--n_epochs", "1"]


def fine_tune(volume_csv, out_dir, *options):
    finetune.main(["--meta_csv", str(volume_csv), *ONE_EPOCH, *options, "--out_dir", str(out_dir)])
    return pd.read_csv(out_dir / "predictions.csv")


def test_model_learns_as_with_all_labels_and_predicts_its_own(tmp_path, volume_csv):
    both = fine_tune(volume_csv, tmp_path / "both", "--pathologies", "A,B")
    mine = fine_tune(volume_csv, tmp_path / "mine", "--pathologies", "A", "--auxiliary", "B",
                     "--task", "binary")
    assert np.allclose(mine["A_pred"], both["A_pred"], atol=1e-6)
    assert not any(name.startswith("B") for name in mine)
    metrics = json.loads((tmp_path / "mine/metrics.json").read_text())
    assert list(metrics["labels"]) == ["A"]
    assert "auxiliary B" in (tmp_path / "mine/report.md").read_text()
    logs = [pd.read_csv(tmp_path / name / "log.csv") for name in ("mine", "both")]
    assert logs[0]["val_loss"][0] == logs[1]["val_loss"][0]
    assert logs[0]["val_roc_auc"][0] != logs[1]["val_roc_auc"][0]
    evaluate.main(["--checkpoint", str(tmp_path / "mine/slivit.safetensors"), "--meta_csv",
                   str(volume_csv), "--gpu_id", "cpu", "--out_dir", str(tmp_path / "again")])
    again = pd.read_csv(tmp_path / "again/predictions.csv")
    assert np.array_equal(again["A_pred"], mine["A_pred"])


def test_numbers_have_auxiliary_numbers(tmp_path, volume_csv):
    both = fine_tune(volume_csv, tmp_path / "both", "--pathologies", "size,grade", "--task",
                     "regression")
    mine = fine_tune(volume_csv, tmp_path / "mine", "--pathologies", "size", "--auxiliary", "grade",
                     "--task", "regression")
    assert np.allclose(mine["size_pred"], both["size_pred"], rtol=1e-6)


def test_all_other_labels_may_be_auxiliary(volume_csv):
    scans = read_meta(volume_csv, 3, ["size", "grade", "A"])
    own, others = divide_labels(scans, ["all"], ["grade"])
    assert (own, others) == (["grade"], ["size", "A"])
    found, target = resolve_with_auxiliary(scans, "regression", own, others)
    assert found.label_names == target.labels == ("grade", "size", "A")


DRAWN = ("--pathologies", "A", "--auxiliary", "B", "--task", "binary")


@pytest.mark.usefixtures("unmeasured")
def test_a_share_of_patients_is_drawn_by_the_labels_that_are_predicted(tmp_path, volume_csv):
    finetune.main(["--meta_csv", str(volume_csv), *ONE_EPOCH, *DRAWN, "--train_fraction", "0.5",
                   "--out_dir", str(tmp_path)])
    half = pd.read_csv(tmp_path / "split.csv")["split"]
    assert half.to_list() == take_fraction(read_meta(volume_csv, 3, ["A"]), 0.5, 0).split.tolist()


def test_folds_are_drawn_by_the_labels_that_are_predicted(tmp_path, volume_csv):
    scans = read_meta(volume_csv, 3, ["A"])
    fine_tune(volume_csv, tmp_path / "folds", *DRAWN, "--folds", "3")
    for k, fold in enumerate(make_folds(scans, 3, 0, keep_test=True), 1):
        found = pd.read_csv(tmp_path / f"folds/fold_{k}/split.csv")["split"]
        assert found.to_list() == fold.split.tolist()


def test_first_outputs_of_a_target_are_a_target_of_those_labels():
    target = Target("multilabel", ("a", "b"), shift=(1.0, 2.0))
    assert target.first(1) == Target("binary", ("a",), shift=(1.0,))
    assert target.first(2) is target


@pytest.mark.parametrize(("options", "message"), [
    (["--pathologies", "A", "--auxiliary", "C"], "not found: 'C' .*Available: A, B, grade, size"),
    (["--pathologies", "A", "--auxiliary", "A"], "a name is given twice"),
    (["--auxiliary", "A,B,grade,size"], "leaves no label to predict; available: A, B"),
    (["--auxiliary", "all"], "leaves no label to predict"),
    (["--pathologies", "A,B,grade,size", "--auxiliary", "all"], "names no label other than those"),
    (["--pathologies", "grade", "--task", "multiclass", "--auxiliary", "A"],
     "--auxiliary applies to 0/1 labels and to numbers; the task is multiclass"),
    (["--pathologies", "A", "--auxiliary", "size"], "labels are not 0, 1 or empty"),
])
def test_bad_auxiliary_labels_are_refused(tmp_path, volume_csv, options, message):
    with pytest.raises(UserError, match=message):
        fine_tune(volume_csv, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()
