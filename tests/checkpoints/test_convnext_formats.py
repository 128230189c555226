"""ConvNeXt weights of other libraries: the same numbers under timm, and files that are refused."""

import re
from functools import partial

import pytest
import timm
import torch
import torchvision
import transformers
from original_files import random_model
from timm.models.convnext import checkpoint_filter_fn
from torch import nn
from torchvision.models.convnext import CNBlockConfig
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextModel,
    ConvNextV2Config,
    ConvNextV2ForImageClassification,
    DINOv3ConvNextConfig,
    DINOv3ConvNextModel,
)

from slivit.checkpoints.convnext_formats import recognise
from slivit.checkpoints.convnext_sizes import SIZES, architecture_of, shapes_of
from slivit.checkpoints.pretrained import read_tensors
from slivit.models.backbone import check_name, create_backbone
from slivit.utils.errors import UserError

TOLERANCE = 1e-5
ATTO = {"depths": [2, 2, 6, 2], "hidden_sizes": [40, 80, 160, 320]}
IMAGENET, NO_SHIFT = (0.485, 0.456, 0.406), (0.0, 0.0, 0.0)


def randomise(model, seed=0):
    """Give every tensor other numbers, such that features stay about 1; return the model."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        values = torch.randn(tensor.shape, generator=generator)
        if re.search(r"gamma|layer_scale", name) and "grn" not in name:
            values = 0.3 * values
        elif tensor.squeeze().ndim > 1:
            values = values / tensor[0].numel() ** 0.5
        else:
            values = 0.2 * values + (name.endswith("weight") and "grn" not in name)
        tensor.copy_(values)
    return model.eval()


def torchvision_atto():
    blocks = [CNBlockConfig(40, 80, 2), CNBlockConfig(80, 160, 2), CNBlockConfig(160, 320, 6),
              CNBlockConfig(320, None, 2)]
    return torchvision.models.ConvNeXt(blocks, num_classes=5)


def transformers_tiny():
    return ConvNextForImageClassification(ConvNextConfig(num_labels=5))


def transformers_v2():
    return ConvNextV2ForImageClassification(ConvNextV2Config(num_labels=5, **ATTO))


def transformers_maps(model, x):
    return model.base_model(x).last_hidden_state


LIBRARIES = {
    "torchvision tiny": (partial(torchvision.models.convnext_tiny, num_classes=5),
                         lambda model, x: model.features(x), "convnext_tiny", "torchvision's"),
    "torchvision atto": (torchvision_atto, lambda model, x: model.features(x), "convnext_atto",
                         "torchvision's"),
    "transformers": (transformers_tiny, transformers_maps, "convnext_tiny",
                     "transformers' ConvNextForImageClassification"),
    "transformers V2": (transformers_v2, transformers_maps, "convnextv2_atto",
                        "transformers' ConvNextV2ForImageClassification"),
    "timm": (partial(timm.create_model, "convnext_atto", num_classes=5),
             lambda model, x: model.forward_features(x), "convnext_atto", "timm's")}


@torch.no_grad()
@pytest.mark.parametrize("library", LIBRARIES)
def test_models_of_other_libraries_give_the_same_numbers(library):
    make, maps, architecture, title = LIBRARIES[library]
    model, x = randomise(make()), torch.rand(2, 3, 64, 64)
    found = recognise(model.state_dict(), "file")
    assert (found.architecture, found.n_classes) == (architecture, 5)
    assert title in found.format.title
    assert found.format.mean == (None if library == "timm" else IMAGENET)
    ours = create_backbone(architecture, 5).eval()
    ours.load_state_dict(found.state)
    logits, features = model(x), maps(model, x)
    logits = getattr(logits, "logits", logits)
    assert features.std() > 0.1 and (logits[0] - logits[1]).abs().max() > 0.1
    assert torch.allclose(ours.forward_features(x), features, rtol=0, atol=TOLERANCE)
    assert torch.allclose(ours(x), logits, rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_models_of_transformers_without_a_classifier_give_the_same_features():
    model, x = randomise(ConvNextModel(ConvNextConfig(**ATTO))), torch.rand(1, 3, 64, 64)
    found = recognise(model.state_dict(), "file")
    assert (found.architecture, found.n_classes) == ("convnext_atto", 0)
    ours = create_backbone("convnext_atto", 5).eval()
    ours.load_state_dict(found.state, strict=False)
    pooled = ours.forward_head(ours.forward_features(x), pre_logits=True)
    assert torch.allclose(pooled, model(x).pooler_output, rtol=0, atol=TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("saved", ["file", "state dict"])
def test_dinov3_of_transformers_gives_the_same_numbers(saved, tmp_path):
    model = randomise(DINOv3ConvNextModel(DINOv3ConvNextConfig(**ATTO)))
    x = torch.rand(2, 3, 64, 64)
    model.save_pretrained(tmp_path)  # under other names than those of the state dict
    file = tmp_path / "model.safetensors"
    state = read_tensors(file) if saved == "file" else model.state_dict()
    assert saved != "file" or "stages.0.downsample_layers.0.weight" in state
    found = recognise(state, "file")
    assert (found.architecture, found.n_classes, found.format.mean) == ("convnext_atto", 0,
                                                                        IMAGENET)
    assert found.format.title.endswith("transformers' DINOv3ConvNextModel")
    ours = create_backbone("convnext_atto", 5).eval()
    missing = ours.load_state_dict(found.state, strict=False).missing_keys
    assert missing == ["head.fc.weight", "head.fc.bias"]
    theirs, maps = model(x), ours.forward_features(x)
    cells = maps.flatten(2).transpose(1, 2)
    assert theirs.pooler_output.std() > 0.1
    assert torch.allclose(ours.forward_head(maps, pre_logits=True), theirs.pooler_output, rtol=0,
                          atol=TOLERANCE)  # the last norm after the pooling
    assert torch.allclose(ours.head.norm(cells.mT[..., None])[..., 0].mT,
                          theirs.last_hidden_state[:, 1:], rtol=0, atol=TOLERANCE)


@torch.no_grad()
@pytest.mark.skipif(not hasattr(transformers, "DINOv3ConvNextBackbone"), reason="since version 5")
def test_dinov3_backbone_of_transformers_has_no_last_norm():
    model = randomise(transformers.DINOv3ConvNextBackbone(DINOv3ConvNextConfig(**ATTO)))
    x = torch.rand(1, 3, 64, 64)
    found = recognise(model.state_dict(), "file")
    assert "head.norm.weight" not in found.state
    ours = create_backbone(found.architecture).eval()
    ours.load_state_dict(found.state)
    assert torch.allclose(ours.forward_features(x), model(x).feature_maps[-1], rtol=0,
                          atol=TOLERANCE)


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_every_size_of_dinov3_is_recognised(size):
    depths, width = SIZES[size]
    with torch.device("meta"):
        model = DINOv3ConvNextModel(DINOv3ConvNextConfig(
            depths=list(depths), hidden_sizes=[width * 2 ** s for s in range(4)]))
    found = recognise(model.state_dict(), "file")
    assert found.architecture == f"convnext_{size}"
    assert f"{found.architecture}.dinov3_lvd1689m" in timm.list_pretrained("*.dinov3_lvd1689m")


FACEBOOK = (("stem.", "downsample_layers.0."), (".downsample.", "@"), (".blocks", ""),
            ("conv_dw", "dwconv"), ("mlp.grn.weight", "grn.gamma"), ("mlp.grn.bias", "grn.beta"),
            ("mlp.fc", "pwconv"), ("head.norm", "norm"), ("head.fc", "head"))


def facebook_release(state):
    """Return timm's tensors as facebookresearch names and shapes them."""
    renamed = {}
    for key, tensor in state.items():
        for ours, theirs in FACEBOOK:
            key = key.replace(ours, theirs)
        if "@" in key:  # stages.S@0.weight
            key = key.replace("stages.", "downsample_layers.").replace("@", ".")
        if "grn" in key:
            tensor = tensor[None, None, None]
        renamed[key] = tensor.flatten(1) if "pwconv" in key and tensor.ndim > 1 else tensor
    return renamed


