"""The three scripts with a backbone that multiplies in bfloat16."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import BACKBONE, RUN_2D, RUN_3D

import bb_train
import evaluate
import finetune
import slivit
from slivit.checkpoints.checkpoint import read
from slivit.utils import precision
from slivit.utils.errors import UserError


@pytest.fixture
def hardware(monkeypatch):
    """A device that multiplies bfloat16, or does not: a function to say which."""
    def has(it: bool) -> None:
        monkeypatch.setattr(precision, "has_bfloat16", lambda device: it)

    has(True)
    return has


@pytest.fixture(scope="module")
def run(volume_csv, backbone_run, tmp_path_factory):
    """The output of finetune.py where bfloat16 is in hardware."""
    out = tmp_path_factory.mktemp("precision") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "has_bfloat16", lambda device: True)
        finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", "--n_epochs", "2",
                       "--dropout", "0.2", *RUN_3D[4:], "--bb_path",
                       str(backbone_run / "backbone.safetensors"), "--out_dir", str(out)])
    return out


def predictions(out):
    return pd.read_csv(out / "predictions.csv")["A_pred"].to_numpy()


def evaluated(run, volume_csv, out, *flags):
    evaluate.main(["--checkpoint", str(run / "slivit.safetensors"), "--meta_csv", str(volume_csv),
                   "--gpu_id", "cpu", "--out_dir", str(out), *flags])
    return predictions(out)


def test_the_type_is_in_config_and_header_and_report(run):
    assert json.loads((run / "config.json").read_text())["precision"] == "bfloat16"
    assert read(run / "slivit.safetensors")[0].precision == "bfloat16"
    assert "Precision" in (run / "report.md").read_text()
    assert "bfloat16" in (run / "report.md").read_text()


def test_the_first_line_says_it(hardware, image_csv, tmp_path, capsys, unmeasured):
    bb_train.main(["--meta_csv", str(image_csv), "--n_epochs", "1", *RUN_2D, "--out_dir",
                   str(tmp_path / "out")])
    assert capsys.readouterr().out.startswith("device: CPU, 1 thread, bfloat16\n")


def test_evaluate_gives_the_numbers_that_finetune_left(run, hardware, volume_csv, tmp_path,
                                                       capsys):
    assert np.array_equal(evaluated(run, volume_csv, tmp_path / "again"), predictions(run))
    assert capsys.readouterr().out.startswith("device: CPU, 1 thread, bfloat16\n")
    result = slivit.load(run / "slivit.safetensors", gpu_id="cpu").predict(
        str(volume_csv.parent / pd.read_csv(volume_csv)["Path"][0]))
    assert 0 <= result.probabilities[0, 0] <= 1


@pytest.mark.usefixtures("hardware", "unmeasured")
def test_a_model_trained_in_float32_stays_in_it(volume_csv, backbone_run, tmp_path, capsys):
    finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", "--n_epochs", "1",
                   *RUN_3D[4:], "--bb_path", str(backbone_run / "backbone.safetensors"), "--amp",
                   "off", "--out_dir", str(tmp_path / "run")])
    capsys.readouterr()
    auto, off = (evaluated(tmp_path / "run", volume_csv, tmp_path / amp, "--amp", amp)
                 for amp in ("auto", "off"))
    assert np.array_equal(auto, off)
    assert capsys.readouterr().out.count("device: CPU, 1 thread, float32\n") == 2


def test_without_the_hardware_it_is_evaluated_in_float32(run, hardware, volume_csv, tmp_path,
                                                         capsys):
    hardware(False)
    without = evaluated(run, volume_csv, tmp_path / "auto")
    assert ("trained in bfloat16, evaluated in float32"
            in (tmp_path / "auto" / "report.md").read_text())
    assert np.array_equal(without, evaluated(run, volume_csv, tmp_path / "off", "--amp", "off"))
    assert np.abs(without - predictions(run)).max() < 0.02
    assert not np.array_equal(without, predictions(run))
    assert capsys.readouterr().out.count(
        "was trained in bfloat16, which this device does not multiply in hardware") == 1


def test_asked_for_without_the_hardware_it_is_measured_in_it_too(
        hardware, volume_csv, backbone_run, tmp_path):
    hardware(False)
    finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", "--n_epochs", "1",
                   *RUN_3D[4:], "--bb_path", str(backbone_run / "backbone.safetensors"), "--amp",
                   "bf16", "--out_dir", str(tmp_path / "out")])
    assert np.array_equal(predictions(tmp_path / "out"), evaluated(
        tmp_path / "out", volume_csv, tmp_path / "bf16", "--amp", "bf16"))


def test_predictions_have_all_digits(run):
    logits = np.float32(np.log(predictions(run) / (1 - predictions(run))))
    assert not np.array_equal(logits, torch.from_numpy(logits).bfloat16().float().numpy())


def test_a_run_is_not_resumed_in_another_type(run, hardware, volume_csv, backbone_run):
    hardware(False)
    with pytest.raises(UserError, match="precision: was 'bfloat16', now 'float32'; give --amp "
                                        "bf16"):
        finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", "--n_epochs", "3",
                       "--dropout", "0.2", *RUN_3D[4:], "--bb_path",
                       str(backbone_run / "backbone.safetensors"), "--out_dir", str(run),
                       "--resume"])


def test_stored_features_are_of_one_type(hardware, volume_csv, backbone_run, tmp_path, unmeasured):
    command = ["--meta_csv", str(volume_csv), "--pathologies", "A", "--n_epochs", "1", *RUN_3D[4:],
               "--bb_path", str(backbone_run / "backbone.safetensors"), "--freeze_backbone",
               "--cache_dir", str(tmp_path / "cache")]
    for amp, files in (("auto", 1), ("bf16", 1), ("off", 2)):
        finetune.main([*command, "--amp", amp, "--out_dir", str(tmp_path / amp)])
        assert len(list((tmp_path / "cache" / "features").glob("*.features"))) == files


def test_python_takes_only_the_options_of_the_scripts(run):
    with pytest.raises(UserError, match="amp='half': expected one of auto, off, bf16, fp16"):
        slivit.load(run / "slivit.safetensors", amp="half")


def test_a_backbone_names_its_type(hardware, image_csv, tmp_path):
    bb_train.main(["--meta_csv", str(image_csv), "--n_epochs", "1", *RUN_2D, "--out_dir",
                   str(tmp_path / "out")])
    card = read(tmp_path / "out" / "backbone.safetensors")[0]
    assert (card.backbone, card.precision) == (BACKBONE, "bfloat16")
