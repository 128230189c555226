"""Where a model looked: the attention that is read off, and whether it finds what it should."""

import copy
import dataclasses
import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import BACKBONE, TINY_VIT, features_of, preprocess, tiny_slivit
from scipy.stats import spearmanr

from slivit.data.batch import Batch
from slivit.explain.saliency import explain, grad_cam, recorded_attention, relevance, rollout
from slivit.models.slivit import ImageClassifier, SLIViT
from slivit.prediction import run_model

SLICES = torch.randint(0, 255, (1, 6, 1, 64, 64), dtype=torch.uint8,
                       generator=torch.Generator().manual_seed(0))
SEED = 0


make_model = functools.partial(tiny_slivit, n_slices=6, img_size=64, depth=2)


def batch_of(x, real=None):
    """Return a batch of volumes (B, S, C, H, W) of which some slices are real, by default all."""
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    if real is not None:
        mask[:] = torch.tensor(real)
    return Batch(x * mask[..., None, None, None], mask, torch.zeros(len(x), 1))


PADDED = [True, True, False, True, False, False]


@pytest.mark.parametrize(("model", "real", "step"), [
    (make_model(), None, 0), (make_model(token="pool"), PADDED[::-1], 0),
    (make_model(n_slices=3, views=("axial", "coronal")), PADDED, 2)], ids=["all", "pool", "views"])
def test_explained_pass_predicts_as_the_model_does(model, real, step):
    batch = batch_of(SLICES, real)
    model.slices_per_step = step
    with torch.no_grad():
        logits = run_model(model, batch)[0].numpy()
    found = explain(model, batch, 1)
    assert np.allclose(found.logits, logits, atol=1e-5)
    count = int(batch.mask.sum())
    assert found.rollout.shape == found.relevance.shape == (count,)
    assert found.cams.shape == (count, 2, 2)
    assert found.rollout.sum() == pytest.approx(1) and found.relevance.sum() == pytest.approx(1)


def test_slices_of_a_linear_integrator_weigh_what_they_add_to_the_output():
    model, batch = make_model(kind="linear", token="pool"), batch_of(SLICES, PADDED)
    with torch.no_grad():
        features = features_of(model, batch)
        model.integrator.head.weight[:, features.shape[2]:] = 0  # the mean alone: slices add up
        logit = run_model(model, batch)[0, 1]
        parts = features[batch.mask] @ model.integrator.head.weight[1, :features.shape[2]] / 3
        bias = float(model.integrator.head.bias[1])
    found = explain(model, batch, 1)
    assert found.rollout is None
    assert float(parts.sum()) + bias == pytest.approx(float(logit), abs=1e-5)
    wanted = parts.clamp(min=0)
    assert np.allclose(found.relevance, wanted / wanted.sum(), atol=1e-4)


def test_rollout_rows_sum_to_one_and_padding_weighs_nothing():
    model, batch = make_model(), batch_of(SLICES, PADDED)
    with torch.no_grad(), recorded_attention(model.integrator) as attentions:
        model.integrator(features_of(model, batch), batch.mask)
    assert [one.shape for one in attentions] == [(1, 2, 7, 7)] * 2
    total = rollout([one[0] for one in attentions])
    assert torch.allclose(total.sum(dim=1), torch.ones(7))
    assert total[0, 1:][~batch.mask[0]].tolist() == [0, 0, 0]


def test_rollout_and_relevance_by_hand():
    first, last = torch.tensor([[[0.5, 0.5], [0, 1.0]]]), torch.tensor([[[1.0, 0], [0.5, 0.5]]])
    # With the identity and halved: [[.75, .25], [0, 1]], then [[1, 0], [.25, .75]].
    assert torch.allclose(rollout([first, last]), torch.tensor([[0.75, 0.25], [0.1875, 0.8125]]))
    gradient = torch.tensor([[[2.0, 4.0], [1.0, -3.0]]])
    # Positive parts: [[1, 2], [0, 0]], then [[2, 0], [.5, 0]].
    assert torch.allclose(relevance([first, last], [gradient, gradient]),
                          torch.tensor([[6.0, 6.0], [1.0, 2.0]]))


def test_grad_cam_by_hand():
    maps = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    gradients = torch.tensor([[[[1.0, 3.0]], [[-1.0, -1.0]]]])  # means 2 and -1
    assert grad_cam(maps, gradients).tolist() == [[[0, 4]]]