@pytest.mark.parametrize("name", ["convnext_tiny", "convnextv2_atto"])
def test_facebook_releases_are_mapped_as_timm_does(name):
    model = randomise(timm.create_model(name, num_classes=5))
    release = facebook_release(model.state_dict())
    assert {"downsample_layers.2.1.weight", "stages.2.5.pwconv1.bias", "norm.bias"} < set(release)
    found = recognise(release, "file")
    assert (found.architecture, found.n_classes, found.format.mean) == (name, 5, IMAGENET)
    expected = checkpoint_filter_fn(release, model)
    assert set(found.state) == set(expected) == set(model.state_dict())
    assert all(torch.equal(found.state[key], expected[key]) for key in expected)


def test_dinov3_release_of_facebook_is_mapped_as_timm_does():
    model = randomise(timm.create_model("convnext_atto", num_classes=0))
    release = facebook_release(model.state_dict())
    release |= {f"norms.3.{part}": release[f"norm.{part}"] for part in ("weight", "bias")}
    found = recognise(release, "file")
    assert (found.architecture, found.n_classes, found.format.mean) == ("convnext_atto", 0,
                                                                        IMAGENET)
    expected = checkpoint_filter_fn(release, model)
    assert set(found.state) == set(model.state_dict())
    assert all(torch.equal(found.state[key], expected[key]) for key in found.state)


