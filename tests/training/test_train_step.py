"""One step of training: the same gradient in chunks and in parts, mixup, averages of weights."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import BACKBONE, TINY_VIT, array_scans, fit_options, preprocess, scan_pixels

from slivit.config import Target
from slivit.data.batch import Batch, model_inputs
from slivit.data.datasets import ScanDataset, TrainingSet, make_loader
from slivit.models.slivit import SLIViT
from slivit.training.losses import Objective
from slivit.training.mixup import mix
from slivit.training.optim import backbone_groups, moving_average, parameter_groups
from slivit.training.progress import Progress
from slivit.training.train_step import Phase, compute_gradient, start_phase, update_weights
from slivit.utils.session import Session

CPU = torch.device("cpu")
TARGET = Target("multilabel", ("a", "b"))
LABELS = np.array([[0, 1], [1, np.nan], [np.nan, np.nan], [1, 0], [np.nan, 1]])


def volumes_in_batches(size, views=("acquisition",)):
    """Return five volumes of unlike content in batches, some labels unknown."""
    rng = np.random.default_rng(0)
    volumes = np.stack([scan_pixels(rng, i % 2 == 0, (6, 32, 32)) for i in range(5)])
    way = preprocess(4, views=views)
    dataset = ScanDataset(array_scans(volumes, LABELS), np.arange(5), way)
    batches = list(make_loader(dataset, size, 0, CPU))
    batches[0].mask[0, 2:4] = False  # a shorter volume
    return batches


def gradients(batches, slices_per_step=0, views=("acquisition",)):
    """Return the gradient of one step on a group of batches, and its loss."""
    torch.manual_seed(0)
    model = SLIViT(BACKBONE, 2, preprocess(4, views=views), TINY_VIT)
    model.slices_per_step = slices_per_step
    chosen = fit_options(accumulate=len(batches), clip_grad=1e9)
    data = TrainingSet(None, 1, None, lambda batch: model_inputs(batch, model.preprocess))
    phase = Phase(1, 1, parameter_groups(model, 0.0, 0.0), data)
    loop = start_phase(model, None, phase, Objective(TARGET), chosen, Session(CPU))
    model.train()
    loss, count = compute_gradient(loop, batches, Progress())
    update_weights(loop)
    return torch.cat([p.grad.flatten() for p in model.parameters()]), loss / count


@pytest.mark.parametrize("views", [("acquisition",), ("axial", "coronal", "sagittal")])
@pytest.mark.parametrize(("size", "slices"), [(5, 3), (2, 0), (1, 0), (2, 1), (3, 100)])
def test_chunks_and_parts_have_the_gradient_of_the_whole(size, slices, views):
    whole, loss = gradients(volumes_in_batches(5, views), views=views)
    parts, same = gradients(volumes_in_batches(size, views), slices, views)
    assert same == pytest.approx(loss, rel=1e-5)
    assert float((whole - parts).abs().max()) < 1e-5 * float(whole.abs().max())
    assert float(whole.abs().max()) > 1e-3


@pytest.mark.parametrize(("token", "most"), [("pool", 3), ("channels_width", 4)])
def test_a_cpu_takes_few_slices_at_a_time(token, most, monkeypatch):
    batch = volumes_in_batches(5)[0]
    torch.manual_seed(0)
    model = SLIViT(BACKBONE, 2, preprocess(4), dataclasses.replace(TINY_VIT, token=token)).eval()
    slices = []
    model.backbone.stem.register_forward_pre_hook(
        lambda _, args: slices.append(args[0][:, 0].numel() // 32 ** 2))
    inputs = model_inputs(batch, model.preprocess)
    whole = model.token_features(*inputs)[0]
    monkeypatch.setattr("slivit.models.slivit.CPU_PIXELS", 3 * 32 ** 2)
    torch.testing.assert_close(model.token_features(*inputs)[0], whole)
    assert slices[0] > max(slices[1:]) == most


def test_mixup_blends_scans_labels_and_masks():
    batch = volumes_in_batches(5)[0]
    mixed, again = mix(batch, 0.4, 3), mix(batch, 0.4, 3)
    assert torch.equal(mixed.x, again.x)
    rng = np.random.default_rng(3)
    share, other = rng.beta(0.4, 0.4), rng.permutation(5)
    expected = batch.x * share + batch.x[other] * (1 - share)
    assert (mixed.x.float() - expected).abs().max() <= 0.5
    assert torch.equal(mixed.mask, batch.mask | batch.mask[other])
    unknown = torch.isnan(batch.y)
    assert torch.equal(torch.isnan(mixed.y), unknown | unknown[other])
    assert mix(batch, 0.0, 3) is batch
    features = dataclasses.replace(batch, x=torch.rand(5, 4, 8))
    assert mix(features, 0.4, 3).x.is_floating_point()


def test_layer_decay_falls_towards_the_stem():
    backbone = SLIViT(BACKBONE, 1, preprocess(4), TINY_VIT).backbone
    groups = backbone_groups(backbone, 1.0, 0.5, 0.8)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert len(rate) == len(list(backbone.parameters()))
    names = dict(backbone.named_parameters())
    rates = [rate[id(names[name])] for name in
             ("stem.0.weight", "stages.0.blocks.0.conv_dw.weight",
              "stages.2.blocks.0.conv_dw.weight", "stages.3.blocks.0.conv_dw.weight")]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1] <= 1


def test_average_of_weights_forgets_its_start():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 100.0)
    ema = moving_average(model, 0.9)
    ema.update_parameters(model)
    torch.nn.init.constant_(model.weight, 1.0)
    values = []
    for _ in range(100):
        ema.update_parameters(model)
        values.append(ema.module.weight.item())
    assert values[0] == pytest.approx(100 - 99 * (1 - 2 / 11))
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(1, abs=0.05)


def test_padding_scan_has_no_gradient():
    batch = volumes_in_batches(5)[0]
    empty = Batch(batch.x[:1], batch.mask[:1], torch.full((1, 2), torch.nan))
    gradient, _ = gradients([batch, empty])
    alone, _ = gradients([batch])
    assert float((gradient - alone).abs().max()) < 1e-6 * float(alone.abs().max())
