"""Files of the Hub: fetched once, by revision, and one message where they cannot be had."""

import json
import socket
import time
from pathlib import Path

import pytest
from helpers import RUN_3D, run_evaluate
from hub_server import TOKEN, Repository
from huggingface_hub import constants

import finetune
import slivit
from slivit.checkpoints import hub as hub_names
from slivit.checkpoints.hub import HubName, local_file, parse_hub_name, pinned, title_of
from slivit.report.evaluation import short_names
from slivit.utils.errors import UserError


def publish(hub, repo="lab/model", files=None, **facts):
    """Put a repository on the Hub; return the hash of its commit."""
    hub.repositories[repo] = Repository(**facts)
    return hub.repositories[repo].add(files or {"slivit.safetensors": b"weights"})


def refusal(name):
    """Return the message with which a file is refused, which must come at once."""
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        local_file(name)
    assert time.monotonic() - start < 5
    return str(error.value)


@pytest.mark.parametrize(("text", "name"), [
    ("hf://lab/model", HubName("lab/model")),
    ("hf://lab/a.b_c-d@v1.0", HubName("lab/a.b_c-d", None, "v1.0")),
    ("hf://lab/model/runs/b.pth@refs/pr/1", HubName("lab/model", "runs/b.pth", "refs/pr/1"))])
def test_names_are_read_and_written(text, name):
    assert parse_hub_name(text) == parse_hub_name(Path(text)) == name
    assert str(name) == text


@pytest.mark.parametrize(("text", "fault"), [
    ("hf://model", "found 'model/', expected owner/name"), ("hf://", "expected owner/name"),
    ("hf://lab/mo del", "expected owner/name"), ("hf://lab/a--b", "expected owner/name"),
    ("hf://lab/model/../x", "found '../x', expected the path of a file"),
    ("hf://lab/model/", "found '', expected the path of a file"),
    ("hf://lab/model@", "found '' after the @"), ("hf://lab/model@a b", "found 'a b' after the @"),
    ("hf://datasets/lab/model", "names of datasets are not accepted")])
def test_other_names_are_refused(text, fault, capsys):
    with pytest.raises(UserError) as error:
        local_file(text)
    assert fault in str(error.value)
    assert "hf://owner/name[/file][@revision]" in str(error.value)
    with pytest.raises(SystemExit):
        finetune.main(["--bb_path", text])
    assert fault in capsys.readouterr().err


def test_a_file_is_fetched_once_and_a_new_commit_again(hub):
    first = publish(hub)
    path = local_file("hf://lab/model")
    assert path.read_bytes() == b"weights" and path == local_file(Path("hf://lab/model"))
    assert len(hub.sent("GET", "/cdn/")) == 1
    second = hub.repositories["lab/model"].add({"slivit.safetensors": b"better"})
    assert local_file("hf://lab/model").read_bytes() == b"better"
    assert pinned("hf://lab/model") == f"hf://lab/model/slivit.safetensors@{second}"
    before = len(hub.requests)
    assert local_file(f"hf://lab/model@{first}") == path  # nobody is asked about a commit
    assert len(hub.requests) == before


def test_other_paths_stay_as_they_are():
    assert local_file("no/such.file") == Path("no/such.file")
    assert pinned(Path("a.safetensors")) == Path("a.safetensors")
    assert title_of(Path("/x/snapshots/a.safetensors")) == "/x/snapshots/a.safetensors"
    commit = "0123456789abcdef0123456789abcdef01234567"
    paths = [Path(f"/x/models--lab--{name}/snapshots/{commit}/s") for name in "ab"]
    assert short_names(paths) == [f"hf://lab/{name}/s@{commit}" for name in "ab"]


def test_the_only_weights_are_taken_where_no_file_is_named(hub):
    publish(hub, files={"backbone.safetensors": b"b", "README.md": b""})
    assert local_file("hf://lab/model").name == "backbone.safetensors"
    hub.repositories["lab/model"].add({"other.safetensors": b"o"})
    text = refusal("hf://lab/model")
    assert "has no slivit.safetensors, nor just one .safetensors file (weights there: " in text
    assert "backbone.safetensors, other.safetensors). Name a file" in text
    assert local_file("hf://lab/model/other.safetensors").read_bytes() == b"o"


