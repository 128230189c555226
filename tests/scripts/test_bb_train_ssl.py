"""bb_train.py --task ssl from the command line to the backbone that finetune.py takes."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import (
    RUN_2D,
    RUN_3D,
    absolute_table,
    scan_pixels,
    train_without_labels,
    without_key,
    write_meta,
)

import bb_train
import evaluate
import finetune
import slivit
from slivit import check, share
from slivit.checkpoints import checkpoint
from slivit.checkpoints.model_card import card_rows
from slivit.checkpoints.patient_key import known_patients
from slivit.checkpoints.pretrained import read_start
from slivit.training import train_step as steps
from slivit.utils import session
from slivit.utils.distributed import ProcessGroup
from slivit.utils.errors import UserError

FILES = {"manifest.csv", "config.json", "patient_key.txt", "split.csv", "log.csv", "history.png",
         "last.pt", "backbone.safetensors"}

@pytest.fixture(scope="module")
def command():
    """Options with everything random switched on; of 12 volumes, an epoch leaves out two."""
    return ["--b_size", "5", "--slices_per_volume", "3", "--n_epochs", "2", "--drop_path", "0.2",
            "--ema", "0.9", "--amp", "bf16"]


@pytest.fixture(scope="module")
def run(command, volume_csv, tmp_path_factory):
    """What it leaves of the volumes."""
    out = tmp_path_factory.mktemp("runs") / "ssl"
    train_without_labels(volume_csv, out, *command)
    return out


def test_it_leaves_a_backbone_and_nothing_scored(run):
    assert {path.name for path in run.iterdir()} == FILES
    log = pd.read_csv(run / "log.csv")
    assert list(log) == ["epoch", "lr", "train_loss", "val_loss", "val_invariance", "val_variance",
                         "val_covariance", "best", "seconds"]
    config = json.loads((run / "config.json").read_text())
    assert (config["method"], config["select"], config["b_size"], config["slices_per_volume"],
            config["patience"]) == ("vicreg", "last", 5, 3, 0)
    card, state = checkpoint.read(run / "backbone.safetensors")
    assert (card.epoch, card.target.task, card.target.labels) == (2, "ssl", ())
    assert card.training["cohort"]["train"] == {"scans": 12, "patients": 4, "labels": {}}
    assert not [name for name in state if name.startswith(("projector", "head"))]
    facts = dict(card_rows(card))
    assert facts["Predicts"] == "nothing: it was pre-trained without labels"
    assert facts["Trained on"] == "volumes.csv, without labels"
    assert facts["Epoch kept"].startswith("2, the last; on validation: val_loss ")
    assert "method vicreg, slices_per_volume 3" in facts["Options"]


def test_killed_within_an_epoch_and_resumed_it_gives_the_same(run, command, volume_csv, tmp_path,
                                                              monkeypatch):
    update, calls = steps.update_weights, []

    def die(loop):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        update(loop)
    monkeypatch.setattr(steps, "update_weights", die)
    monkeypatch.setattr(steps, "SAVE_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        train_without_labels(volume_csv, tmp_path, *command)
    monkeypatch.undo()
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    assert (saved["progress"]["epoch"], saved["progress"]["step"]) == (2, 1)
    assert "projector.0.weight" in saved["model"]
    train_without_labels(volume_csv, tmp_path, *command, "--resume", "--n_cpu", "1")
    assert without_key(tmp_path / "backbone.safetensors") == without_key(
        run / "backbone.safetensors")
    logs = [pd.read_csv(folder / "log.csv").drop(columns="seconds") for folder in (run, tmp_path)]
    assert logs[0].equals(logs[1])


def test_it_can_be_shared(run, tmp_path):
    share.main([str(run / "backbone.safetensors"), "--to", "a/b", "--out_dir", str(tmp_path)])
    card, _ = checkpoint.read(tmp_path / "backbone.safetensors")
    assert card.training["options"]["method"] == "vicreg"
    text = (tmp_path / "README.md").read_text()
    assert "# SLIViT: a backbone\n\nThis is a backbone for 2D images and slices of volumes" in text
    assert "finetune.py --bb_path hf://a/b" in text
    assert "pipeline_tag: image-feature-extraction" in text
    assert "evaluate.py --checkpoint" not in text and "slivit.load" not in text


@pytest.mark.usefixtures("unmeasured")
def test_finetune_takes_the_backbone(run, volume_csv, tmp_path):
    path = run / "backbone.safetensors"
    assert read_start(path).trained_on == "volumes.csv, without labels"
    finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", *RUN_3D[4:], "--n_epochs",
                   "1", "--bb_path", str(path), "--out_dir", str(tmp_path / "out")])
    card, _ = checkpoint.read(tmp_path / "out/slivit.safetensors")
    assert card.training["backbone_data"] == "volumes.csv, without labels"


@pytest.mark.usefixtures("unmeasured")
def test_patients_and_data_of_every_training_are_known_at_the_end(run, image_csv, tmp_path):
    bb_train.main(["--meta_csv", str(image_csv), "--weights", str(run / "backbone.safetensors"),
                   *RUN_2D[4:], "--n_epochs", "1", "--out_dir", str(tmp_path / "second")])
    first, _ = checkpoint.read(run / "backbone.safetensors")
    second, _ = checkpoint.read(tmp_path / "second/backbone.safetensors")
    assert set(first.data["patients"]) < set(second.data["patients"])
    seen = known_patients({"P0", "I0", "I9"}, second.data, tmp_path / "second/x.safetensors")
    assert seen == {"P0", "I0"}  # I9 is in test
    train_without_labels(image_csv, tmp_path / "third", "--n_epochs", "1", "--weights",
                         str(tmp_path / "second/backbone.safetensors"))
    facts = dict(card_rows(checkpoint.read(tmp_path / "third/backbone.safetensors")[0]))
    assert facts["Predicts"] == "nothing: its last training was without labels"
    assert facts["Backbone pre-trained on"] == "images.csv, after volumes.csv, without labels"


def test_what_predicts_nothing_is_not_evaluated(run, volume_csv, tmp_path):
    path = str(run / "backbone.safetensors")
    message = "pre-trained without labels and predicts nothing yet; fine-tune it with finetune.py"
    with pytest.raises(UserError, match=message):
        evaluate.main(["--checkpoint", path, "--meta_csv", str(volume_csv), "--out_dir",
                       str(tmp_path / "out")])
    with pytest.raises(UserError, match=message):
        slivit.load(path)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def images(image_csv, tmp_path_factory):
    """A table of images of which some rows have no split; two of them are of patients of others."""
    table = absolute_table(image_csv).drop(columns="B").astype(object)
    table.loc[table["Split"] == "train", "Split"] = ""
    table.loc[:1, "patient"] = ["I6", "I9"]  # in validation and test
    table.loc[table["Split"] == "", "A"] = ""
    path = tmp_path_factory.mktemp("tables") / "images.csv"
    table.to_csv(path, index=False)
    return path


def test_rows_without_split_and_label_train_unless_their_patient_is_kept_out(images, tmp_path,
                                                                             capsys):
    train_without_labels(images, tmp_path / "out", "--n_epochs", "1", "--backbone",
                         "convnext_atto_bn")
    text = capsys.readouterr().out
    assert ("kept out of what is learned from: 12 scans of 12 patients in validation and test, and "
            "2 scans without a split, of the same patients or files") in text
    split = pd.read_csv(tmp_path / "out/split.csv")["split"]
    assert split[:3].tolist() == ["unused", "unused", "train"]
    assert split.value_counts().to_dict() == {"train": 10, "val": 6, "test": 6, "unused": 2}
    train_without_labels(images, tmp_path / "fraction", "--n_epochs", "1", "--train_fraction",
                         "0.5")
    card, _ = checkpoint.read(tmp_path / "fraction/backbone.safetensors")
    assert card.training["cohort"]["train"]["scans"] == 5


def test_check_reads_the_table_alike(images, tmp_path, capsys):
    check.main(["--meta_csv", str(images), "--unlabelled", "--out_dir", str(tmp_path / "check")])
    table = pd.read_csv(tmp_path / "check/data_report.csv")
    assert table["split"].value_counts().to_dict() == {"train": 10, "val": 6, "test": 6,
                                                       "unused": 2}
    assert "images.csv: 24 images" in capsys.readouterr().out


def test_with_labels_a_row_without_a_split_stays_a_fault(images, tmp_path):
    with pytest.raises(UserError, match="12 rows have no split; expected train, val or test"):
        bb_train.main(["--meta_csv", str(images), *RUN_2D, "--out_dir", str(tmp_path / "out")])


@pytest.mark.usefixtures("unmeasured")
def test_a_table_of_volumes_without_labels_and_splits_then_a_training_with_labels(
        image_csv, tmp_path):
    rng = np.random.default_rng(0)
    for k in range(8):
        np.save(tmp_path / f"{k}.npy", scan_pixels(rng, False, (4, 40, 40)))
    table = write_meta(tmp_path / "v.csv", F_Name=range(8), Path=[f"{k}.npy" for k in range(8)])
    train_without_labels(table, tmp_path / "ssl", "--n_epochs", "1", "--split_ratio", "0.5,0.5,0",
                         "--cache_dir", str(tmp_path / "cache"))
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 8
    bb_train.main(["--meta_csv", str(image_csv), "--weights",
                   str(tmp_path / "ssl/backbone.safetensors"), *RUN_2D[4:], "--n_epochs", "1",
                   "--out_dir", str(tmp_path / "labels")])
    card, _ = checkpoint.read(tmp_path / "labels/backbone.safetensors")
    assert card.training["backbone_data"] == "v.csv, without labels"


@pytest.mark.parametrize(("options", "messages"), [
    ("--task ssl --pathologies A --pos_weight auto --balanced_sampling --label_smoothing 0.1 "
     "--mixup 0.2 --select score --accumulate 2 --patience 3",
     ["3 problems found", "omit --pathologies, --pos_weight, --balanced_sampling, "
      "--label_smoothing, --mixup, --select score, or omit --task ssl",
      "--accumulate 2: the loss of --task ssl compares the images of a batch",
      "--patience 3: with --task ssl the last epoch is kept"]),
    ("--task ssl --pathologies A", ["--task ssl learns without labels; omit --pathologies, or"]),
    ("--slices_per_volume 4", ["--slices_per_volume applies to --task ssl"]),
    ("--task ssl --dataset noduleshapes2d --slices_per_volume 4",
     ["--slices_per_volume 4: applies to volumes; noduleshapes2d has images"]),
    ("--task ssl --dataset noduleshapes2d --b_size 1 --flips none",
     ["2 problems", "--b_size 1: the loss compares the images of a batch",
      "without --jitter and --flips the views of an image are all the same"]),
])
def test_options_that_do_not_go_together_are_refused(options, messages, tmp_path):
    with pytest.raises(UserError) as error:
        bb_train.main([*options.split(), *RUN_2D[:6], "--out_dir", str(tmp_path / "out")]
                      if "--b_size" in options else
                      [*RUN_2D, *options.split(), "--out_dir", str(tmp_path / "out")])
    for message in messages:
        assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_several_processes_are_refused(image_csv, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "join_world", lambda device: ProcessGroup(0, 2))
    with pytest.raises(UserError, match="--task ssl: found 2 processes, expected 1"):
        train_without_labels(image_csv, tmp_path / "out")
