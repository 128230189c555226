"""Several views of a volume at once, from the options to the predictions."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import RUN_3D, TINY_VIT, features_of, file_scans, preprocess, run_evaluate, tiny_slivit
from safetensors.torch import load_file
from scan_files import scan_affine, write_nifti

import finetune
from slivit.checkpoints import checkpoint
from slivit.config import Augmentation
from slivit.data.batch import Batch, model_slices
from slivit.data.datasets import ScanDataset, make_loader
from slivit.data.transforms import adjacent
from slivit.models.integrator import Integrator
from slivit.prediction import run_model
from slivit.training.optim import parameter_groups
from slivit.utils.errors import UserError

CPU = torch.device("cpu")
VIEWS = ("axial", "coronal", "sagittal")


def test_a_run_of_three_views_and_adjacent_slices_reloads_and_predicts_the_same(volume_csv,
                                                                                tmp_path):
    finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", "--n_epochs", "1", *RUN_3D,
                   "--views", ",".join(VIEWS), "--channels", "adjacent", "--out_dir",
                   str(tmp_path / "run")])
    _, found = run_evaluate(tmp_path / "run/slivit.safetensors", tmp_path / "out", "--meta_csv",
                            volume_csv)
    before = pd.read_csv(tmp_path / "run/predictions.csv")
    pd.testing.assert_frame_equal(found, before, rtol=1e-5)
    assert "adjacent slices as channels" in (tmp_path / "out/report.md").read_text()
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["preprocess"]["views"] == list(VIEWS)
    state = load_file(tmp_path / "run/slivit.safetensors")
    assert state["integrator.view_embed"].shape == (1, 3, 16)
    assert state["integrator.pos_embed"].shape == (1, 5, 16)


def test_views_train_on_a_frozen_backbone(volume_csv, backbone_run, tmp_path):
    finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", "--n_epochs", "1",
                   *RUN_3D[4:], "--bb_path", str(backbone_run / "backbone.safetensors"),
                   "--freeze_backbone", "--feature_augments", "1", "--views", "axial,sagittal",
                   "--out_dir", str(tmp_path / "run")])
    _, found = run_evaluate(tmp_path / "run/slivit.safetensors", tmp_path / "out", "--meta_csv",
                            volume_csv)
    before = pd.read_csv(tmp_path / "run/predictions.csv")
    pd.testing.assert_frame_equal(found, before, rtol=1e-4)


@pytest.mark.usefixtures("unmeasured")
def test_another_axis_is_recorded_in_the_checkpoint(volume_csv, tmp_path):
    finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", "--n_epochs", "1", *RUN_3D,
                   "--slice_axis", "2", "--out_dir", str(tmp_path / "run")])
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["preprocess"]["views"] == ["2"]
    card, _ = checkpoint.read(tmp_path / "run/slivit.safetensors")
    assert card.preprocess.views == ("2",)


def test_views_and_an_axis_contradict_each_other(tmp_path):
    with pytest.raises(UserError, match="--views and --slice_axis cannot be combined; give only "
                                        "one"):
        finetune.main(["--views", "axial,coronal", "--slice_axis", "coronal", "--out_dir",
                       str(tmp_path / "out")])


@pytest.mark.parametrize(("option", "value"), [
    ("--views", "axial,axial"), ("--views", "axial,0"), ("--views", ""), ("--slice_axis", "3"),
    ("--slice_axis", "axial,coronal")])
def test_unknown_views_are_refused_by_the_parser(option, value, capsys):
    with pytest.raises(SystemExit) as stop:
        finetune.main([option, value])
    assert stop.value.code == 2
    expected = "one or more of" if option == "--views" else "one of acquisition,"
    assert f"argument {option}: {value!r}: expected {expected}" in capsys.readouterr().err


def batch_of(tmp_path, volumes, options, **augmented):
    """Return the one batch of these volumes, saved as NIfTI."""
    scans = file_scans(*(write_nifti(tmp_path / f"{k}.nii", volume, scan_affine("axial"))
                         for k, volume in enumerate(volumes)))
    dataset = ScanDataset(scans, np.arange(len(scans)), options, **augmented)
    return next(iter(make_loader(dataset, len(scans), 0, CPU)))


def test_every_view_has_its_own_places_in_a_batch(tmp_path):
    """Four slices of 5 x 2 pixels: 4 axial, 5 coronal and 2 sagittal ones, at most 3 of each."""
    rng = np.random.default_rng(0)
    volumes = [rng.integers(1, 255, shape, dtype=np.uint8) for shape in ((4, 5, 2), (2, 3, 3))]
    batch = batch_of(tmp_path, volumes, preprocess(3, views=VIEWS))
    assert batch.mask.tolist() == [[True] * 3 + [True] * 3 + [True, True, False],
                                   [True, True, False] + [True] * 3 + [True] * 3]
    assert batch.x.shape == (2, 9, 1, 32, 32)
    assert not batch.x[~batch.mask].any()
    assert batch.x[batch.mask].flatten(1).any(dim=1).all()


@torch.no_grad()
def test_what_the_padding_holds_changes_nothing(tmp_path):
    rng = np.random.default_rng(0)
    volumes = [rng.integers(1, 255, shape, dtype=np.uint8) for shape in ((4, 5, 2), (1, 3, 3))]
    volumes[1] = volumes[1].repeat(2, axis=0)
    batch = batch_of(tmp_path, volumes, preprocess(3, views=VIEWS))
    model = tiny_slivit(3, views=VIEWS)
    dirty = Batch(batch.x.clone(), batch.mask, batch.y)
    dirty.x[~batch.mask] = torch.from_numpy(rng.integers(0, 255, (2, 1, 32, 32), dtype=np.uint8))
    assert torch.equal(run_model(model, batch), run_model(model, dirty))
    features = features_of(model, batch)
    spoiled = features.clone()
    spoiled[~batch.mask] = float("nan")
    assert torch.equal(model.integrator(features, batch.mask),
                       model.integrator(spoiled, batch.mask))


@torch.no_grad()
def test_the_same_slices_in_another_view_are_something_else():
    integrator = Integrator(6, 3, 2, TINY_VIT, n_views=2).eval()
    features, mask = torch.randn(1, 6, 6), torch.ones(1, 6, dtype=torch.bool)
    swapped = features[:, [3, 4, 5, 0, 1, 2]]
    assert not torch.allclose(integrator(features, mask), integrator(swapped, mask), atol=1e-6)
    integrator.view_embed[:] = 0
    assert torch.allclose(integrator(features, mask), integrator(swapped, mask), atol=1e-6)


def test_view_embedding_is_there_for_several_views_alone_and_learns():
    assert tiny_slivit(views=("coronal",)).integrator.view_embed is None
    model = tiny_slivit(2, views=VIEWS).train()
    names = [name for name, _ in model.named_parameters() if "view_embed" in name]
    assert names == ["integrator.view_embed"]
    plain = parameter_groups(model, 0.1, 0.5)[1]
    assert any(p is model.integrator.view_embed for p in plain["params"])
    slices = torch.randint(0, 255, (12, 1, 32, 32), dtype=torch.uint8)
    model(slices, torch.ones(2, 6, dtype=torch.bool)).square().sum().backward()
    assert model.integrator.view_embed.grad.abs().sum(dim=2).gt(0).all()


def test_views_of_one_scan_are_flipped_alike(tmp_path):
    """What the model sees of a flipped scan is what it sees of a scan that lay the other way."""
    volume = np.random.default_rng(0).integers(0, 255, (32, 32, 32), dtype=np.uint8)
    options = preprocess(32, views=VIEWS)
    for letter, axis in zip("zvh", range(3), strict=True):
        plain, turned = (model_slices(batch_of(tmp_path, [scan], options), options)
                         for scan in (volume, np.flip(volume, axis).copy()))
        seen = set()
        for seed in range(9):
            batch = batch_of(tmp_path, [volume], options, seed=seed,
                             augmentation=Augmentation(letter, 0))
            found = model_slices(batch, options)
            flipped = bool(batch.transforms[0, "zvh".index(letter)])
            assert torch.equal(found, turned if flipped else plain)
            seen.add(flipped)
        assert seen == {True, False}


def test_every_scan_of_a_batch_has_a_transform_of_its_own(tmp_path):
    volumes = np.random.default_rng(0).integers(1, 255, (3, 5, 33, 34), dtype=np.uint8)
    options = preprocess(4, views=VIEWS)
    batch = batch_of(tmp_path, volumes, options, augmentation=Augmentation(), seed=1)
    together = model_slices(batch, options).split([12, 12, 12])
    assert len(torch.unique(batch.transforms, dim=0)) == 3
    for row in range(3):
        alone = Batch(batch.x[[row]], batch.mask[[row]], batch.y[[row]], batch.transforms[[row]])
        assert torch.equal(model_slices(alone, options), together[row])


def test_adjacent_slices_are_channels_within_each_volume_and_view(tmp_path):
    """Neighbours are those of the same view after flips; padding is no neighbour."""
    volume = np.arange(1, 4, dtype=np.uint8)[:, None, None] * np.ones((1, 40, 40), np.uint8)
    longer = np.arange(4, 9, dtype=np.uint8)[:, None, None] * np.ones((1, 40, 40), np.uint8)
    options = dataclasses.replace(preprocess(5), channels="adjacent")
    found = model_slices(batch_of(tmp_path, [volume, longer], options), options)[:, :, 7, 7]
    assert found.tolist() == [[1, 1, 2], [1, 2, 3], [2, 3, 3],
                              [4, 4, 5], [4, 5, 6], [5, 6, 7], [6, 7, 8], [7, 8, 8]]
    batch = batch_of(tmp_path, [volume], options)
    batch.transforms = torch.tensor([[1.0, *[0] * 8]], dtype=torch.float64)  # z is turned round
    assert model_slices(batch, options)[:, :, 7, 7].tolist() == [[3, 3, 2], [3, 2, 1], [2, 1, 1]]
    two = dataclasses.replace(preprocess(5, views=VIEWS[:2]), channels="adjacent")
    batch = Batch(batch.x[:, :4].repeat(1, 2, 1, 1, 1)[:, [0, 1, 2, 3, 3, 0, 1, 2, 3, 3]],
                  batch.mask[:, [0, 1, 2, 3, 3]].repeat(1, 2), batch.y)
    assert model_slices(batch, two)[3:, :, 7, 7].tolist() == [[1, 1, 2], [1, 2, 3], [2, 3, 3]]


def test_adjacent_slices_of_colour_are_grey():
    colour = torch.tensor([[10, 20, 40], [0, 0, 1]], dtype=torch.uint8)[:, :, None, None]
    assert adjacent(colour)[:, :, 0, 0].tolist() == [[23, 23, 0], [23, 0, 0]]
