"""Converters on names and tables that are not as they should be: not UTF-8, empty."""

import os
import subprocess
import sys

import numpy as np
import pytest
from converters import DATA, GREY, refused, run, touch
from helpers import RUN_3D, write_image, write_meta

import finetune
from slivit.utils.log import LOG, setup_logging

ODD = os.fsdecode(b"M\xfcller")  # Latin-1


def test_names_that_are_not_utf8_are_all_listed(scripts, tmp_path):
    for name in ("A/1.png", f"A/{ODD}.png", f"B/{ODD}2.png", "B/3.png"):
        write_image(tmp_path / name, GREY)
    message = refused(scripts.folder, tmp_path)
    assert "2 names of files or folders are not UTF-8, the encoding of the tables" in message
    assert "\n  'A/M\\udcfcller.png'\n  'B/M\\udcfcller2.png'\n" in message
    assert message.isascii()
    assert not (tmp_path / "meta.csv").exists()


def test_names_with_a_line_break_are_all_listed(scripts, tmp_path):
    for name in ("A/1.png", "A/2\n.png", "B/3.png", "B/\r4.png"):
        write_image(tmp_path / name, GREY)
    message = refused(scripts.folder, tmp_path)
    assert "2 names contain a line break" in message
    assert "\n  'A/2\\n.png'\n  'B/\\r4.png'\n" in message
    assert not (tmp_path / "meta.csv").exists()


def test_slices_whose_names_are_not_utf8_are_read(tmp_path):
    """A table cannot name such a file, but a folder that it names may hold them."""
    rng = np.random.default_rng(0)
    for k in range(8):
        for name in ("1", ODD):
            write_image(tmp_path / f"v{k}/{name}.png",
                        rng.integers(0, 99, (24, 20), dtype=np.uint8) + 100 * np.uint8(k % 2))
    table = write_meta(tmp_path / "t.csv", F_Name=range(8), Path=[f"v{k}" for k in range(8)],
                       A=[0, 1] * 4, Split=["train"] * 4 + ["val"] * 2 + ["test"] * 2)
    finetune.main(["--meta_csv", str(table), *RUN_3D, "--n_epochs", "1", "--cache_dir",
                   str(tmp_path / "cache"), "--out_dir", str(tmp_path / "out")])
    assert (tmp_path / "out/metrics.json").exists()


def test_the_log_escapes_what_stdout_cannot_say(capfd):
    code = ("from slivit.utils.log import LOG, setup_logging; setup_logging(); "
            "LOG.info('a \\udcfc b \\u00fc')")
    done = subprocess.run([sys.executable, "-c", code], cwd=DATA.parent, capture_output=True,
                          check=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.stdout == b"a \\udcfc b \\xfc\n"
    assert done.stderr == b""
    setup_logging()
    LOG.info(ODD)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n\n"])
def test_empty_file_list_is_said(scripts, tmp_path, content):
    touch(tmp_path / "Videos/a.avi")
    (tmp_path / "FileList.csv").write_bytes(content)
    message = refused(scripts.echonet, tmp_path)
    assert "FileList.csv: is empty, expected the columns FileName, EF, Split" in message
    (tmp_path / "FileList.csv").write_bytes(b"FileName,EF,Split\n\n")
    assert "FileList.csv: has a header but no rows" in refused(scripts.echonet, tmp_path)


def test_a_pipe_is_no_file_list(scripts, tmp_path):
    touch(tmp_path / "Videos/a.avi")
    os.mkfifo(tmp_path / "FileList.csv")
    message = refused(scripts.echonet, tmp_path)
    assert "FileList.csv: is not a regular file, expected a table" in message


def test_long_names_in_a_file_list_are_missing_videos(scripts, tmp_path):
    touch(tmp_path / "Videos/a.avi")
    (tmp_path / "FileList.csv").write_text(f"FileName,EF,Split\na,1,TEST\n{'b' * 300},2,TEST\n")
    assert "1 of 2 videos are missing" in refused(scripts.echonet, tmp_path)
    run(scripts.echonet, tmp_path, "--skip_missing")
