"""last.pt, from which a run goes on, damaged or changed: noticed, and said in one message."""

import contextlib
import random

import pytest
import torch

from slivit.training.progress import Plan, Progress
from slivit.training.resume import load_state, restore, save_state
from slivit.utils.distributed import ProcessGroup
from slivit.utils.errors import UserError

CPU = torch.device("cpu")
ROW = {"epoch": 1, "lr": 0.1, "train_loss": 0.7, "val_loss": 0.6, "val_roc_auc": 0.5, "best": True,
       "seconds": 1.5}
NAN = float("nan")


def trained():
    """A model and its optimizer after a step."""
    torch.manual_seed(0)
    model = torch.nn.Linear(40, 30)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 40)).sum().backward()
    optimizer.step()
    return {"model": model, "ema": None, "optimizer": optimizer, "scaler": None}


@pytest.fixture
def last(tmp_path):
    """What a run leaves after an epoch."""
    save_state(tmp_path / "last.pt", Progress(2, log=[ROW], best=0.5), trained(), ProcessGroup())
    return tmp_path / "last.pt"


def same(a, b):
    if isinstance(a, dict | list):
        pairs = [(a[key], b[key]) for key in a] if isinstance(a, dict) else zip(a, b, strict=True)
        return len(a) == len(b) and all(same(*pair) for pair in pairs)
    return torch.equal(a, b) if torch.is_tensor(a) else a == b


