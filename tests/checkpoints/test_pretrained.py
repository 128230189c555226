"""Backbones by name and their weights, from files and from timm's hub."""

import functools
import json
import time
import urllib.error
import urllib.request

import pytest
import timm
import torch
from helpers import BACKBONE, RUN_2D, RUN_3D, Boom
from original_files import random_model
from safetensors.torch import load_file, save_file
from transformers import ConvNextConfig, ConvNextForImageClassification

import bb_train
import finetune
from slivit.checkpoints.pretrained import (
    choose_start,
    read_start,
    read_tensors,
)
from slivit.models.backbone import create_backbone, input_statistics
from slivit.utils.errors import UserError, first_line, run_script

UNTRAINED = ["--lr", "1e-12", "--n_epochs", "1"]


@pytest.fixture(scope="module")
def state():
    """The state dict of timm's model with 7 classes."""
    torch.manual_seed(0)
    return timm.create_model(BACKBONE, num_classes=7).state_dict()


@pytest.fixture(scope="module")
def original():
    """The tensors of a feature_extractor.pth of the original SLIViT with 2 classes."""
    torch.manual_seed(0)
    model = ConvNextForImageClassification(ConvNextConfig(num_labels=2))
    return {f"model.{key}": tensor for key, tensor in model.state_dict().items()}


@pytest.fixture(scope="module")
def original_path(original, tmp_path_factory):
    """The file of it as fastai writes it together with the optimiser."""
    path = tmp_path_factory.mktemp("original") / "feature_extractor.pth"
    torch.save({"model": original, "opt": {"state": [{"step": 3}], "hypers": [{"lr": 1e-4}]}}, path)
    return path


def start_into(path, num_classes, name=BACKBONE):
    """Return a backbone that starts from a file."""
    start = choose_start(str(path), name)
    backbone = create_backbone(start.backbone, num_classes)
    start.load_into(backbone)
    return backbone


@pytest.mark.parametrize("name", [None, BACKBONE])
@pytest.mark.parametrize(("num_classes", "message"), [
    (0, "the classifier is not used: SLIViT has its own"),
    (3, "its classifier of 7 classes is not used: this task has 3"),
    (9, "its classifier of 7 classes is not used: this task has 9"),
    (7, "the classifier is kept")])
def test_file_with_another_classifier_loads(tmp_path, state, name, num_classes, message, messages):
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"state_dict": state}, tmp_path / "w.bin")
    for file in ("w.safetensors", "w.bin"):
        messages.clear()
        own = start_into(tmp_path / file, num_classes, name).state_dict()
        assert all(torch.equal(own[key], state[key]) for key in own
                   if not key.startswith("head."))
        assert messages == [
            f"{tmp_path / file}: timm's ConvNeXt, convnext_zepto_rms, 7 classes, for input of mean "
            "0.5 0.5 0.5 and std 0.5 0.5 0.5", f"{tmp_path / file}: {message}"]
        if num_classes == 7:
            assert torch.equal(own["head.fc.weight"], state["head.fc.weight"])
        elif num_classes:
            assert own["head.fc.weight"].shape == (num_classes, 256)


def test_checkpoint_of_this_project_brings_its_own_input(backbone_run):
    start = choose_start(str(backbone_run / "backbone.safetensors"), None)
    assert (start.backbone, start.n_classes, start.trained_on) == (BACKBONE, 2, "images.csv")
    assert start.mean == (0.5, 0.5, 0.5)


def test_backbone_of_a_fine_tuned_original_has_no_norm_before_the_classifier(tmp_path, messages):
    path = tmp_path / "slivit.pth"
    torch.save(random_model(), path)
    own = start_into(path, 3, None).state_dict()
    assert own["head.norm.weight"].unique().tolist() == [1]
    assert messages == [
        f"{path}: slivit.pth of the original SLIViT, of which only the backbone is taken, "
        "convnext_tiny, no classifier, for input of mean 0 0 0 and std 1 1 1",
        f"{path}: has no norm before the classifier; that norm is newly initialised"]


