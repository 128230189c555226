"""The output folder: what --overwrite removes, what it refuses, and one run at a time."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import content

from slivit.utils.errors import UserError
from slivit.utils.files import atomic_write, scratch_dir, write_json
from slivit.utils.manifest import HEADER, Manifest, read_manifest
from slivit.utils.output_dir import check_out_dir, check_resume, open_out_dir

HOLD = ("import sys; from pathlib import Path; from slivit.utils.output_dir import open_out_dir\n"
        "with open_out_dir(Path(sys.argv[1])):\n    print('open', flush=True); sys.stdin.read()")
DIE = """
import os, sys
from pathlib import Path
from slivit.utils.files import scratch_dir, atomic_write
from slivit.utils.output_dir import open_out_dir
out = Path(sys.argv[1])
with open_out_dir(out, resume=True), scratch_dir(out) as folder, atomic_write(out / "b") as part:
    part.write_text("half")
    (folder / "x").write_text("")
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def out(tmp_path):
    """A folder in which a run has left some files."""
    folder = tmp_path / "out"
    with open_out_dir(folder):
        write_json(folder / "config.json", {"a": 1})
        (folder / "worst").mkdir()
        for name in ("log.csv", "worst/worst_1.png", "worst/worst_2.png"):
            with atomic_write(folder / name) as part:
                part.write_text(f"of the run: {name}")
    return folder


def start_again(out, inputs=()):
    check_out_dir(out, overwrite=True, inputs=inputs)
    with open_out_dir(out, overwrite=True, inputs=inputs):
        pass


def test_overwrite_removes_what_the_run_wrote_and_nothing_else(out):
    for name in ("notes.txt", "worst/scan.png", "worst/scan.nii.gz", "a.part.png", ".x.1.part.png"):
        (out / name).write_text("mine")
    (out / ".scratch.mine").mkdir()
    (out / "explain").mkdir()
    (out / "explain/A_right_1_scan.png").write_text("mine")
    start_again(out)
    assert set(content(out)) == {"manifest.csv", "notes.txt", "worst/scan.png", "a.part.png",
                                 "worst/scan.nii.gz", "explain/A_right_1_scan.png", ".x.1.part.png"}
    assert (out / ".scratch.mine").is_dir()


def test_a_file_that_no_run_wrote_is_not_replaced(out):
    (out / "explain").mkdir()
    (out / "explain/A.png").write_text("mine")
    refused = pytest.raises(UserError, match="was not written by a run")
    with open_out_dir(out, overwrite=True), refused, atomic_write(out / "explain/A.png") as part:
        part.write_text("ours")
    assert (out / "explain/A.png").read_text() == "mine"


@pytest.mark.parametrize(("name", "text"), [("log.csv", "edited since"),
                                            ("metrics.json", "never of the run")])
def test_files_under_our_names_that_no_run_wrote_are_refused(out, name, text):
    (out / name).write_text(text)
    before = content(out)
    with pytest.raises(UserError, match=f"(?s)would replace files that no run wrote.*{name}"):
        start_again(out)
    assert content(out) == before


def test_without_a_manifest_it_says_what_to_remove_by_hand(out):
    (out / "manifest.csv").unlink()
    before = content(out)
    with pytest.raises(UserError, match=r"(?s)there is no manifest.csv.*config.json\n  log.csv.*"
                                        "delete by hand"):
        start_again(out)
    assert content(out) == before


@pytest.mark.parametrize("way", ["symlink", "hard link", "path"])
def test_what_the_run_reads_is_not_removed_however_it_is_reached(out, tmp_path, way):
    table = tmp_path / "meta.csv"
    if way == "symlink":
        table.symlink_to(out / "log.csv")
    elif way == "hard link":
        table.hardlink_to(out / "log.csv")
    else:
        table = out / "worst" / ".." / "log.csv"
    before = content(out)
    with pytest.raises(UserError, match="--overwrite would remove .*, which this run reads"):
        start_again(out, [None, tmp_path / "gone.csv", table])
    assert content(out) == before