def test_flipped_bit_of_last_pt_is_noticed(last):
    good, expected = last.read_bytes(), load_state(last, CPU)
    rng, harmless = random.Random(0), 0
    for _ in range(300):
        place = rng.randrange(len(good) * 8)
        bad = bytearray(good)
        bad[place // 8] ^= 1 << place % 8
        last.write_bytes(bad)
        with contextlib.suppress(UserError):
            found = load_state(last, CPU)
            assert found[0] == expected[0] and same(found[1], expected[1])
            harmless += 1  # dates, padding
    assert harmless < 100


def test_flipped_bit_of_a_weight_of_last_pt_is_noticed(last):
    weight = trained()["model"].weight.detach().numpy().tobytes()
    content = bytearray(last.read_bytes())
    content[content.index(weight) + 100] ^= 1
    last.write_bytes(content)
    with pytest.raises(UserError, match=r"last.pt: cannot be resumed from \(it is damaged: the "
                       r"checksum of .* is wrong\); start again with --overwrite"):
        load_state(last, CPU)


def change(path, edit):
    content = torch.load(path, weights_only=True)
    edit(content)
    torch.save(content, path)


@pytest.mark.parametrize(("edit", "message"), [
    (lambda content: content.pop("progress"), "found None, expected an object"),
    (lambda content: content.pop("model"), "model: missing"),
    (lambda content: content.update(optimizer=3), "optimizer: found a int, expected its state"),
    (lambda content: content.update(teacher={}), "teacher: unknown, written by a newer version"),
    (lambda content: content.update(rng=[[torch.ones(3)]]), "rng: expected the states"),
    (lambda content: content.update(rng=[]), "rng: expected the states"),
    (lambda content: content["progress"].update(epoch=0), "epoch: found 0, expected greater than"),
    (lambda content: content["progress"].update(epoch=9), "log of 1 epochs, expected 8"),
    (lambda content: content["progress"].update(step=1.5), "step: found 1.5, expected"),
    (lambda content: content["progress"].update(best=NAN), "best: found nan, expected a score"),
    (lambda content: content["progress"].update(loss_sum=NAN), "loss_sum: found nan"),
    (lambda content: content["progress"].update(best=99.0), "best 99: is not a score of the kept"),
    (lambda content: content.update(optimizer={}), "optimizer: found no state and param_groups"),
    (lambda content: content["progress"].update(mood=1), "mood: unknown to this version"),
    (lambda content: content["progress"].update(log=[{"epoch": 1}]),
     r"log\[0\]: lr, train_loss, val_loss, best, seconds: missing"),
    (lambda content: content["progress"].update(log=[{**ROW, "lr": None}]), "lr: expected numbers"),
    (lambda content: content["progress"].update(log=[{**ROW, "lr": 10**400}]), "lr: found 1000"),
    (lambda content: content["progress"].update(log=[{**ROW, "epoch": 2}]),
     "log: epoch: expected 1, 2, and so on"),
    (lambda content: content["progress"].update(step=10**30), "step: found 1000"),
    (lambda content: content["progress"].update(seen=9), "loss_sum 0 of 9 labels before the first"),
    (lambda content: content["progress"].update(log=[torch.ones(1)]), "expected plain values"),
])
def test_last_pt_that_cannot_be_is_refused(last, edit, message):
    change(last, edit)
    with pytest.raises(UserError, match=rf"cannot be resumed from \(.*{message}.*--overwrite"):
        load_state(last, CPU)


@pytest.mark.parametrize(("edit", "message"), [
    (lambda content: content["model"]["weight"].fill_(NAN), "model.weight: 1200 of 1200 values"),
    (lambda content: content["optimizer"]["state"][1]["exp_avg_sq"].fill_(float("inf")),
     "optimizer.state.1.exp_avg_sq: 30 of 30 values"),
    (lambda content: content["optimizer"]["param_groups"][0].update(lr=NAN),
     "optimizer.param_groups.0.lr: nan"),
])
def test_last_pt_with_numbers_that_are_not_finite_is_refused(last, edit, message):
    change(last, edit)
    with pytest.raises(UserError, match=rf"(?s)last.pt: 1 of its tensors.*{message}.*--overwrite"):
        load_state(last, CPU)


@pytest.mark.parametrize(("edit", "message"), [
    (lambda content: content["state"][0].update(exp_avg=torch.ones(3)), r"'exp_avg': \(3,\)"),
    (lambda content: content["state"][1].update(exp_avg_sq=None), "'exp_avg_sq': 'NoneType'"),
    (lambda content: content["state"][1].pop("step"), "found {'exp_avg'"),
    (lambda content: content["state"][1]["step"].fill_(-5), "state 1: step -5"),
    (lambda content: content["state"].pop(1), "states of 1 parameters, expected 2"),
    (lambda content: content["param_groups"][0]["params"].__setitem__(1, 2.5),
     "its parameters are not those of this model"),
    (lambda content: content["state"][1]["exp_avg_sq"].fill_(-1), "state 1: exp_avg_sq below 0"),
    (lambda content: content["param_groups"][0].update(weight_decay=0.5),
     "weight_decay: found 0.5, expected 0.01"),
])
def test_state_of_another_optimizer_is_refused(last, edit, message):
    change(last, lambda content: edit(content["optimizer"]))
    _, content = load_state(last, CPU)
    with pytest.raises(UserError, match=rf"(?s)optimizer: .*{message}.*--overwrite"):
        restore(last, content, trained(), ProcessGroup())


LATER = {**ROW, "epoch": 2, "best": False}


@pytest.mark.parametrize(("progress", "faults"), [
    ({"epoch": 2, "log": [ROW]}, []),
    ({"epoch": 2, "log": [ROW], "step": 3}, []),
    ({"epoch": 2, "log": [ROW], "step": 4}, ["step 4 of an epoch of 3 steps"]),
    ({"epoch": 2, "log": [ROW], "phase": 1}, ["phase 1 in epoch 2, expected 0"]),
    ({"epoch": 3, "log": [ROW, LATER], "stale": 1}, []),  # before the second phase begins
    ({"epoch": 3, "log": [ROW, LATER], "phase": 1}, []),
    ({"epoch": 3, "log": [ROW, LATER], "phase": 1, "stale": 99}, ["stale 99, expected 0"]),
    ({"epoch": 3, "log": [ROW, LATER], "step": 1, "stale": 1}, ["phase 0 in epoch 3, expected 1"]),
    ({"epoch": 2, "log": [{**ROW, "mood": 1}]},
     ["log: columns mood of epoch 1 are missing or unknown"]),
])
def test_progress_that_contradicts_what_the_run_does(progress, faults):
    assert Plan(3, (1, 3)).faults(Progress(**progress), ["val_loss", "roc_auc"]) == faults
