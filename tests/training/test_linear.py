"""The linear integrator: solved exactly, for few volumes."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import RUN_3D, absolute_table
from sklearn.linear_model import LogisticRegression

import evaluate
import finetune
from slivit import share
from slivit.checkpoints.checkpoint import read
from slivit.checkpoints.trained import load_trained
from slivit.config import Target
from slivit.models.integrator import LinearIntegrator
from slivit.training import linear
from slivit.training.losses import Objective, loss_sum
from slivit.utils.errors import UserError

RNG = np.random.default_rng(0)


class Store:
    """Features of volumes in memory, as FeatureStore has them in a file."""

    def __init__(self, x):
        self.x, self.mask = x, np.ones(x.shape[:2], dtype=bool)


class Scans:
    """Labels, patients and splits, as ScanTable has them."""

    def __init__(self, labels, patients=None):
        self.labels = labels.astype(np.float32)
        self._patients = patients or [str(row) for row in range(len(labels))]

    def rows(self, split):
        return np.arange(len(self.labels)) if split == "train" else np.arange(0)

    def groups(self):
        return tuple(self._patients)


def solved(x, labels, target, patients=None, copies=1):
    """Return logits (n, K), loss and count of an integrator solved on features (n, S, F)."""
    integrator = LinearIntegrator(x.shape[2], len(target.labels))
    stores = [Store(x.astype(np.float32))] * copies
    loss, count = linear.solve(integrator, stores, Scans(labels, patients), Objective(target), 0)
    with torch.no_grad():
        return integrator(torch.from_numpy(stores[0].x), torch.from_numpy(stores[0].mask)
                          ), loss, count


def features(n, signal):
    """Return features (n, 3, 4) of which the first varies most, by `signal`."""
    x = RNG.normal(size=(n, 3, 4))
    x[:, :, 0] += 3 * signal[:, None]
    return x


def test_it_is_the_regression_of_scikit_learn_on_features_scaled_together(caplog):
    labels = np.arange(60) % 2
    x = features(60, labels)
    with caplog.at_level("INFO"):
        logits, loss, count = solved(x, labels[:, None], Target("binary", ("a",)))
    chosen = float(caplog.text.split("integrator: C ")[1].split(",")[0])
    pooled = np.concatenate([x.mean(axis=1), x.max(axis=1)], axis=1)
    scaled = pooled / pooled.std(axis=0).mean()
    exact = LogisticRegression(C=chosen, max_iter=9000, tol=1e-9).fit(scaled, labels)
    assert np.allclose(logits[:, 0], exact.decision_function(scaled), atol=1e-4)
    wanted = loss_sum(logits, torch.from_numpy(labels[:, None]).float(),
                      Objective(Target("binary", ("a",))))
    assert count == 60 and loss == pytest.approx(float(wanted), rel=1e-4)


def test_unknown_labels_are_left_out_and_one_class_gives_its_prevalence():
    labels = np.stack([np.arange(40) % 2, np.ones(40)], axis=1).astype(float)
    labels[::4, 0] = np.nan
    x = features(40, np.arange(40) % 2)
    logits, _, count = solved(x, labels, Target("multilabel", ("a", "b")))
    assert count == 70
    assert logits[1::2, 0].min() > logits[::2, 0].max()
    assert np.allclose(torch.sigmoid(logits[:, 1]), 1 - 0.5 / 40)


def test_volumes_without_any_label_change_nothing():
    labels = (np.arange(40) % 2)[:, None].astype(float)
    x = features(60, np.arange(60) % 2)
    more = np.concatenate([labels, np.full((20, 1), np.nan)])
    target = Target("binary", ("a",))
    assert torch.equal(solved(x, more, target)[0][:40], solved(x[:40], labels, target)[0])


@pytest.mark.parametrize("value", [0.0, 0.1, 1000.3])
def test_features_that_are_all_alike_give_the_prevalence_and_a_warning(value, caplog):
    x = np.full((20, 3, 4), value)
    logits, _, _ = solved(x, (np.arange(20) < 5)[:, None], Target("binary", ("a",)))
    assert np.allclose(torch.sigmoid(logits), 0.25, atol=1e-4) and logits.unique().numel() == 1
    assert "the features of all training volumes are the same" in caplog.text


def test_features_far_from_zero_are_solved_as_well():
    labels = np.arange(60) % 2
    x = features(60, labels)
    target = Target("binary", ("a",))
    near, far = (solved(x + offset, labels[:, None], target)[0] for offset in (0, 1000))
    assert np.allclose(near, far, atol=0.01)  # float32 features have so many digits


def test_several_classes_and_one_that_never_occurs():
    classes = np.arange(60) % 3
    labels = np.eye(4)[classes]
    logits, _, count = solved(features(60, classes), labels, Target("multiclass", tuple("abcd")))
    assert count == 60
    assert (logits.argmax(dim=1).numpy() == classes).mean() > 0.9
    assert torch.softmax(logits, 1)[:, 3].max() < 1e-3
    two, _, _ = solved(features(60, classes % 2), np.eye(2)[classes % 2],
                       Target("multiclass", ("a", "b")))
    assert (two.argmax(dim=1).numpy() == classes % 2).mean() > 0.9


def test_regression_predicts_standardised_labels():
    values = RNG.normal(size=50)
    target = Target("regression", ("a",), mean=(100.0,), std=(10.0,))
    logits, loss, _ = solved(features(50, values), 100 + 10 * values[:, None], target)
    assert np.corrcoef(logits[:, 0], values)[0, 1] > 0.9 and loss / 50 < 0.3


def test_the_penalty_is_chosen_across_patients(caplog):
    patients = [str(row // 10) for row in range(60)]
    labels = (np.arange(60) // 10 % 2)
    for train, val in linear._folds(labels, np.array(patients), 0):
        assert not {patients[row] for row in train} & {patients[row] for row in val}
        assert set(labels[train]) == set(labels[val]) == {0, 1}
    with caplog.at_level("INFO"):
        solved(features(4, np.arange(4) % 2), np.arange(4)[:, None] % 2, Target("binary", ("a",)),
               patients=["p"] * 4)
    assert "integrator: C 0.001, since there are too few patients" in caplog.text


def test_versions_of_a_volume_stay_on_one_side(monkeypatch):
    seen = []
    folds = linear._folds
    monkeypatch.setattr(linear, "_folds", lambda *args: seen.append(args) or folds(*args))
    labels = np.arange(20) % 2
    _, _, count = solved(features(20, labels), labels[:, None], Target("binary", ("a",)), copies=3)
    assert count == 60 and len(seen[0][1]) == 60
    for train, val in folds(*seen[0]):
        assert not set(seen[0][1][train]) & set(seen[0][1][val])


@pytest.fixture(scope="module")
def linear_run(volume_csv, backbone_run, tmp_path_factory):
    """A fine-tuning run with a linear integrator, on the label A."""
    out = tmp_path_factory.mktemp("runs") / "linear"
    finetune.main(flags(volume_csv, backbone_run, out))
    return out


def flags(volume_csv, backbone_run, out, *more):
    return ["--meta_csv", str(volume_csv), "--pathologies", "A", *RUN_3D[4:], "--bb_path",
            str(backbone_run / "backbone.safetensors"), "@recipes/few_volumes", "--out_dir",
            str(out), *more]


def test_the_recipe_leaves_a_checkpoint_that_evaluate_measures_and_explains(
        linear_run, volume_csv, tmp_path):
    card, state = read(linear_run / "slivit.safetensors")
    assert card.integrator.kind == "linear" and card.epoch == 1
    assert {key for key in state if key.startswith("integrator.")} == {
        "integrator.head.weight", "integrator.head.bias"}
    evaluate.main(["--checkpoint", str(linear_run / "slivit.safetensors"), "--meta_csv",
                   str(volume_csv), "--explain", "1", "--gpu_id", "cpu", "--out_dir",
                   str(tmp_path / "again")])
    first, again = (pd.read_csv(out / "predictions.csv")["A_pred"]
                    for out in (linear_run, tmp_path / "again"))
    assert np.array_equal(first, again)
    page = (tmp_path / "again/report.html").read_text()
    assert "gradient × features" in page and "attention rollout" not in page
    assert "linear integrator on the mean and the maximum" in page
    assert "penalty C " in page and "weight_decay" not in page
    assert list((tmp_path / "again/explain").glob("*.png"))


def test_its_cards_tell_of_no_epoch_and_keep_the_penalty(linear_run, tmp_path, capsys):
    share.main([str(linear_run / "slivit.safetensors"), "--to", "a/b", "--out_dir", str(tmp_path)])
    assert "kind linear\n" in capsys.readouterr().out
    card, _ = read(tmp_path / "slivit.safetensors")
    assert card.training["options"]["penalty"].startswith("C ")
    text = (tmp_path / "README.md").read_text()
    assert "On the validation scans." in text and "**On validation**: " in text
    assert "poch" not in text and "flips none, jitter 0" in text


def test_on_validation_its_epoch_is_not_called_chosen(volume_csv, backbone_run, tmp_path, capsys):
    table = absolute_table(volume_csv)
    table[table["Split"] != "test"].to_csv(tmp_path / "meta.csv", index=False)
    finetune.main(flags(tmp_path / "meta.csv", backbone_run, tmp_path / "out"))
    assert "the scores below are from the validation split\n" in capsys.readouterr().out
    text = (tmp_path / "out/report.md").read_text()
    assert "the operating point was chosen on them, so the scores at it" in text


def test_it_can_be_trained_again_and_resumed(linear_run, volume_csv, backbone_run):
    before = (linear_run / "predictions.csv").read_bytes()
    finetune.main(flags(volume_csv, backbone_run, linear_run, "--resume"))
    assert (linear_run / "predictions.csv").read_bytes() == before
    assert len(pd.read_csv(linear_run / "log.csv")) == 1
    assert json.loads((linear_run / "config.json").read_text())["integrator"]["kind"] == "linear"


def test_its_weights_of_random_features_learn_and_are_padded_alike(linear_run):
    model = load_trained(linear_run / "slivit.safetensors", torch.device("cpu")).model
    x = torch.randn(2, 4, model.feature_dim)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    wanted = model.integrator(x[1:, :2], mask[1:, :2])
    x[1, 2:] = torch.nan
    assert torch.allclose(model.integrator(x, mask)[1:], wanted)


@pytest.mark.parametrize(("more", "message"), [
    (["--mixup", "0.2", "--auxiliary", "B"],
     "--integrator linear is solved at once, without steps of training: omit --auxiliary, --mixup"),
    (["--unfreeze_after", "1"], "omit --unfreeze_after")])
def test_what_a_linear_integrator_cannot_do_is_refused(volume_csv, backbone_run, tmp_path, more,
                                                       message):
    with pytest.raises(UserError, match=message):
        finetune.main(flags(volume_csv, backbone_run, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


def test_it_needs_a_frozen_backbone(volume_csv, tmp_path):
    with pytest.raises(UserError, match="--integrator linear needs --freeze_backbone"):
        finetune.main(["--meta_csv", str(volume_csv), "--integrator", "linear", "--out_dir",
                       str(tmp_path / "out")])


def test_few_volumes_are_told_of_the_recipe(linear_run, volume_csv, backbone_run, tmp_path, capsys):
    finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", "--n_epochs", "1",
                   *RUN_3D[4:], "--bb_path", str(backbone_run / "backbone.safetensors"),
                   "--freeze_backbone", "--out_dir", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert " labelled volumes: @recipes/few_volumes is made for fewer than 100" in printed