def test_nothing_is_removed_through_a_link(out, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (out / "worst").rename(elsewhere)
    (out / "worst").symlink_to(elsewhere)
    with pytest.raises(UserError, match="worst is a symbolic link"):
        start_again(out)
    (out / "worst").unlink()
    (out / "log.csv").rename(tmp_path / "log.csv")
    (out / "log.csv").symlink_to(tmp_path / "log.csv")
    with pytest.raises(UserError, match="log.csv is a symbolic link"):
        start_again(out)
    assert set(content(elsewhere)) == {"worst_1.png", "worst_2.png"}
    assert (tmp_path / "log.csv").exists()


def test_a_folder_under_the_name_of_a_file_is_refused_before_anything_is_written(out):
    (out / "config.json").unlink()
    (out / "config.json").mkdir()
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(UserError, match="config.json is a folder"):
            check_out_dir(out, **options)


@pytest.mark.parametrize(("path", "message"), [
    ("dead/below", "dead is a broken symbolic link"),
    ("dead", "is a broken symbolic link"),
    ("x" * 300, "cannot be a folder .*too long"),
    ("a\0b", "cannot be a folder"),
    ("file/below", "file is a file, expected a folder"),
    ("pipe", "is a named pipe, expected a folder"),
])
def test_places_where_no_folder_can_be_are_refused(tmp_path, path, message):
    (tmp_path / "dead").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=message):
        check_out_dir(tmp_path / path)
    assert not (tmp_path / "nowhere").exists()


def test_what_a_killed_run_left_half_made_is_removed(out):
    run = subprocess.run([sys.executable, "-c", DIE, str(out)], check=False)
    assert run.returncode == -signal.SIGKILL
    assert len([name for name in os.listdir(out) if name.startswith(".")]) == 2
    with open_out_dir(out, resume=True):
        pass
    assert sorted(os.listdir(out)) == ["config.json", "log.csv", "manifest.csv", "worst"]


def test_a_second_run_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    out = tmp_path / "out"
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)
    try:
        assert first.stdout.readline() == b"open\n"
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(UserError, match="another run is writing there"), \
                    open_out_dir(out, **options):
                pass
            with pytest.raises(UserError, match="another run is writing there"):
                check_out_dir(out, **options)
    finally:
        first.kill()
        first.communicate()
    with open_out_dir(out):
        write_json(out / "config.json", {})


def test_a_run_of_an_earlier_version_is_taken_over_by_resume(out):
    (out / "manifest.csv").unlink()
    with open_out_dir(out, resume=True):
        write_json(out / "config.json", {"b": 2})
    start_again(out)
    assert list(content(out)) == ["manifest.csv"]


def test_resume_takes_over_nothing_that_no_run_has_written(out):
    (out / "worst/worst_mine.png").write_text("mine")
    with open_out_dir(out, resume=True):
        pass
    assert "worst/worst_mine.png" not in read_manifest(out)
    for name in ("report.md", "log.csv"):  # foreign, and changed since
        kept = (out / name).read_bytes() if (out / name).exists() else None
        (out / name).write_text("my notes")
        with pytest.raises(UserError, match=f"(?s)--resume would replace files that.*{name}"):
            check_out_dir(out, resume=True)
        with pytest.raises(UserError, match=f"(?s)--resume would replace files that.*{name}"), \
                open_out_dir(out, resume=True):
            pass
        (out / name).unlink() if kept is None else (out / name).write_bytes(kept)


def test_a_torn_last_line_does_not_damage_the_next_one(out):
    with (out / "manifest.csv").open("a") as file:
        file.write("roc.png,1")
    for _ in range(2):
        with open_out_dir(out, resume=True):
            write_json(out / "config.json", {"a": 2})
    assert set(read_manifest(out)) >= {"config.json", "log.csv"}
    assert "roc.png" not in read_manifest(out)


