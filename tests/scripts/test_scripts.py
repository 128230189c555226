"""The three scripts from the command line to the files they leave."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import (
    RUN_2D,
    RUN_3D,
    absolute_table,
    content,
    flags_of,
    run_evaluate,
    same_run,
    scan_pixels,
    write_image,
    write_medmnist,
    write_meta,
)
from medmnist import Evaluator
from safetensors import safe_open
from sklearn.metrics import average_precision_score, roc_auc_score

import bb_train
import evaluate
import finetune
from slivit.utils.errors import UserError

TRAINING_FILES = {"manifest.csv", "config.json", "patient_key.txt", "split.csv", "log.csv",
                  "history.png", "last.pt", "metrics.json", "predictions.csv", "roc.png", "pr.png",
                  "calibration.png", "confusion.png", "report.html", "report.md", "worst"}
ONE_EPOCH = ["--n_epochs", "1"]


@pytest.mark.parametrize(("script", "flags"), [
    (bb_train, "--split_ratio --weights --backbone --img_size --b_size --n_epochs --lr --patience "
               "--resume"),
    (finetune, "--split_ratio --weights --backbone --img_size --b_size --n_epochs --lr --patience "
               "--resume --task --bb_path --n_slices --slice_sampling --vit_dim --vit_depth "
               "--vit_heads --vit_head_dim --vit_mlp_dim --dropout --emb_dropout --token "
               "--freeze_backbone"),
    (evaluate, "--checkpoint --split"),
])
def test_scripts_know_the_promised_flags(script, flags):
    shared = ("--meta_csv --dataset --data_root --pathologies --out_dir --gpu_id --n_cpu --pid_col "
              "--seed --overwrite")
    assert set(f"{shared} {flags}".split()) <= flags_of(script.build_parser())


def test_backbone_run_leaves_what_is_promised(backbone_run, image_csv):
    assert {path.name for path in backbone_run.iterdir()} == TRAINING_FILES | {
        "backbone.safetensors"}
    table = pd.read_csv(image_csv)
    split = pd.read_csv(backbone_run / "split.csv")
    assert split.to_dict("list") == {"id": table["F_Name"].tolist(),
                                     "patient": table["patient"].tolist(),
                                     "split": table["Split"].tolist()}
    config = json.loads((backbone_run / "config.json").read_text())
    assert (config["seed"], config["b_size"], config["backbone"]) == (0, 8, "convnext_zepto_rms")
    assert config["target"]["labels"] == ["A", "B"]
    assert len(config["data"]["fingerprint"]) == 64
    assert {"torch", "timm", "slivit"} <= set(config["versions"])
    log = pd.read_csv(backbone_run / "log.csv")
    assert log["epoch"].tolist() == [1, 2]


@pytest.mark.parametrize("run", ["backbone_run", "binary_run"])
def test_predictions_are_every_test_row_in_order_and_give_the_scores(run, image_csv, volume_csv,
                                                                     request):
    folder = request.getfixturevalue(run)
    table = pd.read_csv(image_csv if run == "backbone_run" else volume_csv)
    table = table[table["Split"] == "test"]
    found = pd.read_csv(folder / "predictions.csv")
    metrics = json.loads((folder / "metrics.json").read_text())
    labels = ["A", "B"] if run == "backbone_run" else ["A"]
    assert found["id"].tolist() == table["F_Name"].tolist()
    assert list(found.columns) == ["id", "patient"] + [f"{name}{end}" for name in labels
                                                       for end in ("", "_pred")]
    for name in labels:
        assert found[name].fillna(-1).tolist() == table[name].fillna(-1).tolist()
        known = found[name].notna()
        truth, pred = found[name][known], found[f"{name}_pred"][known]
        scores = metrics["labels"][name]
        assert (scores["n"], scores["n_pos"]) == (known.sum(), truth.sum())
        assert scores["roc_auc"] == pytest.approx(roc_auc_score(truth, pred))
        assert scores["pr_auc"] == pytest.approx(average_precision_score(truth, pred))
        low, high = scores["roc_auc_ci"]
        assert low <= scores["roc_auc"] <= high
    assert (metrics["split"], metrics["n"]) == ("test", len(table))
    assert metrics["task"] == ("multilabel" if run == "backbone_run" else "binary")
    assert metrics["intervals_by"] == "patient"


def test_backbone_learns_what_can_be_seen(image_csv, tmp_path):
    bb_train.main(["--meta_csv", str(image_csv), "--pathologies", "a", *RUN_2D, "--n_epochs", "6",
                   "--warmup_epochs", "0", "--flips", "none", "--patience", "0", "--out_dir",
                   str(tmp_path / "out")])
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["labels"]["A"]["roc_auc"] == 1


def test_finetuned_checkpoint_says_everything(binary_run, backbone_run):
    with safe_open(binary_run / "slivit.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["slivit"])
    assert header["kind"] == "slivit"
    assert header["integrator"] == {"token": "flatten", "dim": 16, "depth": 1, "heads": 2,
                                    "head_dim": 8, "mlp_dim": 32, "dropout": 0.0,
                                    "emb_dropout": 0.3, "kind": "transformer"}
    assert header["target"]["task"] == "binary"
    assert (header["preprocess"]["img_size"], header["preprocess"]["n_slices"]) == (32, 4)
    log = pd.read_csv(binary_run / "log.csv")
    assert header["epoch"] == log.loc[log["best"], "epoch"].max()
    assert {path.name for path in binary_run.iterdir()} == TRAINING_FILES | {"slivit.safetensors"}


def test_evaluate_rebuilds_everything_from_the_checkpoint(binary_run, volume_csv, tmp_path, capsys):
    _, found = run_evaluate(binary_run / "slivit.safetensors", tmp_path / "out", "--meta_csv",
                            volume_csv, "--b_size", 4)
    before = pd.read_csv(binary_run / "predictions.csv")
    pd.testing.assert_frame_equal(found, before, rtol=1e-5)
    assert {path.name for path in (tmp_path / "out").iterdir()} == TRAINING_FILES - {
        "patient_key.txt", "split.csv", "log.csv", "history.png", "last.pt"}
    assert "in the training or validation data" not in capsys.readouterr().out


def test_evaluate_all_rows_and_warn_of_training_patients(binary_run, volume_csv, tmp_path, capsys):
    metrics, found = run_evaluate(binary_run / "slivit.safetensors", tmp_path / "out",
                                  "--meta_csv", volume_csv, "--split", "all")
    table = pd.read_csv(volume_csv)
    assert found["id"].tolist() == table["F_Name"].tolist()
    assert found["split"].tolist() == table["Split"].tolist()
    assert (metrics["split"], metrics["n"], metrics["labels"]["A"]["n"]) == ("all", 24, 21)
    assert "6 of 8 patients have ids that also appear in the training" in capsys.readouterr().out


def test_evaluate_on_another_data_set(binary_run, tmp_path):
    """The label in another case, no patients, no splits, one class only, longer volumes."""
    rng = np.random.default_rng(0)
    names = [f"{i}.npy" for i in range(3)]
    for name in names:
        np.save(tmp_path / name, scan_pixels(rng, True, (9, 50, 40)))
    other = write_meta(tmp_path / "other.csv", F_Name=["x", "x", "x"], Path=names, a=[1, 1, 1],
                       age=[50, 60, 70])
    metrics, found = run_evaluate(binary_run / "slivit.safetensors", tmp_path / "out",
                                  "--meta_csv", other, "--split", "all")
    assert found["A_pred"].between(0, 1).all()
    assert metrics["labels"]["A"]["roc_auc"] is None
    assert metrics["labels"]["A"]["roc_auc_ci"] is None
    assert (metrics["n_groups"], metrics["intervals_by"]) == (3, "row")


def test_evaluate_needs_only_the_scans_of_its_split(binary_run, volume_csv, tmp_path):
    table = pd.read_csv(volume_csv, dtype=str, keep_default_na=False)
    table["Path"] = [str(volume_csv.parent / path) if split == "test" else f"gone/{path}"
                     for path, split in zip(table["Path"], table["Split"], strict=True)]
    table.to_csv(tmp_path / "moved.csv", index=False)
    run = ("--meta_csv", tmp_path / "moved.csv")
    assert run_evaluate(binary_run / "slivit.safetensors", tmp_path / "out", *run)[0]["n"] == 6
    with pytest.raises(UserError, match="12 of 12 scans cannot be read"):
        run_evaluate(binary_run / "slivit.safetensors", tmp_path / "b", *run, "--split", "train")
    assert not (tmp_path / "b").exists()


def test_evaluate_some_labels_of_a_backbone(backbone_run, image_csv, tmp_path):
    path = backbone_run / "backbone.safetensors"
    out = tmp_path / "out"
    metrics, found = run_evaluate(path, out, "--meta_csv", image_csv, "--pathologies", "b")
    assert list(found.columns) == ["id", "patient", "B", "B_pred"]
    assert list(metrics["labels"]) == ["B"]
    before = content(out)
    with pytest.raises(UserError, match="labels of the checkpoint: not found: 'C'"):
        run_evaluate(path, out, "--meta_csv", image_csv, "--pathologies", "B,C", "--overwrite")
    assert content(out) == before


@pytest.mark.parametrize(("task", "pathologies", "columns"), [
    ("auto", "A,B", ["A", "B"]),
    ("multiclass", "grade", ["grade_0", "grade_1", "grade_2"]),
    ("auto", "size", ["size"]),
])
@pytest.mark.usefixtures("unmeasured")
def test_other_tasks_train_and_evaluate(volume_csv, tmp_path, task, pathologies, columns):
    finetune.main(["--meta_csv", str(volume_csv), "--pathologies", pathologies, "--task", task,
                   *RUN_3D, *ONE_EPOCH, "--token", "pool", "--out_dir", str(tmp_path / "run")])
    metrics, found = run_evaluate(tmp_path / "run/slivit.safetensors", tmp_path / "out",
                                  "--meta_csv", volume_csv, "--split", "val")
    assert list(metrics["labels"]) == columns
    assert list(found.columns) == ["id", "patient"] + [f"{name}{end}" for name in columns
                                                       for end in ("", "_pred")]
    pred = found[[f"{name}_pred" for name in columns]]
    if pathologies == "size":
        assert pred["size_pred"].between(90, 120).all()
        assert {"r2", "r2_ci", "pearson", "mae", "mae_ci"} <= set(metrics["labels"]["size"])
        assert (tmp_path / "out/scatter.png").exists()
    else:
        assert pred.stack().between(0, 1).all()
        assert metrics["mean"]["roc_auc"] is not None
    if task == "multiclass":
        assert np.allclose(pred.sum(axis=1), 1)
        assert 0 <= metrics["mean"]["accuracy"] <= 1


def test_medmnist_file_trains_and_gives_a_prediction_a_volume(tmp_path, backbone_run):
    write_medmnist(tmp_path / "nodulemnist3d.npz", (8, 4, 5), (28, 28, 28))
    finetune.main(["--dataset", "NoduleMNIST3D", "--data_root", str(tmp_path), *RUN_3D[4:],
                   "--bb_path", str(backbone_run / "backbone.safetensors"), *ONE_EPOCH,
                   "--out_dir", str(tmp_path / "run")])
    found = pd.read_csv(tmp_path / "run/predictions.csv")
    assert found["id"].tolist() == [0, 1, 2, 3, 4]
    assert found["malignant"].tolist() == [0, 1, 0, 1, 0]
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())["medmnist"]
    expected = Evaluator("nodulemnist3d", "test", root=str(tmp_path)).evaluate(
        found[["malignant_pred"]].to_numpy())
    assert (metrics["auc"], metrics["acc"]) == pytest.approx(tuple(expected))
    for name in ("report.html", "report.md"):
        assert "Evaluator computes them" in (tmp_path / "run" / name).read_text()


def test_example_table_of_the_slivit_readme_trains(tmp_path):
    """Blanks in headers and cells, four pathologies, split by the folder in Path."""
    rng = np.random.default_rng(0)
    rows = ["F_Name, Path, Pathology-1 , Pathology-2, Pathology-3,Pathology-4 "]
    for i in range(16):
        split = "train" if i < 8 else "val" if i < 12 else "test"
        path = Path(split) / f"volume_{i}"
        for k in range(3):
            write_image(tmp_path / path / f"{k}.tiff", scan_pixels(rng, i % 2 == 1, (20, 20)))
        bits = " , ".join(str(i >> k & 1) for k in (0, 1, 0, 1))
        rows.append(f" volume_{i} , ./{path}/ , {bits}")
    (tmp_path / "meta.csv").write_text("\n".join(rows) + "\n")
    finetune.main(["--meta_csv", str(tmp_path / "meta.csv"), *RUN_3D, *ONE_EPOCH,
                   "--out_dir", str(tmp_path / "run")])
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert list(metrics["labels"]) == [f"Pathology-{k}" for k in (1, 2, 3, 4)]
    assert (metrics["task"], metrics["n"]) == ("multilabel", 4)


def test_same_command_gives_the_same_numbers_with_and_without_workers(
        backbone_run, image_csv, tmp_path):
    command = ["--meta_csv", str(image_csv), "--n_epochs", "2", *RUN_2D[:-2], "--n_cpu=2",
               "--out_dir", str(tmp_path / "out")]
    bb_train.main(command)
    same_run(tmp_path / "out", backbone_run, "backbone.safetensors")


def test_table_without_test_rows_is_measured_on_validation(image_csv, tmp_path, capsys):
    table = absolute_table(image_csv)
    table[table["Split"] != "test"].to_csv(tmp_path / "meta.csv", index=False)
    bb_train.main(["--meta_csv", str(tmp_path / "meta.csv"), *RUN_2D, *ONE_EPOCH, "--out_dir",
                   str(tmp_path / "out")])
    assert json.loads((tmp_path / "out/metrics.json").read_text())["split"] == "val"
    assert "from the validation split, on which the epoch was chosen" in capsys.readouterr().out
    assert "the epoch, and the operating point, were chosen" in (
        tmp_path / "out/report.md").read_text()


@pytest.mark.usefixtures("unmeasured")
def test_without_data_evaluate_takes_the_named_set_of_the_training(tmp_path):
    write_medmnist(tmp_path / "vesselmnist3d.npz", (8, 4, 4), (4, 8, 8))
    finetune.main(["--dataset", "vesselmnist3d", "--data_root", str(tmp_path), *RUN_3D, *ONE_EPOCH,
                   "--out_dir", str(tmp_path / "run")])
    evaluate.main(["--checkpoint", str(tmp_path / "run" / "slivit.safetensors"),
                   "--data_root", str(tmp_path), "--out_dir", str(tmp_path / "measured")])
    metrics = json.loads((tmp_path / "measured" / "metrics.json").read_text())
    assert metrics["data"] == "vesselmnist3d"


def test_a_split_drawn_anew_for_another_table_is_a_warning(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for i in range(24):
        write_image(tmp_path / f"{i}.png", scan_pixels(rng, i % 2 == 1, (32, 32)))
    table = pd.DataFrame({"F_Name": range(24), "Path": [f"{i}.png" for i in range(24)],
                          "A": [i % 2 for i in range(24)]})
    table.to_csv(tmp_path / "own.csv", index=False)
    table.iloc[1:].to_csv(tmp_path / "other.csv", index=False)
    bb_train.main(["--meta_csv", str(tmp_path / "own.csv"), *RUN_2D, *ONE_EPOCH, "--out_dir",
                   str(tmp_path / "run")])
    warned = {}
    for name, split in (("own", "test"), ("other", "test"), ("other", "all")):
        capsys.readouterr()
        run_evaluate(tmp_path / "run/backbone.safetensors", tmp_path / f"{name}_{split}",
                     "--meta_csv", tmp_path / f"{name}.csv", "--split", split)
        warned[name, split] = "were drawn at random" in capsys.readouterr().out
    assert warned == {("own", "test"): False, ("other", "test"): True, ("other", "all"): False}
    own = pd.read_csv(tmp_path / "own_test/predictions.csv")
    assert own.equals(pd.read_csv(tmp_path / "run/predictions.csv"))