def test_what_cannot_be_had_is_one_message_at_once(hub, monkeypatch):
    publish(hub)
    publish(hub, "lab/private", private=True)
    publish(hub, "lab/gated", gated=True)
    hub.repositories["lab/empty"] = Repository()
    for name, text in (
            ("lab/none", "hf://lab/none: there is no such repository, or it is private and no "
                         "token is set (log in with `hf auth login`, or set HF_TOKEN). Wanted "
                         "slivit.safetensors or backbone.safetensors from "
                         f"{hub.url}/lab/none. To go on without the Hub, download the file in a "
                         "browser or on another machine, and give its path"),
            ("lab/private", "no such repository, or it is private and no token is set"),
            ("lab/gated", f"its owner admits those who ask: do so at {hub.url}/lab/gated"),
            ("lab/model@v9", "the repository has no revision v9"),
            ("lab/empty", "hf://lab/empty: the repository is empty. Wanted"),
            ("lab/model/x.pth", "has no x.pth (weights there: slivit.safetensors)")):
        assert text in refusal(f"hf://{name}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert local_file("hf://lab/private").read_bytes() == b"weights"
    assert "or it is private and your token may not read it" in refusal("hf://lab/none")


def test_without_network_the_cached_file_is_taken(hub, monkeypatch, messages):
    publish(hub)
    path = local_file("hf://lab/model")
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        before = len(hub.requests)
        assert local_file("hf://lab/model") == path and len(hub.requests) == before
        assert "HF_HUB_OFFLINE is set, and this file has not been" in refusal("hf://lab/other")
    with socket.socket() as listening:  # takes connections, and never answers
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://{listening.getsockname()[0]}:"
                                                   f"{listening.getsockname()[1]}")
        monkeypatch.setattr(hub_names, "TIMEOUT", 0.2)
        assert local_file("hf://lab/model") == path
        assert "the Hub was not asked whether there is a newer file (" in messages[-2]
        text = refusal("hf://lab/other")
    assert "the Hub cannot be reached, or does not answer as expected (" in text
    assert "download the file in a browser or on another machine, and give its path" in text


@pytest.mark.usefixtures("unmeasured")
def test_training_starts_from_the_hub_and_notes_the_commit(hub, volume_csv, backbone_run, tmp_path):
    content = (backbone_run / "backbone.safetensors").read_bytes()
    commit = publish(hub, files={"backbone.safetensors": content})
    finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", "--n_epochs", "1",
                   "--bb_path", "hf://lab/model", *RUN_3D[4:], "--out_dir", str(tmp_path / "run")])
    config = json.loads((tmp_path / "run/config.json").read_text())
    name = f"hf://lab/model/backbone.safetensors@{commit}"
    assert config["bb_path"] == name
    assert config["backbone_data"] == f"images.csv ({name})"


def test_a_checkpoint_of_the_hub_gives_the_same_predictions(hub, volume_csv, binary_run, tmp_path):
    path = binary_run / "slivit.safetensors"
    commit = publish(hub, files={"slivit.safetensors": path.read_bytes()})
    run_evaluate("hf://lab/model", tmp_path / "out", "--meta_csv", volume_csv)
    predictions = [(folder / "predictions.csv").read_bytes()
                   for folder in (binary_run, tmp_path / "out")]
    assert predictions[0] == predictions[1]
    name = f"hf://lab/model/slivit.safetensors@{commit}"
    assert json.loads((tmp_path / "out/config.json").read_text())["checkpoint"] == [name]
    report = (tmp_path / "out/report.html").read_text()
    assert name in report and "hub_cache" not in report
    assert slivit.load("hf://lab/model", gpu_id="cpu").labels == ("A",)
    with pytest.raises(slivit.UserError, match="there is no such repository, or it is private"):
        slivit.load("hf://lab/none", gpu_id="cpu")