class Original(nn.Module):
    """A wrapper with the original's names."""

    def __init__(self, model):
        super().__init__()
        self.model = model


@torch.no_grad()
def test_feature_extractor_of_the_original_gives_the_same_numbers():
    model = randomise(transformers_tiny())
    state = Original(model).state_dict()
    assert len(state) == 182 and "model.convnext.layernorm.weight" in state
    found = recognise(state, "file")
    assert (found.architecture, found.n_classes, found.format.mean) == (
        "convnext_tiny", 5, NO_SHIFT)
    ours, x = create_backbone("convnext_tiny", 5).eval(), torch.rand(1, 3, 32, 64)
    ours.load_state_dict(found.state)
    assert torch.allclose(ours(x), model(x).logits, rtol=0, atol=TOLERANCE)


def test_backbone_of_a_fine_tuned_model_of_the_original_is_found():
    state = random_model()
    found = recognise(state, "file")
    assert (found.architecture, found.n_classes, len(found.state)) == ("convnext_tiny", 0, 178)
    assert "of which only the backbone is taken" in found.format.title
    assert torch.equal(found.state["stages.2.blocks.8.mlp.fc1.weight"],
                       state["feature_extractor.1.stages.2.layers.8.pwconv1.weight"])


@pytest.mark.parametrize("name", timm.list_models(["convnext_*", "convnextv2_*"]))
def test_every_convnext_of_timm_is_known_by_its_shapes(name):
    check_name(name)
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes_of(name).items()}
    assert recognise(state, "file").architecture == name
    without_head = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
    assert architecture_of(without_head) == name.removesuffix("_mlp")


@pytest.fixture(scope="module")
def tensors():
    """The tensors of torchvision's model of the smallest size that timm has too."""
    return torchvision_atto().state_dict()


def without(*parts):
    return lambda state: {key: tensor for key, tensor in state.items()
                          if not any(part in key for part in parts)}


def with_tensor(name, *shape, dtype=torch.float32):
    return lambda state: state | {name: torch.zeros(shape, dtype=dtype)}


BLOCK = "features.5.3"


@pytest.mark.parametrize(("change", "messages"), [
    (without(f"{BLOCK}.block.3.weight", "classifier.0.bias"),
     ["read as torchvision's ConvNeXt, it is not a complete convnext_atto",
      f"missing: {BLOCK}.block.3.weight", "missing: classifier.0.bias",
      "Use the original, unmodified file"]),
    (without("features.7"), ["its size is not known: found blocks 2-2-6 of widths 40-80-160;",
                             "atto 2-2-6-2 from 40", "tiny 3-3-9-3 from 96"]),
    (without("features.5.5"), ["its size is not known: found blocks 2-2-5-2"]),
    (without("features.0"), ["missing: features.0.0.weight", "missing: features.0.1.bias"]),
    (with_tensor("features.8.weight", 3), ["unknown: features.8.weight"]),
    (with_tensor(f"{BLOCK}.block.0.weight", 160, 1, 5, 5),
     [f"{BLOCK}.block.0.weight: found (160, 1, 5, 5), expected (160, 1, 7, 7)"]),
    (with_tensor("features.0.0.weight", 40, 1, 4, 4),
     ["features.0.0.weight: found (40, 1, 4, 4), expected (40, 3, 4, 4)"]),
    (with_tensor("classifier.2.bias", 6), ["classifier.2.bias: found (6,), expected (5,)"]),
    (with_tensor("classifier.0.bias", 320, dtype=torch.int8), ["torch.int8, expected floating-"]),
    (lambda _: torchvision.models.resnet18().state_dict(),
     ["is not a ConvNeXt (its tensors: conv1.weight, bn1.weight,", "timm's ConvNeXt\n",
      "facebookresearch's ConvNeXt\n", "feature_extractor.pth of the original SLIViT"]),
    (lambda _: torchvision.models.swin_t().state_dict(), ["is not a ConvNeXt"]),
    (lambda _: timm.create_model("vit_tiny_patch16_224").state_dict(), ["is not a ConvNeXt"]),
    (lambda _: {"bias": torch.zeros(3)}, ["is not a ConvNeXt (its tensors: bias"]),
])
def test_other_tensors_are_refused(tensors, change, messages):
    with pytest.raises(UserError) as error:
        recognise(change({**tensors, "classifier.2.weight": torch.zeros(5, 320)}), "w.pth")
    assert [text for text in ["w.pth: ", *messages] if text not in str(error.value)] == []
