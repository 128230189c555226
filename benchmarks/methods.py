"""Methods that predict from volumes: each is trained on a fold and predicts its test part."""

import dataclasses
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from torch import nn

import finetune
from benchmarks import networks, variants
from benchmarks.networks import CPU, WEIGHT_DECAY, Recipe
from benchmarks.nodules import TARGET, Fold, as_scans
from benchmarks.probes import LOGISTIC, frozen_logistic
from benchmarks.shapes import shape_features
from benchmarks.tasks import (
    PLAIN_IMAGES,
    PLAIN_VOLUMES,
    SMALLEST,
    Method,
    Result,
    Task,
    count,
    pretrain,
    run_script,
)
from slivit.checkpoints.pretrained import PretrainedBackbone, choose_start, read_start
from slivit.cli.parser import read_recipe
from slivit.cli.records import integrator_config
from slivit.config import PRECISIONS, Preprocess
from slivit.models.slivit import SLIViT
from slivit.training.frozen_features import FeatureOptions, frozen_training_set
from slivit.training.optim import parameter_groups
from slivit.training.train_step import Phase
from slivit.utils.session import Session

WHOLE = ("--n_epochs 8 --patience 0 --b_size 16 --lr 5e-4 --bb_lr 3e-4 --drop_path 0 "
         "--select loss --ema 0.99 --channels adjacent")  # end to end
RESNET, DENSENET = Recipe(4e-3, 32, 14), Recipe(2e-3, 32, 14)  # RESNET: benchmarks.search's best
HALF_RATE = dataclasses.replace(RESNET, lr=RESNET.lr / 2)
NARROW, FULL = (16, 32, 64, 128), (64, 128, 256, 512)
WIDE = Recipe(RESNET.lr * NARROW[0] / FULL[0], RESNET.b_size, 7)  # lr: Yang et al. 2022, table 3
BOOSTING = {"learning_rate": 0.05, "max_iter": 60, "max_leaf_nodes": 8, "min_samples_leaf": 60,
            "l2_regularization": 5.0, "early_stopping": False}
RECOMMENDED, OF_OTHER_LABELS = "ord_64_bn_s3_ml", "ord_64_bn_s3"  # of VARIANTS
FEW = " ".join(read_recipe("few_volumes"))
FEW_VOLUMES = f"{FEW} --weights none --backbone convnext_atto --img_size 64"
LARGEST = 28 ** 3  # mm3, of a volume that a nodule fills


def slivit(task: Task) -> Result:
    """SLIViT as recommended: ratings above cuts, labels of many slices and beside `malignant`."""
    return variants.train(RECOMMENDED if task.fold.target == TARGET else OF_OTHER_LABELS, task)


def slivit_mean_logits(task: Task) -> Result:
    """The same without the integrator: a linear classifier of each slice, logits averaged."""
    start, before = variants.pretrain(RECOMMENDED, task)
    task = dataclasses.replace(task, fold=variants.with_target(RECOMMENDED, task.fold))
    model = slice_mean(start, task.fold)
    result = on_features(task, "slivit_mean_logits", model, before)
    return dataclasses.replace(result, pred=result.pred[:, :1])


def plain(task: Task) -> Result:
    """SLIViT by the plain recipe, of which the next ones leave out or change a part."""
    backbone, before = pretrain(task)
    return run_script(task, "plain", finetune.main,
                      f"{PLAIN_VOLUMES} --bb_path {shlex.quote(str(backbone))}", before)


def end_to_end(task: Task) -> Result:
    """The same start, but backbone and integrator are trained on, and see adjacent slices."""
    backbone, before = pretrain(task)
    return run_script(task, "end_to_end", finetune.main,
                      f"{_sizes()} {WHOLE} --bb_path {shlex.quote(str(backbone))}", before)


def no_pretraining(task: Task) -> Result:
    """The same network from random weights, trained end to end."""
    backbone = SMALLEST if task.quick else f"--backbone {_backbone_name()}"
    return run_script(task, "no_pretraining", finetune.main,
                      f"{_sizes()} {WHOLE} --weights none {backbone}")


def mean_logits(task: Task) -> Result:
    """SLIViT without the integrator: a linear classifier of each slice, logits averaged."""
    start, before = pretrain(task)
    return on_features(task, "mean_logits", slice_mean(start, task.fold), before)


def slice_mean(start: Path, fold: Fold, window: str = "full") -> SLIViT:
    """Return SLIViT of the plain recipe's sizes with the mean of slice logits for integrator."""
    model = with_backbone(read_start(start), fold, SLIViT, window=window)
    model.integrator = networks.SliceMean(model.feature_dim, len(fold.target.labels))
    return model


