"""Outputs on validation: tensors of a checkpoint, or in the header of earlier versions."""

import json
import math
import time

import numpy as np
import pytest
import timm
import torch
from helpers import BACKBONE, preprocess
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from slivit.checkpoints import checkpoint
from slivit.checkpoints.checkpoint import CheckpointHeader, Validation
from slivit.checkpoints.pretrained import read_start
from slivit.checkpoints.sharing import shared_header
from slivit.config import Target
from slivit.utils.errors import RunError, UserError

NAN = float("nan")
DATA = {"name": "made up", "fingerprint": "f", "split_ratio": None, "split_seed": 0,
        "patients": []}
CARD = CheckpointHeader("backbone", BACKBONE, None, Target("multilabel", ("a", "b")),
                        preprocess(), DATA, 4)
LOGITS = np.array([[0.1, -2.123456789], [1e-20, 3.0]], np.float32)
KNOWN = Validation(LOGITS, np.array([[1, NAN], [0, 1]], np.float32))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A checkpoint of two validation scans."""
    path = tmp_path_factory.mktemp("good") / "backbone.safetensors"
    checkpoint.save(path, checkpoint.build(CARD), CARD, KNOWN)
    return path


def rewritten(good, path, tensors=None, **fields):
    """Write the checkpoint with other tensors (None: without it), or other fields of its header."""
    with safe_open(good, framework="pt") as file:
        header = json.loads(file.metadata()["slivit"]) | fields
    state = load_file(good) | (tensors or {})
    save_file({name: one for name, one in state.items() if one is not None}, path,
              {"slivit": json.dumps(header)})
    return path


def test_numbers_come_back_exactly(good):
    known = checkpoint.read_validation(good)
    assert np.array_equal(known.logits, KNOWN.logits) and known.logits.dtype == np.float32
    assert np.array_equal(known.labels, KNOWN.labels, equal_nan=True)
    assert not set(checkpoint.read(good)[1]) & {"validation.logits", "validation.labels"}


def test_files_of_earlier_versions_have_them_in_their_header(good, tmp_path):
    rows = {"logits": [[0.1, -2.123457], [1e-20, 3.0]], "labels": [[1.0, None], [0.0, 1.0]]}
    gone = {"validation.logits": None, "validation.labels": None}
    old = rewritten(good, tmp_path / "old.safetensors", gone, format=1, validation=rows)
    known = checkpoint.read_validation(old)
    assert np.allclose(known.logits, KNOWN.logits, rtol=1e-6, atol=0)
    assert np.array_equal(known.labels, KNOWN.labels, equal_nan=True)
    assert checkpoint.load(old)[0] == checkpoint.load(good)[0]
    for field, value, message in (
            ("logits", rows["logits"][:1], "1 rows of logits and 2 of labels"),
            ("labels", [[0.0], [1.0]], "validation.labels: a row of 1 numbers, expected 2"),
            ("labels", [[0, 1], [0, 2]], "found values other than 0, 1 and null"),
            ("logits", [[None, 0], [0, 0]], r"validation.logits\[0\]\[0\]: found None"),
            ("logits", [[1e39, 0], [0, 0]], r"validation.logits\[0\]\[0\]: found 1e\+39")):
        rewritten(good, old, gone, format=1, validation=rows | {field: value})
        with pytest.raises(UserError, match=message):
            checkpoint.read(old)


@pytest.mark.parametrize(("tensors", "fields", "messages"), [
    ({"validation.labels": None}, {}, ["validation.labels: missing"]),
    ({"validation.logits": torch.zeros(2, 3)}, {}, [
        "validation.logits: found (2, 3), expected a row of 2 numbers for each scan"]),
    ({"validation.logits": torch.zeros(2), "validation.labels": torch.zeros(0, 2)}, {}, [
        "validation.logits: found (2,), expected", "validation.labels: found (0, 2), expected"]),
    ({"validation.logits": torch.zeros(3, 2)}, {}, [
        "validation: 3 rows of logits and 2 rows of labels, expected the same number of each"]),
    ({"validation.labels": torch.zeros(2, 2).half()}, {}, [
        "validation.labels: found torch.float16, expected torch.float32"]),
    ({"validation.logits": torch.tensor([[NAN, 0], [math.inf, 0]]),
      "validation.labels": torch.tensor([[0, NAN], [2, 0.5]])}, {}, [
        "validation.logits: 2 of 4 values are NaN or infinite",
        "validation.labels: 2 of 4 values are not 0 and 1, or NaN where unknown"]),
    ({}, {"validation": {"logits": [[0, 0]], "labels": [[0, 1]]}}, [
        "validation: found in the header too, expected only the tensors"]),
    ({}, {"format": 1, "validation": {"logits": [[0, 0]], "labels": [[0, 1]]}}, [
        "validation.logits: unknown in a file of format 1", "validation.labels: unknown"]),
])
def test_what_does_not_fit_is_refused_with_every_fault(good, tmp_path, tensors, fields, messages):
    path = rewritten(good, tmp_path / "a.safetensors", tensors, **fields)
    with pytest.raises(UserError, match="It is damaged, or was changed after it was ") as error:
        checkpoint.load(path)
    assert [message for message in messages if message not in str(error.value)] == []


def test_labels_of_a_regression_are_any_finite_numbers(good, tmp_path):
    numbers = {"task": "regression", "labels": ["a", "b"], "mean": [0, 0], "std": [1, 1]}
    path = tmp_path / "a.safetensors"
    rewritten(good, path, {"validation.labels": torch.tensor([[NAN, 70], [-3e9, 0.5]])},
              target=numbers)
    assert checkpoint.read_validation(path).labels[0, 1] == 70
    rewritten(good, path, {"validation.labels": torch.tensor([[math.inf, 70], [0, 0]])},
              target=numbers)
    with pytest.raises(UserError, match="1 of 4 values are not finite numbers, or NaN where"):
        checkpoint.read(path)


def test_what_could_not_be_read_is_not_written(tmp_path):
    with pytest.raises(RunError, match=r"(?s)could not be read back.*found \(2, 1\), expected"):
        checkpoint.save(tmp_path / "a.safetensors", checkpoint.build(CARD), CARD,
                        Validation(LOGITS[:, :1], LOGITS[:, :1]))
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_them_is_of_format_1(good, tmp_path):
    card, state = checkpoint.read(good)
    checkpoint.write(path := tmp_path / "a.safetensors", state, shared_header(card, KNOWN))
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["slivit"])["format"] == 1
        assert not [name for name in file.keys() if "validation" in name]  # noqa: SIM118
    assert KNOWN.logits.tobytes() in good.read_bytes()
    assert KNOWN.logits.tobytes() not in path.read_bytes()
    assert checkpoint.read_validation(path) is None


def test_a_backbone_with_them_starts_a_training_and_loads_in_timm(good):
    assert set(read_start(good).state) == set(checkpoint.read(good)[1])
    model = timm.create_model(BACKBONE, num_classes=2)
    left = timm.models.load_checkpoint(model, str(good), strict=False)
    assert left.unexpected_keys == ["validation.labels", "validation.logits"]
    assert left.missing_keys == []
    timm.create_model(BACKBONE, pretrained=True, num_classes=2,
                      pretrained_cfg_overlay={"file": str(good)})


def test_a_large_validation_set_takes_no_time(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (200_000, 14)).astype(np.float32)
    labels[rng.random(labels.shape) < 0.1] = NAN
    known = Validation(rng.normal(size=labels.shape).astype(np.float32), labels)
    names = tuple(f"label {k}" for k in range(14))
    card = CheckpointHeader("backbone", BACKBONE, None, Target("multilabel", names), preprocess(),
                            DATA)
    start = time.monotonic()
    checkpoint.save(path := tmp_path / "a.safetensors", checkpoint.build(card), card, known)
    again = checkpoint.read_validation(path)
    assert time.monotonic() - start < 20  # in the header: minutes, and more than it may hold
    assert np.array_equal(again.logits, known.logits)
    assert np.array_equal(again.labels, known.labels, equal_nan=True)
