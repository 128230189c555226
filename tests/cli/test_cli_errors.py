"""What the three scripts refuse: exit code 2, one message, nothing overwritten."""

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers import ROOT, RUN_2D, content, run_evaluate, write_meta

import bb_train
import evaluate
import finetune
from slivit.utils.errors import RunError, UserError, run_script

ONE_EPOCH = ["--n_epochs", "1"]


@pytest.mark.parametrize(("script", "options", "message"), [
    (bb_train, "--meta_csv a.csv --dataset chestmnist", "--meta_csv and --dataset cannot be "
                                                        "combined"),
    (bb_train, "--dataset chestmnist --pid_col p", "--pid_col applies to --meta_csv"),
    (bb_train, "--dataset chestmnist --split_ratio 1,0,0", "--split_ratio applies to --meta_csv"),
    (bb_train, "--meta_csv a.csv --medmnist_size 64", "--medmnist_size applies to --dataset"),
    (bb_train, "--meta_csv absent.csv", "absent.csv: no such file"),
    (bb_train, "--gpu_id 9", "--gpu_id 9: there is no such GPU"),
    (bb_train, "--weights none --backbone convnext_tiny.x", "no weights tagged 'x'"),
    (bb_train, "--weights none --backbone convnext_tinny", "Nearest: convnext_tiny"),
    (bb_train, "--weights none --window 5,1", "--window 5,1: expected percentile"),
    (finetune, "--medmnist_size 64", "--medmnist_size applies to MedMNIST sets"),
    (finetune, "--bb_path x --backbone convnext_tiny", "--bb_path and --backbone cannot be "
                                                       "combined"),
    (finetune, "--bb_path x --weights none", "--bb_path and --weights cannot be combined"),
    (finetune, "--freeze_backbone --bb_lr 1", "--bb_lr and --freeze_backbone cannot be combined"),
    (finetune, "--freeze_backbone --weights none", "would keep random weights"),
    (finetune, "--feature_augments 2", "--feature_augments needs --freeze_backbone"),
    (finetune, "--bb_path absent.safetensors", "no such weights file"),
    (finetune, "--task multiclass --weights none --pathologies benign", "not found: 'benign'"),
    (evaluate, "--checkpoint absent.safetensors", "no such checkpoint file"),
    (bb_train, "--img_size 16", "--img_size 16: a ConvNeXt needs at least 32"),
    (finetune, "--img_size 31", "--img_size 31: a ConvNeXt needs at least 32"),
])
def test_bad_options_are_refused_before_anything_is_written(script, options, message, tmp_path,
                                                            monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        script.main([*options.split(), "--out_dir", "out"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("options", "message"), [
    ("--b_size 0", "argument --b_size: '0': expected a whole number from 1 to 1000000"),
    ("--n_epochs x", "argument --n_epochs: 'x': expected a whole number"),
    ("--lr nan", "argument --lr: 'nan': expected a number"),
    ("--lr 0", "argument --lr: '0': expected a number above 0"),
    ("--drop_path 1", "argument --drop_path: '1': expected a number of at least 0 and below 1"),
    ("--seed -1", "argument --seed: '-1': expected a whole number from 0"),
    ("--seed 4294967296", "expected a whole number from 0 to 4294967295"),
    ("--gpu_id first", "'first': expected a GPU number from 0 to 999, or 'cpu'"),
    ("--dataset=", "argument --dataset: '': is empty"),
    ("--pathologies A,,B", "'A,,B': expected comma-separated names"),
    ("--flips q", "'q': expected letters from h, v, z, or none"),
    ("--resume --overwrite", "argument --overwrite: not allowed with argument --resume"),
    ("--wieghts none", "unrecognized arguments: --wieghts none"),
    ("--img 64", "unrecognized arguments: --img 64"),
])
def test_bad_values_are_refused_by_the_parser(options, message, capsys):
    with pytest.raises(SystemExit) as stop:
        bb_train.main(options.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--split_ratio=1", "--window=x"])
def test_a_script_refuses_bad_values_without_a_traceback(option):
    done = subprocess.run([sys.executable, "finetune.py", option], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {option.replace('=', ' ')}: expected ")
    assert len(done.stderr.splitlines()) == 1


def test_scans_without_a_model_are_refused(backbone_run, image_csv, tmp_path):
    for flag, value in (("--meta_csv", str(image_csv)), ("--volume", "x"), ("--dataset", "y")):
        with pytest.raises(UserError, match=f"{flag} needs --checkpoint, the model to evaluate"):
            evaluate.main([flag, value, "--out_dir", str(tmp_path / "out")])
    with pytest.raises(UserError, match="was trained on the table images.csv; give it"):
        run_evaluate(backbone_run / "backbone.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("unmeasured")
def test_used_out_dir_is_refused_and_overwrite_starts_again(backbone_run, image_csv, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(backbone_run, out)
    (out / "notes.txt").write_text("mine")
    before = content(out)
    command = ["--meta_csv", str(image_csv), *RUN_2D, *ONE_EPOCH, "--out_dir", str(out)]
    with pytest.raises(UserError, match="is not empty.*--overwrite"):
        bb_train.main(command)
    with pytest.raises(UserError, match="images.csv: label columns: not found: 'Z'"):
        bb_train.main([*command, "--overwrite", "--pathologies", "Z"])
    assert content(out) == before
    bb_train.main([*command, "--overwrite"])
    assert len(pd.read_csv(out / "log.csv")) == 1
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a Linux file system")
def test_folder_that_even_root_cannot_make_is_refused():
    with pytest.raises(UserError, match="--out_dir /proc/out: cannot write in /proc: "):
        finetune.main(["--weights", "none", "--out_dir", "/proc/out"])


def test_overwrite_never_removes_what_the_run_reads(binary_run, volume_csv):
    path = binary_run / "slivit.safetensors"
    before = path.read_bytes()
    with pytest.raises(UserError, match="--overwrite would remove .*slivit.safetensors"):
        run_evaluate(path, binary_run, "--meta_csv", volume_csv, "--overwrite")
    assert path.read_bytes() == before


@pytest.mark.parametrize(("error", "code"), [(UserError("what was found"), 2),
                                             (RunError("what was found"), 1)])
def test_errors_become_one_line_and_an_exit_code(error, code, capsys):
    def main():
        raise error
    with pytest.raises(SystemExit) as stop:
        run_script(main)
    assert stop.value.code == code
    assert capsys.readouterr().err == "error: what was found\n"


def test_a_file_that_one_may_not_use_is_bad_input(capsys):
    """Wherever it is looked at: root may read everything, so that the system's error is raised."""
    def main():
        raise PermissionError(errno.EACCES, "Permission denied", "scans/a.nii.gz")
    with pytest.raises(SystemExit) as stop:
        run_script(main)
    assert stop.value.code == 2
    assert capsys.readouterr().err == ("error: scans/a.nii.gz: Permission denied; check its "
                                       "permissions, and those of the folders above it\n")


def test_bad_input_from_a_shell(image_csv, tmp_path):
    """Exit code 2, one message on stderr that lists all offenders, nothing written."""
    write_meta(tmp_path / "meta.csv", F_Name=[1, 2, 3, 4], A=[0, 1, 0, 1],
               Path=["gone.png", image_csv.parent / "images/0.png", "meta.csv", "also_gone.jpg"],
               Split=["train", "train", "val", "val"])
    run = subprocess.run([sys.executable, "bb_train.py", "--meta_csv", str(tmp_path / "meta.csv"),
                          *RUN_2D, "--out_dir", str(tmp_path / "out")], cwd=ROOT, timeout=120,
                         capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    assert run.stderr.count("error:") == 1
    for text in ("3 of 4 scans cannot be read", "gone.png: does not exist", "meta.csv: is not one",
                 "also_gone.jpg: does not exist"):
        assert text in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["meta.csv"]
