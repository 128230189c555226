"""Prepared scans on disk: used, made anew where they are torn or stale, and never half written."""

import multiprocessing
import os
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import RUN_3D, VIT, file_scans, preprocess, run_evaluate, same_run, write_image

import finetune
from slivit.data import scan_table
from slivit.data.datasets import prepare
from slivit.utils.errors import RunError, UserError, run_script

VOLUME = np.random.default_rng(0).integers(0, 255, (9, 40, 50), dtype=np.uint8)


@pytest.fixture
def scans(tmp_path):
    """A table of one .npy file, cached."""
    np.save(tmp_path / "x.npy", VOLUME)
    return file_scans(tmp_path / "x.npy", cache_dir=tmp_path / "cache")


@pytest.fixture
def reads(monkeypatch):
    """Collect what is read from scan files."""
    calls, read = [], scan_table.read_volume

    def counted(path, pick=None):
        calls.append(path)
        return read(path, pick)
    monkeypatch.setattr(scan_table, "read_volume", counted)
    return calls


def entries(scans):
    """Return the files of a cache."""
    return sorted(path for path in scans.cache_dir.rglob("*") if path.is_file())


def same(a, b):
    """Return whether two prepared scans are equal."""
    return (a.counts == b.counts and a.slices.dtype == b.slices.dtype
            and np.array_equal(a.slices, b.slices))


@pytest.mark.parametrize("views", [("acquisition",), ("axial", "coronal", "sagittal")])
def test_second_time_the_scan_is_not_read(scans, reads, views):
    options = preprocess(4, views=views)
    first = prepare(scans, 0, options)
    assert (len(reads), len(entries(scans))) == (1, 1)
    again = prepare(scans, 0, options)
    assert len(reads) == 1
    assert same(first, again)
    assert same(first, prepare(file_scans(*scans.read.paths), 0, options))
    assert first.counts == (4,) * len(views)


def test_a_folder_is_known_by_the_files_in_it(tmp_path, reads):
    for k in range(3):
        write_image(tmp_path / f"v/{k}.png", VOLUME[k])
    scans = file_scans(tmp_path / "v", cache_dir=tmp_path / "cache")
    for change in (lambda: None, lambda: write_image(tmp_path / "v/3.png", VOLUME[3]),
                   lambda: os.utime(tmp_path / "v/1.png", (5, 5)),
                   lambda: (tmp_path / "v/0.png").rename(tmp_path / "v/00.png")):
        change()
        prepare(scans, 0, preprocess(4))
        prepare(scans, 0, preprocess(4))
    assert len(reads) == 4
    assert len(entries(scans)) == 1


@pytest.mark.parametrize("change", [
    lambda path: np.save(path, VOLUME[:5]),
    lambda path: os.utime(path, ns=(1, path.stat().st_mtime_ns + 1)),
])
def test_a_changed_file_is_read_anew(scans, reads, change):
    prepare(scans, 0, preprocess(20))
    change(scans.read.paths[0])
    found = prepare(scans, 0, preprocess(20))
    assert len(reads) == 2
    assert same(found, prepare(file_scans(*scans.read.paths), 0, preprocess(20)))
    prepare(scans, 0, preprocess(20))
    assert len(reads) == 3


def test_other_preprocessing_and_other_paths_have_entries_of_their_own(scans, tmp_path):
    changes = [{}, {"n_slices": 5}, {"img_size": 48}, {"window": "percentile"},
               {"slice_sampling": "middle"}, {"views": ("coronal",)}]
    for number, change in enumerate(changes, 1):
        options = preprocess(**{"n_slices": 4, **change})
        found = prepare(scans, 0, options)
        assert len(entries(scans)) == number
        assert same(found, prepare(file_scans(*scans.read.paths), 0, options))
    prepare(scans, 0, preprocess(4, mean=(0.1,) * 3, std=(0.2,) * 3))  # applied later
    assert len(entries(scans)) == len(changes)
    np.savez(tmp_path / "x.npz", a=VOLUME, b=255 - VOLUME)
    both = file_scans(*(Path(f"{tmp_path}/x.npz:{key}") for key in "ab"),
                      cache_dir=scans.cache_dir)
    a, b = (prepare(both, row, preprocess(4, img_size=64)).slices for row in (0, 1))
    assert (a == 255 - b).all()


