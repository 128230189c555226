"""The methods of the accuracy benchmark: each is trained on a fold and predicts its test part."""

import dataclasses
import json
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import bb_train
import finetune
from benchmarks import networks, nodules
from benchmarks.networks import CPU, WEIGHT_DECAY, Recipe
from benchmarks.nodules import LABEL, TARGET, Fold, as_scans
from slivit.config import Preprocess
from slivit.datasets import ScanDataset, make_loader
from slivit.demo import FINETUNE, PRETRAIN
from slivit.model import SLIViT
from slivit.optim import backbone_groups, parameter_groups
from slivit.prediction import load_trained
from slivit.runtime import write_json
from slivit.training_options import make_integrator_config
from slivit.weights import read_start

COMMON = (f"--pid_col patient --img_size {nodules.SIZE} --window full --jitter 0 --n_cpu 0 "
          "--gpu_id cpu --quiet --overwrite")
WHOLE = ("--n_epochs 10 --patience 0 --b_size 16 --lr 5e-4 --bb_lr 3e-4 --drop_path 0 "
         "--select loss")  # end to end
QUICK = "--n_epochs 1"
SMALLEST = "--backbone convnext_zepto_rms"  # in a quick run
RESNET, DENSENET = Recipe(2e-3, 32, 14), Recipe(2e-3, 32, 14)
NARROW, FULL = (16, 32, 64, 128), (64, 128, 256, 512)
BOOSTING = {"learning_rate": 0.05, "max_iter": 100, "max_leaf_nodes": 15, "min_samples_leaf": 20,
            "l2_regularization": 1.0, "early_stopping": False}
LOGISTIC = {"Cs": 10, "scoring": "neg_log_loss", "max_iter": 2000}
LARGEST = 28 ** 3  # mm3, of a volume that a nodule fills


@dataclass(frozen=True)
class Task:
    """What a method is asked to do.

    Attributes:
        fold: the data.
        seed: of everything random.
        scratch: folder for what a training writes; shared by the jobs of a benchmark.
        quick: one epoch of the smallest networks, to see that everything works.
    """

    fold: Fold
    seed: int
    scratch: Path
    quick: bool = False

    @property
    def name(self) -> str:
        """Of the fold and seed, in file names."""
        return f"fold_{self.fold.number}_seed_{self.seed}"

    def folder(self, method: str) -> Path:
        """Return the method's own folder."""
        return self.scratch / method / self.name


@dataclass(frozen=True)
class Result:
    """What a method gave.

    Attributes:
        pred: probabilities (or a score from 0 to 1) of the fold's test rows, in the table's order.
        n_parameters: numbers that were trained, or that the trained network has; None where
            there is no such number.
        train_seconds: of pre-training, training, and prediction of the test part.
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
        pretrained: whether it starts from the backbone of its fold and seed.
        folds: the only ones it is run on; None for all.
        seeds: the only ones, such as 0 where nothing is random; None for all.
    """

    run: Callable[[Task], Result]
    settings: str
    pretrained: bool = False
    folds: tuple[int, ...] | None = None
    seeds: tuple[int, ...] | None = None


def pretrain(task: Task) -> tuple[Path, float]:
    """Return the backbone of a fold and seed, and the seconds it took; trained at most once."""
    folder = task.folder("backbone")
    flags = f"{PRETRAIN} {COMMON} --flips hv --seed {task.seed}"
    flags += f" {SMALLEST} {QUICK}" if task.quick else ""
    path, done = folder / "run" / "backbone.safetensors", folder / "done.json"
    if path.exists() and done.exists():
        made = json.loads(done.read_text(encoding="utf-8"))
        if made["flags"] == flags:
            return path, made["seconds"]
    done.unlink(missing_ok=True)
    table = nodules.write_images(task.fold, folder, task.scratch / "scans")
    start = time.monotonic()
    bb_train.main(["--meta_csv", str(table), *shlex.split(flags), "--out_dir", str(path.parent)])
    seconds = time.monotonic() - start
    (path.parent / "last.pt").unlink()
    write_json(done, {"flags": flags, "seconds": seconds})
    return path, seconds


