"""Files that a run reads back, damaged or changed: noticed, and said in one message."""

import contextlib
import os
import random

import numpy as np
import pytest
import torch
from helpers import array_scans, run_evaluate
from original_files import random_model
from safetensors.torch import load_file, save_file

from slivit import prediction
from slivit.checkpoints import checkpoint
from slivit.checkpoints.original.options_file import Hints, find_hints
from slivit.checkpoints.original.reader import read_original
from slivit.checkpoints.pretrained import read_start, read_tensors
from slivit.checkpoints.tensor_files import is_safetensors
from slivit.training.progress import Plan, Progress
from slivit.training.resume import load_state, restore, save_state
from slivit.utils.distributed import ProcessGroup
from slivit.utils.errors import RunError, UserError
from slivit.utils.output_dir import check_resume
from slivit.utils.session import Session

CPU = torch.device("cpu")
ROW = {"epoch": 1, "lr": 0.1, "train_loss": 0.7, "val_loss": 0.6, "val_roc_auc": 0.5, "best": True,
       "seconds": 1.5}
NAN = float("nan")


class Boom:
    """A pickle that would run a command."""

    def __reduce__(self):
        return os.system, ("echo this must not run",)


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
    (lambda content: content.update(teacher={}), "teacher: unknown, a newer version"),
    (lambda content: content.update(rng=[[torch.ones(3)]]), "rng: expected the states"),
    (lambda content: content.update(rng=[]), "rng: expected the states"),
    (lambda content: content["progress"].update(epoch=0), "epoch: found 0, expected greater than"),
    (lambda content: content["progress"].update(epoch=9), "log of 1 epochs, expected 8"),
    (lambda content: content["progress"].update(step=1.5), "step: found 1.5, expected"),
    (lambda content: content["progress"].update(best=NAN), "best: found nan, expected a score"),
    (lambda content: content["progress"].update(loss_sum=NAN), "loss_sum: found nan"),
    (lambda content: content["progress"].update(best=99.0), "best 99: is no score of the epoch"),
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


def test_refusal_never_advises_to_run_what_a_file_holds(last, capfd):
    texts = []
    torch.save({"progress": Boom()}, last)
    texts.append(pytest.raises(UserError, load_state, last, CPU).value)
    torch.save({"a": torch.ones(1)}, last, _use_new_zipfile_serialization=False)
    texts.append(pytest.raises(UserError, load_state, last, CPU).value)
    last.write_bytes(b"\x80\x02]q\x00")
    texts.append(pytest.raises(UserError, read_tensors, last).value)
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(last))
    for read in (read_tensors, lambda path: load_state(path, CPU)):
        texts.append(pytest.raises(UserError, read, last).value)
    assert [str(text) for text in texts if "weights" in str(text).split(": ", 1)[1].lower()
            .replace("as weights", "").replace("file of weights", "")] == []
    out, err = capfd.readouterr()
    assert "must not run" not in out and err == ""


@pytest.mark.parametrize(("name", "read"), [
    ("w.pth", read_tensors), ("slivit.pth", read_original)])
def test_weights_from_elsewhere_must_be_finite(tmp_path, name, read):
    state = random_model(side=32, depth=1)
    state["cls_token"][..., 3] = NAN
    state["mlp_head.bias"][0] = float("inf")
    torch.save(state, tmp_path / name)
    with pytest.raises(UserError, match="(?s)2 of its tensors.*bias: 1 of 1 .*cls_token: 1 of 48 "):
        read(tmp_path / name)


def test_tensor_of_more_numbers_than_the_file_holds_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10 ** 12)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"a: 1000000000000 numbers, of which the file holds fewer"):
        read_tensors(tmp_path / "w.pth")


def test_checkpoint_is_known_by_its_content(binary_run, volume_csv, tmp_path):
    path = tmp_path / "slivit.safetensors (1)"
    path.write_bytes((binary_run / "slivit.safetensors").read_bytes())
    _, found = run_evaluate(path, tmp_path / "out", "--meta_csv", volume_csv)
    assert len(found) == 6
    torch.save(random_model(side=32, depth=1), path := tmp_path / "old.safetensors")
    assert not is_safetensors(path)
    assert prediction.read_any(path)[0].data["assumed"] == ["tiling", "task", "label"]
    assert not is_safetensors(tmp_path / "absent")


