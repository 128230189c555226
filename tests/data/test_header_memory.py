"""Headers are remembered between runs, and read by processes: the same as if read anew."""

import dataclasses
import functools
import os

import numpy as np
import pytest
from helpers import file_scans, write_image
from scan_files import write_dicom_series

from slivit.data import header_memory
from slivit.data.header_check import check_headers, read_headers
from slivit.data.parallel import FEW, in_processes, in_threads
from slivit.data.readers import Header, ReadError
from slivit.data.scan_table import FileSource
from slivit.utils.errors import UserError

RNG = np.random.default_rng(0)
ROWS = np.arange(3)


@pytest.fixture
def scans(tmp_path):
    """A DICOM series, an array and a folder of pictures, with a file for their headers."""
    write_dicom_series(tmp_path / "patient Miller", RNG.integers(0, 99, (4, 8, 9)).astype(np.int16))
    np.save(tmp_path / "b.npy", RNG.integers(0, 99, (5, 8, 9), dtype=np.uint8))
    for k in range(3):
        write_image(tmp_path / f"c/{k}.png", RNG.integers(0, 99, (8, 9), dtype=np.uint8))
    paths = (tmp_path / "patient Miller", tmp_path / "b.npy", tmp_path / "c")
    return dataclasses.replace(file_scans(*paths), headers=tmp_path / "memory/headers.json")


@pytest.fixture
def reads(monkeypatch):
    """Collect the rows whose headers are read."""
    rows, read = [], FileSource.header
    monkeypatch.setattr(FileSource, "header",
                        lambda self, row: rows.append(row) or read(self, row))
    return rows


def test_a_header_is_read_once(scans, reads):
    first = read_headers(scans, ROWS)
    assert read_headers(scans, ROWS) == first
    assert reads == [0, 1, 2]
    assert first[0].axes and first[0].spacing and all(isinstance(one, Header) for one in first)
    assert check_headers(scans).window == "percentile"
    assert sorted(reads) == [0, 1, 2]


@pytest.mark.parametrize(("row", "change"), [
    (0, lambda folder: (folder / "patient Miller/0.dcm").unlink()),
    (1, lambda folder: np.save(folder / "b.npy", np.ones((5, 8, 9), np.uint8))),
    (2, lambda folder: write_image(folder / "c/9.png", np.ones((8, 9), np.uint8))),
    (2, lambda folder: (folder / "c/0.png").rename(folder / "c/5.png"))])
def test_a_changed_added_or_removed_file_is_noticed(scans, reads, tmp_path, row, change):
    (tmp_path / "patient Miller").joinpath("0.dcm").exists() or next(
        (tmp_path / "patient Miller").iterdir()).rename(tmp_path / "patient Miller/0.dcm")
    os.utime(tmp_path / "b.npy", ns=(1, 1))
    read_headers(scans, ROWS)
    reads.clear()
    change(tmp_path)
    answers = read_headers(scans, ROWS)
    assert reads == [row]
    assert answers == [scans.read.header(k) for k in ROWS]


@pytest.mark.parametrize("spoil", [
    lambda content: b"", lambda content: content[:-1], lambda content: content[:50],
    lambda content: content[:60] + b"7" + content[61:], lambda content: b"[" * 100_000,
    lambda content: b"\xff" + content])
def test_a_damaged_memory_is_made_again(scans, reads, spoil):
    first = read_headers(scans, ROWS)
    whole = scans.headers.read_bytes()
    scans.headers.write_bytes(spoil(whole))
    assert read_headers(scans, ROWS) == first
    assert len(reads) == 6
    assert scans.headers.read_bytes() == whole


def test_a_memory_that_cannot_be_written_is_done_without(scans):
    scans.headers.parent.write_text("a file where the folder would be")
    assert len(read_headers(scans, ROWS)) == 3
    scans.headers.parent.unlink()
    scans.headers.mkdir(parents=True)
    assert len(read_headers(scans, ROWS)) == 3


def test_a_pipe_in_its_place_is_not_waited_for(scans):
    scans.headers.parent.mkdir()
    os.mkfifo(scans.headers)
    assert len(read_headers(scans, ROWS)) == 3


def test_scans_that_cannot_be_read_are_not_remembered(scans, tmp_path):
    (tmp_path / "b.npy").write_bytes(b"no array")
    for _ in range(2):
        with pytest.raises(UserError, match="(?s)1 of 3 scans cannot be read.*b.npy"):
            check_headers(scans)


def test_no_name_of_a_patient_is_in_the_memory(scans):
    read_headers(scans, ROWS)
    assert b"Miller" not in scans.headers.read_bytes()


def test_tables_and_caches_have_memories_of_their_own(tmp_path):
    table = tmp_path / "volumes.csv"
    files = [header_memory.memory_file(table, 3, None), header_memory.memory_file(table, 2, None),
             header_memory.memory_file(tmp_path / "other.csv", 3, None),
             header_memory.memory_file(table, 3, tmp_path / "cache")]
    assert len(set(files)) == 4
    assert files[3].parent == tmp_path / "cache/headers"
    assert files[0] == header_memory.memory_file(tmp_path / "x/../volumes.csv", 3, None)


def shape(folder, row):
    """Return what is found in a row: a shape, or an error."""
    if row % 50 == 7:
        return ReadError(f"{folder}: row {row}")
    return row, os.getpid()


def test_processes_find_what_threads_find(tmp_path, monkeypatch):
    monkeypatch.setattr("slivit.data.parallel.usable_cpus", lambda: 2)
    rows = range(2 * FEW)
    look = functools.partial(shape, tmp_path)
    threads, processes = in_threads(look, rows, "rows"), in_processes(look, rows, "rows", 2)
    assert [str(one) for one in processes if isinstance(one, ReadError)] == [
        str(one) for one in threads if isinstance(one, ReadError)]
    found = [one for one in processes if not isinstance(one, ReadError)]
    assert [row for row, _ in found] == [row for row in rows if row % 50 != 7]
    assert len({pid for _, pid in found} - {os.getpid()}) == 2
    assert {pid for _, pid in in_processes(look, range(5), "rows", 2)} == {os.getpid()}
