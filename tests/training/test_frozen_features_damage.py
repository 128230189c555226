"""Stored slice features: what is damaged or half-written is computed again, to the same bits."""

import dataclasses
import multiprocessing

import numpy as np
import pytest
import torch
from helpers import BACKBONE, TINY_VIT, array_scans, preprocess

from slivit.config import Augmentation
from slivit.models.slivit import SLIViT
from slivit.training.frozen_features import FeatureOptions, fill, open_stores
from slivit.utils.errors import RunError
from slivit.utils.session import Session

CPU = torch.device("cpu")
OPTIONS = FeatureOptions(0, Augmentation(), 4, 5)
RUN = Session(CPU, quiet=True)
ROWS = np.arange(6)


@pytest.fixture(scope="module")
def model():
    """A tiny model whose features are of three slices."""
    torch.manual_seed(0)
    return SLIViT(BACKBONE, 1, preprocess(3), TINY_VIT)


@pytest.fixture
def scans():
    """Six volumes in memory."""
    volumes = np.random.default_rng(0).integers(0, 255, (6, 3, 32, 32), dtype=np.uint8)
    return array_scans(volumes, np.arange(6) % 2)


@pytest.fixture
def folder(tmp_path, model, scans):
    """The folder of a store of these volumes."""
    filled(model, scans, tmp_path / "features")
    return tmp_path / "features"


def filled(model, scans, folder):
    """Return features and masks of a store, computed where they are not there."""
    store, = open_stores(model, scans, OPTIONS, folder)
    fill(store, ROWS, model, 4, RUN)
    return np.array(store.x), np.array(store.mask)


def content(folder):
    """Return the bytes of every file."""
    return {path: path.read_bytes() for path in folder.iterdir()}


def test_no_flipped_bit_goes_unseen(folder, model, scans, messages):
    x, mask = filled(model, scans, folder)
    before, rng = content(folder), np.random.default_rng(1)
    for path, whole in before.items():
        step = len(whole) // len(ROWS)
        for at in (0, 5, step - 1, step - 5, step - 12, *rng.integers(len(whole), size=25)):
            spoiled = bytearray(whole)
            spoiled[at] ^= 1 << at % 8
            path.write_bytes(spoiled)
            found = filled(model, scans, folder)
            assert np.array_equal(found[0], x), at
            assert np.array_equal(found[1], mask), at
    assert ("warning: the stored slice features of 1 volumes are damaged and are computed again"
            in messages)


@pytest.mark.parametrize("spoil", [
    lambda whole: b"", lambda whole: whole[:-1], lambda whole: whole[:len(whole) // 2],
    lambda whole: whole + whole, lambda whole: bytes(len(whole)), lambda whole: whole[::-1],
    lambda whole: whole[:3000] + bytes(3000) + whole[6000:], lambda whole: b"no store" * 9999])
def test_torn_and_foreign_files_are_filled_again(folder, model, scans, spoil):
    before = content(folder)
    for path, whole in before.items():
        path.write_bytes(spoil(whole))
    filled(model, scans, folder)
    assert content(folder) == before


def test_a_record_of_another_volume_does_not_count(folder, model, scans):
    before = content(folder)
    for path, whole in before.items():
        step = len(whole) // len(ROWS)
        path.write_bytes(whole[step:2 * step] + whole[step:])
    filled(model, scans, folder)
    assert content(folder) == before


def test_only_what_is_not_done_and_its_batch_are_computed(folder, model, scans, monkeypatch):
    (path, whole), = content(folder).items()
    spoiled = bytearray(whole)
    spoiled[2 * len(whole) // len(ROWS) + 9] ^= 4
    path.write_bytes(spoiled)
    computed, run = [], SLIViT.slice_features
    monkeypatch.setattr(SLIViT, "slice_features",
                        lambda self, x, mask: computed.append(len(mask)) or run(self, x, mask))
    filled(model, scans, folder)
    filled(model, scans, folder)
    assert computed == [4]


def test_what_another_run_has_written_stays(folder, model, scans):
    """On a GPU the last digits depend on the batch, and the other run has begun to train."""
    before = content(folder)
    store, = open_stores(model, scans, OPTIONS, folder)
    store.write([1, 4], store.x[[1, 4]] + 1e-6, store.mask[[1, 4]])
    assert content(folder) == before


def test_two_processes_fill_one_store(tmp_path, model, scans):
    def both_fill(start):
        start.wait()
        filled(model, scans, tmp_path / "shared")

    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    runs = [context.Process(target=both_fill, args=(start,)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0, 0]
    filled(model, scans, tmp_path / "alone")
    assert list(content(tmp_path / "shared").values()) == list(content(tmp_path / "alone").values())


def test_a_full_disk_ends_the_run(tmp_path, model, scans):
    store, = open_stores(model, scans, OPTIONS, tmp_path)
    with open("/dev/full", "r+b", buffering=0) as full, pytest.raises(
            RunError, match="slice features: cannot write .* .No space left on device.; free disk "
                            "space"):
        fill(dataclasses.replace(store, file=full), ROWS, model, 4, RUN)


def test_a_folder_in_the_place_of_a_store_is_a_failure(folder, model, scans):
    for path in folder.iterdir():
        path.unlink()
        path.mkdir()
    with pytest.raises(RunError, match="cannot write .*it is not a regular file"):
        filled(model, scans, folder)
