"""Memory, disk, a process that was killed: one message each, and the good files stay."""

import argparse
import resource
import subprocess
import sys
import types

import pandas as pd
import pytest
import torch
from helpers import ROOT, RUN_3D
from safetensors.torch import load_file
from torch._inductor.exc import InductorError

import finetune
from slivit.data.scan_table import FileSource
from slivit.utils.errors import NotWritten, RunError, UserError
from slivit.utils.failures import explain


def test_out_of_memory_says_what_to_lower_and_to_what():
    args = dict(b_size=4, accumulate=1, n_slices=28, slices_per_step=None,
                              img_size=256, freeze_backbone=False)
    text = str(explain(torch.OutOfMemoryError("CUDA out of memory. Tried ..."), args))
    assert "--slices_per_step 28 (now 112" in text
    assert "--b_size 2 with --accumulate 2 (now 4)" in text
    assert "--img_size (now 256)" in text
    assert explain(ValueError("another"), args) is None


def test_a_compilation_that_fails_is_one_message():
    error = InductorError(ImportError("a.so: file too short"), None)
    text = str(explain(error, {"resume": False}))
    assert "torch.compile failed (ImportError: a.so: file too short" in text
    assert "remove that folder" in text and "and continue with --resume. Or start anew" in text


def test_advice_on_a_full_disk_is_what_the_script_can_do():
    training, evaluation = dict(resume=False), argparse.Namespace()
    full = NotWritten("out/metrics.json", "No space left on device")
    assert ("free disk space, then continue with --resume. The last good"
            in str(explain(full, training)))
    assert "free disk space, then run the command again, with --overwrite. The last" in str(
        explain(full, evaluation))
    raw = OSError(28, "No space left on device", "x")
    assert str(explain(raw, evaluation)).startswith("x: cannot be written (No space left")
    shut = NotWritten("out/metrics.json", "Permission denied", full=False)
    assert "check the permissions, then" in str(explain(shut, evaluation))


def test_a_loading_process_that_is_killed_is_one_message(volume_csv, tmp_path, monkeypatch):
    import os
    read, main = FileSource.__call__, os.getpid()
    monkeypatch.setattr(FileSource, "__call__", lambda self, row, pick=None: (
        read(self, row, pick) if os.getpid() == main else os._exit(9)))
    with pytest.raises(RunError, match="a data-loading process died.*--n_cpu: 0 instead of 1"):
        finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", *RUN_3D, "--n_cpu",
                       "1", "--n_epochs", "1", "--out_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out/slivit.safetensors").exists()


@pytest.mark.parametrize("more", [[], ["--overwrite"]], ids=["new", "overwrite"])
def test_a_process_that_is_killed_before_anything_is_written_is_no_reason_to_resume(
        volume_csv, tmp_path, monkeypatch, more):
    import os
    out, main = tmp_path / "out", os.getpid()
    monkeypatch.setattr("slivit.data.parallel.usable_cpus", lambda: 2)
    monkeypatch.setattr("slivit.data.parallel.FEW", 1)
    monkeypatch.setattr(FileSource, "__call__", lambda *_: os.getpid() != main and os._exit(9))
    with pytest.raises(RunError, match="a data-loading process died.* Run the command again, and "
                                       "lower --n_cpu: 1 instead of 2$"):
        finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", *RUN_3D, "--n_cpu",
                       "2", "--out_dir", str(out), *more])
    assert not out.exists()


def test_a_process_that_is_killed_later_is_one():
    error = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    error.can_resume = True
    assert "Continue with --resume, and lower --n_cpu: 2 instead of 4" in str(
        explain(error, dict(resume=False, n_cpu=4)))


def test_a_full_disk_keeps_the_last_good_files(volume_csv, tmp_path):
    command = ["--meta_csv", str(volume_csv), "--pathologies", "A", *RUN_3D, "--quiet", "--out_dir",
               str(tmp_path / "out")]
    finetune.main([*command, "--n_epochs", "1"])
    before = {name: (tmp_path / "out" / name).read_bytes()
              for name in ("last.pt", "slivit.safetensors")}
    done = subprocess.run(
        [sys.executable, "finetune.py", *command, "--n_epochs", "2", "--resume"], cwd=ROOT,
        capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and "cannot be written" in done.stderr
    assert "free disk space, then continue with --resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert all((tmp_path / "out" / name).read_bytes() == content
               for name, content in before.items())
    assert load_file(tmp_path / "out/slivit.safetensors")
    assert not list((tmp_path / "out").glob(".*part*"))


@pytest.mark.usefixtures("unmeasured")
def test_log_goes_to_tensorboard_and_to_weights_and_biases(volume_csv, tmp_path, monkeypatch):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    calls = []
    run = types.SimpleNamespace(log=lambda row, step: calls.append((step, row["val_loss"])),
                                finish=lambda: calls.append("finished"))
    fake = types.ModuleType("wandb")
    fake.init = lambda **options: calls.append(options["project"]) or run
    monkeypatch.setitem(sys.modules, "wandb", fake)
    finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", *RUN_3D, "--n_epochs", "2",
                   "--tensorboard", "--wandb", "nodules", "--out_dir", str(tmp_path)])
    losses = pd.read_csv(tmp_path / "log.csv", dtype={"val_loss": str})["val_loss"].map(float)
    assert calls == ["nodules", *enumerate(losses, 1), "finished"]
    events = loader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = [event.value for event in events.Scalars("val_loss")]
    assert found == pytest.approx(losses.tolist(), rel=1e-6)


def test_a_tracker_that_is_not_installed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="--wandb: the package wandb is not installed; pip install"):
        finetune.main(["--wandb", "x", "--out_dir", str(tmp_path / "out")])


def test_quiet_leaves_the_bars_away(volume_csv, tmp_path, capsys):
    finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", *RUN_3D, "--n_epochs", "2",
                   "--quiet", "--amp", "bf16", "--out_dir", str(tmp_path)])
    out, err = capsys.readouterr()
    assert err == ""
    assert " left)" in out


@pytest.mark.parametrize(("flags", "message"), [
    (["--amp", "fp16"], "--amp fp16 needs a GPU"),
    (["--pos_weight", "auto", "--balanced_sampling"], "each balances the classes"),
    (["--unfreeze_after", "1"], "--unfreeze_after needs --freeze_backbone"),
    (["--freeze_backbone", "--unfreeze_after", "5", "--n_epochs", "5"], "expected less than"),
    (["--freeze_backbone", "--slices_per_step", "2", "--weights", "imagenet"], "combined"),
])
def test_options_that_cannot_be_had_are_refused(tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        finetune.main([*flags, "--gpu_id", "cpu", "--out_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