def test_files_of_the_same_name_size_and_time_are_told_apart(tmp_path):
    for folder, volume in (("a", VOLUME), ("b", 255 - VOLUME)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "x.npy", volume)
        os.utime(tmp_path / folder / "x.npy", (5, 5))
    scans = file_scans(*(tmp_path / folder / "x.npy" for folder in "ab"),
                       cache_dir=tmp_path / "cache")
    a, b = (prepare(scans, row, preprocess(4, img_size=64)).slices for row in (0, 1))
    assert (a == 255 - b).all()


def spoil(content, kind):
    """Return the bytes of a torn file."""
    at = {"start": 3, "header": 40, "pixels": 600, "trailer": len(content) - 40,
          "length": len(content) - 12, "end": len(content) - 1}
    if kind in at:
        spoiled = bytearray(content)
        spoiled[at[kind]] ^= 255
        return bytes(spoiled)
    return {"empty": b"", "cut": content[:-1], "half": content[:500], "longer": content + b"x",
            "zeroed": bytes(len(content)), "text": b"this is no array" * 99}[kind]


@pytest.mark.parametrize("kind", ["start", "header", "pixels", "trailer", "length", "end", "empty",
                                  "cut", "half", "longer", "zeroed", "text"])
def test_torn_entries_are_made_anew(scans, reads, kind):
    first = prepare(scans, 0, preprocess(4))
    before = entries(scans)[0].read_bytes()
    entries(scans)[0].write_bytes(spoil(before, kind))
    assert same(prepare(scans, 0, preprocess(4)), first)
    assert len(reads) == 2
    assert [path.read_bytes() for path in entries(scans)] == [before]


def test_no_flipped_bit_of_an_entry_goes_unseen(tmp_path):
    np.save(tmp_path / "x.npy", VOLUME[:2, :8, :9])
    scans = file_scans(tmp_path / "x.npy", cache_dir=tmp_path / "cache")
    first = prepare(scans, 0, preprocess(2))
    entry = entries(scans)[0]
    content = entry.read_bytes()
    for at in range(len(content)):
        spoiled = bytearray(content)
        spoiled[at] ^= 1 << at % 8
        entry.write_bytes(spoiled)
        assert same(prepare(scans, 0, preprocess(2)), first), at


def fill(scans, start, rows):
    """Wait for the other process, then prepare all scans."""
    start.wait(60)
    for row in rows:
        prepare(scans, row, preprocess(4))


def test_two_processes_may_fill_the_same_folder_at_once(tmp_path):
    paths = []
    for k in range(12):
        paths.append(tmp_path / f"{k}.npy")
        np.save(paths[-1], VOLUME + np.uint8(k))
    scans = file_scans(*paths, cache_dir=tmp_path / "cache")
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    both = [context.Process(target=fill, args=(scans, start, range(12))) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(entries(scans)) == 12
    assert not [path for path in scans.cache_dir.rglob("*.part")]
    content = [path.read_bytes() for path in entries(scans)]
    alone = file_scans(*paths, cache_dir=scans.cache_dir)
    for row in range(12):
        assert same(prepare(alone, row, preprocess(4)),
                    prepare(file_scans(*paths), row, preprocess(4)))
    assert [path.read_bytes() for path in entries(scans)] == content


def test_a_folder_that_cannot_be_written_is_a_failure(scans):
    scans.cache_dir.write_text("a file where the folder should be")
    with pytest.raises(RunError, match=r"--cache_dir: cannot write .*; free disk space, name "
                                       "another folder, or omit --cache_dir"):
        prepare(scans, 0, preprocess(4))


def test_a_full_disk_is_a_failure_and_leaves_nothing_half_written(scans, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match="cannot write .* .No space left on device."):
        prepare(scans, 0, preprocess(4))
    assert entries(scans) == []


def test_a_cache_that_fails_while_training_ends_the_run(volume_csv, tmp_path, capfd):
    for number in range(256):  # files where the folders of the entries should be
        (tmp_path / f"cache/{number:02x}").parent.mkdir(exist_ok=True)
        (tmp_path / f"cache/{number:02x}").write_text("")
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: finetune.main(
            ["--meta_csv", str(volume_csv), "--pathologies", "A", *RUN_3D, "--cache_dir",
             str(tmp_path / "cache"), "--n_cpu", "1", "--out_dir", str(tmp_path / "out")]))
    assert stop.value.code == 1
    error = capfd.readouterr().err
    assert error.count("error: --cache_dir: cannot write") == error.count("error:") == 1
    assert "Traceback" not in error