def test_what_a_manifest_calls_temporary_is_removed_only_under_such_a_name(out):
    (out / "mydata.csv").write_text("mine")
    with (out / "manifest.csv").open("a") as file:
        file.write("mydata.csv,\nlog.csv,\n")
    with open_out_dir(out, resume=True):
        pass
    assert {"mydata.csv", "log.csv"} <= set(content(out))


@pytest.mark.parametrize(("text", "message"), [
    (b"file,size\na,1\n", "is not the list of files that a run keeps"), (b"\xff\xfe\0", "is not "
                                                                                        "the list"),
    (b"file,bytes\n../a,1\n", "is damaged"), (b"file,bytes\n/a,1\n", "is damaged"),
    (b"file,bytes\na,-1\n", "is damaged"), (b"file,bytes\na\n", "is damaged")])
def test_a_manifest_that_is_none_is_refused(out, text, message):
    (out / "manifest.csv").write_bytes(text)
    with pytest.raises(UserError, match=f"manifest.csv: {message}"):
        start_again(out)
    assert (out / "log.csv").exists()


def test_a_torn_last_line_of_the_manifest_is_passed_over(out):
    with (out / "manifest.csv").open("a") as file:
        file.write("notes.t")
    assert "notes.t" not in read_manifest(out)
    assert read_manifest(out)["log.csv"] == {19}
    assert (out / "manifest.csv").read_text().splitlines()[0] == ",".join(HEADER)


def test_names_that_are_no_text_are_listed_too(tmp_path):
    name = os.fsdecode(b"caf\xe9,\"x\"\n.png")
    with open_out_dir(tmp_path), atomic_write(tmp_path / name) as part:
        part.write_text("")
    assert name in read_manifest(tmp_path)
    start_again(tmp_path)
    assert os.listdir(tmp_path) == ["manifest.csv"]


def test_a_scratch_folder_outside_a_run_needs_no_manifest(tmp_path):
    with scratch_dir(tmp_path) as folder:
        (folder / "x").write_text("")
    assert list(tmp_path.iterdir()) == []
    assert isinstance(Manifest(tmp_path), Manifest)
    assert Path(tmp_path / "manifest.csv").exists()


@pytest.mark.parametrize(("write", "message"), [
    (lambda path: path.mkdir(), "it is not a regular file"),
    (lambda path: path.symlink_to("nowhere"), "it is not a regular file"),
    (lambda path: path.write_text("[]"), r"found \[\], expected a JSON object"),
    (lambda path: path.write_text('{"lr": NaN}'), "NaN is not a JSON number"),
    (lambda path: path.write_text("[" * 100_000), "nested too deeply"),
    (lambda path: path.write_bytes(b"\xff\xfe{"), "it is not valid JSON"),
    (lambda path: path.write_text('{"lr": 1, "lr": 2}'), "a field appears twice"),
])
def test_config_that_is_none_cannot_be_resumed(tmp_path, write, message):
    write(tmp_path / "config.json")
    with pytest.raises(UserError, match=f"--resume: .*config.json is damaged .*{message}.*again"):
        check_resume(tmp_path, {"lr": 1})


@pytest.mark.parametrize(("before", "message"), [
    ({"amp": "off"}, "precision: was 'float32', now 'bfloat16'; give --amp off\nGive"),
    ({"amp": ["off"]}, "precision: was None, now 'bfloat16'\nGive"),
    ({"precision": ["float32"]}, r"precision: was \['float32'\], now 'bfloat16'\nGive")])
def test_a_run_goes_on_in_its_own_type_of_number(tmp_path, before, message):
    now = {"amp": "auto", "precision": "bfloat16"}
    for same in (now, {"amp": "bf16"}):  # of this version, and of earlier ones
        (tmp_path / "config.json").write_text(json.dumps(same))
        check_resume(tmp_path, now)
    (tmp_path / "config.json").write_text(json.dumps(before))
    with pytest.raises(UserError, match=f"(?s)started differently.*{message}"):
        check_resume(tmp_path, now)
