"""The paper's configuration in the memory of a small machine."""

import re
import subprocess
import sys

import numpy as np
from helpers import ROOT, write_meta

LAUNCH = """
import resource, sys
import finetune
finetune.main(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20)
"""


def test_volumes_of_the_paper_train_in_the_memory_of_some_slices(tmp_path):
    """28 slices of 256 pixels, convnext_tiny, the whole model."""
    rng = np.random.default_rng(0)
    for i in range(4):
        count = 28 if i < 2 else 1  # the training volumes are what needs memory
        np.save(tmp_path / f"{i}.npy", rng.integers(0, 255, (count, 32, 32), dtype=np.uint8))
    table = write_meta(tmp_path / "t.csv", F_Name=list("abcd"), A=[0, 1, 0, 1],
                       Path=[f"{i}.npy" for i in range(4)],
                       Split=["train"] * 2 + ["val", "test"])
    done = subprocess.run(
        [sys.executable, "-c", LAUNCH, "--meta_csv", str(table), "--weights", "none", "--n_epochs",
         "1", "--slices_per_step", "8", "--gpu_id", "cpu", "--out_dir", str(tmp_path / "out")],
        cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "epoch 1/1" in done.stdout
    assert float(re.search(r"peak ([0-9.]+)", done.stdout)[1]) < 4  # GiB