class Tiled(SLIViT):
    """SLIViT with the tokens of the original, its features frozen like those of slices."""

    def slice_features(self, slices: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return what the tokens are made of, (B, S, feature_dim)."""
        return self.token_features(slices, mask)[0]


def original_tokens(task: Task) -> Result:
    """SLIViT with the tokens of the original: blocks of channels over all slices."""
    start, before = pretrain(task)
    return on_features(task, "original_tokens", original(start, task.fold), before)


def original(start: Path, fold: Fold, window: str = "full") -> SLIViT:
    """Return SLIViT of the plain recipe's sizes with the tokens of the original."""
    return with_backbone(read_start(start), fold, Tiled, "channels_width", window)


def few_volumes(task: Task) -> Result:
    """The recipe for few volumes, on a backbone of random weights: no pre-training at all."""
    return run_script(task, "few_volumes", finetune.main, FEW_VOLUMES)


def plain_random(task: Task) -> Result:
    """The plain recipe's integrator on a backbone of random weights, as few_volumes has it."""
    torch.manual_seed(task.seed)
    name = SMALLEST.split()[-1] if task.quick else _backbone_name()
    model = with_backbone(choose_start("none", name), task.fold, SLIViT)
    return on_features(task, "plain_random", model, 0.0)


def on_features(task: Task, method: str, model: SLIViT, before: float) -> Result:
    """Train what follows the backbone as both recipes do, on stored features.

    Args:
        task: what is asked.
        method: in whose folder features are stored.
        model: with the weights of its backbone.
        before: seconds already spent.
    """
    args = finetune.build_parser().parse_args(shlex.split(PLAIN_VOLUMES))
    start = time.process_time()
    recipe = Recipe(args.lr, min(task.b_size, args.b_size), task.epochs(args.n_epochs))
    folder = task.folder(method)
    model.precision = getattr(torch, PRECISIONS[task.amp])
    scans = as_scans(task.fold)
    options = FeatureOptions(1 if task.quick else args.feature_augments, scans.augmentation,
                             recipe.b_size, task.seed)
    data = frozen_training_set(model, scans, options, folder / "features",
                               Session(CPU, quiet=True))
    groups = parameter_groups(model.integrator, recipe.lr, WEIGHT_DECAY)
    pred = networks.train(model, task.fold, model.preprocess, recipe, task.seed, folder,
                          Phase(1, recipe.n_epochs, groups, data, part="integrator"))
    return Result(pred, count(model), before + time.process_time() - start)


def with_backbone(start: PretrainedBackbone, fold: Fold, kind: type[SLIViT],
                  token: str | None = None, window: str = "full") -> SLIViT:
    """Return SLIViT of the plain recipe's sizes on a backbone's weights.

    Args:
        start: the weights.
        fold: whose labels and slices it is for.
        kind: SLIViT, or one with other tokens.
        token: of config.IntegratorConfig; None for the recipe's.
        window: of config.Preprocess.
    """
    args = finetune.build_parser().parse_args(shlex.split(_sizes()))
    config = integrator_config(args)
    if token is not None:
        config = dataclasses.replace(config, token=token)
    preprocess = Preprocess(_size(), window, start.mean, start.std,
                            n_slices=fold.scans.scans.shape[1])
    model = kind(start.backbone, len(fold.target.labels), preprocess, config)
    start.load_into(model.backbone)
    return model


def resnet18_narrow(task: Task) -> Result:
    """A 3D ResNet-18 of a quarter of the width."""
    return volume_network(task, "resnet18_narrow", lambda: networks.resnet18(NARROW), RESNET)


def resnet18_half_rate(task: Task) -> Result:
    """The same at half the rate: with few volumes, what is best with all may be too high."""
    return volume_network(task, "resnet18_half_rate", lambda: networks.resnet18(NARROW), HALF_RATE)


def resnet18_ratings(task: Task) -> Result:
    """The narrow one with the labels of volumes that slivit has."""
    task = dataclasses.replace(task, fold=variants.with_target(RECOMMENDED, task.fold))
    n_labels = len(task.fold.target.labels)
    result = volume_network(task, "resnet18_ratings", lambda: networks.resnet18(NARROW, n_labels),
                           RESNET)
    return dataclasses.replace(result, pred=result.pred[:, :1])


def resnet18_full(task: Task) -> Result:
    """A 3D ResNet-18 of full width."""
    return volume_network(task, "resnet18_full", lambda: networks.resnet18(FULL), WIDE)


def densenet(task: Task) -> Result:
    """A small 3D DenseNet."""
    return volume_network(task, "densenet", networks.densenet, DENSENET)


def volume_network(task: Task, method: str, make: Callable[[], nn.Module], recipe: Recipe,
                   preprocess: Preprocess = networks.VOLUME) -> Result:
    """Train a 3D network from random weights; with few volumes longer, in smaller batches."""
    recipe = dataclasses.replace(recipe, n_epochs=task.epochs(recipe.n_epochs),
                                 b_size=min(task.b_size, recipe.b_size))
    start = time.process_time()
    torch.manual_seed(task.seed)
    model = networks.DenseClassifier(make(), preprocess)
    pred = networks.train(model, task.fold, model.preprocess, recipe, task.seed,
                          task.folder(method))
    return Result(pred, count(model), time.process_time() - start)


def shape_boosting(task: Task) -> Result:
    """Gradient-boosted trees on hand-made features of the shape, a model for each label."""
    fold, start = task.fold, time.process_time()
    features = np.array([shape_features(scan) for scan in fold.scans.scans])
    known, test = fold.rows("train", "val"), fold.rows("test")  # nothing is chosen on val
    sizes = BOOSTING | {"min_samples_leaf": min(BOOSTING["min_samples_leaf"], len(known) // 10)}
    preds = []
    for label in fold.truth.T:
        if fold.target.task == "regression":
            trees = HistGradientBoostingRegressor(**sizes, random_state=task.seed)
            preds.append(trees.fit(features[known], label[known]).predict(features[test]))
        else:
            trees = HistGradientBoostingClassifier(**sizes, random_state=task.seed)
            trees.fit(features[known], label[known])
            preds.append(trees.predict_proba(features[test])[:, 1])
    return Result(np.stack(preds, axis=1), None, time.process_time() - start)


def volume(task: Task) -> Result:
    """The nodule's volume alone; for a rating, linear regression on its logarithm."""
    fold, test = task.fold, task.fold.rows("test")
    sizes = fold.scans.table[["volume_mm3"]].to_numpy(float)
    if fold.target.task == "regression":
        known, logs = fold.rows("train", "val"), np.log(sizes)
        line = LinearRegression().fit(logs[known], fold.truth[known])
        return Result(line.predict(logs[test]), 2, 0.0)
    return Result(np.clip(sizes[test] / LARGEST, 0, 1), 0, 0.0)


def _size() -> int:
    """Return the pixels a side of the plain recipe."""
    return finetune.build_parser().parse_args(shlex.split(PLAIN_VOLUMES)).img_size


def _sizes() -> str:
    """Return the flags of input and integrator of the plain recipe."""
    words = shlex.split(PLAIN_VOLUMES)
    kept = [word for k, word in enumerate(words) for flag in [word if word.startswith("--")
                                                              else words[k - 1]]
            if flag.startswith("--vit_") or flag in ("--token", "--img_size")]
    return shlex.join(kept)


def _backbone_name() -> str:
    words = shlex.split(PLAIN_IMAGES)
    return words[words.index("--backbone") + 1]


_FROM_BACKBONE = f"pre-trained: {PLAIN_IMAGES}; then "
METHODS = {
    "slivit": Method(slivit, f"{variants.VARIANTS[RECOMMENDED]}"),
    "slivit_mean_logits": Method(slivit_mean_logits, f"{variants.VARIANTS[RECOMMENDED]}, mean of "
                                 "slice logits"),
    "plain": Method(plain, _FROM_BACKBONE + PLAIN_VOLUMES, pretrained=True),
    "end_to_end": Method(end_to_end, f"{_FROM_BACKBONE}{_sizes()} {WHOLE}", pretrained=True),
    "no_pretraining": Method(no_pretraining, f"{_sizes()} {WHOLE} --weights none"),
    "mean_logits": Method(mean_logits, _FROM_BACKBONE + PLAIN_VOLUMES, pretrained=True),
    "original_tokens": Method(original_tokens, f"{_FROM_BACKBONE}{PLAIN_VOLUMES} (token "
                              "channels_width)", pretrained=True),
    "resnet18_narrow": Method(resnet18_narrow, f"widths {NARROW}, {RESNET}"),
    "resnet18_half_rate": Method(resnet18_half_rate, f"widths {NARROW}, {HALF_RATE}"),
    "resnet18_ratings": Method(resnet18_ratings, f"widths {NARROW}, {RESNET}, ratings"),
    "resnet18_full": Method(resnet18_full, f"widths {FULL}, {WIDE}", folds=(0,),
                            seeds=(0,)),
    "densenet": Method(densenet, f"16 features, growth 12, blocks (3, 6, 12, 8), {DENSENET}"),
    "shape_boosting": Method(shape_boosting, f"{BOOSTING}", seeds=(0,)),
    "volume": Method(volume, "volume_mm3", seeds=(0,)),
    "few_volumes": Method(few_volumes, FEW_VOLUMES),
    "frozen_logistic": Method(frozen_logistic, f"{_FROM_BACKBONE}{LOGISTIC}", pretrained=True),
}
