"""slivit.share: what leaves the machine, who may read it, and what is refused."""

import base64
import dataclasses
import io
import json
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from helpers import run_evaluate
from hub_server import TOKEN, Repository

from slivit import share
from slivit.checkpoints import checkpoint
from slivit.checkpoints.sharing import removed, shared_header
from slivit.checkpoints.subjects import subject_kind
from slivit.checkpoints.timm_weights import find_timm_weights
from slivit.metrics.operating_point import parse_rule
from slivit.report.evaluation import choose_thresholds
from slivit.utils.errors import UserError, run_script


@pytest.fixture
def model(binary_run):
    """A checkpoint that was trained on a table with patients."""
    return binary_run / "slivit.safetensors"


@pytest.fixture
def account(hub, monkeypatch):
    """The Hub, logged in to."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def everything_sent(hub):
    """Return all bytes that the Hub got, those in base64 decoded too."""
    parts = [*hub.headers, *(path.encode() + body for _, path, body in hub.requests)]
    for body in hub.sent("POST", "/preupload/"):
        parts += [base64.b64decode(file["sample"]) for file in json.loads(body)["files"]]
    for one in hub.repositories.values():
        parts += [content for files in one.commits.values() for content in files.values()]
    return b"\n".join(parts)


def test_nothing_of_people_or_files_is_sent(account, model, volume_csv, capsys):
    share.main([str(model), "--to", "lab/model", "--yes", "--license", "cc-by-4.0"])
    create, = account.sent("POST", "/api/repos/create")
    wanted = json.loads(create)
    assert wanted.get("visibility") == "private" or wanted.get("private") is True
    assert account.repositories["lab/model"].private
    sent = everything_sent(account)
    files = list(account.repositories["lab/model"].commits.values())[-1]
    assert set(files) == {".gitattributes", "README.md", "slivit.safetensors"}
    assert files["slivit.safetensors"] in sent and b"0.1.0" in sent  # all is looked through

    card, _ = checkpoint.read(model)
    validation = checkpoint.read_validation(model)
    table = pd.read_csv(volume_csv)
    assert len(card.data["patients"]) == 24 and card.data["patient_key"]
    secrets = [*card.data["patients"], card.data["patient_key"], card.data["fingerprint"],
               "volumes.csv", "images.csv", str(model.parent), str(volume_csv.parent),
               *table["F_Name"], *table["Path"], *(f'"{pid}"' for pid in table["pid"]),
               "logits", "validation\"", "validation.",
               *(f"{value:.7g}" for value in validation.logits.flat)]
    assert not [text for text in secrets if text.encode() in sent]
    assert validation.logits.tobytes() in model.read_bytes()
    assert validation.logits.tobytes() not in sent and validation.labels.tobytes() not in sent
    out = capsys.readouterr().out
    assert "the name of the table (volumes.csv) and its fingerprint" in out
    assert "hashes of 24 patients" in out and "predictions and labels of 6 scans" in out
    assert "name a private table" in out and "cohort:" in out


def test_the_card_says_what_the_model_is(model, tmp_path):
    out = tmp_path / "shared"
    share.main([str(model), "--to", "lab/model", "--license", "cc-by-4.0", "--out_dir", str(out)])
    _, metadata, text = (out / "README.md").read_text().split("---\n", 2)
    for line in ("license: cc-by-4.0", "library_name: slivit", "pipeline_tag: image-classification",
                 "- medical"):
        assert line in metadata.splitlines()
    for part in ("predicts A (binary)", "Not a medical device", "--checkpoint hf://lab/model ",
                 'slivit.load("hf://lab/model")', "32 pixels per side", "| scans | 12 | 6 | 6 |",
                 "| patients | 4 | 2 | 2 |", "a private table", "ROC-AUC: "):
        assert part in text, part
    assert "\n\n\n" not in text


def test_a_shared_model_predicts_the_same_and_keeps_its_threshold(model, volume_csv, tmp_path,
                                                                  capsys):
    share.main([str(model), "--to", "lab/model", "--out_dir", str(tmp_path / "shared")])
    shared = tmp_path / "shared/slivit.safetensors"
    theirs, _ = run_evaluate(shared, tmp_path / "out", "--meta_csv", volume_csv)
    assert (tmp_path / "out/predictions.csv").read_bytes() == (
        model.parent / "predictions.csv").read_bytes()
    mine = json.loads((model.parent / "metrics.json").read_text())
    assert mine["labels"] == theirs["labels"]
    assert theirs["labels"]["A"]["operating_point"]["chosen_on"] == "validation"
    assert (f"were in the training of {shared}: it does not record everyone on whom "
            "it, or a backbone before it, was trained") in capsys.readouterr().out
    with pytest.raises(UserError, match="was trained on a private table; give the table to"):
        run_evaluate(shared, tmp_path / "none")


def test_a_shared_threshold_is_that_of_youden_for_the_model_alone(model):
    card, validation = checkpoint.read(model)[0], checkpoint.read_validation(model)
    one = SimpleNamespace(card=card, validation=validation)
    shared = SimpleNamespace(card=shared_header(card, validation), validation=None)
    youden, other = parse_rule("youden"), parse_rule("sensitivity=0.9")
    threshold, = choose_thresholds([one], youden)
    assert choose_thresholds([shared], youden) == [threshold] and threshold is not None
    for models, rule, calibrate in (([shared], other, False), ([shared], youden, True),
                                    ([shared, shared], youden, False)):
        assert choose_thresholds(models, rule, calibrate) == [None]


def test_only_what_is_on_the_lists_stays(model):
    card, validation = checkpoint.read(model)[0], checkpoint.read_validation(model)
    options = {"lr": 1e-4, "weights": "/home/u/x.pth", "amp": "off", "auxiliary": "name, age"}
    cohort = {split: {"scans": 4, "patients": 2, "labels": {
        "A": {"known": known, "positive": 1}, "secret": {"known": 9, "positive": 1}}}
        for split, known in (("train", 9), ("val", 4))}
    card = dataclasses.replace(
        card, score={"roc_auc": 0.5, "P1": 1.0}, versions={"torch": "2", "host": "pc"},
        training={"cohort": cohort, "backbone_data": "clinic.csv", "options": options})
    shared = shared_header(card, validation)
    assert shared.score == {"roc_auc": 0.5} and shared.versions == {"torch": "2"}
    assert shared.training == {
        "cohort": {"train": {"scans": 4, "patients": 2,
                             "labels": {"A": {"known": 9, "positive": 1}}},
                   "val": {"scans": 4, "patients": 2, "labels": {}}},
        "backbone_data": "other weights", "options": {"lr": 1e-4, "amp": "off"}}
    assert shared.data | {"split_seed": 0} == {
        "name": "a private table", "fingerprint": "", "split_ratio": None, "split_seed": 0,
        "patients": [], "subjects": "unknown"}
    assert "options: weights, auxiliary" in removed(card, validation)
    assert (subject_kind(shared), subject_kind(card)) == ("unknown", "patients")
    assert shared_header(shared, None) == shared and not removed(shared, None)
    known = dataclasses.replace(card, data=card.data | {"name": "nodulemnist3d_64"}, training={
        "backbone_data": "noduleshapes2d (hf://lab/b/backbone.safetensors@0)"})
    known = shared_header(known, validation)
    assert known.data["name"] == "nodulemnist3d_64" and known.data["fingerprint"]
    assert known.training == {"backbone_data": "noduleshapes2d"}
    start = find_timm_weights("convnext_tiny.fb_in22k").trained_on
    timm = dataclasses.replace(card, backbone="convnext_tiny.fb_in22k",
                               training={"backbone_data": start}, intended_use="Lungs only.")
    timm = shared_header(timm, None)
    assert timm.training == {"backbone_data": start} and timm.intended_use == "Lungs only."


def test_a_repository_that_others_may_read_is_refused(account, model):
    def shared(*options):
        share.main([str(model), "--to", "lab/model", "--yes", *options])

    account.repositories["lab/model"] = Repository()
    account.repositories["lab/model"].add({"slivit.safetensors": b"old", "other.txt": b""})
    with pytest.raises(UserError, match="exists and is public; add --public if everybody"):
        shared()
    with pytest.raises(UserError, match=r"already has slivit\.safetensors; add --overwrite"):
        shared("--public")
    assert not account.sent("POST", "/commit/") and not account.sent("PUT", "/cdn/")
    shared("--public", "--overwrite")
    files = list(account.repositories["lab/model"].commits.values())
    assert files[-1]["slivit.safetensors"] != b"old" and "other.txt" in files[-1]
    account.repositories["lab/model"].private = True
    with pytest.raises(UserError, match="exists and is private; omit --public"):
        shared("--public")


def test_it_asks_before_the_upload(account, model, monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for answer, uploads in (("n\n", 0), ("", 0), ("yes\n", 1)):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        share.main([str(model), "--to", "lab/model"])
        assert len(account.sent("POST", "/commit/")) == uploads
    out = capsys.readouterr().out
    assert "Upload this to lab/model, where only you, or your organisation, can read it?" in out
    assert out.count("nothing was uploaded") == 2 and "uploaded to hf://lab/model as hf://" in out


def test_bad_input_is_one_message_and_nothing_is_sent(hub, model, backbone_run, tmp_path,
                                                      monkeypatch, capsys):
    def refusal(*options, path=model, to="lab/model"):
        with pytest.raises(SystemExit) as stop:
            run_script(lambda: share.main([str(path), "--to", to, *options]))
        assert stop.value.code == 2
        return capsys.readouterr().err

    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert "no token for the Hugging Face Hub" in refusal("--yes")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "there is no terminal to ask on before the upload" in refusal()
    assert "found 'model', expected owner/name" in refusal(to="model")
    assert "found 'hf://lab/model', expected owner/name" in refusal(to="hf://lab/model")
    assert "expected an identifier of the Hub, such as apache-2.0" in refusal("--license", "My own")
    assert "no such checkpoint file" in refusal("--yes", path=tmp_path / "none.safetensors")
    assert "is not a complete safetensors file" in refusal("--yes", path=backbone_run / "last.pt")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").touch()
    assert "is not empty" in refusal("--out_dir", str(tmp_path / "full"))
    assert not hub.requests
    monkeypatch.setenv("HF_TOKEN", "another")
    message = refusal("--yes")
    assert f"--to lab/model: the upload to {hub.url}/lab/model failed (Invalid " in message
    assert "write the files with --out_dir and upload them in a browser" in message
    assert not hub.repositories