def test_pipe_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "slivit.safetensors")
    for read in (checkpoint.read, prediction.read_any, read_tensors, read_start):
        with pytest.raises(UserError, match="is no regular file"):
            read(tmp_path / "slivit.safetensors")


@pytest.mark.parametrize("some", [True, False])
def test_outputs_that_are_not_finite_end_the_run(binary_run, tmp_path, some, monkeypatch):
    one = prediction.load_trained(binary_run / "slivit.safetensors", CPU)
    volumes = np.random.default_rng(0).integers(1, 255, (5, 4, 32, 32), np.uint8)
    scans = array_scans(volumes, [0, 1, 0, 1, 0])
    real = prediction.predict

    def broken(*args, **options):
        logits, labels = real(*args, **options)
        logits[1:4:2 if some else 1] = np.inf
        logits[0] = logits[0] if some else NAN
        logits[4] = logits[4] if some else NAN
        return logits, labels

    monkeypatch.setattr(prediction, "predict", broken)
    with pytest.raises(RunError) as error:
        prediction.predict_scans(one, scans, np.arange(5), Session(CPU, quiet=True), 2, "test")
    text = str(error.value)
    if some:
        assert "2 of 5 scans are NaN or infinite:\n  r1\n  r3\nLook at these scans" in text
    else:
        assert "5 of 5 scans" in text and "measure a checkpoint of another run" in text


def test_weights_that_overflow_are_said(binary_run, volume_csv, tmp_path):
    card, _ = checkpoint.read(binary_run / "slivit.safetensors")
    state = load_file(binary_run / "slivit.safetensors")
    state["integrator.head.weight"][:] = 3e38
    model = checkpoint.restore(tmp_path, card, state)
    checkpoint.save(tmp_path / "slivit.safetensors", model, card)
    with pytest.raises(RunError, match="NaN or infinite:\n  volume 9"):
        run_evaluate(tmp_path / "slivit.safetensors", tmp_path / "out", "--meta_csv", volume_csv)


@pytest.mark.parametrize(("write", "message"), [
    (lambda path: path.mkdir(), "it is no regular file"),
    (lambda path: path.symlink_to("nowhere"), "it is no regular file"),
    (lambda path: path.write_text("[]"), r"found \[\], expected a JSON object"),
    (lambda path: path.write_text('{"lr": NaN}'), "NaN is no number of JSON"),
    (lambda path: path.write_text("[" * 100_000), "nested too deeply"),
    (lambda path: path.write_bytes(b"\xff\xfe{"), "it is no proper JSON"),
    (lambda path: path.write_text('{"lr": 1, "lr": 2}'), "a field stands twice"),
])
def test_config_that_is_none_cannot_be_resumed(tmp_path, write, message):
    write(tmp_path / "config.json")
    with pytest.raises(UserError, match=f"--resume: .*config.json is damaged .*{message}.*again"):
        check_resume(tmp_path, {"lr": 1})


@pytest.mark.parametrize("text", [
    "[" * 90_000, "Namespace(" + "a" * 90_000, "a:" + " " * 3000 + "x\n", "--a" * 30_000,
    '{"label": ' + "9" * 5000 + "}", "label: id\n", "label: " + "x" * 5000])
def test_options_file_of_nonsense_tells_nothing(tmp_path, text):
    path = tmp_path / "finetune_options.txt"
    path.write_text(text)
    assert find_hints(path) == Hints()


def test_options_file_may_be_a_folder_or_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert find_hints(tmp_path / "pipe") == find_hints(tmp_path) == Hints()


@pytest.mark.parametrize("name", ["nodulemnist3d_" + "9" * 5000, "nodulemnist3d_²", "chestmnist"])
def test_name_of_no_named_set_is_that_of_a_table(binary_run, name):
    from evaluate import named_training_set

    card, _ = checkpoint.read(binary_run / "slivit.safetensors")
    card.data["name"] = name
    with pytest.raises(UserError, match="was trained on the table .*; name it, or the table to"):
        named_training_set(card)


def test_backbone_with_numbers_that_are_not_finite_is_refused(backbone_run, tmp_path):
    state = load_file(backbone_run / "backbone.safetensors")
    state["stem.0.weight"][0, 0] = NAN
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="stem.0.weight: 16 of .* values are NaN or infinite"):
        read_tensors(tmp_path / "w.safetensors")
