"""Frozen backbone: features computed once stand for the backbone."""

import dataclasses
import json
import os

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import RUN_3D, features_of, run_evaluate
from safetensors.torch import load_file

import finetune
from slivit.checkpoints import checkpoint
from slivit.checkpoints.trained import load_trained
from slivit.config import Augmentation
from slivit.data.datasets import ScanDataset, make_loader
from slivit.data.meta_csv import read_meta
from slivit.models.outputs import to_predictions
from slivit.models.slivit import SLIViT
from slivit.training.frozen_features import FeatureOptions, fill, frozen_training_set, open_stores
from slivit.utils.session import Session

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def frozen_run(volume_csv, backbone_run, tmp_path_factory):
    """A frozen fine-tuning run on the label A."""
    out = tmp_path_factory.mktemp("runs") / "frozen"
    finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", *RUN_3D[4:], "--bb_path",
                   str(backbone_run / "backbone.safetensors"), "--freeze_backbone",
                   "--feature_augments", "1", "--n_epochs", "2", "--out_dir", str(out)])
    return out


@pytest.fixture
def frozen(frozen_run, volume_csv):
    """The trained model, and its scans."""
    model = load_trained(frozen_run / "slivit.safetensors", CPU).model
    return model, read_meta(volume_csv, 3, ["A"])


def stores_of(model, scans, folder, rows, copies=1, seed=5):
    """Fill the stores of some rows."""
    options = FeatureOptions(copies, Augmentation(), 4, seed)
    stores = open_stores(model, scans, options, folder)
    for store in stores:
        fill(store, rows, model, options.b_size, Session(CPU))
    return stores


def test_frozen_backbone_is_untouched(frozen_run, backbone_run):
    trained = load_file(frozen_run / "slivit.safetensors")
    given = load_file(backbone_run / "backbone.safetensors")
    kept = [key for key in trained if key.startswith("backbone.")]
    assert len(kept) > 50
    assert all(torch.equal(trained[key], given[key.removeprefix("backbone.")]) for key in kept)


def test_frozen_run_leaves_the_same_files_and_no_features(frozen_run, binary_run):
    left, others = ({path.name for path in run.iterdir()} - {"worst"}  # only where a scan is wrong
                    for run in (frozen_run, binary_run))
    assert left == others


@torch.no_grad()
def test_features_are_those_of_the_backbone(frozen, tmp_path):
    model, scans = frozen
    rows = scans.rows("test")
    plain, augmented = stores_of(model, scans, tmp_path, rows)
    dataset = ScanDataset(scans, rows, model.preprocess)
    batch = next(iter(make_loader(dataset, 3, 0, CPU)))
    assert np.allclose(plain.x[rows[:3]], features_of(model, batch).numpy(), atol=1e-4)
    assert np.array_equal(plain.mask[rows[:3]], batch.mask.numpy())
    assert not np.allclose(plain.x[rows], augmented.x[rows], atol=1e-2)
    others = np.setdiff1d(np.arange(len(scans)), rows)
    assert not plain.mask[others].any()


def test_features_are_computed_once_and_by_what_they_depend_on(frozen, tmp_path, monkeypatch):
    model, scans = frozen
    first = stores_of(model, scans, tmp_path, scans.rows("test"))
    with monkeypatch.context() as patch:
        patch.setattr(SLIViT, "slice_features", None)
        again = stores_of(model, scans, tmp_path, scans.rows("test"))
    assert all(np.array_equal(a.x, b.x) for a, b in zip(first, again, strict=True))
    computed = []
    run = SLIViT.slice_features
    monkeypatch.setattr(SLIViT, "slice_features",
                        lambda self, x, mask: computed.append(len(mask)) or run(self, x, mask))
    stores_of(model, scans, tmp_path, scans.rows("val"), copies=0)
    assert sum(computed) == 6  # rows that were not there
    stores_of(model, scans, tmp_path, scans.rows("val"), seed=6)
    assert sum(computed) == 12  # the augmented version of another seed
    model.preprocess = dataclasses.replace(model.preprocess, window="full")
    stores_of(model, scans, tmp_path, scans.rows("val"), copies=0)
    assert sum(computed) == 18
    with torch.no_grad():
        next(model.backbone.parameters()).add_(1e-3)
    stores_of(model, scans, tmp_path, scans.rows("val"), copies=0)
    assert sum(computed) == 24
    os.utime(scans.read.paths[1], ns=(1, 1))
    stores_of(model, scans, tmp_path, scans.rows("val"), copies=0)
    assert sum(computed) == 30


def test_every_volume_comes_once_in_an_epoch(frozen, tmp_path):
    model, scans = frozen
    options = FeatureOptions(2, Augmentation(), 5, 7)
    data = frozen_training_set(model, scans, options, tmp_path, Session(CPU))
    scans = scans.with_labels(["row"], np.arange(len(scans), dtype=np.float32)[:, None])
    named = frozen_training_set(model, scans, options, tmp_path, Session(CPU))
    epochs = [torch.cat([batch.y for batch in named.batches(epoch, 0)])[:, 0].tolist()
              for epoch in (1, 1, 2)]
    assert epochs[0] == epochs[1] != epochs[2]
    assert sorted(epochs[2]) == scans.rows("train").tolist()
    assert torch.cat([batch.y for batch in named.batches(2, 1)])[:, 0].tolist() == epochs[2][5:]
    assert torch.cat([b.y for b in named.validation()])[:, 0].tolist() == scans.rows("val").tolist()
    assert data.count == 3
    assert all(batch.x.shape[1:] == (4, model.feature_dim) for batch in data.batches(1, 0))


@torch.no_grad()
def test_checkpoint_predicts_what_the_features_gave(frozen, frozen_run, tmp_path):
    model, scans = frozen
    rows = scans.rows("test")
    plain = stores_of(model, scans, tmp_path, rows, copies=0)[0]
    target = checkpoint.read(frozen_run / "slivit.safetensors")[0].target
    logits = model.integrator(torch.from_numpy(plain.x[rows]), torch.from_numpy(plain.mask[rows]))
    table = pd.read_csv(frozen_run / "predictions.csv")
    assert np.allclose(to_predictions(logits.numpy(), target)[:, 0], table["A_pred"], atol=1e-5)
    assert json.loads((frozen_run / "metrics.json").read_text())["n"] == len(table) == 6


def test_unfreezing_trains_the_backbone_from_then_on(volume_csv, backbone_run, tmp_path):
    command = ["--meta_csv", str(volume_csv), "--pathologies", "A", *RUN_3D[4:], "--bb_path",
               str(backbone_run / "backbone.safetensors"), "--freeze_backbone", "--patience", "0",
               "--unfreeze_after", "2", "--cache_dir", str(tmp_path / "cache")]
    finetune.main([*command, "--n_epochs", "3", "--out_dir", str(tmp_path / "out")])
    trained = load_file(tmp_path / "out/slivit.safetensors")
    last = torch.load(tmp_path / "out/last.pt", weights_only=True)
    given = load_file(backbone_run / "backbone.safetensors")
    stem = "backbone.stem.0.weight"
    assert not torch.equal(last["model"][stem], given["stem.0.weight"])
    assert last["progress"]["phase"] == 1
    assert trained[stem].shape == given["stem.0.weight"].shape
    assert len(list((tmp_path / "cache/features").iterdir())) == 1
    run_evaluate(tmp_path / "out/slivit.safetensors", tmp_path / "eval", "--meta_csv", volume_csv)
    assert ((tmp_path / "eval/predictions.csv").read_bytes()
            == (tmp_path / "out/predictions.csv").read_bytes())
