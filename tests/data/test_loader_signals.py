"""Signals belong to the main process: loading processes leave no traceback, threads no delay."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from helpers import ROOT, array_scans, preprocess

from slivit.data.datasets import ScanDataset, make_loader
from slivit.data.parallel import in_threads
from slivit.utils.signals import Stopped, stop_signals

SCRIPT = """
import sys, time
import numpy as np, torch
sys.path.insert(0, "tests/support")
from helpers import array_scans, preprocess
from slivit.data.datasets import ScanDataset, make_loader
from slivit.utils.errors import Stopped
from slivit.utils.signals import stop_signals
scans = array_scans(np.ones((6, 3, 8, 8), np.uint8), range(6))
dataset = ScanDataset(scans, np.arange(6), preprocess(3))
try:
    with stop_signals():
        for batch in make_loader(dataset, 1, 2, torch.device("cpu")):
            print("loaded", flush=True)
            time.sleep(30)
except Stopped as stop:
    sys.exit(100 + stop.number)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_leaves_no_traceback(number):
    run = subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=ROOT, start_new_session=True,
                           env={**os.environ, "PYTHONWARNINGS": "ignore"},  # of few processors
                           text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout.readline() == "loaded\n"
    time.sleep(0.3)  # until both workers wait
    os.killpg(run.pid, number)
    _, error = run.communicate(timeout=30)
    assert (run.returncode, error) == (100 + number, "")


def test_loading_processes_leave_signals_to_the_main_one():
    scans = array_scans(np.ones((40, 3, 8, 8), np.uint8), range(40))
    batches = iter(make_loader(ScanDataset(scans, np.arange(40), preprocess(3)), 1, 1,
                               torch.device("cpu")))
    before = set(multiprocessing.active_children())  # of other tests
    next(batches)
    worker, = set(multiprocessing.active_children()) - before
    assert os.getpgid(worker.pid) == worker.pid
    os.kill(worker.pid, signal.SIGINT)
    assert len(list(batches)) == 39
    assert worker not in multiprocessing.active_children()


def test_threads_are_not_waited_for_when_a_signal_comes():
    looked, free, start = [], threading.Event(), time.monotonic()

    def look(row):
        looked.append(row)
        free.wait(max(0, start + 20 - time.monotonic()))

    def work():
        with stop_signals():
            in_threads(look, range(1000), "rows")

    try:
        threading.Timer(0.3, signal.pthread_kill, (threading.get_ident(), signal.SIGTERM)).start()
        with pytest.raises(Stopped):
            work()
        assert time.monotonic() - start < 10
        assert len(looked) < 1000
    finally:
        free.set()
    time.sleep(0.2)
    assert len(looked) < 1000
