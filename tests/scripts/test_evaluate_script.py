"""What evaluate.py finds out beside the scores, and scans without labels."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import run_evaluate, scan_pixels, write_meta

import evaluate
from slivit.checkpoints import checkpoint
from slivit.models.outputs import to_predictions
from slivit.prediction import flip_transforms
from slivit.training.calibration import fit_temperature
from slivit.utils.errors import UserError


@pytest.fixture(scope="module")
def model(binary_run):
    """A checkpoint of label A, trained with dropout and left-right flips."""
    return binary_run / "slivit.safetensors"


@pytest.fixture(scope="module")
def plain(model, volume_csv, tmp_path_factory):
    """Scores and predictions of all volumes, as they are without further options."""
    return run_evaluate(model, tmp_path_factory.mktemp("plain") / "out", "--meta_csv", volume_csv,
                        "--split", "all")


def test_checkpoint_holds_what_it_gave_on_validation(model, plain):
    card, _ = checkpoint.read(model)
    known = checkpoint.read_validation(model)
    table = plain[1][plain[1]["split"] == "val"]
    assert np.array_equal(known.labels[:, 0], table["A"].astype(float), equal_nan=True)
    pred = to_predictions(known.logits, card.target)[:, 0]
    assert pred == pytest.approx(table["A_pred"], abs=1e-5)
    assert card.temperature == pytest.approx(fit_temperature(known.logits, known.labels,
                                                             card.target))
    assert card.training["cohort"]["train"]["labels"]["A"] == {"known": 11, "positive": 6}
    assert card.training["augmentation"] == {"flips": "h", "jitter": 1.0}


def test_operating_point_comes_from_validation(model, plain, volume_csv, tmp_path):
    card, _ = checkpoint.read(model)
    known = checkpoint.read_validation(model)
    metrics, found = run_evaluate(model, tmp_path / "out", "--meta_csv", volume_csv,
                                  "--operating_point", "sensitivity=1")
    point = metrics["labels"]["A"]["operating_point"]
    assert (point["rule"], point["chosen_on"]) == ("sensitivity=1", "validation")
    pred = to_predictions(known.logits, card.target)[:, 0]
    assert point["threshold"] <= pred[known.labels[:, 0] == 1].min()
    said = found["A_pred"] >= point["threshold"]
    assert point["tp"] == (said & (found["A"] == 1)).sum()
    assert plain[0]["labels"]["A"]["operating_point"]["rule"] == "youden"


def test_calibration_divides_the_logits(model, plain, volume_csv, tmp_path):
    metrics, found = run_evaluate(model, tmp_path / "out", "--meta_csv", volume_csv, "--split",
                                  "all", "--calibrate")
    temperature = checkpoint.read(model)[0].temperature
    odds = [np.log(p / (1 - p)) for p in (plain[1]["A_pred"], found["A_pred"])]
    assert np.allclose(odds[0] / temperature, odds[1], atol=1e-5)
    assert metrics["uncalibrated"]["A"]["brier"] == pytest.approx(plain[0]["labels"]["A"]["brier"])
    assert metrics["labels"]["A"]["roc_auc"] == plain[0]["labels"]["A"]["roc_auc"]


def test_every_combination_of_flips_comes_once():
    assert flip_transforms("") == [None]
    flips = [tuple(one[:3].tolist()) for one in flip_transforms("hz")[1:]]
    assert flips == [(0, 0, 1), (1, 0, 0), (1, 0, 1)]  # z, v, h


def test_tta_averages_a_scan_and_its_mirror_image(model, tmp_path):
    volume = scan_pixels(np.random.default_rng(0), True, (4, 24, 24))
    for name, pixels in (("plain", volume), ("mirrored", volume[..., ::-1])):
        np.save(tmp_path / f"{name}.npy", pixels)
    table = write_meta(tmp_path / "t.csv", F_Name=["plain", "mirrored"], Path=["plain.npy",
                                                                               "mirrored.npy"])
    found = {}
    for name, options in (("once", []), ("both", ["--tta", "flips"])):
        evaluate.main(["--checkpoint", str(model), "--meta_csv", str(table), "--gpu_id", "cpu",
                       "--out_dir", str(tmp_path / name), *options])
        found[name] = pd.read_csv(tmp_path / name / "predictions.csv")["A_pred"]
    assert found["once"][0] != found["once"][1]
    assert np.allclose(found["both"], found["once"].mean(), atol=1e-6)


def test_dropout_gives_a_deviation_and_leaves_the_prediction(model, plain, volume_csv, tmp_path):
    options = ("--meta_csv", volume_csv, "--split", "all", "--mc_dropout", "5")
    found = [run_evaluate(model, tmp_path / name, *options)[1] for name in ("a", "b")]
    assert found[0].equals(found[1])
    assert found[0]["A_pred"].tolist() == pytest.approx(plain[1]["A_pred"].tolist())
    assert (found[0]["A_std"] > 0).all()


def test_several_models_are_compared_pair_by_pair(model, volume_csv, tmp_path):
    card, net = checkpoint.load(model)
    torch.nn.init.normal_(net.integrator.head.weight, generator=torch.Generator().manual_seed(1))
    (tmp_path / "other").mkdir()
    checkpoint.save(tmp_path / "other/slivit.safetensors", net, card)
    evaluate.main(["--checkpoint", str(model), str(tmp_path / "other/slivit.safetensors"),
                   "--meta_csv", str(volume_csv), "--split", "all", "--gpu_id", "cpu",
                   "--out_dir", str(tmp_path / "out")])
    rows = json.loads((tmp_path / "out/metrics.json").read_text())["comparison"]
    assert [row["score"] for row in rows] == ["roc_auc", "pr_auc"]
    assert rows[0]["a"].endswith("slivit.safetensors")
    assert rows[0]["a"] != rows[0]["b"]
    assert 0 <= rows[0]["p_delong_holm"] <= 1
    assert rows[0]["difference"] == pytest.approx(rows[0]["value_b"] - rows[0]["value_a"])


def test_scores_by_group_are_those_of_its_rows(model, plain, volume_csv, tmp_path):
    metrics, found = run_evaluate(model, tmp_path / "out", "--meta_csv", volume_csv, "--split",
                                  "all", "--group_by", "GRADE")
    groups = metrics["by_group"]["groups"]
    assert list(groups) == ["0", "1", "2"]
    mine = found[pd.read_csv(volume_csv)["grade"] == 1]
    known = mine[mine["A"].notna()]
    assert groups["1"]["n"] == len(mine)
    assert groups["1"]["labels"]["A"]["n_pos"] == known["A"].sum()
    with pytest.raises(UserError, match="columns of volumes.csv: not found: 'site'"):
        run_evaluate(model, tmp_path / "b", "--meta_csv", volume_csv, "--group_by", "site")
    with pytest.raises(UserError, match="--group_by size: has 24 different values"):
        run_evaluate(model, tmp_path / "b", "--meta_csv", volume_csv, "--group_by", "size")
    assert not (tmp_path / "b").exists()


def test_table_without_labels_gives_predictions_only(model, plain, volume_csv, tmp_path, capsys):
    table = pd.read_csv(volume_csv)[["F_Name", "Path"]]
    table.to_csv(volume_csv.parent / "unlabelled.csv", index=False)
    evaluate.main(["--checkpoint", str(model), "--meta_csv",
                   str(volume_csv.parent / "unlabelled.csv"), "--gpu_id", "cpu",
                   "--out_dir", str(tmp_path / "out")])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json", "manifest.csv", "predictions.csv"}
    found = pd.read_csv(tmp_path / "out/predictions.csv")
    assert list(found.columns) == ["id", "A", "A_pred"]
    assert found["A"].isna().all()
    assert found["A_pred"].tolist() == pytest.approx(plain[1]["A_pred"].tolist())
    out = capsys.readouterr().out
    assert "unlabelled.csv has no column A: predicted but not scored" in out
    assert "volume 0: A 0." in out


def test_single_volume_is_predicted(model, plain, volume_csv, tmp_path):
    evaluate.main(["--checkpoint", str(model), "--volume", str(volume_csv.parent / "volumes/v0"),
                   "--gpu_id", "cpu", "--out_dir", str(tmp_path / "out")])
    found = pd.read_csv(tmp_path / "out/predictions.csv")
    assert found["id"].tolist() == ["v0"]
    assert found["A_pred"][0] == pytest.approx(plain[1]["A_pred"][0])


@pytest.mark.parametrize(("options", "message"), [
    (["--volume", "absent.nii.gz"], "absent.nii.gz: no such file or folder"),
    (["--volume", "x", "--dataset", "noduleshapes3d"], "--volume and --dataset cannot be combined"),
    (["--tta", "flips", "--dataset", "organmnist3d", "--medmnist_size", "5"], "5: organmnist3d"),
])
def test_what_cannot_be_measured_is_refused(model, options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        evaluate.main(["--checkpoint", str(model), "--gpu_id", "cpu", "--out_dir",
                       str(tmp_path / "out"), *options])
    assert not (tmp_path / "out").exists()


def test_backbone_has_no_dropout_to_draw(backbone_run, image_csv, tmp_path):
    with pytest.raises(UserError, match="has no dropout; train a model with --dropout"):
        run_evaluate(backbone_run / "backbone.safetensors", tmp_path / "out", "--meta_csv",
                     image_csv, "--mc_dropout", "3")


def test_rule_that_is_none_is_a_bad_option(capsys):
    with pytest.raises(SystemExit) as stop:
        evaluate.main(["--checkpoint", "x", "--operating_point", "best"])
    assert stop.value.code == 2
    assert "expected youden, sensitivity=VALUE or specificity=VALUE" in capsys.readouterr().err


def test_what_a_model_is_for_is_said_first(model, volume_csv, tmp_path, capsys):
    card, network = checkpoint.load(model)
    checkpoint.save(path := tmp_path / "slivit.safetensors", network,
                    dataclasses.replace(card, intended_use="Learning only."))
    run_evaluate(path, tmp_path / "out", "--meta_csv", volume_csv)
    assert "\nintended use: Learning only.\n" in capsys.readouterr().out
    assert "**Intended use**: Learning only." in (tmp_path / "out/report.md").read_text()
