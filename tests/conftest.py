"""Shared fixtures: one table of images, one of volumes, and one trained model of each kind."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # also for the processes that tests start

import importlib.util
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from converters import DATA, NAMES
from helpers import RUN_2D, RUN_3D, write_image_table, write_volume_table
from hub_server import running_hub
from huggingface_hub import constants, file_download

import bb_train
import finetune
from slivit.training import experiment

torch.set_num_threads(1)
LONGEST = ("test_memory", "test_resume", "test_distributed")


def pytest_collection_modifyitems(items):
    """Begin with the modules that take longest, so that no process is left with one at the end."""
    items.sort(key=lambda item: item.module.__name__ not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory):
    """Keep what runs remember, here and in processes that tests start, out of the user's folder."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty Hugging Face Hub on this machine, an empty cache, and no token."""
    with running_hub() as server:
        template = "HUGGINGFACE_CO_URL_TEMPLATE"  # huggingface_hub 0.25 has it in two places
        where = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        for module, name, value in (
                (constants, "ENDPOINT", server.url),
                (constants, template, where), (file_download, template, where),
                (constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache")),
                (constants, "HF_TOKEN_PATH", str(tmp_path / "no_token")),
                (constants, "HF_HUB_DISABLE_XET", True)):
            monkeypatch.setattr(module, name, value, raising=False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture
def messages():
    """Collect what the package logs, as a list of texts."""
    texts = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())
    logger = logging.getLogger("slivit")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield texts
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def unmeasured(monkeypatch):
    """Have the trainings of a test end without scores and reports, which take longest."""
    monkeypatch.setattr(experiment, "measure", lambda *given: None)


@pytest.fixture(scope="session")
def scripts():
    """The converters' main functions, loaded as Python does: with their folder on sys.path."""
    modules = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DATA)
        for name in NAMES:
            spec = importlib.util.spec_from_file_location(name, DATA / f"{name}.py")
            modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(modules[name])
    return SimpleNamespace(kermany=modules[NAMES[0]].main, echonet=modules[NAMES[1]].main,
                           folder=modules[NAMES[2]].main, export=modules[NAMES[3]].main)


@pytest.fixture(scope="session")
def image_csv(tmp_path_factory) -> Path:
    """A table of 24 images; see write_image_table."""
    return write_image_table(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def volume_csv(tmp_path_factory) -> Path:
    """A table of 24 volumes; see write_volume_table."""
    return write_volume_table(tmp_path_factory.mktemp("volumes"))


@pytest.fixture(scope="session")
def backbone_run(image_csv, tmp_path_factory) -> Path:
    """The output of bb_train.py on the images, labels A and B."""
    out = tmp_path_factory.mktemp("runs") / "backbone"
    bb_train.main(["--meta_csv", str(image_csv), "--n_epochs", "2", *RUN_2D,
                   "--out_dir", str(out)])
    return out


@pytest.fixture(scope="session")
def binary_run(volume_csv, backbone_run, tmp_path_factory) -> Path:
    """The output of finetune.py on the volumes, label A, from that backbone."""
    out = tmp_path_factory.mktemp("runs") / "binary"
    options = [*RUN_3D[4:], "--bb_path", str(backbone_run / "backbone.safetensors")]
    finetune.main(["--meta_csv", str(volume_csv), "--pathologies", "A", "--n_epochs", "2",
                   "--emb_dropout", "0.3", *options, "--out_dir", str(out)])
    return out
