"""`pip install .`: the package works from another folder, in an environment of its own."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from helpers import absolute_table

import slivit

ROOT = Path(slivit.__file__).resolve().parents[1]
FILES = ("pyproject.toml", "README.md", "LICENSE", "requirements.txt")
PREDICT = """
import sys, slivit
assert slivit.__file__.startswith(sys.argv[1]), slivit.__file__
print(slivit.load(sys.argv[2], gpu_id="cpu").predict(sys.argv[3]).values[0, 0])
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Return the Python of a fresh environment with SLIViT; other packages are these tests' own."""
    folder = tmp_path_factory.mktemp("install")
    source = folder / "source"
    shutil.copytree(ROOT / "slivit", source / "slivit", ignore=shutil.ignore_patterns("__pyc*"))
    for name in FILES:
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = folder / "env/bin/python"
    place = next((folder / "env/lib").glob("python*/site-packages"))
    (place / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet",
                    "--disable-pip-version-check", "--no-deps", "--no-build-isolation", source],
                   check=True)
    return python


def run(python, folder, *words):
    return subprocess.run([python, *map(str, words)], cwd=folder, capture_output=True, text=True)


def test_installed_package_predicts_from_another_folder(python, binary_run, volume_csv, tmp_path):
    scan, file = absolute_table(volume_csv)["Path"][1], binary_run / "slivit.safetensors"
    done = run(python, tmp_path, "-c", PREDICT, python.parents[1], file, scan)
    assert done.returncode == 0, done.stderr
    expected = slivit.load(file, gpu_id="cpu").predict(scan).values[0, 0]
    assert float(done.stdout) == pytest.approx(expected, abs=1e-6)


def test_installed_modules_run(python, tmp_path):
    np.save(tmp_path / "a.npy", np.arange(300, dtype=np.uint8).reshape(3, 10, 10))
    (tmp_path / "t.csv").write_text("F_Name,Path,A\na,a.npy,1\n")
    done = run(python, tmp_path, "-m", "slivit.check", "--meta_csv", "t.csv", "--out_dir", "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").is_dir()