def test_scans_that_cannot_be_read_leave_no_entry(scans):
    scans.read.paths[0].write_bytes(b"")
    for _ in range(2):
        with pytest.raises(UserError, match="x.npy: cannot be read as an array"):
            prepare(scans, 0, preprocess(4))
    assert not scans.cache_dir.exists() or entries(scans) == []


def test_predictions_are_the_same_with_and_without_a_cache(binary_run, volume_csv, tmp_path,
                                                           monkeypatch):
    checkpoint, options = binary_run / "slivit.safetensors", ("--meta_csv", volume_csv)
    plain = run_evaluate(checkpoint, tmp_path / "plain", *options)
    cache = (*options, "--cache_dir", tmp_path / "cache")
    filled = run_evaluate(checkpoint, tmp_path / "filled", *cache)

    def forbidden(path, pick=None):
        raise AssertionError(f"{path} is in the cache")
    monkeypatch.setattr(scan_table, "read_volume", forbidden)
    again = run_evaluate(checkpoint, tmp_path / "again", *cache)
    for metrics, predictions in (filled, again):
        assert metrics == plain[0]
        pd.testing.assert_frame_equal(predictions, plain[1], check_exact=True)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == len(plain[1])


def test_training_is_the_same_with_a_cache_and_a_worker(volume_csv, tmp_path):
    command = ["--meta_csv", str(volume_csv), "--pathologies", "A", *RUN_3D, "--n_epochs", "1"]
    for name, options in (("plain", []), ("cached", ["--cache_dir", str(tmp_path / "cache"),
                                                     "--n_cpu", "1"])):
        finetune.main([*command, *options, "--out_dir", str(tmp_path / name)])
    same_run(tmp_path / "plain", tmp_path / "cached")


@pytest.mark.parametrize("options", [["--dataset", "noduleshapes3d"], []])
def test_cache_is_refused_for_scans_in_memory(tmp_path, options):
    with pytest.raises(UserError, match="--cache_dir needs --meta_csv or --freeze_back"):
        finetune.main([*options, *VIT, "--cache_dir", str(tmp_path / "cache"), "--out_dir",
                       str(tmp_path / "out")])
    assert list(tmp_path.iterdir()) == []


def test_cache_under_a_file_is_refused_at_the_start(volume_csv, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--cache_dir .*: .*file is a file, expected a folder"):
        finetune.main(["--meta_csv", str(volume_csv), "--cache_dir", str(tmp_path / "file/cache"),
                       "--out_dir", str(tmp_path / "out")])


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_entries_have_the_mode_of_other_files(scans, mask):
    before = os.umask(mask)
    try:
        prepare(scans, 0, preprocess(4))
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in entries(scans)] == [0o666 & ~mask]


def test_what_is_no_file_is_not_replaced(scans, tmp_path):
    prepare(scans, 0, preprocess(4))
    entry, = entries(scans)
    entry.unlink()
    os.mkfifo(entry)
    with pytest.raises(RunError, match="cannot write .* .it is not a regular file."):
        prepare(scans, 0, preprocess(4))
    assert entry.is_fifo()
