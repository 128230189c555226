"""Loading processes: kept between epochs, of one thread, and what they give is theirs alone."""

import multiprocessing
import os
import threading

import av
import numpy as np
import pytest
import tifffile
import torch
from helpers import array_scans, file_scans, preprocess
from threadpoolctl import threadpool_info, threadpool_limits

from slivit.config import Augmentation
from slivit.data.datasets import ScanDataset, make_loader, scan_training_set
from slivit.utils.errors import UserError
from slivit.utils.session import Session

CPU = torch.device("cpu")


def training_set(n_workers, scans=None):
    """Return batches of two of nine training volumes, augmented, and of four to validate on."""
    volumes = np.random.default_rng(0).integers(0, 256, (13, 3, 8, 8), dtype=np.uint8)
    scans = scans or array_scans(volumes, range(13), ["train"] * 9 + ["val"] * 4)
    return scan_training_set(scans, preprocess(3), Augmentation("hvz", 1.0),
                             Session(CPU, n_workers), 2, seed=5)


def contents(batches):
    """Return what is in batches, to be compared."""
    return [(batch.x.tolist(), batch.y.tolist(),
             None if batch.transforms is None else batch.transforms.tolist()) for batch in batches]


def processes():
    return {process.pid for process in multiprocessing.active_children()}


def test_processes_are_kept_over_epochs_and_change_no_batch():
    alone, before = training_set(0), processes()
    kept = training_set(2)
    assert len(kept.batches(1, 0)) == 5 and len(kept.validation()) == 2
    first = contents(kept.batches(1, 0))
    started = processes() - before
    assert len(started) == 2
    assert first == contents(alone.batches(1, 0))
    assert contents(kept.validation()) == contents(alone.validation())
    assert contents(kept.batches(3, 2)) == contents(alone.batches(3, 0))[2:]  # goes on within one
    assert contents(kept.batches(1, 0)) == first != contents(alone.batches(2, 0))
    assert processes() - before == started
    kept.close()
    assert processes() <= before
    assert contents(kept.validation()) == contents(alone.validation())  # of new ones
    kept.close()


def test_a_pass_that_was_left_early_leaves_nothing_to_the_next():
    kept = training_set(2)
    next(iter(kept.batches(1, 0)))
    assert contents(kept.validation()) == contents(training_set(0).validation())
    kept.close()


def test_an_unreadable_scan_of_a_later_epoch_is_its_one_error(tmp_path):
    paths = [tmp_path / f"{k}.npy" for k in range(4)]
    for path in paths:
        np.save(path, np.ones((3, 8, 8), np.uint8))
    scans = file_scans(*paths, split=np.array(["train", "train", "val", "val"]))
    kept, before = training_set(1, scans), processes()
    assert len(list(kept.batches(1, 0))) == 1
    paths[1].write_bytes(b"")
    with pytest.raises(UserError, match=r"1\.npy"):
        list(kept.batches(2, 0))
    kept.close()
    assert processes() <= before


def write_video(path, pixels):
    with av.open(str(path), "w") as box:
        stream = box.add_stream("mpeg4", rate=10)
        stream.height, stream.width = pixels.shape[1:]
        for one in pixels:
            frame = av.VideoFrame.from_ndarray(one, format="gray")
            box.mux(stream.encode(frame.reformat(format="yuv420p")))
        box.mux(stream.encode())


class Counted(ScanDataset):
    """Gives the threads that ran while a scan was read, and the most that a library would use."""

    def __getitem__(self, index):
        seen, read = set(), threading.Event()

        def watch():
            while not read.wait(0.001):
                tasks = {int(task) for task in os.listdir("/proc/self/task")}
                known = {one.native_id for one in threading.enumerate()
                         if one.name.startswith(("Main", "QueueFeeder", "watch"))
                         or "_serve" in one.name}  # all but the first wait, or hand over batches
                seen.update(tasks - known)

        watching = threading.Thread(target=watch, name="watch")
        watching.start()
        item = super().__getitem__(index)
        read.set()
        watching.join()
        item.label[0] = len(seen)
        item.label[1] = max([torch.get_num_threads(),
                             *(pool["num_threads"] for pool in threadpool_info())])
        return item


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs Linux")
def test_a_loading_process_has_one_thread(tmp_path, monkeypatch):
    monkeypatch.setattr(type(tifffile.TIFF), "MAXWORKERS", 8)  # as on a machine of many cores
    pixels = np.random.default_rng(0).integers(0, 256, (6, 512, 512), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", compression="zlib",
                     tile=(64, 64))
    write_video(tmp_path / "b.mp4", pixels)
    scans = file_scans(tmp_path / "a.tif", tmp_path / "b.mp4").with_labels(
        ("more", "most"), np.zeros((2, 2), np.float32))
    with threadpool_limits(2):
        batches = list(make_loader(Counted(scans, np.arange(2), preprocess(3)), 1, 1, CPU))
    assert [batch.y[0, 1].item() for batch in batches] == [1, 1]
    assert max(batch.y[0, 0].item() for batch in batches) <= 1  # one that begins just now
