"""Signals: one line, an exit code, whole files, and the state of the last whole step."""

import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import RUN_3D
from safetensors.torch import load_file

import finetune
from slivit.training import train_step as steps
from slivit.training import trainer as engine
from slivit.utils.distributed import ProcessGroup
from slivit.utils.errors import UserError
from slivit.utils.signals import Stopped, stop_signals

ROOT = Path(__file__).resolve().parents[2]
ALONE = ProcessGroup()


def send(number=signal.SIGTERM):
    signal.raise_signal(number)


def test_a_signal_is_raised_at_once_and_only_once():
    def work():
        with stop_signals():
            try:
                send()
            except Stopped:
                send(signal.SIGINT)  # what the first has begun is finished
                raise
    with pytest.raises(Stopped) as stopped:
        work()
    assert stopped.value.number == signal.SIGTERM
    assert not isinstance(stopped.value, Exception)


def test_deferred_it_waits_for_the_next_place_where_it_may():
    done = []

    def work():
        with stop_signals() as stop, stop.deferred():
            with stop.allowed(ALONE):
                done.append("first")
            send()
            done.append("weights")
            with stop.allowed(ALONE):
                done.append("never")
    with pytest.raises(Stopped):
        work()
    assert done == ["first", "weights"]


def test_what_a_library_swallows_is_raised_again():
    def work():
        with stop_signals(), contextlib.suppress(BaseException):
            send()
    with pytest.raises(Stopped):
        work()


def test_what_a_destructor_loses_is_raised_again_at_once(capfd):
    class Held:
        def __del__(self):
            send()

    def work():
        start = time.monotonic()
        with stop_signals():
            held = Held()
            del held
            gc.collect()
            while time.monotonic() - start < 5:
                time.sleep(0.01)
    start = time.monotonic()
    with pytest.raises(Stopped):
        work()
    assert time.monotonic() - start < 2
    assert "Exception ignored" not in capfd.readouterr().err


def test_what_numpy_swallows_is_raised_again_at_once():
    names, start = np.array(["train", "val", "test"] * 2000), time.monotonic()

    def work():
        with stop_signals():
            threading.Timer(0.03, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
            while time.monotonic() - start < 5:
                [names[i] for i in range(6000)]  # swallows nine of ten
    for _ in range(4):
        start = time.monotonic()
        with pytest.raises(Stopped):
            work()
        assert time.monotonic() - start < 1


def test_what_handles_a_signal_is_not_disturbed():
    done = []

    def work():
        with stop_signals():
            try:
                send()
            finally:
                with contextlib.suppress(ValueError):
                    time.sleep(0.2)
                    raise ValueError
                time.sleep(0.2)
                done.append("cleared up")
    with pytest.raises(Stopped):
        work()
    assert done == ["cleared up"]


def test_blocks_within_each_other_share_the_signal():
    def work():
        with stop_signals() as outer, outer.deferred(), stop_signals() as inner:
            assert inner is outer
            send()
    with pytest.raises(Stopped):
        work()
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


LATE = """
import os, signal
from slivit.utils.signals import end_at_signals
end_at_signals()
from slivit.utils.errors import run_script
class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGTERM):
        kill(pid, number)  # Python has given its handlers back
late = Late()
def main():
    if {fails}:
        from slivit.utils.errors import UserError
        raise UserError("wrong")
if __name__ == "__main__":
    run_script(main)
"""


@pytest.mark.parametrize("fails", [False, True])
def test_when_all_is_done_a_signal_changes_nothing(fails):
    done = subprocess.run([sys.executable, "-c", LATE.format(fails=fails)], cwd=ROOT,
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == ((2, "error: wrong\n") if fails else (0, ""))


THREE = """
import signal, time
from slivit.utils.errors import run_script
def main():
    from slivit.utils.signals import stop_signals
    with stop_signals() as stop, stop.deferred():
        print("ready", flush=True)
        while True:
            time.sleep(0.01)
run_script(main)
"""


def test_the_third_signal_ends_at_once():
    process = subprocess.Popen([sys.executable, "-c", THREE], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    for _ in range(3):
        time.sleep(0.1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert errors == "stopped by SIGINT\n"


@pytest.mark.parametrize("script", ["bb_train.py", "finetune.py", "evaluate.py", "-m slivit.check",
                                    "data/make_kermany_meta.py"])
def test_while_a_script_imports_a_signal_ends_it_with_one_line(script, tmp_path):
    # The handler is there before the first import that takes time: torch and pandas are made slow.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time, importlib.abc\n"
        "class Slow(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name in ('torch', 'numpy', 'pandas'):\n"
        "            print('importing', flush=True); time.sleep(30)\n"
        "sys.meta_path.insert(0, Slow())\n")
    process = subprocess.Popen([sys.executable, *script.split()], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert process.stdout.readline() == "importing\n"
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 143
    assert errors == "stopped by SIGTERM\n"
    assert time.monotonic() - start < 5


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
    states = [load_file(folder / "slivit.safetensors") for folder in (unbroken, tmp_path)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    for name in ("predictions.csv", "metrics.json"):
        assert (unbroken / name).read_bytes() == (tmp_path / name).read_bytes()
    logs = [pd.read_csv(folder / "log.csv").drop(columns="seconds")
            for folder in (unbroken, tmp_path)]
    assert logs[0].equals(logs[1])


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
     "(?s)best epoch so far cannot be read.*not a whole safetensors file"),
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
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UserError, match=message):
        finetune.main([*command, "--out_dir", str(out), "--resume"])
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
