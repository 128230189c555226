"""Files are written whole or not at all, and replace regular files alone."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from safetensors.torch import save_file

from slivit.utils.errors import NotWritten, UserError
from slivit.utils.files import atomic_write


def make(path: Path, kind: str) -> Path:
    """Put something that is not a regular file at a path."""
    if kind == "a folder":
        path.mkdir()
    elif kind == "a named pipe":
        os.mkfifo(path)
    else:
        path.with_name("target").write_text("mine")
        path.symlink_to(path.with_name("target"))
    return path


@pytest.mark.parametrize("kind", ["a folder", "a named pipe", "a symbolic link"])
def test_only_regular_files_are_replaced(tmp_path, kind):
    path = make(tmp_path / "out.csv", kind)
    before = path.lstat()
    with pytest.raises(UserError, match=f"out.csv: is {kind}; only regular files are replaced"), \
            atomic_write(path) as part:
        part.write_text("new")
    assert (path.lstat().st_mode, path.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert not list(tmp_path.glob(".*part*"))


@pytest.mark.parametrize("kind", ["a device", "a named pipe", "a folder", "a symbolic link"])
def test_converters_leave_devices_pipes_and_folders_alone(tmp_path, kind):
    for name in ("A", "B"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    out = Path("/dev/null") if kind == "a device" else make(tmp_path / "meta.csv", kind)
    run = subprocess.run([sys.executable, ROOT / "data/make_folder_meta.py", tmp_path / "tree",
                          "--out", out, "--overwrite"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr == (f"error: --out {out}: is {kind}; only regular files are replaced. Name "
                          "another file\n")
    assert stat.S_ISCHR(Path("/dev/null").lstat().st_mode)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o007])
def test_every_file_has_the_mode_of_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        for name, save in (("a.safetensors", lambda path: save_file({"a": torch.ones(1)}, path)),
                           ("b.pt", lambda path: torch.save({}, path)),
                           ("c.csv", lambda path: path.write_text(""))):
            with atomic_write(tmp_path / name) as part:
                save(part)
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask
    finally:
        os.umask(before)


def test_a_name_as_long_as_a_file_system_takes_can_be_written(tmp_path):
    path = tmp_path / f"{'x' * 251}.csv"
    with atomic_write(path) as part:
        part.write_text("")
    assert path.exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"),
                                   RuntimeError("[enforce fail at inline_container.cc:858] . "
                                                "PytorchStreamWriter failed writing file data/2")])
def test_a_full_disk_is_one_message_and_the_old_file_stays(tmp_path, error):
    (tmp_path / "a").write_text("old")

    def write():
        with atomic_write(tmp_path / "a") as part:
            part.write_text("half")
            raise error
    with pytest.raises(NotWritten, match="cannot be written.*free disk space.*run the command "
                                         "again"):
        write()
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_another_fault_within_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="of a plot"), atomic_write(tmp_path / "a"):
        raise RuntimeError("of a plot")
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a"):
        (tmp_path / "gone").read_text()
