"""Frozen backbone: features computed once stand for the backbone."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import RUN_3D
from safetensors.torch import load_file

import finetune
from slivit import checkpoint
from slivit.config import Augmentation
from slivit.datasets import ScanDataset, make_loader
from slivit.features import compute_features
from slivit.meta import read_meta
from slivit.tasks import to_predictions

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def frozen_run(volume_csv, backbone_run, tmp_path_factory):
    """A frozen fine-tuning run on the label A."""
    out = tmp_path_factory.mktemp("runs") / "frozen"
    finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", *RUN_3D[4:], "--bb_path",
                   str(backbone_run / "backbone.safetensors"), "--freeze_backbone",
                   "--feature_augments", "1", "--n_epochs", "2", "--out_dir", str(out)])
    return out


@pytest.fixture(scope="module")
def features(frozen_run, volume_csv, tmp_path_factory):
    """Model, scans, and features of the test volumes: plain, augmented, augmented alike."""
    _, model = checkpoint.load(frozen_run / "slivit.safetensors")
    scans = read_meta(volume_csv, 3, ["A"])
    rows = scans.rows("test")
    versions = [ScanDataset(scans, rows, model.preprocess),
                *(ScanDataset(scans, rows, model.preprocess, Augmentation(), 5) for _ in range(2))]
    path = tmp_path_factory.mktemp("features") / "x.npy"
    return model, versions[0], compute_features(model, versions, 4, 0, CPU, path)


def test_frozen_backbone_is_untouched(frozen_run, backbone_run):
    trained = load_file(frozen_run / "slivit.safetensors")
    given = load_file(backbone_run / "backbone.safetensors")
    kept = [key for key in trained if key.startswith("backbone.")]
    assert len(kept) > 50
    assert all(torch.equal(trained[key], given[key.removeprefix("backbone.")]) for key in kept)


def test_frozen_run_leaves_the_same_files_and_no_features(frozen_run, binary_run):
    assert {path.name for path in frozen_run.iterdir()} == {path.name
                                                            for path in binary_run.iterdir()}


@torch.no_grad()
def test_features_are_those_of_the_backbone(features):
    model, dataset, found = features
    batch = next(iter(make_loader(dataset, 3, 0, CPU)))
    expected = model.slice_features(batch)
    assert np.allclose(found.x[0, :3], expected.numpy(), atol=1e-4)
    assert torch.equal(found.mask[:3], batch.mask)
    assert torch.equal(found.y[:3].isnan(), batch.y.isnan())
    assert not np.allclose(found.x[0], found.x[1], atol=1e-2)
    assert (found.x[1] == found.x[2]).all()


def test_every_volume_comes_once_whatever_its_copy(features):
    found = features[2]
    shuffled = [list(found.batches(4, seed)) for seed in (1, 1, 2)]
    masks = [torch.cat([batch.mask for batch in batches]) for batches in shuffled]
    assert torch.equal(masks[0], masks[1])
    assert sorted(mask.sum().item() for mask in masks[2].unbind()) == sorted(
        mask.sum().item() for mask in found.mask.unbind())
    plain = torch.cat([batch.x for batch in found.batches(4)])
    assert np.array_equal(plain.numpy(), found.x[0])


@torch.no_grad()
def test_checkpoint_predicts_what_the_features_gave(features, frozen_run):
    model, _, found = features
    target = checkpoint.read(frozen_run / "slivit.safetensors")[0].target
    logits = torch.cat([model.integrator(batch.x, batch.mask) for batch in found.batches(4)])
    table = pd.read_csv(frozen_run / "predictions.csv")
    assert np.allclose(to_predictions(logits.numpy(), target)[:, 0], table["A_pred"], atol=1e-5)
    assert json.loads((frozen_run / "metrics.json").read_text())["n"] == len(table) == 6
