"""Trials of damage: a file is not what it was, and a command reads it."""

import math
import os
import random
import shutil
import signal
from pathlib import Path

import pandas as pd

from tests.soak.folders import results
from tests.soak.processes import Ended, Shot
from tests.soak.scenarios import SCENARIOS, TRAININGS
from tests.soak.trial import Trial

QUIETLY = ("flip", "zeros", "noise", "append")  # may pass for content
REPLACED = ("empty", "folder", "dead_link", "loop", "pipe", "gone")
HOWS = (*QUIETLY, "truncate", "link", *REPLACED)
CACHED = ("images_cache", "frozen_cache", "folds_frozen")
RESUMED = ("last.pt", "config.json")  # a run goes on from what they say
MOST = 512  # bytes


def damage(trial: Trial) -> None:
    """Damage of a random kind; the command ends well with the same result, or with one message."""
    trial.rng.choice((of_run, of_run, of_checkpoint, of_cache, of_cache, of_scans, of_table))(trial)


def hurt(path: Path, how: str, rng: random.Random, aside: Path) -> str:
    """Damage a file in one of HOWS; return what was done. A link leads to the folder `aside`."""
    content = path.read_bytes()
    at, length = rng.randrange(len(content) + 1), rng.randint(1, MOST)
    done = how
    if how == "flip" and content:
        at = min(at, len(content) - 1)
        bit = rng.randrange(8)
        content = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1:]
        done = f"bit {bit} of byte {at} flipped"
    elif how in ("zeros", "noise"):
        part = bytes(length) if how == "zeros" else rng.randbytes(length)
        part = part[:len(content) - at]
        content = content[:at] + part + content[at + len(part):]
        done = f"{len(part)} bytes of {how} at {at}"
    elif how == "append":
        content += rng.randbytes(length)
        done = f"{length} bytes appended"
    elif how in ("truncate", "empty"):
        content = content[:at if how == "truncate" else 0]
        done = f"cut to {len(content)} bytes"
    if how in (*QUIETLY, "truncate", "empty"):
        path.write_bytes(content)
    else:
        _replace(path, how, aside / f"moved_{path.name}")
    return f"# {path}: {done}"


def _replace(path: Path, how: str, away: Path) -> None:
    """Put something else in a file's place."""
    if how == "link":
        path.rename(away)
        path.symlink_to(away)
        return
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how in ("dead_link", "loop"):
        path.symlink_to(away if how == "dead_link" else path)


def of_run(trial: Trial) -> None:
    """A file of a run that was killed, or is finished: --resume."""
    rng = trial.rng
    name, finished = rng.choice(TRAININGS), rng.random() < 0.3
    source = trial.bench.references[name].folder if finished else half_run(trial, name)
    for part in ("run", "cache"):
        if (source / part).is_dir():
            shutil.copytree(source / part, trial.folder / part)
    files = [path for path in results(trial.folder) if path.is_file()]
    often = [path for path in files if path.name in RESUMED or path.suffix == ".safetensors"]
    path, how = rng.choice(rng.choice((files, often))), rng.choice(HOWS)
    trial.subject = f"run: {path.suffix[1:]}, {how}"
    trial.story.append(hurt(path, how, rng, trial.folder))
    ended = trial.run(SCENARIOS[name].words(trial.bench.work, trial.folder, "--resume"))
    cannot_tell = how in QUIETLY and path.name not in RESUMED
    _same_or_refused(trial, ended, None if cannot_tell else name)
    if how == "gone" and path.name == "last.pt" and path.with_name("report.md").exists():
        # of a fold that is finished, which needs it no more
        missing = f"{path.relative_to(trial.folder)}: missing"
        trial.problems = [text for text in trial.problems if text != missing]


def of_checkpoint(trial: Trial) -> None:
    """A checkpoint that is measured, or that gives the backbone."""
    rng, work = trial.rng, trial.bench.work
    name, how = rng.choice(("volume", "frozen")), rng.choice(HOWS)
    trial.subject = f"checkpoint: {how}"
    place, file = (("plain", "slivit") if name == "volume" else ("images", "backbone"))
    old = work / "references" / place / "run" / f"{file}.safetensors"
    new = trial.folder / "given" / old.name
    new.parent.mkdir()
    shutil.copy(old, new)
    trial.story.append(hurt(new, how, rng, trial.folder))
    words = [word.replace(str(old), str(new)) for word in SCENARIOS[name].words(work, trial.folder)]
    ended = trial.run(words)
    if how in QUIETLY and ended.code == 0:
        expect_finite(trial)
    elif how == "link" and ended.code == 0:
        trial.expect_same(name)
    else:
        trial.expect_refused(ended)