def slivit(task: Task) -> Result:
    """SLIViT as recommended: the demonstration's flags."""
    backbone, before = pretrain(task)
    return _finetune(task, "slivit", f"{FINETUNE} --bb_path {shlex.quote(str(backbone))}", before)


def no_pretraining(task: Task) -> Result:
    """The same network from random weights, trained end to end."""
    backbone = SMALLEST if task.quick else f"--backbone {_backbone_name()}"
    return _finetune(task, "no_pretraining", f"{_sizes()} {WHOLE} --weights none {backbone}", 0.0)


def _finetune(task: Task, method: str, flags: str, before: float) -> Result:
    """Run finetune.py as a user would; `before`: seconds that were spent already."""
    folder = task.folder(method)
    table = nodules.write_volumes(task.fold, folder, task.scratch / "scans")
    flags += f" {COMMON} --flips hvz --seed {task.seed}" + (f" {QUICK}" if task.quick else "")
    out = folder / "run"
    start = time.monotonic()
    finetune.main(["--meta_csv", str(table), *shlex.split(flags), "--out_dir", str(out)])
    seconds = time.monotonic() - start
    (out / "last.pt").unlink()
    found = pd.read_csv(out / "predictions.csv", dtype={"id": str}).set_index("id")
    wanted = task.fold.volumes.table["nodule"].to_numpy()[task.fold.rows("test")]
    pred = found.loc[wanted, f"{LABEL}_pred"].to_numpy()
    model = load_trained(out / "slivit.safetensors", CPU).model
    return Result(pred, _count(model), before + seconds)


def mean_logits(task: Task) -> Result:
    """SLIViT without the integrator: a linear classifier of each slice, logits averaged."""
    def change(model: SLIViT) -> None:
        model.integrator = networks.SliceMean(model.feature_dim)

    return _end_to_end(task, "mean_logits", "flatten", change)


def original_tokens(task: Task) -> Result:
    """SLIViT with the tokens of the original: blocks of channels over all slices."""
    return _end_to_end(task, "original_tokens", "channels_width", lambda model: None)


def _end_to_end(task: Task, method: str, token: str,
                change: Callable[[SLIViT], None]) -> Result:
    """Train a changed SLIViT end to end from the pre-trained backbone."""
    start_path, before = pretrain(task)
    args = finetune.build_parser().parse_args(shlex.split(f"{_sizes()} {WHOLE}"))
    start = time.monotonic()
    torch.manual_seed(task.seed)
    model = _with_backbone(start_path, token)
    change(model)
    groups = parameter_groups(model.integrator, args.lr, WEIGHT_DECAY)
    groups += backbone_groups(model.backbone, args.bb_lr, WEIGHT_DECAY)
    recipe = Recipe(args.lr, args.b_size, 1 if task.quick else args.n_epochs)
    pred = networks.train(model, task.fold, model.preprocess, recipe, task.seed,
                          task.folder(method), groups)
    return Result(pred, _count(model), before + time.monotonic() - start)


def _with_backbone(path: Path, token: str = "flatten") -> SLIViT:
    start = read_start(path)
    args = finetune.build_parser().parse_args(shlex.split(_sizes()))
    config = dataclasses.replace(make_integrator_config(args), token=token)
    preprocess = Preprocess(nodules.SIZE, "full", start.mean, start.std, n_slices=28)
    model = SLIViT(start.backbone, len(TARGET.labels), preprocess, config)
    start.load_into(model.backbone)
    return model


def resnet18_narrow(task: Task) -> Result:
    """A 3D ResNet-18 of a quarter of the width."""
    return _volume_network(task, "resnet18_narrow", lambda: networks.resnet18(NARROW), RESNET)


def resnet18_full(task: Task) -> Result:
    """A 3D ResNet-18 of full width."""
    return _volume_network(task, "resnet18_full", lambda: networks.resnet18(FULL), RESNET)


def densenet(task: Task) -> Result:
    """A small 3D DenseNet."""
    return _volume_network(task, "densenet", networks.densenet, DENSENET)


def _volume_network(task: Task, method: str, make: Callable[[], nn.Module],
                    recipe: Recipe) -> Result:
    if task.quick:
        recipe = dataclasses.replace(recipe, n_epochs=1)
    start = time.monotonic()
    torch.manual_seed(task.seed)
    model = networks.VolumeClassifier(make())
    pred = networks.train(model, task.fold, model.preprocess, recipe, task.seed,
                          task.folder(method))
    return Result(pred, _count(model), time.monotonic() - start)


