"""Signals: one line, an exit code, and which of them wait."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from helpers import ROOT

from slivit.utils.distributed import ProcessGroup
from slivit.utils.signals import Stopped, stop_signals

ALONE = ProcessGroup()


def send(number=signal.SIGTERM):
    signal.raise_signal(number)


def test_a_signal_is_raised_at_once_and_only_once():
    def work():
        with stop_signals():
            try:
                send()
            except Stopped:
                send(signal.SIGINT)  # what the first has begun is finished
                raise
    with pytest.raises(Stopped) as stopped:
        work()
    assert stopped.value.number == signal.SIGTERM
    assert not isinstance(stopped.value, Exception)


def test_deferred_it_waits_for_the_next_place_where_it_may():
    done = []

    def work():
        with stop_signals() as stop, stop.deferred():
            with stop.allowed(ALONE):
                done.append("first")
            send()
            done.append("weights")
            with stop.allowed(ALONE):
                done.append("never")
    with pytest.raises(Stopped):
        work()
    assert done == ["first", "weights"]


def test_what_a_library_swallows_is_raised_again():
    def work():
        with stop_signals(), contextlib.suppress(BaseException):
            send()
    with pytest.raises(Stopped):
        work()


def test_what_a_destructor_loses_is_raised_again_at_once(capfd):
    class Held:
        def __del__(self):
            send()

    def work():
        start = time.monotonic()
        with stop_signals():
            held = Held()
            del held
            gc.collect()
            while time.monotonic() - start < 30:
                time.sleep(0.01)
    start = time.monotonic()
    with pytest.raises(Stopped):
        work()
    assert time.monotonic() - start < 20  # on a busy machine it is seconds
    assert "Exception ignored" not in capfd.readouterr().err


def test_what_numpy_swallows_is_raised_again_at_once():
    names, start = np.array(["train", "val", "test"] * 2000), time.monotonic()

    def work():
        with stop_signals():
            threading.Timer(0.03, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
            while time.monotonic() - start < 5:
                [names[i] for i in range(6000)]  # swallows nine of ten
    for _ in range(4):
        start = time.monotonic()
        with pytest.raises(Stopped):
            work()
        assert time.monotonic() - start < 1


def test_what_handles_a_signal_is_not_disturbed():
    done = []

    def work():
        with stop_signals():
            try:
                send()
            finally:
                with contextlib.suppress(ValueError):
                    time.sleep(0.2)
                    raise ValueError
                time.sleep(0.2)
                done.append("cleared up")
    with pytest.raises(Stopped):
        work()
    assert done == ["cleared up"]


def test_blocks_within_each_other_share_the_signal():
    def work():
        with stop_signals() as outer, outer.deferred(), stop_signals() as inner:
            assert inner is outer
            send()
    with pytest.raises(Stopped):
        work()
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


LATE = """
import os, signal
from slivit.utils.signals import end_at_signals
end_at_signals()
from slivit.utils.errors import run_script
class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.SIGTERM):
        kill(pid, number)  # Python has given its handlers back
late = Late()
def main():
    if {fails}:
        from slivit.utils.errors import UserError
        raise UserError("wrong")
if __name__ == "__main__":
    run_script(main)
"""


@pytest.mark.parametrize("fails", [False, True])
def test_when_all_is_done_a_signal_changes_nothing(fails):
    done = subprocess.run([sys.executable, "-c", LATE.format(fails=fails)], cwd=ROOT,
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == ((2, "error: wrong\n") if fails else (0, ""))


THREE = """
import signal, time
from slivit.utils.errors import run_script
def main():
    from slivit.utils.signals import stop_signals
    with stop_signals() as stop, stop.deferred():
        print("ready", flush=True)
        while True:
            time.sleep(0.01)
run_script(main)
"""


def test_the_third_signal_ends_at_once():
    process = subprocess.Popen([sys.executable, "-c", THREE], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    for _ in range(3):
        time.sleep(0.1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert errors == "stopped by SIGINT\n"


@pytest.mark.parametrize("script", ["bb_train.py", "finetune.py", "evaluate.py", "-m slivit.check",
                                    "data/make_kermany_meta.py"])
def test_while_a_script_imports_a_signal_ends_it_with_one_line(script, tmp_path):
    # The handler is there before the first import that takes time: torch and pandas are made slow.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time, importlib.abc\n"
        "class Slow(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name in ('torch', 'numpy', 'pandas'):\n"
        "            print('importing', flush=True); time.sleep(30)\n"
        "sys.meta_path.insert(0, Slow())\n")
    process = subprocess.Popen([sys.executable, *script.split()], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert process.stdout.readline() == "importing\n"
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 143
    assert errors == "stopped by SIGTERM\n"
    assert time.monotonic() - start < 5
