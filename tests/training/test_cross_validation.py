"""finetune.py --folds, and evaluate.py with several checkpoints."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers import RUN_3D, absolute_table, run_evaluate

import finetune
from slivit.utils.errors import UserError


@pytest.fixture(scope="module")
def command(volume_csv):
    """A cross-validation of one epoch; the table's own test split stays out."""
    return ["--meta_csv", str(volume_csv), "--pathologies", "B", *RUN_3D, "--n_epochs", "1",
            "--folds", "3"]


@pytest.fixture(scope="module")
def cv_run(command, tmp_path_factory):
    """Its output."""
    out = tmp_path_factory.mktemp("runs") / "cv"
    finetune.main([*command, "--out_dir", str(out)])
    return out


def test_every_scan_is_predicted_by_a_model_that_has_not_seen_it(cv_run, volume_csv):
    table = pd.read_csv(volume_csv)
    pooled = pd.read_csv(cv_run / "predictions.csv", dtype=str)
    kept = table[table["Split"] != "test"]
    assert pooled["id"].tolist() == kept["F_Name"].tolist()
    assert pooled["B"].astype(int).tolist() == kept["B"].tolist()
    for k in (1, 2, 3):
        own = pd.read_csv(cv_run / f"fold_{k}/predictions.csv", dtype=str)
        part = pooled[pooled["fold"] == str(k)]
        assert part["id"].tolist() == own["id"].tolist()
        assert part["B_pred"].tolist() == own["B_pred"].tolist()
        split = pd.read_csv(cv_run / f"fold_{k}/split.csv")
        seen = set(split.loc[split["split"].isin(["train", "val"]), "patient"])
        assert not seen & set(part["patient"])


def test_scores_are_pooled_and_a_row_is_left_per_fold(cv_run):
    metrics = json.loads((cv_run / "metrics.json").read_text())
    assert (metrics["split"], metrics["n"], metrics["folds"]) == ("out-of-fold", 18, 3)
    folds = pd.read_csv(cv_run / "folds.csv")
    assert folds["fold"].tolist() == [1, 2, 3]
    assert folds["test"].sum() == 18
    one = json.loads((cv_run / "fold_2/metrics.json").read_text())
    assert folds["roc_auc"][1] == pytest.approx(one["mean"]["roc_auc"])


@pytest.mark.parametrize("name", ["metrics.json", "report.md", "split.csv"])
def test_finished_folds_stay_and_the_rest_is_made_again(cv_run, command, name):
    """A fold is finished when all that it has written is there."""
    before = {path: path.stat().st_mtime_ns for path in cv_run.glob("fold_[12]/*")}
    pooled, path = (cv_run / "predictions.csv").read_bytes(), cv_run / "fold_3" / name
    content = path.read_bytes()
    (cv_run / "predictions.csv").unlink()
    path.write_text("")
    with pytest.raises(UserError, match=f"(?s)fold_3: --resume would replace files.*{name}"):
        finetune.main([*command, "--out_dir", str(cv_run), "--resume"])
    path.unlink()
    finetune.main([*command, "--out_dir", str(cv_run), "--resume"])
    assert before == {path: path.stat().st_mtime_ns for path in cv_run.glob("fold_[12]/*")}
    assert (cv_run / "predictions.csv").read_bytes() == pooled
    assert name.startswith("report") or path.read_bytes() == content


def test_nothing_is_removed_where_a_fold_holds_what_the_run_reads(cv_run, command, volume_csv,
                                                                 tmp_path):
    table = absolute_table(volume_csv)
    (tmp_path / "v").mkdir()
    (tmp_path / "v/1.png").symlink_to(next((cv_run / "fold_2/worst").glob("*.png")))
    table.loc[0, "Path"] = str(tmp_path / "v")
    table.to_csv(tmp_path / "meta.csv", index=False)
    before = sorted(cv_run.rglob("*"))
    options = [option.replace(str(volume_csv), str(tmp_path / "meta.csv")) for option in command]
    with pytest.raises(UserError, match="--overwrite would remove .*v/1.png, which this run reads"):
        finetune.main([*options, "--out_dir", str(cv_run), "--overwrite"])
    assert sorted(cv_run.rglob("*")) == before


def test_predictions_of_a_fold_that_were_changed_are_not_pooled(cv_run, command):
    path = cv_run / "fold_2/predictions.csv"
    good = path.read_bytes()
    for bad, file in ((good.replace(b"volume", b"scan s", 1), "predictions.csv"),
                      (good.replace(b"0.", b"7.", 1), "predictions.csv"),
                      (good.replace(b"0.", b"xx", 1), "predictions.csv"),
                      (good.replace(b",0.5", b",0.9", 1).replace(b",0.4", b",0.8", 1),
                       "metrics.json")):
        assert len(bad) == len(good) and bad != good
        path.write_bytes(bad)
        with pytest.raises(UserError, match=f"{file}: is not what its fold wrote"):
            finetune.main([*command, "--out_dir", str(cv_run), "--resume"])
    path.write_bytes(good)


def test_predictions_of_several_checkpoints_are_averaged(cv_run, volume_csv, tmp_path):
    paths = [cv_run / f"fold_{k}/slivit.safetensors" for k in (1, 2, 3)]
    _, together = run_evaluate(paths[0], tmp_path / "all", "--meta_csv", volume_csv,
                               "--checkpoint", *paths)
    alone = [run_evaluate(path, tmp_path / str(k), "--meta_csv", volume_csv)[1]["B_pred"]
             for k, path in enumerate(paths)]
    assert np.allclose(together["B_pred"], np.mean(alone, axis=0), atol=1e-12)
    assert np.ptp(alone, axis=0).max() > 1e-6


def test_models_of_other_labels_are_not_averaged(cv_run, binary_run, volume_csv, tmp_path):
    with pytest.raises(UserError, match="(?s)can be averaged.*binary: B.*binary: A"):
        run_evaluate(cv_run, tmp_path, "--meta_csv", volume_csv, "--checkpoint",
                     cv_run / "fold_1/slivit.safetensors", binary_run / "slivit.safetensors")
