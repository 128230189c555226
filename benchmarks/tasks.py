"""What a method is asked and what it answers; the scripts as methods run them."""

import hashlib
import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

import bb_train
import finetune
from benchmarks import nodule_files
from benchmarks.networks import CPU
from benchmarks.nodules import Fold
from slivit.checkpoints.trained import load_trained
from slivit.cli.parser import read_recipe
from slivit.utils.cells import read_table
from slivit.utils.files import write_json

BACKBONE = "backbone"  # the job that pre-trains, before those of the methods
COMMON = "--pid_col patient --window full --jitter 0 --n_cpu 0 --gpu_id cpu --quiet --overwrite"
QUICK = "--n_epochs 1"
SMALLEST = "--backbone convnext_zepto_rms"  # in a quick run
PLAIN_IMAGES, PLAIN_VOLUMES = (" ".join(read_recipe(name)) for name in ("plain_images",
                                                                         "plain_volumes"))
"""A recipe of LayerNorm and eight labels of an image a nodule, of which parts are left out."""


@dataclass(frozen=True)
class Task:
    """What a method is asked to do.

    Attributes:
        fold: the data.
        seed: of everything random.
        scratch: folder for what a training writes; shared by the jobs of a benchmark.
        quick: one epoch of the smallest networks, to see that everything works.
        pretraining: the fold whose images the backbone learns from.
        name: of the fold, seed and size, in file names.
        stretch: factor on epochs, where there are fewer volumes.
        b_size: largest batch.
        amp: type of number in which the backbone multiplies, of the scripts' `--amp`; the same on
            every machine, so that results can be compared.
    """

    fold: Fold
    seed: int
    scratch: Path
    quick: bool
    pretraining: Fold
    name: str
    stretch: float = 1.0
    b_size: int = 1000
    amp: str = "off"

    def folder(self, method: str) -> Path:
        """Return the method's own folder."""
        return self.scratch / method / (self.name + f"_{self.amp}" * (self.amp != "off"))

    def epochs(self, usual: int) -> int:
        """Return how many epochs to train where all volumes are given `usual` ones."""
        return 1 if self.quick else round(usual * self.stretch)


@dataclass(frozen=True)
class Result:
    """What a method gave.

    Attributes:
        pred: (n, K) probabilities, values, or a score from 0 to 1, of the fold's test rows, in the
            table's order.
        n_parameters: numbers that were trained, or that the trained network has; None where
            there is no such number.
        train_seconds: processor time of pre-training, training, and prediction of the test part.
    """

    pred: np.ndarray
    n_parameters: int | None
    train_seconds: float


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes:
        run: trains and predicts.
        settings: what its results depend on, beside the code.
        pretrained: whether it starts from the plain recipe's backbone of its fold and seed.
        folds: the only ones it is run on; None for all.
        seeds: the only ones, such as 0 where nothing is random; None for all.
        sizes: the only numbers of volumes to learn from; None for all.
    """

    run: Callable[[Task], Result]
    settings: str
    pretrained: bool = False
    folds: tuple[int, ...] | None = None
    seeds: tuple[int, ...] | None = None
    sizes: tuple[int, ...] | None = None


def pretrain(task: Task) -> tuple[Path, float]:
    """Return the backbone of a fold and seed, and the seconds it took; trained at most once."""
    fold = task.pretraining
    name = task.name if fold is task.fold else f"fold_{fold.number}_seed_{task.seed}"
    flags = f"{PLAIN_IMAGES} {COMMON} --flips hv --seed {task.seed} --amp {task.amp}"
    flags += f" {SMALLEST} {QUICK}" if task.quick else ""
    return trained_once(task, flags, BACKBONE, lambda folder: nodule_files.write_images(
        fold, folder, task.scratch / "scans"), ["nodules", name])


def trained_once(task: Task, settings: str, kind: str, write: Callable[[Path], Path],
                 scans: list) -> tuple[Path, float]:
    """Return the backbone of bb_train.py, run where it has not been yet, and seconds.

    Args:
        task: what is asked.
        settings: flags.
        kind: folder of such backbones.
        write: writes the table into a folder; returns its path.
        scans: what the table says, by which backbones are told apart.
    """
    digest = hashlib.sha256(f"{settings} {scans}".encode()).hexdigest()
    folder = task.scratch / kind / f"seed_{task.seed}_{digest[:12]}"
    path, done = folder / "run" / "backbone.safetensors", folder / "done.json"
    if done.exists():
        return path, json.loads(done.read_text(encoding="utf-8"))["seconds"]
    table = write(folder)
    start = time.process_time()
    bb_train.main(["--meta_csv", str(table), *shlex.split(settings), "--out_dir", str(path.parent)])
    seconds = time.process_time() - start
    (path.parent / "last.pt").unlink()
    write_json(done, {"settings": settings, "seconds": seconds})
    return path, seconds


def run_script(task: Task, method: str, script: Callable[[list[str]], None], flags: str,
               before: float = 0.0) -> Result:
    """Run bb_train.main or finetune.main as a user would; `before`: seconds already spent."""
    table = nodule_files.write_scans(task.fold, task.folder(method), task.scratch / "scans")
    flags += f" {COMMON} --flips {'hvz' if task.fold.ndim == 3 else 'hv'}"
    return run_on(table, task, script, flags, before)


def run_on(table: Path, task: Task, script: Callable[[list[str]], None], flags: str,
           before: float = 0.0) -> Result:
    """Run a script on a table of the task's scans, in whose folder it writes; see run_script."""
    fold, usual = task.fold, _parse(script, flags)
    flags += (f" --seed {task.seed} --amp {task.amp} --task {fold.target.task} "
              f"--n_epochs {task.epochs(usual.n_epochs)} --b_size {min(task.b_size, usual.b_size)}")
    out = table.parent / "run"
    start = time.process_time()
    script(["--meta_csv", str(table), *shlex.split(flags), "--out_dir", str(out)])
    seconds = time.process_time() - start
    (out / "last.pt").unlink()
    predictions = read_table(out / "predictions.csv").set_index("id")
    wanted = fold.scans.table["nodule"].to_numpy()[fold.rows("test")]
    columns = [f"{label}_pred" for label in fold.target.labels]
    pred = predictions.loc[wanted, columns].to_numpy(np.float64)
    weights = "slivit" if script is finetune.main else "backbone"
    model = load_trained(out / f"{weights}.safetensors", CPU).model
    return Result(pred, count(model), before + seconds)


def _parse(script: Callable[[list[str]], None], flags: str):
    module = finetune if script is finetune.main else bb_train
    return module.build_parser().parse_args(shlex.split(flags))


def count(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
