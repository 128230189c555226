"""Learning without labels: slices and their views, VICReg's loss, and methods in the loop."""

import numpy as np
import pytest
import torch
from helpers import BACKBONE, array_scans, fit_options, preprocess
from torch import nn

from slivit.config import Augmentation
from slivit.data.slice_sets import (
    SliceDataset,
    SliceSampling,
    draw_slices,
    draw_view,
    slice_training_set,
)
from slivit.data.transforms import augment
from slivit.training.optim import parameter_groups
from slivit.training.self_supervised.method import SelfSupervisedMethod, WithoutLabels
from slivit.training.self_supervised.vicreg import VICReg, vicreg_loss
from slivit.training.train_step import Phase
from slivit.training.trainer import Outputs, fit
from slivit.utils.session import Session

CPU = torch.device("cpu")
PAIRS = SliceSampling(4, 2, 1)
FLIPS, LIGHT = Augmentation("hv", 0.0), Augmentation("h", 1.0)


def volumes(count, slices=6, side=32):
    """Return scans in memory of which each has a coarse pattern of its own, and noise."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 160, (count, 1, 4, 4)).repeat(side // 4, 2).repeat(side // 4, 3)
    return (patterns + rng.integers(20, 90, (count, slices, side, side))).astype(np.uint8)


def unlabelled(pixels, split=None, **fields):
    return array_scans(pixels, np.zeros((len(pixels), 0)), split, **fields)


def fit_method(method, scans, folder, sampling, augmentation=FLIPS, lr=1e-3, **changes):
    """Train a method; return the log and the epochs that were kept."""
    chosen, kept = fit_options(select="last", **changes), []
    data = slice_training_set(scans, preprocess(), sampling, augmentation, Session(CPU, quiet=True),
                              chosen.b_size, 0)
    groups = parameter_groups(method.backbone, lr, 0.0) + parameter_groups(method.heads(), lr, 0.0)
    outputs = Outputs(folder, lambda epoch, *_: kept.append(epoch))
    return fit(method, [Phase(1, chosen.n_epochs, groups, data)], WithoutLabels(0), chosen,
               Session(CPU, quiet=True), outputs), kept


def test_slices_are_evenly_spaced_and_their_partners_next_to_them():
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_slices(rng, np.arange(20), PAIRS) for _ in range(200)])
    first, partner = drawn[..., 0], drawn[..., 1]
    assert set(np.diff(first, axis=1).ravel()) == {5}
    assert set(first.ravel()) == set(range(20))  # other ones each time
    assert set(np.abs(partner - first).ravel()) == {1}


def test_short_volumes_give_all_slices_and_one_alone_is_its_own_partner():
    rng = np.random.default_rng(0)
    assert draw_slices(rng, np.arange(3), PAIRS)[:, 0].tolist() == [0, 1, 2]
    assert draw_slices(rng, np.array([7]), PAIRS).tolist() == [[7, 7]]
    assert draw_slices(rng, np.array([2, 9]), PAIRS).tolist() == [[2, 2], [9, 9]]
    assert draw_slices(rng, np.arange(9), SliceSampling(2, 1)).shape == (2, 1)


def test_what_is_drawn_depends_on_seed_and_row_alone_and_blank_slices_are_passed_over():
    pixels = volumes(2)
    pixels[:, 2:] = 7
    pixels[1] = 9
    dataset = SliceDataset(unlabelled(pixels), np.arange(2), preprocess(), PAIRS, LIGHT)
    one, again, other = (dataset.item(0, seed) for seed in (1, 1, 2))
    assert torch.equal(one.transform, again.transform)
    assert not torch.equal(one.transform, other.transform)
    assert (one.prepared.slices == again.prepared.slices).all()
    assert one.prepared.slices.shape == (4, 1, 32, 32)  # two views of the two that show something
    assert sorted(one.places[:4].tolist()) == [0, 0, *torch.tensor([0.2, 0.2]).tolist()]
    assert len(dataset.item(1, 1).prepared.slices) == 8  # it has nothing else


def test_without_jitter_the_size_of_things_stays():
    slices = torch.from_numpy(volumes(1)[0, :1, None])
    rng = np.random.default_rng(0)
    for _ in range(20):
        view = augment(slices, draw_view(rng, FLIPS))
        assert view.flatten().sort()[0].equal(slices.flatten().sort()[0])
    crops = torch.stack([draw_view(rng, Augmentation("", 1.0)) for _ in range(300)])
    sides = 1.1 ** -crops[:, 4]
    assert 0.5 / 1.1 < sides.min() < 0.6
    assert 0.9 < sides.max() < 1.1
    assert (crops[:, 5:7].abs() * 0.1 <= 1.1 - 0.5).all()


def test_epochs_leave_out_an_incomplete_batch_and_validation_leaves_out_nothing():
    split = ["train"] * 7 + ["val"] * 5
    scans = unlabelled(volumes(12), split)
    data = slice_training_set(scans, preprocess(), PAIRS, LIGHT, Session(CPU), 3, 0)
    assert data.count == 2
    assert [len(batch.x) for batch in data.batches(1, 0)] == [3, 3]
    assert [len(batch.x) for batch in data.validation()] == [5]
    views, places, which = data.inputs(next(iter(data.batches(1, 0))))
    assert (views.shape, views.dtype) == ((12, 2, 1, 32, 32), torch.uint8)
    assert which.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert ((places[:, 0] - places[:, 1]).abs() - 1 / 5).abs().max() < 1e-6
    later, = data.batches(1, 1)
    assert torch.equal(later.transforms, list(data.batches(1, 0))[1].transforms)
    assert torch.equal(*(next(iter(data.validation())).transforms for _ in range(2)))
    few = slice_training_set(scans, preprocess(), PAIRS, LIGHT, Session(CPU), 100, 0)
    assert [len(batch.x) for batch in few.batches(1, 0)] == [7]


def test_loss_of_vicreg_is_that_of_the_paper():
    a, b = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    terms = vicreg_loss(a, b)
    variance = sum(np.maximum(0, 1 - np.sqrt(z.numpy().var(axis=0, ddof=1) + 1e-4)).mean()
                   for z in (a, b))
    covariance = sum((np.cov(z.numpy().T)[~np.eye(3, dtype=bool)] ** 2).sum() / 3 for z in (a, b))
    expected = 25 * float(((a - b) ** 2).mean()) + 25 * variance + covariance
    assert float(terms["loss"]) == pytest.approx(expected)


def test_a_collapsed_projection_is_told():
    terms = vicreg_loss(*torch.ones(2, 8, 4))
    assert (float(terms["invariance"]), float(terms["covariance"])) == (0, 0)
    assert float(terms["variance"]) == pytest.approx(0.99)
    method = VICReg(BACKBONE, preprocess())
    assert "the training has collapsed" in method.complaint({"variance": 0.99})
    assert not method.complaint({"variance": 0.5})


def test_loss_falls_and_the_last_epoch_is_kept(tmp_path):
    torch.manual_seed(0)
    scans = unlabelled(volumes(20, 2), ["train"] * 16 + ["val"] * 4)
    log, kept = fit_method(VICReg("convnext_atto_bn", preprocess()), scans, tmp_path,
                           SliceSampling(1, 2, 1), Augmentation("", 0.0), lr=3e-3, n_epochs=6,
                           b_size=16)
    assert log[-1]["train_loss"] < 0.85 * log[0]["train_loss"]
    assert kept == [1, 2, 3, 4, 5, 6]
    assert {"val_invariance", "val_variance", "val_covariance"} < set(log[0])
    assert (tmp_path / "history.png").stat().st_size > 1000


class Place(SelfSupervisedMethod):
    """Tells the place of a slice, and has a teacher that follows."""

    name = "place"

    def __init__(self):
        super().__init__(BACKBONE, preprocess())
        self.head = nn.Linear(self.backbone.num_features, 1)
        self.teacher = nn.Linear(self.backbone.num_features, 1).requires_grad_(False)

    def heads(self):
        return self.head

    def forward(self, views, places, scans):
        noise = torch.rand(())  # as masks would need
        features = self.backbone(views[:, 0].float().expand(-1, 3, -1, -1) / 255 + 0.01 * noise)
        features = features.mean(dim=(2, 3))
        told = self.head(features)[:, 0]
        return {"loss": nn.functional.mse_loss(told, places[:, 0]),
                "teacher": nn.functional.mse_loss(self.teacher(features)[:, 0], places[:, 0])}

    def after_step(self):
        self.teacher.load_state_dict(self.head.state_dict())


def test_another_method_with_a_teacher_and_one_view_fits_the_loop(tmp_path):
    torch.manual_seed(0)
    method = Place()
    scans = unlabelled(volumes(6), ["train"] * 4 + ["val"] * 2)
    log, _ = fit_method(method, scans, tmp_path, SliceSampling(3, 1), n_epochs=2)
    assert torch.equal(method.teacher.weight, method.head.weight)
    assert not method.teacher.weight.requires_grad
    assert log[-1]["val_teacher"] == log[-1]["val_loss"]
