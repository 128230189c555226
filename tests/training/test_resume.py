"""Real processes, killed and stopped, that end as if nothing had happened."""

import math
import random
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch
from helpers import ROOT, RUN_3D, same_run

import finetune
from slivit.utils.errors import UserError

LAUNCH = ("import sys; sys.path.insert(0, {root!r}); sys.argv[0] = 'finetune.py'; "
          "from slivit.training import train_step; train_step.SAVE_SECONDS = 0; import finetune; "
          "from slivit.utils.errors import run_script; run_script(finetune.main)")


@pytest.fixture(scope="module")
def command(volume_csv):
    """A training with everything random switched on, which saves after every step."""
    return [sys.executable, "-c", LAUNCH.format(root=str(ROOT)), "--meta_csv", str(volume_csv),
            "--pathologies", "A", *RUN_3D, "--n_epochs", "5", "--b_size", "2", "--dropout", "0.1",
            "--drop_path", "0.2", "--patience", "0", "--ema", "0.9", "--mixup", "0.2", "--amp",
            "bf16", "--quiet"]


@pytest.fixture(scope="module")
def unbroken(command, tmp_path_factory):
    """The output of that training, never stopped."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    subprocess.run([*command, "--out_dir", str(out)], check=True, stdout=subprocess.DEVNULL)
    assert len(pd.read_csv(out / "log.csv")) == 5
    return out


def start(command, out, *more):
    return subprocess.Popen([*command, "--out_dir", str(out), *more], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def wait_for(path, process):
    """Wait until a file is there, or the process has ended."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.02)


def test_killed_again_and_again_it_ends_with_the_same_bytes(command, unbroken, tmp_path):
    rng, out, kills = random.Random(0), tmp_path / "killed", 0
    for _ in range(4):
        process = start(command, out, *["--resume"] * (kills > 0))
        wait_for(out / "last.pt", process)
        time.sleep(rng.uniform(0, 1.2) + 4 * (kills > 0))  # start-up takes some seconds
        if process.poll() is not None:
            break
        process.kill()
        kills += 1
        process.communicate()
    assert kills >= 2
    process = start(command, out, "--resume")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    same_run(unbroken, out)


def test_without_last_pt_a_finished_run_is_not_begun_anew(unbroken, command, tmp_path):
    shutil.copytree(unbroken, tmp_path / "out")
    (tmp_path / "out/last.pt").unlink()
    with pytest.raises(UserError, match="last.pt, from which the run would continue, is missing"):
        finetune.main([*command[3:], "--out_dir", str(tmp_path / "out"), "--resume"])
    same_run(unbroken, tmp_path / "out")


def test_a_checkpoint_of_another_run_is_not_measured(unbroken, command, binary_run, tmp_path):
    shutil.copytree(unbroken, tmp_path / "out")
    shutil.copy(binary_run / "slivit.safetensors", tmp_path / "out")
    with pytest.raises(UserError, match="slivit.safetensors is not the checkpoint that this run"):
        finetune.main([*command[3:], "--out_dir", str(tmp_path / "out"), "--resume"])


@pytest.mark.parametrize(("edit", "message"), [
    (dict.clear, "progress: epoch, step, loss_sum, seen, seconds, log, best, stale, phase: miss"),
    (lambda progress: progress.update(epoch=1, log=[], best=-math.inf, stale=0),
     "optimizer: has taken 30 steps, expected 0"),
    (lambda progress: progress.update(step=3), "optimizer: has taken 30 steps, expected 33")])
def test_progress_that_the_weights_have_not_made_is_refused(unbroken, command, edit, message,
                                                            tmp_path):
    shutil.copytree(unbroken, tmp_path / "out")
    content = torch.load(tmp_path / "out/last.pt", weights_only=True)
    edit(content["progress"])
    torch.save(content, tmp_path / "out/last.pt")
    with pytest.raises(UserError, match=rf"last.pt: cannot be resumed from .{message}"):
        finetune.main([*command[3:], "--out_dir", str(tmp_path / "out"), "--resume"])
    same_run(unbroken, tmp_path / "out")


def test_stopped_it_saves_and_says_how_to_go_on(command, unbroken, tmp_path):
    out, more = tmp_path / "stopped", []
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        before = (out / "last.pt").stat().st_mtime_ns if more else 0
        process = start(command, out, *more)
        while process.poll() is None and not (
                (out / "last.pt").exists() and (out / "last.pt").stat().st_mtime_ns > before):
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate()
        assert process.returncode == code
        line, = errors.splitlines()
        assert line.startswith(f"stopped by {number.name}. To continue: python finetune.py "
                               "--meta_csv")
        assert line.endswith("--resume")
        assert not list(out.glob(".*part*"))
        more = ["--resume"]
    done = subprocess.run([*command, "--out_dir", str(out), "--resume"], capture_output=True,
                          text=True)
    assert "resuming after " in done.stdout
    same_run(unbroken, out)
