"""Trials of tampering: a well-formed file says something that no version of ours writes."""

import copy
import dataclasses
import json
import math
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save

from slivit.config import IntegratorConfig, Preprocess, Target
from tests.soak.damage import half_run
from tests.soak.folders import split_checkpoint
from tests.soak.processes import Ended
from tests.soak.scenarios import SCENARIOS
from tests.soak.trial import Trial

MEMORY = 10 << 30  # bytes of address space: torch's libraries take some
SOON = 60.0        # seconds for a refusal: 20, on a machine with other things to do
TELLING = ("format", "kind", "backbone", "integrator", "target", "preprocess", "temperature")
FREE = ("column", "labels", "shift", "temperature", "window")  # where some odd values are right
WRONG = {int: ("seven", "", None, [], {}, -1, 2.5, math.nan, math.inf, 10**30, -10**30),
         float: ("half", "", None, [], {}, math.nan, -math.inf, math.inf, 10**400),
         str: ("unknown", "", "../x", 5, None, [], {}, 1.5, True, "\0"),
         list: ("text", None, {}, 5, [[]], [None], [math.nan], [{}], ["unknown"]),
         dict: ("text", None, [], 5, {}, [1], {"unknown": 1}),
         type(None): ([], {}, "unknown", -1, math.nan)}
RECORDS = {"target": Target, "preprocess": Preprocess, "integrator": IntegratorConfig}
Place = tuple[str | int, ...]


def tamper(trial: Trial) -> None:
    """Change what a checkpoint, config.json or last.pt says."""
    trial.rng.choice((of_header, of_header, of_header, of_weights, of_config, of_last))(trial)


def of_header(trial: Trial) -> None:
    """A checkpoint whose header is changed: refused, or as before where it says nothing of use."""
    rng = trial.rng
    file = rng.choice(("slivit", "backbone"))
    path = given(trial, file)
    header, data = split_checkpoint(path)
    card = json.loads(header["__metadata__"]["slivit"])
    card, place, told = change(card, rng)
    text = json.dumps(card)
    if rng.random() < 0.1:
        text, place, told = rng.choice((
            ("[" * 10**6, (), "deep"), ('{"format": 1, "a": ' + "[" * 10**5 + "]" * 10**5 + "}", (),
                                        "deep"), ("", (), "empty"), (text[:-5], (), "cut"),
            ("null", (), "null"), ('"' + "x" * 10**6 + '"', (), "long"), ("[1, 2]", (), "a list")))
    header["__metadata__"]["slivit"] = text
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    trial.subject = f"header: {place[0] if place else told}"
    trial.story.append(f"# {path}: {'/'.join(map(str, place))}: {told}")
    ended = measure(trial, path)
    must = not place or (place[0] in TELLING and not set(place) & set(FREE)
                         and told not in ("an extra field", "a default gone"))
    if ended.code == 0 and not must:
        return
    trial.expect_refused(ended, codes=(2,))


def of_weights(trial: Trial) -> None:
    """A checkpoint with weights that are not finite, of another shape or type, or missing."""
    rng = trial.rng
    path = given(trial, rng.choice(("slivit", "backbone")))
    header, _ = split_checkpoint(path)
    state = load_file(path)
    names = sorted(name for name in state if state[name].is_floating_point() and state[name].ndim
                   and name != "validation.labels")  # NaN is an unknown label there
    name, how = rng.choice(names), rng.choice(("nan", "inf", "-inf", "shape", "type", "gone",
                                               "extra"))
    flat = state[name].flatten()
    if how in ("nan", "inf", "-inf"):
        flat[rng.randrange(len(flat))] = float(how)
        state[name] = flat.view_as(state[name])
    elif how == "shape":
        state[name] = state[name][None]
    elif how == "type":
        state[name] = state[name].to(torch.int8)
    elif how == "gone":
        del state[name]
    else:
        state["unknown"] = torch.zeros(2)
    path.write_bytes(save(state, metadata=header["__metadata__"]))
    trial.subject = f"weights: {how}"
    trial.story.append(f"# {path}: {name}: {how}")
    trial.expect_refused(measure(trial, path), codes=(2,))


def of_config(trial: Trial) -> None:
    """A config.json that says something else: --resume is refused, or all is as before."""
    _of_half(trial, "config.json", json.loads, lambda content: json.dumps(content).encode())


