"""Damage behind a good header is found before anything is written."""

import numpy as np
import pytest
from helpers import RUN_3D, file_scans, preprocess, run_evaluate, write_meta

import finetune
from slivit.data import decode_check
from slivit.data.decode_check import check_decoding
from slivit.utils.errors import RunError, UserError

VOLUME = np.random.default_rng(0).integers(0, 255, (9, 40, 50), dtype=np.uint8)


def write_volumes(folder, damaged=()):
    """Write twelve packed volumes, some of which have damaged voxels, and their table."""
    paths = [folder / f"{k}.npz" for k in range(12)]
    for k, path in enumerate(paths):
        np.savez_compressed(path, VOLUME + np.uint8(k % 2))
        if k in damaged:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 255
            path.write_bytes(content)
    return write_meta(folder / "t.csv", F_Name=range(12), Path=paths, A=[0, 1] * 6,
                      Split=["train"] * 6 + ["val"] * 3 + ["test"] * 3)


def names(error):
    """Return the numbers of the volumes that a message lists."""
    return [int(line.partition(".npz")[0].rpartition("/")[2])
            for line in str(error).splitlines() if ".npz:" in line]


def train(table, out, *more):
    finetune.main(["--meta_csv", str(table), *RUN_3D, "--n_epochs", "1", "--b_size", "2",
                   "--out_dir", str(out), *more])


@pytest.mark.parametrize("row", [1, 7, 9])
def test_damage_in_the_first_batch_of_a_split_is_found_before_anything_is_written(tmp_path, row):
    table = write_volumes(tmp_path, [row])
    with pytest.raises(UserError, match="1 of 6 scans that were tried cannot be read") as error:
        train(table, tmp_path / "out")
    assert names(error.value) == [row]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [[], ["--folds", "3"]], ids=["split", "folds"])
def test_check_scans_lists_all_damaged_scans_and_writes_nothing(tmp_path, more):
    table = write_volumes(tmp_path, [3, 5, 11])
    with pytest.raises(UserError, match="3 of 12 scans cannot be read") as error:
        train(table, tmp_path / "out", "--check_scans", *more)
    assert names(error.value) == [3, 5, 11]
    assert not (tmp_path / "out").exists()


def test_evaluate_writes_nothing_where_a_scan_is_damaged(binary_run, tmp_path):
    table = write_volumes(tmp_path, [2, 10])
    options = ("--meta_csv", table, "--split", "all", "--check_scans")
    with pytest.raises(UserError, match="2 of 12 scans cannot be read") as error:
        run_evaluate(binary_run / "slivit.safetensors", tmp_path / "out", *options)
    assert names(error.value) == [2, 10]
    assert not (tmp_path / "out").exists()


def test_what_is_decoded_goes_to_the_cache(tmp_path, monkeypatch):
    write_volumes(tmp_path)
    scans = file_scans(*(tmp_path / f"{k}.npz" for k in range(12)),
                       split=np.array(["train"] * 6 + ["val"] * 3 + ["test"] * 3))
    scans = scans.__class__(**{**vars(scans), "cache_dir": tmp_path / "cache"})
    check_decoding(scans, preprocess(4), 2, n_cpu=0)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 6
    check_decoding(scans, preprocess(4), None, n_cpu=0)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 12
    monkeypatch.setattr(scans.read.__class__, "__call__", None)  # decodes no more
    check_decoding(scans, preprocess(4), None, n_cpu=0)


def test_a_cache_that_cannot_be_written_is_a_failure_of_its_own(monkeypatch):
    def full(*_):
        raise RunError("no space")
    monkeypatch.setattr(decode_check, "prepare", full)
    scans = file_scans("a", "b", split=np.array(["train", "val"]))
    with pytest.raises(RunError, match="no space"):
        check_decoding(scans, preprocess(4), None)
