"""Shapes, tokens and padding of the two models."""


import pytest
import torch
from helpers import BACKBONE, features_of, preprocess, tiny_slivit

from slivit.data.batch import Batch
from slivit.models.backbone import create_backbone, feature_shape
from slivit.models.slivit import ImageClassifier
from slivit.prediction import run_model

SLICES = torch.randint(0, 255, (2, 4, 1, 32, 32), dtype=torch.uint8,
                       generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    return tiny_slivit()


def batch_of(x, lengths):
    """Return a batch whose volumes have these numbers of real slices."""
    mask = torch.arange(x.shape[1])[None] < torch.tensor(lengths)[:, None]
    return Batch(x, mask, torch.zeros(len(x), 2))


@torch.no_grad()
def test_every_slice_is_a_token_of_its_own(model):
    batch = batch_of(SLICES, [4, 4])
    before = features_of(model, batch)
    changed = SLICES.clone()
    changed[0, 2] = 255 - changed[0, 2]
    after = features_of(model, batch_of(changed, [4, 4]))
    differs = (before != after).any(dim=2)
    assert differs.tolist() == [[False, False, True, False], [False] * 4]
    assert before.shape == (2, 4, model.feature_dim)


@torch.no_grad()
def test_feature_is_what_the_backbone_says_of_the_slice_alone(model):
    features = features_of(model, batch_of(SLICES, [4, 4]))
    picture = ((SLICES[1, 3].float() / 255 - 0.5) / 0.5).expand(1, 3, 32, 32)
    alone = model.backbone.forward_features(picture).flatten()
    assert torch.allclose(features[1, 3], alone, atol=1e-4)


@torch.no_grad()
def test_blank_slices_have_the_feature_of_a_blank_slice(model):
    x = SLICES.clone()
    x[0, 1] = x[1, 0] = x[1, 3] = 0
    features = features_of(model, batch_of(x, [4, 4]))
    blank = model.backbone.forward_features(torch.full((1, 3, 32, 32), -1.0)).flatten()
    for i in range(2):
        for k in range(4):
            is_blank = (i, k) in ((0, 1), (1, 0), (1, 3))
            assert torch.allclose(features[i, k], blank, atol=1e-4) == is_blank


@torch.no_grad()
def test_padding_is_never_looked_at(model):
    garbage = SLICES.clone()
    garbage[0, 3], garbage[1, 2:] = 255, 99
    zeros = SLICES.clone()
    zeros[0, 3], zeros[1, 2:] = 0, 0
    expected = run_model(model, batch_of(zeros, [3, 2]))
    assert torch.equal(run_model(model, batch_of(garbage, [3, 2])), expected)
    assert not torch.equal(run_model(model, batch_of(garbage, [4, 2])), expected)


@torch.no_grad()
def test_padded_volume_equals_the_same_volume_without_padding(model):
    short = tiny_slivit(n_slices=2)
    state = model.state_dict()
    state["integrator.pos_embed"] = state["integrator.pos_embed"][:, :3]
    short.load_state_dict(state)
    padded = run_model(model, batch_of(SLICES, [2, 2]))
    assert torch.allclose(padded, run_model(short, batch_of(SLICES[:, :2], [2, 2])), atol=1e-5)


@torch.no_grad()
def test_order_of_slices_matters(model):
    assert not torch.allclose(run_model(model, batch_of(SLICES, [4, 4])),
                              run_model(model, batch_of(SLICES.flip(1), [4, 4])), atol=1e-4)


@pytest.mark.parametrize("token", ["flatten", "pool"])
def test_every_parameter_gets_a_gradient(token):
    model = tiny_slivit(token=token).train()
    run_model(model, batch_of(SLICES, [4, 3])).square().sum().backward()
    without = [name for name, p in model.named_parameters()
               if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()]
    assert without == []


def test_token_is_the_whole_map_or_its_mean():
    flat, pool = (tiny_slivit(img_size=64, token=token) for token in ("flatten", "pool"))
    assert (flat.feature_dim, pool.feature_dim) == (256 * 2 * 2, 256)
    pool.backbone.load_state_dict(flat.backbone.state_dict())
    x = torch.zeros(1, 4, 1, 64, 64, dtype=torch.uint8)
    x[..., :20] = 180
    with torch.no_grad():
        cells = features_of(flat, batch_of(x, [4])).unflatten(2, (256, 4))
        assert torch.allclose(cells.mean(dim=3), features_of(pool, batch_of(x, [4])), atol=1e-5)


def test_heads_have_a_width_of_their_own():
    model = tiny_slivit(heads=3, head_dim=10)
    assert model.integrator.blocks[0].attn.qkv.weight.shape == (3 * 3 * 10, 16)
    assert run_model(model, batch_of(SLICES, [4, 4])).shape == (2, 2)


def test_paper_size_gives_768_maps_of_8_by_8():
    assert feature_shape(create_backbone("convnext_tiny"), 256) == (768, 8, 8)


def test_image_classifier_takes_grey_and_colour():
    model = ImageClassifier(BACKBONE, 5, preprocess()).eval()
    grey = SLICES[0][:, None]
    with torch.no_grad():
        logits = run_model(model, batch_of(grey, [1] * 4))
        colour = run_model(model, batch_of(grey.expand(-1, -1, 3, -1, -1), [1] * 4))
    assert logits.shape == (4, 5)
    assert torch.equal(logits, colour)


@torch.no_grad()
def test_in_half_precision_a_volume_does_not_depend_on_those_beside_it():
    model = tiny_slivit()
    many = torch.randint(0, 255, (40, 4, 1, 32, 32), dtype=torch.uint8)
    together = {}
    for model.precision in (torch.float32, torch.bfloat16):
        together[model.precision] = features_of(model, batch_of(many, [4] * 40))
    apart = torch.cat([features_of(model, batch_of(part, [4] * len(part)))
                       for part in many.split(7)])
    assert torch.equal(apart, together[torch.bfloat16])
    assert apart.dtype == torch.float32
    assert 0 < (apart - together[torch.float32]).abs().max() < 0.1


@torch.no_grad()
def test_in_half_precision_an_image_does_not_depend_on_those_beside_it():
    model = ImageClassifier(BACKBONE, 3, preprocess()).eval()
    model.precision = torch.bfloat16
    images = SLICES.flatten(0, 1)
    assert torch.allclose(torch.cat([model(images[:3]), model(images[3:])]), model(images),
                          atol=1e-6)


def test_half_precision_leaves_the_gradients_near(model):
    batch, gradients = batch_of(SLICES, [4, 3]), []
    for model.precision in (torch.float32, torch.bfloat16):
        model.zero_grad()
        run_model(model, batch).sum().backward()
        gradients.append(model.backbone.stem[0].weight.grad.clone())
    model.precision = torch.float32
    assert gradients[1].dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(*(one.flatten() for one in gradients), dim=0) > .99
