"""The methods of learning without labels that were tried beside the product's."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import BACKBONE, RUN_2D, preprocess

import bb_train
from benchmarks.candidates import masked, order
from benchmarks.candidates.masked import Masked
from benchmarks.candidates.order import Order
from slivit.checkpoints.pretrained import read_start
from slivit.models.backbone import BatchNorm, create_backbone
from slivit.models.slivit import feature_maps

SCRATCH = "convnext_zepto_rms_bn"


def noise(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", [BACKBONE, SCRATCH])
def test_hidden_pixels_are_not_looked_at(name):
    torch.manual_seed(0)
    method = Masked(name, preprocess(img_size=64)).train()
    hidden = masked.draw_hidden(3, 16)
    assert (hidden.sum(dim=1) == 10).all() and not torch.equal(hidden[0], hidden[1])
    slices = noise(3, 1, 64, 64)
    pixels = hidden.view(3, 1, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3)
    with torch.no_grad():
        first = method.predict(slices, hidden)
        assert torch.equal(first, method.predict(slices.masked_fill(pixels, 255), hidden))
        seen = method.predict(slices.masked_fill(~pixels, 255), hidden)
    assert first.shape == (3, 16, 256) and not torch.allclose(first, seen)


def test_hidden_patches_alone_count():
    images = noise(2, 32, 64).float()
    targets = masked.normalised(masked.patches(images))
    patch = images[1, 16:, 32:48]  # row 1, column 2 of 2 x 4 patches
    assert torch.allclose(targets[1, 6], ((patch - patch.mean()) / patch.std(correction=0)).ravel(),
                          atol=1e-4)
    hidden = torch.zeros(2, 8, dtype=torch.bool)
    hidden[0, 3] = hidden[1, 6] = True
    wrong = torch.where(hidden[..., None], targets + 2, 1e6)
    terms = masked.masked_loss(wrong, targets, hidden)
    assert float(terms["loss"]) == pytest.approx(4, rel=1e-3)
    assert float(terms["grey"]) == pytest.approx(1, rel=1e-3)
    assert masked.normalised(torch.full((1, 1, 256), 0.5)).abs().max() == 0  # flat: no noise


def test_visible_cells_are_normalised_among_themselves():
    norm, shown = BatchNorm(3), torch.tensor([1., 0, 0, 1]).view(1, 1, 2, 2)
    x = torch.randn(1, 3, 4, 4)
    result = masked.normalise_visible(norm, shown, x)
    visible = result[0, :, shown[0, 0].bool().repeat_interleave(2, 0).repeat_interleave(2, 1)]
    assert visible.mean(dim=1).abs().max() < 1e-6
    assert torch.allclose(visible.var(dim=1, correction=0), torch.ones(3), atol=1e-3)
    assert (result[0, :, :2, 2:] == 0).all() and (norm.running_mean == 0).all()
    alone = masked.normalise_visible(norm, shown, x[..., :1, :1])
    assert torch.allclose(alone, x[..., :1, :1], atol=1e-4)  # by the averages, 0 and 1


def test_averages_that_are_kept_are_those_of_whole_slices():
    torch.manual_seed(0)
    method, views = Masked(SCRATCH, preprocess()).train(), noise(8, 1, 1, 32, 32)
    other = Masked(SCRATCH, preprocess()).train()
    other.load_state_dict(method.state_dict())
    method(views, torch.zeros(8, 1), torch.arange(8))
    with torch.no_grad():
        feature_maps(other, views[::4, 0])
    ours, theirs = (dict(one.backbone.named_buffers()) for one in (method, other))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert method.backbone.stem[1].running_mean.abs().max() > 0
    method.eval()(views, torch.zeros(8, 1), torch.arange(8))  # validation changes nothing
    assert all(torch.equal(value, theirs[name]) for name, value in method.backbone.named_buffers())


def test_pairs_are_of_one_volume_and_their_distance_has_a_sign():
    first, second = order.pairs(torch.tensor([0, 0, 1, 1, 1]))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [
        (0, 1), (2, 3), (2, 4), (3, 4)]
    method = Order(BACKBONE, preprocess())
    asked = []
    method.head.forward = lambda features, *rows: asked.append(rows) or torch.zeros(2, 2)
    places = torch.tensor([[0.2, 0.8], [0.9, 0.4]])
    terms = method(noise(2, 2, 1, 32, 32), places, torch.tensor([0, 1]))
    assert [rows.tolist() for rows in asked[0]] == [[0, 2], [1, 3]]
    assert float(terms["far"]) == pytest.approx(0.55) and float(terms["distance"]) == 1
    assert float(terms["order"]) == pytest.approx(math.log(2))
    right = order.order_loss(torch.tensor([[9.0, 0.6], [-9, -0.5], [0, 0]]),
                             torch.tensor([0.6, -0.5, 0]))
    assert float(right["loss"]) < 1e-3  # two views of one slice have no order
    wrong = order.order_loss(torch.tensor([[-9.0, -0.6]]), torch.tensor([0.6]))
    assert float(wrong["order"]) > 9 and float(wrong["distance"]) == pytest.approx(4)


def test_a_pair_turned_around_has_the_negative_answer():
    torch.manual_seed(0)
    head, features, a, b = order.PairHead(5), torch.randn(4, 5), torch.arange(3), torch.arange(1, 4)
    assert torch.allclose(head(features, a, b), -head(features, b, a))
    assert head(features, a, a).abs().max() == 0


def test_they_tell_when_nothing_is_learned():
    method = Masked(BACKBONE, preprocess())
    assert method.complaint({"loss": 0.5, "grey": 0.99}) == ""
    assert "no better (error 0.980) than by grey ones (0.990)" in method.complaint(
        {"loss": 0.98, "grey": 0.99})
    method = Order(BACKBONE, preprocess())
    assert method.complaint({"order": 0.5, "far": 0.3}) == ""
    assert "guessed (cross-entropy 0.690; guessing has 0.693)" in method.complaint(
        {"order": 0.69, "far": 0.3})
    assert "no two slices are of different places" in method.complaint({"order": 0.0, "far": 0.0})


@pytest.mark.parametrize(("method", "name"), [(Masked, SCRATCH), (Order, BACKBONE)])
def test_two_steps_leave_a_backbone_that_finetune_reads(method, name, tmp_path):
    rng, rows = np.random.default_rng(0), []
    for k in range(6):
        np.save(tmp_path / f"{k}.npy", rng.integers(0, 256, (6, 32, 32), dtype=np.uint8))
        rows.append((k, f"{k}.npy", "train" if k < 4 else "val"))
    table = pd.DataFrame(rows, columns=["F_Name", "Path", "Split"])
    table.to_csv(tmp_path / "meta.csv", index=False)
    out = tmp_path / "run"
    bb_train.main(["--task", "ssl", "--meta_csv", str(tmp_path / "meta.csv"), *RUN_2D, "--quiet",
                   "--backbone", name, "--n_epochs", "1", "--b_size", "2", "--slices_per_volume",
                   "3", "--flips", "none", "--out_dir", str(out)], method)
    log = pd.read_csv(out / "log.csv")
    assert np.isfinite(log[["train_loss", "val_loss"]]).all(axis=None)
    start = read_start(out / "backbone.safetensors")
    backbone = create_backbone(start.backbone)
    before = backbone.state_dict()["stem.0.weight"].clone()
    start.load_into(backbone)
    assert start.backbone == name
    assert not torch.equal(before, backbone.state_dict()["stem.0.weight"])
