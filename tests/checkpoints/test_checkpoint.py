"""Checkpoints: there and back, and what is refused."""

import dataclasses
import json

import pytest
import torch
from helpers import BACKBONE, TINY_VIT, preprocess
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from slivit.checkpoints import checkpoint
from slivit.checkpoints.checkpoint import CheckpointHeader
from slivit.checkpoints.pretrained import read_start
from slivit.config import Target
from slivit.data.batch import Batch
from slivit.models.backbone import create_backbone
from slivit.prediction import run_model
from slivit.utils.errors import UserError

CARD = CheckpointHeader("slivit", BACKBONE, TINY_VIT,
                        Target("regression", ("a", "b"), mean=(1.0, 2.0), std=(3.0, 4.0)),
                        preprocess(3, window="-1000,400", slice_sampling="middle"),
                        {"name": "made up", "fingerprint": "f", "split_ratio": None,
                         "split_seed": 0, "patients": ["p"]}, 4, {"r2": 0.5, "mae": None}, 7,
                         {"torch": "2"})
BACKBONE_CARD = dataclasses.replace(CARD, kind="backbone", integrator=None,
                                    target=Target("multilabel", ("a", "b")),
                                    preprocess=preprocess())


@pytest.fixture
def saved(tmp_path):
    """A whole model, saved, and where."""
    torch.manual_seed(0)
    model = checkpoint.build(CARD).eval()
    checkpoint.save(tmp_path / "slivit.safetensors", model, CARD)
    return model, tmp_path / "slivit.safetensors"


def test_round_trip_gives_the_same_card_and_outputs(saved):
    model, path = saved
    card, again = checkpoint.load(path)
    assert card == CARD
    x = torch.randint(0, 255, (2, 3, 1, 32, 32), dtype=torch.uint8)
    batch = Batch(x, torch.tensor([[True] * 3, [True, False, False]]), torch.zeros(2, 2))
    assert not again.training
    with torch.no_grad():
        assert torch.equal(run_model(model, batch), run_model(again, batch))


def test_header_is_plain_json_and_no_temporary_file_stays(saved):
    with safe_open(saved[1], framework="pt") as file:
        content = json.loads(file.metadata()["slivit"])
    assert content["format"] == 1
    assert content["target"]["labels"] == ["a", "b"]
    assert content["preprocess"]["window"] == "-1000,400"
    assert [path.name for path in saved[1].parent.iterdir()] == ["slivit.safetensors"]


def test_backbone_file_has_the_names_of_timm(tmp_path):
    model = checkpoint.build(BACKBONE_CARD)
    checkpoint.save(tmp_path / "backbone.safetensors", model, BACKBONE_CARD)
    state = load_file(tmp_path / "backbone.safetensors")
    assert set(state) == set(model.backbone.state_dict())
    assert "stem.0.weight" in state
    assert checkpoint.read(tmp_path / "backbone.safetensors")[0] == BACKBONE_CARD


def test_half_precision_halves_the_file_and_keeps_what_is_one_number_a_channel(saved, tmp_path):
    card, model = checkpoint.load(saved[1])
    checkpoint.save(tmp_path / "half.safetensors", model, card, half=True)
    whole, half = load_file(saved[1]), load_file(tmp_path / "half.safetensors")
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * saved[1].stat().st_size
    assert {key for key in half if half[key].dtype == torch.float16} == {
        key for key in whole if whole[key].ndim > 1}
    again = checkpoint.load(tmp_path / "half.safetensors")[1]
    for key, tensor in again.state_dict().items():
        assert tensor.dtype == whole[key].dtype
        torch.testing.assert_close(tensor, whole[key], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("damage", "message"), [
    (lambda path: path.unlink(), "no such checkpoint file"),
    (lambda path: path.write_bytes(path.read_bytes()[:-1000]), "not a complete safetensors file"),
    (lambda path: path.write_bytes(b""), "not a complete safetensors file"),
    (lambda path: torch.save({"a": torch.zeros(1)}, path), "not a complete safetensors file"),
    (lambda path: save_file({"a": torch.zeros(1)}, path), "without this project's header"),
    (lambda path: save_file({"a": torch.zeros(1)}, path, {"slivit": '{"format": 99}'}),
     "has format 99, this version reads 1 and 2"),
])
def test_damaged_and_foreign_files_are_refused(saved, damage, message):
    damage(saved[1])
    with pytest.raises(UserError, match=message):
        checkpoint.load(saved[1])


def test_tensors_that_do_not_fit_the_header_are_refused(saved):
    card = dataclasses.replace(CARD, preprocess=preprocess(9))
    checkpoint.save(saved[1], saved[0], card)
    with pytest.raises(UserError, match=r"(?s)tensors do not match the header.*pos_embed"):
        checkpoint.load(saved[1])


def test_the_backbone_of_a_slivit_with_batch_norm_starts_an_image_model(tmp_path):
    card = dataclasses.replace(CARD, backbone=f"{BACKBONE}_bn")
    checkpoint.save(tmp_path / "slivit.safetensors", model := checkpoint.build(card), card)
    start = read_start(tmp_path / "slivit.safetensors")
    start.load_into(backbone := create_backbone(start.backbone, 3))
    assert (backbone.stem[0].weight == model.backbone.stem[0].weight).all()