def test_other_architecture_than_named_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match="--backbone convnext_tiny.fb_in22k and .*w.pth do not "
                                        "match: the file contains a convnext_zepto_rms"):
        choose_start(str(tmp_path / "w.pth"), "convnext_tiny.fb_in22k")
    with pytest.raises(UserError, match="--backbone convnext_tinny: not a ConvNeXt"):
        choose_start(str(tmp_path / "w.pth"), "convnext_tinny")


def test_tensors_that_do_not_fit_are_listed(tmp_path, state):
    broken = {key: tensor for key, tensor in state.items() if key != "stem.0.weight"}
    broken["stem.1.weight"] = torch.zeros(5)
    broken["extra"] = torch.zeros(1)
    save_file(broken, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="it is not a complete convnext_zepto_rms") as error:
        read_start(tmp_path / "w.safetensors")
    for text in ("missing: stem.0.weight", "unknown: extra", "stem.1.weight: found (5,)"):
        assert text in str(error.value)


def sparse(path, start, size=2 << 30):
    """Write a file that begins so, and is zeros to its end."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)


def cut(path, save, content):
    """Write a file without its second half."""
    save(content, path)
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


SOME = {"stem.0.weight": torch.ones(4000)}
OLD = functools.partial(torch.save, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(("write", "message"), [
    (lambda path: None, "no such checkpoint file"),
    (lambda path: path.mkdir(), "is a folder, expected a file"),
    (lambda path: path.touch(), "is empty. Expected only tensors"),
    (lambda path: path.write_text("no weights"), r"begins with the bytes 6e 6f 20 77\). Expected"),
    (lambda path: sparse(path, b""), "begins with the bytes 00 00 00 00"),
    (lambda path: sparse(path, b"PK\x03\x04"), "is truncated or damaged. Copy or download it"),
    (lambda path: sparse(path, b"\x80\x02"), "is damaged, or contains more than tensors"),
    (lambda path: sparse(path, (2 << 30).to_bytes(8, "little") + b"{"), "not a complete "
                                                                        "safetensors"),
    (lambda path: cut(path, torch.save, SOME), "is truncated or damaged"),
    (lambda path: cut(path, OLD, SOME), "is truncated or damaged"),
    (lambda path: cut(path, save_file, SOME), "is not a complete safetensors file"),
    (lambda path: torch.save({"model": Boom()}, path),
     r"contains code or objects \(posix.system\), not only tensors; such files are never loaded"),
    (lambda path: OLD({"model": Boom()}, path), "contains code or objects"),
    (lambda path: torch.save([1, 2], path), "contains no state dict of tensors"),
    (lambda path: torch.save({"model": {1: torch.ones(1)}}, path), "contains no state dict"),
    (lambda path: save_file({}, path), "contains no state dict of tensors"),
])
def test_files_that_are_no_weights_are_refused(tmp_path, capfd, write, message):
    path = tmp_path / "w.pth"
    write(path)
    start = time.monotonic()
    with pytest.raises(UserError, match=f"w.pth: .*{message}") as error:
        read_tensors(path)
    assert time.monotonic() - start < 2
    assert "weights_only" not in str(error.value)
    assert "must not run" not in capfd.readouterr().out


@pytest.mark.parametrize(("script", "flag"), [(bb_train, "--weights"), (finetune, "--weights"),
                                              (finetune, "--bb_path")])
def test_wrong_file_is_one_message_and_nothing_written(script, flag, tmp_path, capfd):
    torch.save({"model": Boom()}, tmp_path / "w.pth")
    command = [flag, str(tmp_path / "w.pth"), "--gpu_id", "cpu", "--out_dir", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: script.main(command))
    out, err = capfd.readouterr()
    assert stop.value.code == 2
    assert err.startswith("error: ") and len(err.splitlines()) == 1
    assert "must not run" not in out
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("unmeasured")
def test_bb_train_goes_on_training_a_backbone_of_the_original(original, original_path, image_csv,
                                                              tmp_path, capsys):
    command = ["--meta_csv", str(image_csv), *RUN_2D[4:], *UNTRAINED, "--weights",
               str(original_path), "--out_dir", str(tmp_path / "out")]
    bb_train.main(command)
    found = load_file(tmp_path / "out/backbone.safetensors")
    for ours, theirs in (("stem.0.weight", "convnext.embeddings.patch_embeddings.weight"),
                         ("stages.3.blocks.2.mlp.fc2.bias",
                          "convnext.encoder.stages.3.layers.2.pwconv2.bias"),
                         ("head.norm.weight", "convnext.layernorm.weight"),
                         ("head.fc.weight", "classifier.weight")):
        assert torch.allclose(found[ours], original[f"model.{theirs}"], rtol=0, atol=1e-8), ours
    assert f"{original_path}: the classifier is kept\n" in capsys.readouterr().out
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert (config["backbone"], config["preprocess"]["mean"], config["preprocess"]["std"]) == (
        "convnext_tiny", [0, 0, 0], [1, 1, 1])
    start = read_start(tmp_path / "out/backbone.safetensors")  # as --bb_path takes it next
    assert (start.mean, start.std) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.usefixtures("unmeasured")
def test_finetune_starts_from_a_backbone_of_the_original(original, volume_csv, tmp_path, capsys):
    path = tmp_path / "feature_extractor.pth"
    torch.save(original, path)
    finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", *RUN_3D[4:], *UNTRAINED,
                   "--bb_path", str(path), "--out_dir", str(tmp_path / "out")])
    found = load_file(tmp_path / "out/slivit.safetensors")
    assert torch.allclose(found["backbone.stages.0.blocks.1.conv_dw.weight"],
                          original["model.convnext.encoder.stages.0.layers.1.dwconv.weight"],
                          rtol=0, atol=1e-8)
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.startswith(str(path))] == [
        f"{path}: feature_extractor.pth of the original SLIViT, convnext_tiny, 2 classes, for "
        "input of mean 0 0 0 and std 1 1 1",
        f"{path}: the classifier is not used: SLIViT has its own"]
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert (config["backbone"], config["backbone_data"]) == (
        "convnext_tiny", "unknown data (feature_extractor.pth of the original SLIViT)")
    assert (config["preprocess"]["mean"], config["preprocess"]["std"]) == ([0, 0, 0], [1, 1, 1])


def test_unknown_backbone_gives_the_nearest_names():
    with pytest.raises(UserError, match="not a ConvNeXt of timm. Nearest: convnext_tiny"):
        create_backbone("convnext_tyni")
    with pytest.raises(UserError, match="not a ConvNeXt"):
        create_backbone("resnet18")
    with pytest.raises(UserError, match="no weights tagged 'fb_in9'; available: .*fb_in22k"):
        create_backbone("convnext_tiny.fb_in9")


def test_statistics_are_those_of_the_weights():
    assert input_statistics("convnext_zepto_rms")[0] == (0.5, 0.5, 0.5)
    assert input_statistics("convnext_tiny.fb_in22k")[0] == (0.485, 0.456, 0.406)


def test_failed_download_is_one_message_at_once(monkeypatch):
    def no_route(*_, **__):
        raise urllib.error.URLError("no route to host")
    monkeypatch.setattr(urllib.request, "urlopen", no_route)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        choose_start("imagenet", BACKBONE).load_into(create_backbone(BACKBONE))
    assert time.monotonic() - start < 5
    for text in ("could not get the ImageNet-1k weights of convnext_zepto_rms from https://",
                 "no route", "--weights FILE", "--weights none"):
        assert text in str(error.value)


def test_backbone_without_weights_of_timm_is_refused():
    with pytest.raises(UserError, match="timm has no weights for convnextv2_small; use --weights"):
        choose_start("imagenet", "convnextv2_small").load_into(torch.nn.Identity())


def test_errors_without_a_text_are_called_by_their_kind():
    assert first_line(TimeoutError()) == "TimeoutError"
    assert first_line(ValueError("one\ntwo")) == "one"


@pytest.mark.parametrize("head", [0, 7])
def test_the_backbone_of_a_slivit_is_a_start(binary_run, head, messages):
    path = binary_run / "slivit.safetensors"
    start = read_start(path)
    assert (start.backbone, start.n_classes, start.trained_on) == (
        BACKBONE, 0, "volumes.csv, after images.csv")
    start.load_into(backbone := create_backbone(BACKBONE, head))
    state = load_file(path)
    for key, tensor in backbone.state_dict().items():
        assert key.startswith("head.") or (tensor == state[f"backbone.{key}"]).all()
    assert "a SLIViT of this project, of which the backbone is taken" in messages[0]
