"""What a process does before its imports."""

import json
import os
import subprocess
import sys

import pytest
import threadpoolctl
import torch
from helpers import ROOT

from slivit.data import parallel
from slivit.data.readers.base import codec_threads
from slivit.utils import runtime, startup

SAY = "import os, sys; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
BEGIN = f"from slivit.utils.startup import begin_process; begin_process(); {SAY}"
PROGRAMS = sorted(path for folder in (".", "slivit", "demo", "data", "benchmarks")
                  for path in (ROOT / folder).glob("*.py")
                  if '__name__ == "__main__"' in path.read_text(encoding="utf-8"))
RUN_ALL = """
import argparse, json, os, runpy, sys

class AsksForTorch(BaseException): pass

class Finder:
    def find_spec(name, path=None, target=None):
        if name == "torch":
            raise AsksForTorch

sys.meta_path.insert(0, Finder)
argparse.ArgumentParser.parse_args = lambda *given: None  # so that none gets far
sys.path.insert(0, "data")
found = {}
for path in sys.argv[1:]:
    sys.argv = [path]
    os.environ.pop("GOMP_SPINCOUNT", None)
    try:
        runpy.run_path(path, run_name="__main__")
    except AsksForTorch:
        found[path] = os.environ.get("GOMP_SPINCOUNT")
    except AttributeError as error:  # of the options that were not parsed
        assert "'NoneType'" in str(error), path
os.environ.pop("GOMP_SPINCOUNT", None)
import slivit
try:
    slivit.load
except AsksForTorch:
    found["slivit.load"] = os.environ.get("GOMP_SPINCOUNT")
print(json.dumps(found))
"""


def said(words, *more, **settings):
    clean = {name: value for name, value in os.environ.items() if name not in startup.WAITING}
    return subprocess.run([sys.executable, "-c", words, *more], cwd=ROOT, env=clean | settings,
                          text=True, capture_output=True, check=True).stdout


@pytest.mark.parametrize(("settings", "spins"), [
    ({}, "1000"), ({"OMP_NUM_THREADS": "2"}, "1000"), ({"GOMP_SPINCOUNT": ""}, "1000"),
    ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
    ({"KMP_BLOCKTIME": "0"}, "None")])
def test_threads_sleep_when_they_wait_unless_the_user_says_otherwise(settings, spins):
    assert said(BEGIN, **settings).split() == [spins, "False"]


def test_every_program_says_how_threads_wait_before_it_imports_torch():
    found = json.loads(said(RUN_ALL, *(str(path.relative_to(ROOT)) for path in PROGRAMS)))
    assert {"bb_train.py", "finetune.py", "evaluate.py", "slivit/check.py", "slivit/convert.py",
            "slivit/share.py", "slivit.load", "data/build_model.py", "benchmarks/speed.py",
            "benchmarks/speed_waiting.py"} <= set(found)
    assert {path for path, spins in found.items() if spins != "1000"} == set()


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    with threadpoolctl.threadpool_limits(2):
        yield
    torch.set_num_threads(1)


def threads_here(row):
    return [codec_threads(), torch.get_num_threads(),
            *(one["num_threads"] for one in threadpoolctl.threadpool_info())]


def test_loading_processes_have_one_thread_each(monkeypatch, two_threads):
    monkeypatch.setattr(parallel, "usable_cpus", lambda: 2)
    here, *there = [threads_here(0), *parallel.in_processes(threads_here, range(64), "rows", 2)]
    assert (here[:2], set(here[2:])) == ([None, 2], {2})
    assert {count for row in there for count in row} == {1}


@pytest.mark.parametrize(("threads", "others", "settings", "text"), [
    (2, 0, {}, ""), (1, 1, {}, ""), (2, 0, {"OMP_WAIT_POLICY": "ACTIVE"}, ""),
    (2, 1, {"GOMP_SPINCOUNT": "1000"},
     "other processes keep 1 of 2 cores busy: this takes longer"),
    (2, 5, {"OMP_WAIT_POLICY": "passive"},
     "other processes keep 2 of 2 cores busy: this takes longer"),
    (2, 1, {"GOMP_SPINCOUNT": "INFINITE"},
     "other processes keep 1 of 2 cores busy: this takes longer; much longer, since PyTorch's "
     "threads spin while they wait: set GOMP_SPINCOUNT=1000 in the environment"),
    (8, 0, {}, "OMP_NUM_THREADS=8 is more than the cores there are for this process (2), which "
               "makes it slower")])
def test_what_slows_a_run_down_is_said_where_it_matters(monkeypatch, threads, others, settings,
                                                        text):
    monkeypatch.setattr(runtime, "usable_cpus", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for name in startup.WAITING:
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert runtime.what_slows_down(threads, others) == text


@pytest.mark.parametrize(("count", "long"), [("1000", False), (" 10k ", False), ("1 m", True),
                                             ("300000", True), ("INFINITY", True), ("", True)])
def test_turns_are_read_as_libgomp_reads_them(monkeypatch, count, long):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", count)
    assert startup.spins_long() is long


def test_what_runs_elsewhere_is_the_least_of_some_looks(tmp_path, monkeypatch):
    file = tmp_path / "loadavg"
    monkeypatch.setattr(runtime, "LOADAVG", file)
    assert runtime.running_elsewhere() == 0
    counts = iter([4, 3, 9, 3, 7])
    monkeypatch.setattr(type(file), "read_text", lambda path, encoding: (
        f"0.20 0.18 0.12 {next(counts)}/80 11206\n"))
    assert runtime.running_elsewhere() == 2


def test_processes_of_torchrun_share_the_cores(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 6)
    assert runtime.usable_cpus() == 6
    for text, cores in (("4", 1), ("abc", 6), ("0", 6), ("", 6)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", text)
        assert runtime.usable_cpus() == cores
