"""Whether the files of a folder are whole, and whether two runs left the same."""

import json
import struct
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file

SAME_BYTES = ("predictions.csv", "metrics.json", "folds.csv", "split.csv", "data_report.csv")
TRACES = (".*.part*", ".scratch.*")  # of files that were being written


def differences(reference: Path, found: Path) -> list[str]:
    """Return how `run` and `run.*` in one folder differ from those in that of the reference run.

    Checkpoints have to be equal but for the hashes of patients, which have a key of each run's own;
    log.csv but for the seconds; tables and scores byte for byte; of other files there have to be
    the same.
    """
    names = [{str(path.relative_to(folder)) for path in results(folder)}
             for folder in (reference, found)]
    problems = [f"{name}: missing" for name in sorted(names[0] - names[1])]
    problems += [f"{name}: the reference run did not leave it"
                 for name in sorted(names[1] - names[0])]
    for name in sorted(names[0] & names[1]):
        content = _content(name)
        try:
            if content is not None and content(reference / name) != content(found / name):
                problems.append(f"{name}: differs from that of the reference run")
        except Exception as error:  # whatever the libraries say of a broken file
            problems.append(f"{name}: cannot be compared ({error!r:.200})")
    return problems


def _content(name: str) -> Callable[[Path], object] | None:
    """Return what gives the part of a file that has to be the same, None where nothing has."""
    if name.endswith(".safetensors"):
        return checkpoint_content
    if Path(name).name == "log.csv":
        return lambda path: pd.read_csv(path, dtype=str).drop(columns="seconds").to_csv()
    return Path.read_bytes if Path(name).name in SAME_BYTES else None


def checkpoint_content(path: Path) -> tuple[dict, bytes]:
    """Return the header of a checkpoint, without the hashes of patients, and its tensors' bytes."""
    header, data = split_checkpoint(path)
    meta = {key: json.loads(text) for key, text in header.pop("__metadata__", {}).items()}
    for card in meta.values():
        facts = card.get("data", {})
        for key in [key for key in facts if key.startswith("patient")]:
            del facts[key]
    return {**header, "meta": meta}, data


def split_checkpoint(path: Path) -> tuple[dict, bytes]:
    """Return the header of a safetensors file and the bytes behind it."""
    raw = path.read_bytes()
    end = 8 + struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8:end]), raw[end:]


def results(folder: Path) -> list[Path]:
    """Return the files that a run in a trial's folder has left, cache and messages aside."""
    found = [*folder.glob("run.*"), *folder.glob(".run.*"), *folder.glob("run/**/*")]
    return sorted(path for path in found if not path.is_dir())


def broken_files(folder: Path, killed: bool = False) -> list[str]:
    """Return which of the results in a trial's folder are not whole.

    A run that was killed may leave traces of files that it was writing; others may not.
    """
    problems = []
    for path in results(folder):
        name = path.relative_to(folder)
        if any(fnmatch(part, pattern) for part in name.parts for pattern in TRACES):
            if not killed:
                problems.append(f"{name}: was left behind")
            continue
        try:
            _open(path)
        except Exception as error:  # whatever the libraries say of a broken file
            problems.append(f"{name}: is not whole ({error!r:.200})")
    return problems


def _open(path: Path) -> None:
    """Read a file to its end, in the way its name asks for."""
    if not path.stat().st_size and not path.name.startswith("."):  # such as a lock
        raise ValueError("is empty")
    if path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".csv":
        pd.read_csv(path)
    elif path.suffix == ".png":
        with Image.open(path) as picture:
            picture.load()
    elif path.suffix == ".safetensors":
        load_file(path)
    elif path.suffix == ".pt":
        torch.load(path, weights_only=True)
    elif path.suffix == ".npy":
        np.load(path)
    elif path.suffix == ".html" and not path.read_text(encoding="utf-8").rstrip().endswith(
            "</html>"):
        raise ValueError("has no end")
