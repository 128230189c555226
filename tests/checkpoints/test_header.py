"""Headers of checkpoints: what does not fit is refused before anything is built of it."""

import copy
import json
import time

import pytest
import torch
from helpers import BACKBONE, TINY_VIT, preprocess
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from slivit.checkpoints import checkpoint
from slivit.checkpoints.checkpoint import CheckpointHeader, Validation
from slivit.config import IntegratorConfig, Preprocess, Target, label_name_faults
from slivit.utils.errors import RunError, UserError
from slivit.utils.records import Misfit, check

DATA = {"name": "made up", "fingerprint": "f", "split_ratio": "0.7,0.15,0.15", "split_seed": 0,
        "patients": ["p"]}
TRAINING = {"cohort": {"train": {"scans": 5, "patients": None,
                                 "labels": {"a": {"known": 4, "positive": 2}}}},
            "augmentation": {"flips": "h", "jitter": 1.0}, "backbone_data": None,
            "options": {"lr": 1e-4, "pos_weight": None, "amp": "off", "ema": 0}}
CARD = CheckpointHeader("slivit", BACKBONE, TINY_VIT,
                        Target("multilabel", ("a", "b"), shift=(0.5, 0.25)), preprocess(3), DATA, 4,
                        {"roc_auc": 0.5, "pr_auc": None}, 7, {"torch": "2"}, TRAINING, 0.8)
