"""Checkpoints, weights and their options, damaged or odd: noticed, and said in one message."""

import os

import numpy as np
import pytest
import torch
from helpers import Boom, array_scans, run_evaluate
from original_files import random_model
from safetensors.torch import save_file

from slivit import prediction
from slivit.checkpoints import checkpoint, trained
from slivit.checkpoints.original.options_file import Hints, find_hints
from slivit.checkpoints.original.reader import read_original
from slivit.checkpoints.pretrained import read_start, read_tensors
from slivit.checkpoints.tensor_files import is_safetensors
from slivit.training.resume import load_state
from slivit.utils.errors import RunError, UserError
from slivit.utils.session import Session

CPU = torch.device("cpu")
NAN = float("nan")


def test_refusal_never_advises_to_run_what_a_file_holds(tmp_path, capfd):
    texts, last = [], tmp_path / "last.pt"
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


def test_weights_from_elsewhere_must_be_finite(tmp_path):
    state = random_model(side=32, depth=1)
    state["cls_token"][..., 3] = NAN
    state["mlp_head.bias"][0] = float("inf")
    torch.save(state, tmp_path / "slivit.pth")
    with pytest.raises(UserError, match="(?s)2 of its tensors.*bias: 1 of 1 .*cls_token: 1 of 48 "):
        read_original(tmp_path / "slivit.pth")
    save_file({"stem.0.weight": torch.full((16,), NAN)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="stem.0.weight: 16 of .* values are NaN or infinite"):
        read_tensors(tmp_path / "w.safetensors")


def test_tensor_of_more_numbers_than_the_file_holds_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10 ** 12)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"a: 1000000000000 numbers, but the file contains fewer"):
        read_tensors(tmp_path / "w.pth")


def test_checkpoint_is_known_by_its_content(binary_run, volume_csv, tmp_path):
    path = tmp_path / "slivit.safetensors (1)"
    path.write_bytes((binary_run / "slivit.safetensors").read_bytes())
    _, found = run_evaluate(path, tmp_path / "out", "--meta_csv", volume_csv)
    assert len(found) == 6
    torch.save(random_model(side=32, depth=1), path := tmp_path / "old.safetensors")
    assert not is_safetensors(path)
    assert trained.read_any(path)[0].data["assumed"] == ["tiling", "task", "label"]
    assert not is_safetensors(tmp_path / "absent")


def test_pipe_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "slivit.safetensors")
    for read in (checkpoint.read, trained.read_any, read_tensors, read_start):
        with pytest.raises(UserError, match="is not a regular file"):
            read(tmp_path / "slivit.safetensors")


@pytest.mark.parametrize("some", [True, False])
def test_outputs_that_are_not_finite_end_the_run(binary_run, tmp_path, some, monkeypatch):
    one = trained.load_trained(binary_run / "slivit.safetensors", CPU)
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
        assert "2 of 5 scans are NaN or infinite:\n  r1\n  r3\nCheck these scans" in text
    else:
        assert "5 of 5 scans" in text and "evaluate a checkpoint of another run" in text


def test_weights_that_overflow_are_said(binary_run, volume_csv, tmp_path):
    card, state = checkpoint.read(binary_run / "slivit.safetensors")
    state["integrator.head.weight"][:] = 3e38
    model = checkpoint.restore(tmp_path, card, state)
    checkpoint.save(tmp_path / "slivit.safetensors", model, card)
    with pytest.raises(RunError, match="NaN or infinite:\n  volume 9"):
        run_evaluate(tmp_path / "slivit.safetensors", tmp_path / "out", "--meta_csv", volume_csv)


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
    with pytest.raises(UserError, match="was trained on the table .*; give it, or the table to"):
        named_training_set(card)
