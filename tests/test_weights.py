"""Backbones by name and their weights, from files and from timm's hub."""

import os
import time
import urllib.error
import urllib.request

import pytest
import timm
import torch
from helpers import BACKBONE
from safetensors.torch import save_file

from slivit.backbone import create_backbone, input_statistics
from slivit.errors import UserError, first_line
from slivit.weights import load_weights


class Boom:
    """A pickle that would run a command."""

    def __reduce__(self):
        return os.system, ("echo this must not run",)


@pytest.fixture(scope="module")
def state():
    """The state dict of timm's model with 7 classes."""
    torch.manual_seed(0)
    return timm.create_model(BACKBONE, num_classes=7).state_dict()


@pytest.mark.parametrize("num_classes", [0, 3, 7])
def test_file_with_another_classifier_loads(tmp_path, state, num_classes):
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"model": state}, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        backbone = create_backbone(BACKBONE, num_classes)
        load_weights(backbone, BACKBONE, str(tmp_path / name))
        own = backbone.state_dict()
        assert all(torch.equal(own[key], state[key]) for key in own
                   if not key.startswith("head."))
        if num_classes == 7:
            assert torch.equal(own["head.fc.weight"], state["head.fc.weight"])
        elif num_classes == 3:
            assert own["head.fc.weight"].shape == (3, 256)


def test_tensors_that_do_not_fit_are_listed(tmp_path, state):
    broken = {key: tensor for key, tensor in state.items() if key != "stem.0.weight"}
    broken["stem.1.weight"] = torch.zeros(5)
    broken["extra"] = torch.zeros(1)
    save_file(broken, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="does not fit this backbone") as error:
        load_weights(create_backbone(BACKBONE), BACKBONE, str(tmp_path / "w.safetensors"))
    for text in ("missing: stem.0.weight", "unknown: extra", "stem.1.weight: found (5,)"):
        assert text in str(error.value)


@pytest.mark.parametrize(("write", "message"), [
    (lambda path: None, "no such file"),
    (lambda path: path.write_text("no weights"), "cannot be read as weights"),
    (lambda path: torch.save({"model": Boom()}, path), "never pickled code"),
    (lambda path: torch.save([1, 2], path), "holds no state dict of tensors"),
])
def test_files_that_are_no_weights_are_refused(tmp_path, capfd, write, message):
    write(tmp_path / "w.pth")
    with pytest.raises(UserError, match=message):
        load_weights(create_backbone(BACKBONE), BACKBONE, str(tmp_path / "w.pth"))
    assert "must not run" not in capfd.readouterr().out


def test_unknown_backbone_gives_the_nearest_names():
    with pytest.raises(UserError, match="not a ConvNeXt of timm. Nearest: convnext_tiny"):
        create_backbone("convnext_tyni")
    with pytest.raises(UserError, match="not a ConvNeXt"):
        create_backbone("resnet18")
    with pytest.raises(UserError, match="no weights tagged 'fb_in9'; there are: .*fb_in22k"):
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
        load_weights(create_backbone(BACKBONE), BACKBONE, "imagenet")
    assert time.monotonic() - start < 5
    for text in ("could not get the weights of convnext_zepto_rms from https://", "no route",
                 "--weights FILE", "--weights none"):
        assert text in str(error.value)


def test_backbone_without_imagenet_weights_is_refused():
    with pytest.raises(UserError, match="timm has no weights for convnextv2_small; use --weights"):
        load_weights(torch.nn.Identity(), "convnextv2_small", "imagenet")


def test_errors_without_a_text_are_called_by_their_kind():
    assert first_line(TimeoutError()) == "TimeoutError"
    assert first_line(ValueError("one\ntwo")) == "one"