def of_last(trial: Trial) -> None:
    """A last.pt that says something else: --resume is refused, or all is as before."""
    def write(content: dict) -> bytes:
        file = trial.folder / "given.pt"
        torch.save(content, file)
        return file.read_bytes()

    def read(raw: bytes) -> dict:
        file = trial.folder / "given.pt"
        file.write_bytes(raw)
        return torch.load(file, weights_only=True)

    _of_half(trial, "last.pt", read, write)


def _of_half(trial: Trial, name: str, read: Callable[[bytes], dict],
             write: Callable[[dict], bytes]) -> None:
    """Change a file of a run that was killed, and resume."""
    scenario = trial.rng.choice(("plain", "ema", "images", "frozen_cache"))
    source = half_run(trial, scenario)
    for part in ("run", "cache"):
        if (source / part).is_dir():
            shutil.copytree(source / part, trial.folder / part)
    path = trial.folder / "run" / name
    content, place, told = change(read(path.read_bytes()), trial.rng)
    path.write_bytes(write(content))
    trial.subject = f"{name}: {place[0]}"
    trial.story.append(f"# {path}: {'/'.join(map(str, place))}: {told}")
    ended = trial.run(SCENARIOS[scenario].words(trial.bench.work, trial.folder, "--resume"),
                      memory=MEMORY)
    if ended.code == 0:
        trial.expect_same(scenario)
    else:
        trial.expect_refused(ended)


def given(trial: Trial, file: str) -> Path:
    """Return a copy of a checkpoint, `slivit` or `backbone`."""
    name = "plain" if file == "slivit" else "images"
    path = trial.folder / f"{file}.safetensors"
    shutil.copy(trial.bench.references[name].folder / "run" / path.name, path)
    return path


def measure(trial: Trial, path: Path) -> Ended:
    """Run evaluate.py on one scan, with little memory."""
    scan = "volumes/volumes/v1.npy" if path.stem == "slivit" else "images/images/0.png"
    return trial.run(["evaluate.py", "--checkpoint", str(path), "--volume",
                      str(trial.bench.work / scan), "--gpu_id", "cpu", "--out_dir",
                      str(trial.folder / "run")], limit=SOON, memory=MEMORY)


def change(content: dict, rng: random.Random) -> tuple[dict, Place, str]:
    """Return nested content with one change, where it is and what it is."""
    content = copy.deepcopy(content)
    by_first = {}
    for place in places(content):
        by_first.setdefault(place[0], []).append(place)
    place = rng.choice(by_first[rng.choice(sorted(by_first, key=str))])
    *above, last = place
    parent = content
    for step in above:
        parent = parent[step]
    old = parent[last]
    how = rng.random()
    if how < 0.1:
        del parent[last]
        return content, place, "a default gone" if is_default(place, old) else "gone"
    if how < 0.2 and isinstance(old, dict):
        old["unknown_field"] = rng.choice((1, None, "x", []))
        return content, place, "an extra field"
    known = next((kind for kind in (type(old), list) if kind in WRONG), list)
    if isinstance(old, torch.Tensor):
        new = rng.choice((old.flatten()[:0], old.double() * math.nan, "text", None, old[None]))
    else:
        new = rng.choice([value for value in WRONG[known] if repr(value) != repr(old)])
    parent[last] = new
    return content, place, f"{_short(old)} -> {_short(new)}"


def is_default(place: Place, value: object) -> bool:
    """Return whether a field of a header is one that may be absent, and has the value it has then.

    Fields that earlier versions did not have may be absent.
    """
    if len(place) != 2 or place[0] not in RECORDS:
        return False
    field, = (one for one in dataclasses.fields(RECORDS[place[0]]) if one.name == place[1])
    default = field.default if field.default_factory is dataclasses.MISSING else (
        field.default_factory())
    return json.loads(json.dumps(value)) == json.loads(json.dumps(default, default=repr))


def places(content: object, above: Place = ()) -> Iterator[Place]:
    """Yield where every value of nested content is."""
    steps = ()
    if isinstance(content, dict):
        steps = tuple(content)
    elif isinstance(content, list):
        steps = range(len(content))
    for step in steps:
        yield (*above, step)
        yield from places(content[step], (*above, step))


def _short(value: object) -> str:
    if isinstance(value, torch.Tensor | np.ndarray):
        return f"{value.dtype} {tuple(value.shape)}"
    return f"{value!r:.60}"