NUMBERS = Target("regression", ("a", "b"), mean=(1.0, 2.0), std=(3.0, 4.0))


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A checkpoint, with what it gave on two validation scans."""
    path = tmp_path_factory.mktemp("good") / "slivit.safetensors"
    torch.manual_seed(0)
    rows = torch.tensor([[1.0, float("nan")], [0.0, 1.0]]).numpy()
    checkpoint.save(path, checkpoint.build(CARD), CARD, Validation(rows[1:].repeat(2, 0), rows))
    return path


@pytest.fixture(scope="module")
def header(good):
    """What its header says."""
    with safe_open(good, framework="pt") as file:
        return json.loads(file.metadata()["slivit"])


@pytest.fixture
def write(good, header, tmp_path):
    """Write a checkpoint with another header, text or a change of the good one."""
    def written(change, **tensors):
        text = change
        if callable(change):
            content = copy.deepcopy(header)
            text = json.dumps(change(content) or content)
        path = tmp_path / "slivit.safetensors"
        state = load_file(good) | tensors  # None: without it
        save_file({name: one for name, one in state.items() if one is not None}, path,
                  {"slivit": text})
        return path

    return written


def put(place, value):
    """Return what changes a header at a place such as `target.labels`."""
    def change(content):
        *parts, last = place.split(".")
        for part in parts:
            content = content[part]
        content[last] = value

    return change


def drop(name):
    return lambda content: content.pop(name) and None


def refusal(path):
    with pytest.raises(UserError) as error:
        checkpoint.load(path)
    return str(error.value)


@pytest.mark.parametrize(("place", "value", "messages"), [
    ("temperature", 0, ["temperature: found 0, expected greater than or equal to 0.001"]),
    ("temperature", 1e300, ["temperature: found 1e+300, expected less than or equal to 1000"]),
    ("thresholds", [0.5], ["thresholds: found 1, expected 2, one per label"]),
    ("target.shift", [1e300, 0.0], ["target.shift[0]: found 1e+300, expected less than"]),
    ("preprocess.std", [1e300] * 3, ["preprocess.std[0]: found 1e+300, expected less than"]),
    ("preprocess.std", [1e-30] * 3, ["preprocess.std[0]: found 1e-30, expected greater than"]),
    ("preprocess.mean", [1e300] * 3, ["preprocess.mean[0]: found 1e+300, expected less than"]),
    ("preprocess.window", "-1e308,1e308", ["preprocess: --window -1e308,1e308: expected"]),
    ("temperature", "1", ["temperature: found '1', expected a valid number"]),
    ("temperature", float("inf"), ["Infinity is not a JSON number"]),
    ("kind", "volume", ["kind: found 'volume', expected 'backbone' or 'slivit'"]),
    ("kind", "backbone", ["integrator: found one, expected none for kind backbone",
                          "preprocess.n_slices: found 3, expected 0"]),
    ("backbone", "resnet18", ["backbone: resnet18: not a ConvNeXt of timm. Nearest: "]),
    ("backbone", "convnext_tiny.madeup", ["convnext_tiny has no weights tagged 'madeup'"]),
    ("integrator", None, ["integrator: missing for kind slivit"]),
    ("integrator", [], ["integrator: found [], expected an object"]),
    ("integrator.token", "whole", ["integrator.token: found 'whole', expected 'flatten', 'pool'"]),
    ("integrator.depth", 10 ** 7, ["integrator.depth: found 10000000, expected less than"]),
    ("integrator.depth", True, ["integrator.depth: found True, expected a valid integer"]),
    ("integrator.depth", 1.0, ["integrator.depth: found 1.0, expected a valid integer"]),
    ("integrator.dim", 10 ** 40, ["integrator.dim: found 1000"]),
    ("integrator.dropout", 1, ["integrator.dropout: found 1, expected less than 1"]),
    ("preprocess.channels", "rgb", ["preprocess.channels: found 'rgb', expected 'repeat' or"]),
    ("preprocess.slice_sampling", "", ["preprocess.slice_sampling: found ''"]),
    ("preprocess.window", "10,-10", ["preprocess: --window 10,-10: expected percentile, full"]),
    ("preprocess.views", ["axial", "axial"], ["views axial, axial: expected one of acquisition"]),
    ("preprocess.views", ["top"], ["views top: expected one of acquisition, axial"]),
    ("preprocess.views", [], ["preprocess.views: found"]),
    ("preprocess.img_size", 10 ** 6, ["preprocess.img_size: found 1000000, expected less"]),
    ("preprocess.mean", [0, 0], ["preprocess.mean[2]: missing"]),
    ("preprocess.std", [1, 1, 0], ["preprocess.std[2]: found 0, expected greater than or"]),
    ("preprocess.n_slices", 0, ["preprocess.n_slices: found 0, expected 1 or more"]),
    ("preprocess", 7, ["preprocess: found 7, expected an object"]),
    ("target.task", "guess", ["target.task: found 'guess', expected 'binary', 'multilabel'"]),
    ("target.task", "regression", ["mean of 0 numbers, expected 2 for regression of 2 labels",
                                   "std of 0 numbers, expected 2", "shift of 2 numbers, expected"]),
    ("target.task", "binary", ["target: 2 labels, expected 1 for binary"]),
    ("target.labels", ["id", "b"], ["target: id cannot be a label: predictions.csv has a column"]),
    ("target.labels", ["a", "a_pred"], ["a_pred cannot be a label"]),
    ("target.labels", ["a", "a"], ["these labels appear twice: a"]),
    ("target.labels", ["a", " "], ["a label without a name"]),
    ("target.labels", [], ["target: 0 labels, expected 1 or more for multilabel"]),
    ("target.task", "ssl", ["target: 2 labels, expected 0 for ssl"]),
    ("target", {"task": "ssl", "labels": []}, ["target.task: found ssl, expected one with labels"]),
    ("target.labels", "ab", ["target.labels: found 'ab', expected a valid"]),
    ("target.shift", [1.0], ["shift of 1 numbers, expected none or 2"]),
    ("target.mean", [1.0, 2.0], ["mean of 2 numbers, expected 0 for multilabel of 2 labels"]),
    ("target.column", "grade", ["column 'grade' for multilabel, expected none"]),
    ("data.patients", "P1", ["data.patients: found 'P1', expected a valid"]),
    ("data.split_ratio", "nan,nan,nan", ["data.split_ratio: "]),
    ("data.split_seed", -1, ["data.split_seed: found -1, expected greater than or equal to 0"]),
    ("data.name", None, ["data.name: found None, expected a valid string"]),
    ("data.assumed", ["all"], ["data.assumed[0]: found 'all', expected 'tiling', 'task' or"]),
    ("data", {}, ["data.name: missing", "data.fingerprint: missing", "data.patients: missing"]),
    ("score", {"roc_auc": "high"}, ["score.roc_auc: found 'high', expected a valid number"]),
    ("score", [], ["score: found [], expected"]),
    ("seed", -1, ["seed: found -1"]),
    ("epoch", None, ["epoch: found None"]),
    ("versions", {"torch": 2}, ["versions.torch: found 2, expected a valid string"]),
    ("training.cohort.train", 3, ["training.cohort.train: found 3, expected an object"]),
    ("training.cohort.train.labels.a", {"known": 3}, ["labels.a: positive missing"]),
    ("training.augmentation.flips", "x", ["training.augmentation: flips 'x', expected letters"]),
    ("training.options.lr", [1], ["training.options.lr: found [1], expected text, a finite"]),
    ("format", "1", ["format: found '1', expected a valid integer"]),
    ("format", 1, ["validation.logits: unknown in a file of format 1"]),
    ("format", 3, ["has format 3, this version reads 1 and 2. It was written by a newer version"]),
])
def test_field_that_does_not_fit_is_named(write, place, value, messages):
    text = refusal(path := write(put(place, value)))
    assert text.startswith(f"{path}: ")
    assert [message for message in messages if message not in text] == []


def test_all_that_does_not_fit_is_said_at_once(write):
    def change(content):
        content["temperature"] = 0
        content["integrator"]["token"] = "x"
        content["preprocess"]["window"] = "q"
        content["target"]["labels"] = ["id", "b"]
        del content["backbone"]

    lines = refusal(write(change)).splitlines()
    assert lines[0].endswith("its header is not valid:")
    assert [line.split(":")[0].strip() for line in lines[1:6]] == [
        "backbone", "integrator.token", "target", "preprocess", "temperature"]
    assert lines[6].startswith("It is damaged, or was changed after it was written")


@pytest.mark.parametrize("place", ["depth_of_field", "integrator.registers", "data.keys",
                                   "preprocess.zoom", "target.weights", "training.mood"])
def test_field_of_a_newer_version_is_named(write, place):
    text = refusal(write(put(place, 3)))
    assert f"{place}: unknown to this version" in text
    assert "written by a newer version of SLIViT; update" in text


@pytest.mark.parametrize(("text", "message"), [
    ("", "not valid JSON"), ("{", "not valid JSON"), ("null", "found None, expected a JSON object"),
    ("[" * 100_000, "nested too deeply"), ('{"format": 1, "format": 1}', "a field appears twice"),
    ('{"seed": NaN}', "NaN is not a JSON number"), ('{"seed": 1' + "0" * 5000 + "}", "not valid"),
    ('"text"', "found 'text', expected a JSON object"), ("{}", "format: missing"),
    ('{"format": 1, "kind": "\\ud800"}', "is not valid"),
])
def test_text_that_is_no_header_is_refused(write, text, message):
    assert message in refusal(write(text))


def test_files_of_earlier_versions_load(write):
    def change(content):
        for name in ("training", "temperature", "epoch", "score", "versions"):
            del content[name]
        del content["target"]["shift"], content["preprocess"]["views"]
        del content["preprocess"]["channels"]
        content["format"] = 1

    path = write(change, **{"validation.logits": None, "validation.labels": None})
    card, _ = checkpoint.load(path)
    assert (card.training, card.temperature, card.preprocess.views) == ({}, None, ("acquisition",))
    assert checkpoint.read_validation(path) is None


def test_sizes_are_compared_with_the_tensors_before_anything_is_built(write):
    start = time.monotonic()
    text = refusal(write(put("integrator.depth", 1000)))
    assert "found 1000, but the tensors of 1 blocks" in text
    text = refusal(write(put("integrator.mlp_dim", 2 ** 20)))
    assert "integrator.blocks.0.mlp.fc1.weight: found (32, 16), expected (1048576, 16)" in text
    text = refusal(write(put("preprocess.img_size", 2 ** 14)))
    assert "integrator.embed.0.weight: found (256,), expected (67108864,)" in text
    assert time.monotonic() - start < 10


def test_whole_numbers_are_no_weights(write):
    text = refusal(write(lambda content: None, **{
        "integrator.norm.weight": torch.ones(16, dtype=torch.int64)}))
    assert "integrator.norm.weight: found torch.int64, expected torch.float32" in text


def test_weights_that_are_not_finite_are_refused(write):
    bad = torch.ones(16)
    bad[3:6] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    text = refusal(write(lambda content: None, **{"integrator.norm.weight": bad}))
    assert "1 of its tensors are not complete, finite numbers:" in text
    assert "integrator.norm.weight: 3 of 16 values are NaN or infinite" in text


def test_nothing_is_written_that_could_not_be_read(tmp_path):
    card = CheckpointHeader(**{**vars(CARD), "target": Target("multilabel", ("id", "b"))})
    with pytest.raises(RunError, match=r"(?s)could not be read back.*id cannot be a label"):
        checkpoint.save(tmp_path / "a.safetensors", checkpoint.build(card), card)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("record", [NUMBERS, IntegratorConfig(), Preprocess(
    224, "full", (0.0, 0.5, 1.0), (1.0, 1.0, 1.0), 28)])
def test_our_own_records_fit(record):
    check(record)


def test_record_that_no_machine_could_train_does_not_fit():
    with pytest.raises(Misfit, match="depth: found 5000, expected less than or equal to 1024"):
        check(IntegratorConfig(depth=5000))


def test_label_names_are_columns_of_their_own():
    assert label_name_faults(["a", "b", "A"]) == []
    assert label_name_faults(["patient"])[0].startswith("patient cannot be a label")
