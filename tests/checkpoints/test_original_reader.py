"""Models of the original SLIViT: the numbers they gave there, and files that are none."""

import dataclasses

import pytest
import torch
from helpers import Boom, features_of
from original_files import random_model, reference_logits

from slivit.checkpoints import checkpoint
from slivit.checkpoints.original.reader import read_original
from slivit.config import TILINGS
from slivit.data.batch import Batch, model_inputs
from slivit.models.slivit import SLIViT
from slivit.prediction import run_model
from slivit.utils.errors import UserError

TOLERANCE = 1e-4  # of a logit


def volumes(count, n_slices, side, seed=0):
    """Return uint8 volumes (B, N, H, W) of noise, each brighter than the one before."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 120, (count, n_slices, side, side), generator=generator)
    return (noise + 40 * torch.arange(count)[:, None, None, None]).to(torch.uint8)


def batch_of(x, lengths=None):
    """Return a batch of volumes (B, N, H, W), the first slices of which are real."""
    lengths = torch.tensor(lengths or [x.shape[1]] * len(x))
    mask = torch.arange(x.shape[1])[None] < lengths[:, None]
    return Batch(x[:, :, None], mask, torch.zeros(len(x), 1))


def load(path, tiling):
    """Return the model of a file with another tiling than is assumed."""
    card, state = read_original(path)
    card = dataclasses.replace(card, integrator=dataclasses.replace(
        card.integrator, token=TILINGS[tiling]))
    return checkpoint.restore(path, card, state)


@pytest.fixture(scope="module")
def state():
    """A model of three slices of 64 pixels."""
    return random_model()


@pytest.fixture(scope="module")
def path(state, tmp_path_factory):
    """The same in a file."""
    path = tmp_path_factory.mktemp("original") / "slivit.pth"
    torch.save(state, path)
    return path


@torch.no_grad()
@pytest.mark.parametrize("tiling", ["height", "width"])
@pytest.mark.parametrize("sizes", [
    {}, {"side": 32, "n_slices": 5, "depth": 1, "dim": 64, "heads": 1},
    {"side": 96, "n_slices": 1, "dim": 49, "depth": 3, "mlp_dim": 96, "heads": 2},
    {"side": 32, "faint": 0.003}], ids=["plain", "no projection", "one slice", "faint tokens"])
def test_logits_are_those_of_the_original(sizes, tiling, state, tmp_path):
    state = random_model(**sizes) if sizes else state
    torch.save({"model": state, "opt": {"state": [{}], "hypers": [{"lr": 1e-4}]}}
               if sizes else state, tmp_path / "slivit.pth")
    model = load(tmp_path / "slivit.pth", tiling)
    x = volumes(2, model.preprocess.n_slices, sizes.get("side", 64))
    expected = reference_logits(state, x, tiling)
    logits = run_model(model, batch_of(x))[:, 0]
    assert logits.tolist() == pytest.approx(expected.tolist(), abs=TOLERANCE)
    assert abs(expected[0] - expected[1]) > 10 * TOLERANCE


@torch.no_grad()
def test_tilings_and_slice_tokens_give_three_different_answers(path):
    x = batch_of(volumes(1, 3, 64))
    high, wide = load(path, "height"), load(path, "width")
    ours = SLIViT("convnext_tiny", 1, high.preprocess, dataclasses.replace(
        high.config, token="flatten")).eval()
    ours.load_state_dict(high.state_dict())
    found = sorted(float(run_model(model, x)) for model in (high, wide, ours))
    assert min(found[1] - found[0], found[2] - found[1]) > 10 * TOLERANCE


@torch.no_grad()
def test_a_token_is_a_block_of_channels_over_all_slices(path):
    model, x = load(path, "width"), volumes(1, 3, 64)
    features, real = model.token_features(*model_inputs(batch_of(x), model.preprocess))
    picture = torch.cat(list(x[0]), dim=1)[None, None].expand(1, 3, -1, -1) / 255
    maps = model.backbone.forward_features(picture)  # (1, 768, 2, 6)
    assert torch.allclose(features[0, 1], maps[0, 256:512].flatten(), atol=1e-4)
    assert real.all() and features.shape == (1, 3, 768 * 4)


@torch.no_grad()
@pytest.mark.parametrize(("length", "taken"), [(2, [0, 0, 1]), (1, [0, 0, 0])])
def test_slices_of_short_volumes_are_repeated_evenly(path, state, length, taken):
    x = volumes(2, 3, 64)
    x[0, length:] = 77  # padding, which has no influence
    found = run_model(load(path, "width"), batch_of(x, [length, 3]))[:, 0]
    expected = reference_logits(state, torch.stack([x[0, taken], x[1]]), "width")
    assert found.tolist() == pytest.approx(expected.tolist(), abs=TOLERANCE)


@torch.no_grad()
def test_blank_slices_stay_in_their_place(path, state):
    x = volumes(1, 3, 64)
    x[0, 1] = 0
    expected = reference_logits(state, x, "height")
    logit = float(run_model(load(path, "height"), batch_of(x)))
    assert logit == pytest.approx(float(expected), abs=TOLERANCE)


def test_sizes_are_read_from_the_tensors(path):
    card, _ = read_original(path)
    config, preprocess = card.integrator, card.preprocess
    assert (config.dim, config.depth, config.heads, config.head_dim, config.mlp_dim) == (
        48, 2, 3, 64, 80)
    assert (card.backbone, preprocess.img_size, preprocess.n_slices) == ("convnext_tiny", 64, 3)
    assert (preprocess.window, preprocess.mean, preprocess.std) == ("full", (0,) * 3, (1,) * 3)
    assert card.data["assumed"] == ["tiling", "task", "label"]


def test_what_belongs_to_single_slices_is_refused(path):
    with pytest.raises(UserError, match="features of single slices: .* tokens are blocks of chan"):
        features_of(load(path, "width"), batch_of(volumes(1, 3, 64)))


def without(*names):
    """Return a change of a state dict: these tensors are left away."""
    return lambda state: {key: tensor for key, tensor in state.items() if key not in names}


def with_tensor(name, *shape):
    """Return a change of a state dict: a tensor of this shape."""
    return lambda state: state | {name: torch.zeros(shape)}


LAYER = "feature_extractor.1.stages.2.layers.8"


@pytest.mark.parametrize(("change", "messages"), [
    (without("mlp_head.bias", f"{LAYER}.dwconv.weight"),
     ["not a complete slivit.pth", "missing: mlp_head.bias", "stages.2.blocks.8.conv_dw.weight"]),
    (without("pos_embedding", "transformer.layers.0.1.net.1.weight"),
     ["sizes cannot be read", "missing: pos_embedding", "missing: transformer.layers.0.1.net.1"]),
    (with_tensor("pos_embedding", 4, 48), ["pos_embedding: found (4, 48), expected 3 axes"]),
    (with_tensor("pos_embedding", 1, 4, 40),
     ["pos_embedding: found (1, 4, 40), expected (1, 4, 48)"]),
    (with_tensor("pos_embedding", 1, 1, 48), ["pos_embedding has 1 rows", "at least one slice"]),
    (with_tensor("transformer.layers.0.0.to_qkv.weight", 100, 48), ["to_qkv 100", "of 3 x 64"]),
    (with_tensor("mlp_head.weight", 2, 48), ["mlp_head.weight: found (2, 48), expected (1, 48)"]),
    (with_tensor(f"{LAYER}.dwconv.weight", 384, 1, 5, 5),
     [f"{LAYER}.dwconv.weight: found (384, 1, 5, 5), expected (384, 1, 7, 7)"]),
    (with_tensor("transformer.layers.1.2.weight", 1), ["unknown: transformer.layers.1.2.weight"]),
    (lambda state: {key: tensor for key, tensor in state.items() if "feature_" not in key},
     ["feature_extractor"]),
    (lambda state: state | {"to_patch_embedding.1.weight": torch.zeros(3000),
                            "to_patch_embedding.1.bias": torch.zeros(3000),
                            "to_patch_embedding.2.weight": torch.zeros(48, 3000)},
     ["to_patch_embedding takes 3000 numbers", "768 x 64"]),
    (lambda state: state | {"to_patch_embedding.1.weight": torch.zeros(0),
                            "to_patch_embedding.1.bias": torch.zeros(0),
                            "to_patch_embedding.2.weight": torch.zeros(48, 0)},
     ["to_patch_embedding takes 0 numbers", "768 x 64"]),
    (lambda _: {"model.convnext.layernorm.weight": torch.zeros(768)},
     ["is a feature_extractor.pth", "--bb_path", "--weights"]),
    (lambda _: {"conv1.weight": torch.zeros(1)},
     ["is not a model of the original", "conv1.weight"]),
])
def test_other_tensors_are_refused(state, path, monkeypatch, change, messages):
    monkeypatch.setattr("slivit.checkpoints.original.reader.read_tensors", lambda _: change(state))
    with pytest.raises(UserError) as error:
        read_original(path)
    assert [text for text in ["slivit.pth: ", *messages] if text not in str(error.value)] == []


def test_file_with_code_is_refused_without_running_it(tmp_path, capfd):
    path = tmp_path / "slivit.pth"
    torch.save({"model": Boom()}, path)
    with pytest.raises(UserError, match="slivit.pth: "):
        read_original(path)
    assert "must not run" not in capfd.readouterr().out
