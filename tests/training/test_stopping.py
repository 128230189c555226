"""A training that is stopped by signals, and what it goes on from."""

import json
import signal

import pytest
import torch
from helpers import RUN_3D, content, same_run

import finetune
from slivit.training import train_step as steps
from slivit.training import trainer as engine
from slivit.utils.errors import UserError
from slivit.utils.signals import Stopped


def send(number=signal.SIGTERM):
    signal.raise_signal(number)


@pytest.fixture(scope="module")
def command(volume_csv):
    """A training with everything random switched on."""
    return ["--meta_csv", str(volume_csv), "--pathologies", "A", *RUN_3D, "--n_epochs", "2",
            "--b_size", "2", "--dropout", "0.1", "--drop_path", "0.2", "--patience", "0", "--ema",
            "0.9", "--quiet"]


@pytest.fixture(scope="module")
def unbroken(command, tmp_path_factory):
    """The output of that training, never stopped."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    finetune.main([*command, "--out_dir", str(out)])
    return out


@pytest.mark.parametrize("moment", ["gradient", "weights"])
def test_two_signals_within_a_step_leave_the_last_whole_one(command, unbroken, tmp_path, moment,
                                                            monkeypatch):
    """The first comes in the third step, the second while last.pt is written."""
    gradient, weights, save, calls = (steps.compute_gradient, steps.update_weights,
                                      engine.save_state, [])

    def compute(*args):
        found = gradient(*args)  # dropout has drawn its random numbers
        calls.append("step")
        if moment == "gradient" and len(calls) == 3:
            send()
        return found

    def update(loop):
        before = [p.clone() for p in loop.model.parameters()]
        if moment == "weights" and len(calls) == 3:
            send()
        weights(loop)
        assert any(not torch.equal(a, b) for a, b in
                   zip(before, loop.model.parameters(), strict=True))

    def write(*args):
        send(signal.SIGINT)
        save(*args)
    for module, name, fake in ((steps, "compute_gradient", compute),
                               (steps, "update_weights", update), (engine, "save_state", write)):
        monkeypatch.setattr(module, name, fake)
    with pytest.raises(Stopped) as stopped:
        finetune.main([*command, "--out_dir", str(tmp_path)])
    monkeypatch.undo()
    assert (stopped.value.number, stopped.value.can_resume) == (signal.SIGTERM, True)
    saved = torch.load(tmp_path / "last.pt", weights_only=True)["progress"]
    assert saved["step"] == {"gradient": 2, "weights": 3}[moment]
    finetune.main([*command, "--out_dir", str(tmp_path), "--resume"])
    same_run(unbroken, tmp_path)


def test_before_the_folder_is_the_runs_own_nothing_is_said_of_resuming(command, tmp_path,
                                                                     monkeypatch):
    monkeypatch.setattr(finetune, "make_model", lambda *args: send())
    with pytest.raises(Stopped) as stopped:
        finetune.main([*command, "--out_dir", str(tmp_path / "out")])
    assert not stopped.value.can_resume
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "harm", "message"), [
    ("last.pt", lambda path: path.write_bytes(path.read_bytes()[:5000]),
     "last.pt: cannot be resumed from"),
    ("last.pt", lambda path: path.write_bytes(b""), "last.pt: cannot be resumed from"),
    ("slivit.safetensors", lambda path: path.unlink(),
     "(?s)checkpoint of the best epoch so far cannot be read.*no such checkpoint"),
    ("slivit.safetensors", lambda path: path.write_bytes(path.read_bytes()[:5000]),
     "(?s)best epoch so far cannot be read.*not a complete safetensors file"),
    ("config.json", lambda path: path.write_text("{"), "config.json is damaged"),
])
def test_resume_looks_at_what_it_goes_on_from_before_it_writes(command, unbroken, tmp_path, name,
                                                              harm, message):
    out = tmp_path / "out"
    out.mkdir()
    for file in ("config.json", "split.csv", "last.pt", "slivit.safetensors", "manifest.csv"):
        (out / file).write_bytes((unbroken / file).read_bytes())
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "out_dir": str(out)}))  # to see changes
    harm(out / name)
    before = content(out)
    with pytest.raises(UserError, match=message):
        finetune.main([*command, "--out_dir", str(out), "--resume"])
    assert content(out) == before