def of_cache(trial: Trial) -> None:
    """A file of --cache_dir."""
    rng = trial.rng
    name, how = rng.choice(CACHED), rng.choice(HOWS)
    shutil.copytree(trial.bench.references[name].folder / "cache", trial.folder / "cache")
    files = sorted(path for path in (trial.folder / "cache").rglob("*") if path.is_file())
    features = [path for path in files if "features" in path.parts]
    path = rng.choice(rng.choice((files, features or files)))
    trial.subject = f"cache of {'features' if path in features else 'scans'}: {how}"
    trial.story.append(hurt(path, how, rng, trial.folder))
    ended = trial.run(SCENARIOS[name].words(trial.bench.work, trial.folder))
    _same_or_refused(trial, ended, name)


def of_scans(trial: Trial) -> None:
    """A scan of a table: every format there is."""
    rng = trial.rng
    shutil.copytree(trial.bench.work / "formats", trial.folder / "formats")
    table = trial.folder / "formats" / "formats.csv"
    row, how = rng.choice(pd.read_csv(table)["Path"].tolist()), rng.choice(HOWS)
    found = table.parent / row
    path = rng.choice(sorted(found.iterdir())) if found.is_dir() else found
    trial.subject = f"scan: {''.join(found.suffixes) or 'folder'}, {how}"
    trial.story.append(hurt(path, how, rng, trial.folder))
    ended = _read_table(trial, table)
    if how == "empty" or (path == found and how in REPLACED):
        trial.expect_refused(ended)
    else:
        _same_or_refused(trial, ended, None)


def of_table(trial: Trial) -> None:
    """The meta.csv itself."""
    how = trial.rng.choice(HOWS)
    shutil.copytree(trial.bench.work / "formats", trial.folder / "formats")
    table = trial.folder / "formats" / "formats.csv"
    trial.subject = f"meta.csv: {how}"
    trial.story.append(hurt(table, how, trial.rng, trial.folder))
    ended = _read_table(trial, table)
    if how in REPLACED:
        trial.expect_refused(ended)
    else:
        _same_or_refused(trial, ended, None)


def half_run(trial: Trial, name: str) -> Path:
    """Return the folder of a run that was killed when it had written last.pt for the first time."""
    bench = trial.bench
    with bench.lock:
        key = f"half {name}"
        if key not in bench.kept:
            folder = bench.work / "half" / name
            inner = Trial(bench, trial.launcher, "half", 0, folder=folder)
            last = folder / "run" / ("fold_2/last.pt" if name.startswith("folds") else "last.pt")
            ended = inner.run(SCENARIOS[name].words(bench.work, folder),
                              [Shot(signal.SIGKILL, 0.0, last)])
            if ended.code != -signal.SIGKILL:
                raise RuntimeError(f"{name} was to be killed, ended with {ended.code}")
            bench.kept[key] = folder
        return bench.kept[key]


def expect_finite(trial: Trial) -> None:
    """Check that no prediction is NaN or infinite."""
    path = trial.folder / "run" / "predictions.csv"
    if path.exists():
        pred = pd.read_csv(path).filter(regex="_pred$").astype(float)
        trial.expect(bool((pred.abs() < math.inf).to_numpy().all()),
                     f"{path.name}: holds what is no number, and the exit code is 0")


def _read_table(trial: Trial, table: Path) -> Ended:
    """Check a table, measure a model on it or train on it, at random."""
    name = trial.rng.choice(("check", "evaluate", "plain"))
    words = SCENARIOS[name].words(trial.bench.work, trial.folder)
    return trial.run([str(table) if word.endswith("volumes.csv") else word for word in words])


def _same_or_refused(trial: Trial, ended: Ended, name: str | None) -> None:
    """Check that a process failed with one message or did what it was to do.

    With the name of a scenario, that is what its reference run did.
    """
    if ended.code != 0:
        trial.expect_refused(ended)
    elif name is not None:
        trial.expect_same(name)
    else:
        expect_finite(trial)
