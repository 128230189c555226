"""Weights of timm by their tags: what they are called, and DINOv3's as timm's hub has them."""

import re

import huggingface_hub
import pytest
import timm
import torch
from helpers import ROOT
from safetensors.torch import save_file

from slivit.checkpoints.convnext_sizes import shapes_of
from slivit.checkpoints.pretrained import choose_start
from slivit.checkpoints.timm_weights import find_timm_weights
from slivit.models.backbone import create_backbone
from slivit.utils.errors import UserError

DINOV3 = "convnext_tiny.dinov3_lvd1689m"


@pytest.mark.parametrize(("name", "title", "trained_on"), [
    (DINOV3, "DINOv3 weights (LVD-1689M) of convnext_tiny",
     f"LVD-1689M (DINOv3; timm's {DINOV3}, licence dinov3-license)"),
    ("convnext_tiny", "ImageNet-12k weights of convnext_tiny, fine-tuned on ImageNet-1k",
     "ImageNet-12k, then ImageNet-1k (timm's convnext_tiny.in12k_ft_in1k, licence apache-2.0)"),
    ("convnext_tiny.fb_in22k", "ImageNet-22k weights of convnext_tiny",
     "ImageNet-22k (timm's convnext_tiny.fb_in22k, licence apache-2.0)"),
    ("convnextv2_atto.fcmae", "FCMAE weights (ImageNet-1k, without labels) of convnextv2_atto",
     "ImageNet-1k, without labels (FCMAE; timm's convnextv2_atto.fcmae, licence cc-by-nc-4.0)"),
    ("convnext_xxlarge.clip_laion2b_soup_ft_in12k",
     "CLIP weights (LAION-2B) of convnext_xxlarge, fine-tuned on ImageNet-12k",
     "LAION-2B, then ImageNet-12k (CLIP; timm's convnext_xxlarge.clip_laion2b_soup_ft_in12k, "
     "licence apache-2.0)")])
def test_weights_are_called_what_they_are(name, title, trained_on):
    found = find_timm_weights(name)
    assert (str(found), found.trained_on) == (title, trained_on)


def test_every_tag_of_timm_is_understood():
    names = timm.list_pretrained(["convnext_*", "convnextv2_*"])
    assert len(names) > 80
    assert [name for name in names if not find_timm_weights(name).data] == []
    assert [find_timm_weights(name) for name in ("convnextv2_small", "convnext_tiny_bn")] == [None,
                                                                                             None]


def test_table_of_docs_is_that_of_timm():
    text = (ROOT / "docs/weights.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `--backbone (\S+)`[^|]*\| (.+?) \|.*\| (\S+) \|$", text, re.M)
    assert len(rows) > 20
    unknown = [name for name, *_ in rows if name not in timm.list_pretrained()]
    assert unknown in ([], ["convnext_tiny.eupe_lvd1689m"])  # which earlier versions lack
    for name, data, licence in rows:
        if name in unknown:
            continue
        found = find_timm_weights(name)
        words = ", then ".join((found.data, *found.fine_tuned))
        assert (name, data, licence) == (
            found.name, f"{words} ({found.method})" if found.method else words, found.licence)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the hub, with timm's DINOv3 in its own format: no classifier, the last norm."""
    state = {key: torch.full(shape, k / 1024, dtype=torch.float16)
             for k, (key, shape) in enumerate(shapes_of("convnext_tiny").items())
             if not key.startswith("head.fc.")}
    folder = tmp_path / f"models--timm--{DINOV3}"
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("abc")
    save_file(state, folder / "snapshots/abc/model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return state


def test_dinov3_of_timm_is_loaded_with_its_last_norm(hub, messages):
    start = choose_start("imagenet", DINOV3)
    assert start.mean == (0.485, 0.456, 0.406)
    assert start.trained_on == find_timm_weights(DINOV3).trained_on
    backbone = create_backbone(start.backbone, 3)
    start.load_into(backbone)
    own = backbone.state_dict()
    assert set(own) - set(hub) == {"head.fc.weight", "head.fc.bias"}
    assert all(torch.equal(own[key], tensor.float()) for key, tensor in hub.items())
    assert messages == [
        f"DINOv3 weights (LVD-1689M) of convnext_tiny (timm's {DINOV3}, licence dinov3-license), "
        "for input of mean 0.485 0.456 0.406 and std 0.229 0.224 0.225"]


def test_random_weights_are_trained_on_nothing():
    assert choose_start("none", DINOV3).trained_on is None


def test_wrong_tag_lists_those_of_timm():
    with pytest.raises(UserError, match="no weights tagged 'dinov3'; .*dinov3_lvd1689m"):
        choose_start("imagenet", "convnext_tiny.dinov3")