def test_model_is_left_as_it_was():
    model = make_model().train()
    model.backbone.eval().requires_grad_(False)
    modes = [module.training for module in model.modules()]
    needed = [p.requires_grad for p in model.parameters()]
    with torch.no_grad():
        explain(model, batch_of(SLICES), 0)
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == needed
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_outputs_are_explained_each_on_its_own():
    model, batch = make_model(), batch_of(SLICES)
    one, other = (explain(model, batch, k) for k in (0, 1))
    assert np.allclose(one.rollout, other.rollout)
    assert not np.allclose(one.relevance, other.relevance)
    assert not np.allclose(one.cams, other.cams)


def test_images_get_grad_cam_alone():
    torch.manual_seed(0)
    model = ImageClassifier(BACKBONE, 2, preprocess(0, img_size=64)).eval()
    batch = batch_of(SLICES[:, :1])
    found = explain(model, batch, 1)
    assert np.allclose(found.logits, run_model(model, batch)[0].detach().numpy(), atol=1e-5)
    assert found.rollout is None and found.relevance is None
    assert found.cams.shape == (1, 2, 2) and found.cams.max() > 0


def blob_volumes(n, seed):
    """Return noise (n, 6, 1, 64, 64) with a bright disc in one slice of each odd volume.

    Returns:
        Volumes, and the numbers of slice, row and column (of four cells) of the discs (n, 3).
    """
    rng = np.random.default_rng(seed)
    volumes = rng.integers(30, 60, (n, 6, 1, 64, 64), dtype=np.uint8)
    places = rng.integers((6, 2, 2), size=(n, 3))
    grid = np.mgrid[:64, :64]
    for volume, (number, *cell) in list(zip(volumes, places, strict=True))[1::2]:
        centre = 16 + 32 * np.array(cell) + rng.uniform(-2, 2, 2)
        volume[number, 0, ((grid - centre[:, None, None]) ** 2).sum(axis=0) < 13 ** 2] = 220
    return torch.from_numpy(volumes), places


def train_on_blobs(seed):
    """Return a SLIViT that tells volumes with a disc from others, by a frozen random backbone."""
    torch.manual_seed(seed)
    vit = dataclasses.replace(TINY_VIT, token="pool", dim=64, depth=2, heads=8, head_dim=16,
                              mlp_dim=128)
    model = SLIViT(BACKBONE, 1, preprocess(6, img_size=64), vit).eval()
    volumes, _ = blob_volumes(96, seed)
    labels = (torch.arange(len(volumes)) % 2).float()[:, None]
    mask = torch.ones(len(volumes), 6, dtype=torch.bool)
    with torch.no_grad():
        features = torch.cat([features_of(model, batch_of(part)) for part in volumes.split(16)])
    optimizer = torch.optim.AdamW(model.integrator.parameters(), lr=1e-3)
    loss = 1.0
    for _ in range(400):
        some = torch.randperm(len(volumes))[:32]
        now = F.binary_cross_entropy_with_logits(model.integrator(features[some], mask[some]),
                                                 labels[some])
        optimizer.zero_grad()
        now.backward()
        optimizer.step()
        loss = 0.9 * loss + 0.1 * now.item()
        if loss < 0.1:  # more would saturate attention, and its gradient vanish
            break
    return model


@pytest.fixture(scope="module")
def blobs():
    """A trained model, positives that it has not seen, where their discs are, what it says."""
    model = train_on_blobs(SEED)
    volumes, places = blob_volumes(40, SEED + 1000)
    volumes, places = volumes[1::2], places[1::2]
    return model, volumes, places, explain_all(model, volumes)


def explain_all(model, volumes):
    """Explain each volume on its own."""
    return [explain(model, batch_of(one[None]), 0) for one in volumes]


def test_the_slice_with_the_blob_is_the_top_slice(blobs):
    _, _, places, found = blobs
    assert np.mean([one.logits[0] > 0 for one in found]) >= 0.9
    for weights in ([one.relevance for one in found], [one.rollout for one in found]):
        assert np.mean(np.argmax(weights, axis=1) == places[:, 0]) >= 0.9


def test_random_weights_give_other_maps(blobs):
    """Source: the model parameter randomisation test of Adebayo et al. 2018."""
    model, volumes, _, found = blobs
    alike = [likeness(found[:10], explain_all(randomised(model, seed), volumes[:10]))
             for seed in range(4)]
    assert (np.abs(np.mean(alike, axis=0)) < 0.4).all(), alike


def randomised(model, seed):
    """Return a copy of a model with random matrices."""
    spoiled = copy.deepcopy(model)
    torch.manual_seed(seed)
    for parameter in spoiled.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return spoiled


def likeness(found, others):
    """Return the mean rank correlation of rollout, relevance and Grad-CAM of the same volumes."""
    return [float(np.nanmean([spearmanr(getattr(one, name).ravel(),
                                        getattr(other, name).ravel()).statistic
                              for one, other in zip(found, others, strict=True)]))
            for name in ("rollout", "relevance", "cams")]
