"""What a process does before its imports."""

import os
import subprocess
import sys

import pytest
from helpers import ROOT

SAY = "import os, sys; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
BEGIN = f"from slivit.utils.startup import begin_process; begin_process(); {SAY}"


def said(words, **settings):
    clean = {name: value for name, value in os.environ.items()
             if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")}
    return subprocess.run([sys.executable, "-c", words], cwd=ROOT, env=clean | settings, text=True,
                          capture_output=True, check=True).stdout.split()


@pytest.mark.parametrize(("settings", "spins"), [
    ({}, "1000"), ({"OMP_NUM_THREADS": "2"}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"),
    ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"), ({"KMP_BLOCKTIME": "0"}, "None")])
def test_threads_sleep_when_they_wait_unless_the_user_says_otherwise(settings, spins):
    assert said(BEGIN, **settings) == [spins, "False"]


def test_slivit_in_python_does_so_too():
    assert said(f"import slivit; slivit.load; {SAY}") == ["1000", "True"]


@pytest.mark.parametrize("script", ["bb_train.py", "finetune.py", "evaluate.py"])
def test_scripts_begin_so(script):
    text = (ROOT / script).read_text()
    assert text.index("begin(") < text.index("import torch" if "import torch" in text else "numpy")
