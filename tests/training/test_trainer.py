"""The training loop: learning, choosing, stopping, and going on after a stop."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import (
    BACKBONE,
    RUN_3D,
    TINY_VIT,
    array_scans,
    fit_options,
    preprocess,
    same_run,
    scan_pixels,
)

import finetune
from slivit.config import Augmentation, Target
from slivit.data.batch import Batch
from slivit.data.datasets import TrainingSet, scan_training_set
from slivit.models.outputs import to_predictions
from slivit.models.slivit import SLIViT
from slivit.prediction import predict, run_model
from slivit.training import trainer as engine
from slivit.training.losses import Objective
from slivit.training.optim import lr_factor, parameter_groups
from slivit.training.train_step import Phase
from slivit.training.trainer import Outputs, fit
from slivit.utils.errors import RunError, UserError
from slivit.utils.session import Session

CPU = torch.device("cpu")
BINARY = Target("binary", ("a",))
REAL = torch.ones(2, 1, dtype=torch.bool)
LINE = Batch(torch.tensor([[-1.0], [1.0]]), REAL, torch.tensor([[0.0], [1.0]]))
REVERSED = Batch(LINE.x, REAL, LINE.y.flip(0))


def of_x(batch):
    """Return what Line takes of a batch."""
    return (batch.x,)


class Line(torch.nn.Module):
    """y = scale (a x + b)."""

    def __init__(self, scale=1):
        super().__init__()
        self.line, self.scale = torch.nn.Linear(1, 1), scale

    def forward(self, x):
        return self.scale * self.line(x)


def fit_model(model, data, folder, target=BINARY, lr=0.1, **changes):
    """Fit a model; return the log and the epochs that were best."""
    best, chosen = [], fit_options(**changes)
    phase = Phase(1, chosen.n_epochs, parameter_groups(model, lr, 0.0), data)
    outputs = Outputs(folder, lambda epoch, scores, kept, validation: best.append(epoch))
    log = fit(model, [phase], Objective(target), chosen, Session(CPU), outputs)
    return log, best


def fit_line(folder, batches, target=BINARY, scale=1, **changes):
    """Fit y = scale (a x + b), validate on LINE; return the log and the epochs that were best."""
    model = Line(scale)
    torch.nn.init.constant_(model.line.weight, -0.05)
    count = len(batches(1))
    return fit_model(model, TrainingSet(lambda epoch, done: batches(epoch)[done:], count,
                                        lambda: [LINE], of_x), folder, target, **changes)


def test_learning_rate_warms_up_and_falls_to_one_percent():
    factors = [lr_factor(step, 10, 100) for step in (0, 4, 9, 10, 55, 100)]
    assert factors == pytest.approx([0.1, 0.5, 1, 1, 0.505, 0.01])


def test_no_weight_decay_on_norms_biases_and_embeddings():
    model = SLIViT(BACKBONE, 1, preprocess(4), TINY_VIT)
    decayed, plain = parameter_groups(model, 0.1, 0.5)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0)
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert {id(model.integrator.pos_embed), id(model.integrator.cls_token)} <= {
        id(p) for p in plain["params"]}
    count = len(list(model.parameters()))
    assert len({id(p) for p in decayed["params"] + plain["params"]}) == count


def test_model_overfits_one_batch(tmp_path):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    volumes = np.stack([scan_pixels(rng, bright, (3, 32, 32))
                        for bright in (False, True, True, False)])
    scans = array_scans(volumes, [0, 1, 1, 0], ["train"] * 4)
    data = scan_training_set(scans, preprocess(4), Augmentation("", 0), Session(CPU), 4, 0)
    batch = next(iter(data.batches(1, 0)))
    model = SLIViT(BACKBONE, 1, preprocess(4), TINY_VIT)
    fit_model(model, TrainingSet(lambda epoch, done: [batch] * 25, 25, lambda: [batch],
                                 data.inputs), tmp_path, lr=2e-3)
    model.eval()
    logits, labels = predict(lambda batch: run_model(model, batch), [batch], CPU)
    assert np.abs(to_predictions(logits, BINARY) - labels).max() < 0.1


def test_best_epoch_is_kept_and_not_the_last(tmp_path):
    log, best = fit_line(tmp_path, lambda epoch: [LINE if epoch == 1 else REVERSED], n_epochs=6,
                         lr=0.2)
    assert best == [1]
    assert [row["val_roc_auc"] for row in log][::5] == [1.0, 0.0]
    table = pd.read_csv(tmp_path / "log.csv")
    assert table["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["best"].tolist() == [True] + [False] * 5
    assert (tmp_path / "history.png").stat().st_size > 1000


def test_early_stopping_counts_epochs_without_progress(tmp_path, messages):
    log, best = fit_line(tmp_path, lambda epoch: [LINE], n_epochs=20, patience=3, lr=0.2)
    assert best == [1]
    assert len(log) == 4
    assert any("stopped early" in text for text in messages)


def test_loss_decides_where_validation_has_no_score(tmp_path):
    one_class = Batch(LINE.x, REAL, torch.ones(2, 1))
    data = TrainingSet(lambda epoch, done: [one_class], 1, lambda: [one_class], of_x)
    log, best = fit_model(Line(), data, tmp_path, n_epochs=3)
    assert best == [1, 2, 3]
    assert log[0]["val_roc_auc"] is None
    assert log[2]["val_loss"] < log[0]["val_loss"]


def test_select_by_loss_goes_on_where_the_score_cannot_rise(tmp_path):
    log, best = fit_line(tmp_path, lambda epoch: [LINE], n_epochs=3, lr=0.2, select="loss")
    assert [row["val_roc_auc"] for row in log] == [1.0, 1.0, 1.0]
    assert best == [1, 2, 3]


@pytest.mark.parametrize(("steps", "message"), [
    (3, "training loss became (inf|nan) in epoch 1, step 2"),
    (1, "outputs became NaN or infinite in epoch 1"),
])
def test_divergence_is_a_failure_and_keeps_the_files(tmp_path, steps, message):
    (tmp_path / "log.csv").write_text("of the last good epoch")
    target = Target("regression", ("a",), mean=(0.0,), std=(1.0,))
    with pytest.raises(RunError, match=message):
        fit_line(tmp_path, lambda epoch: [LINE] * steps, target, scale=1e9, lr=1e30)
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_training_shuffles_and_validation_does_not():
    volumes = np.arange(40, dtype=np.uint8)[:, None, None].repeat(32, 1).repeat(32, 2)
    scans = array_scans(volumes, np.arange(40) % 2, ["train"] * 20 + ["val"] * 20)
    data = scan_training_set(scans, preprocess(), Augmentation("", 0), Session(CPU), 8, 0)
    assert data.count == 3
    order = [torch.cat([batch.y for batch in data.batches(epoch, 0)])[:, 0].tolist()
             for epoch in (1, 1, 2)]
    rest = torch.cat([batch.y for batch in data.batches(2, 1)])[:, 0].tolist()
    assert rest == order[2][8:]
    assert order[0] == order[1] != order[2]
    assert [sum(labels) for labels in order] == [10] * 3
    seen = torch.cat([batch.x for batch in data.validation()])
    assert seen[:, 0, 0, 0, 0].tolist() == list(range(20, 40))


@pytest.fixture(scope="module")
def command(volume_csv):
    """Three epochs with everything random switched on."""
    return ["--meta_csv", str(volume_csv), "--pathologies", "A", *RUN_3D, "--n_epochs", "3",
            "--dropout", "0.1", "--emb_dropout", "0.1", "--patience", "0"]


def test_stopped_and_resumed_equals_uninterrupted(command, tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finetune.main([*command, "--out_dir", str(whole)])

    plot, calls = engine.plot_history, []

    def stop_in_epoch_2(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        plot(*args)
    monkeypatch.setattr(engine, "plot_history", stop_in_epoch_2)
    with pytest.raises(KeyboardInterrupt):
        finetune.main([*command, "--out_dir", str(parts)])
    monkeypatch.undo()
    saved = torch.load(parts / "last.pt", weights_only=True)["progress"]
    assert (saved["epoch"], saved["step"], len(saved["log"])) == (2, 0, 1)
    with pytest.raises(UserError, match="(?s)started differently.*lr: was 0.001, now 0.5"):
        finetune.main([*command, "--out_dir", str(parts), "--resume", "--lr", "0.5"])
    finetune.main([*command, "--out_dir", str(parts), "--resume"])

    same_run(whole, parts)
    assert len(pd.read_csv(whole / "log.csv")) == 3
    models = [torch.load(folder / "last.pt", weights_only=True)["model"]
              for folder in (whole, parts)]
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