def shape_boosting(task: Task) -> Result:
    """Gradient-boosted trees on hand-made features of the shape."""
    fold, start = task.fold, time.monotonic()
    features = np.array([nodules.shape_features(volume) for volume in fold.volumes.scans])
    trees = HistGradientBoostingClassifier(**BOOSTING, random_state=task.seed)
    known, test = fold.rows("train", "val"), fold.rows("test")  # nothing is chosen on val
    trees.fit(features[known], fold.truth[known])
    pred = trees.predict_proba(features[test])[:, 1]
    return Result(pred, None, time.monotonic() - start)


def volume(task: Task) -> Result:
    """The nodule's volume alone; nothing is trained."""
    test = task.fold.rows("test")
    sizes = task.fold.volumes.table["volume_mm3"].to_numpy()[test]
    return Result(np.clip(sizes / LARGEST, 0, 1), 0, 0.0)


def frozen_logistic(task: Task) -> Result:
    """The frozen backbone's features, mean and maximum over slices, and logistic regression."""
    path, before = pretrain(task)
    fold, start = task.fold, time.monotonic()
    features = _pooled(_with_backbone(path), fold)
    known, test = fold.rows("train", "val"), fold.rows("test")  # C is chosen within them
    patients = fold.volumes.table["patient"].to_numpy()[known]
    parts = StratifiedGroupKFold(5, shuffle=True, random_state=task.seed)
    inner = list(parts.split(features[known], fold.truth[known], patients))
    model = make_pipeline(StandardScaler(), LogisticRegressionCV(**LOGISTIC, cv=inner))
    model.fit(features[known], fold.truth[known])
    pred = model.predict_proba(features[test])[:, 1]
    return Result(pred, features.shape[1] + 1, before + time.monotonic() - start)


@torch.no_grad()
def _pooled(model: SLIViT, fold: Fold) -> np.ndarray:
    """Return mean and maximum of the slice features of every volume, (n, 2 F)."""
    model.eval()
    dataset = ScanDataset(as_scans(fold), np.arange(len(fold.volumes)), model.preprocess)
    features = [model.slice_features(batch) for batch in make_loader(dataset, 32, 0, CPU)]
    features = torch.cat(features)  # every slice of these volumes is real
    return torch.cat([features.mean(dim=1), features.amax(dim=1)], dim=1).numpy()


def _sizes() -> str:
    """Return the flags of the integrator among those recommended."""
    words = shlex.split(FINETUNE)
    return shlex.join(word for k, word in enumerate(words)
                      if word.startswith("--vit_") or (k and words[k - 1].startswith("--vit_")))


def _backbone_name() -> str:
    return bb_train.build_parser().parse_args(shlex.split(PRETRAIN)).backbone


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


_FROM_BACKBONE = f"pre-trained: {PRETRAIN}; then "
METHODS = {
    "slivit": Method(slivit, _FROM_BACKBONE + FINETUNE, pretrained=True),
    "no_pretraining": Method(no_pretraining, f"{_sizes()} {WHOLE} --weights none"),
    "mean_logits": Method(mean_logits, _FROM_BACKBONE + WHOLE, pretrained=True),
    "original_tokens": Method(original_tokens, f"{_FROM_BACKBONE}{_sizes()} {WHOLE} "
                              "(token channels_width)", pretrained=True),
    "resnet18_narrow": Method(resnet18_narrow, f"widths {NARROW}, {RESNET}"),
    "resnet18_full": Method(resnet18_full, f"widths {FULL}, {RESNET}", folds=(0,),
                            seeds=(0,)),
    "densenet": Method(densenet, f"16 features, growth 12, blocks (3, 6, 12, 8), {DENSENET}"),
    "shape_boosting": Method(shape_boosting, f"{BOOSTING}", seeds=(0,)),
    "volume": Method(volume, "volume_mm3", seeds=(0,)),
    "frozen_logistic": Method(frozen_logistic, f"{_FROM_BACKBONE}{LOGISTIC}", pretrained=True),
}
