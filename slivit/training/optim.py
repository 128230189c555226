"""Parameter groups, the learning rate over the steps, and the moving average of weights."""

import math

import timm.optim
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

EMBEDDINGS = ("cls_token", "pos_embed", "view_embed")


def parameter_groups(module: nn.Module, lr: float, weight_decay: float) -> list[dict]:
    """Return AdamW groups: weight decay on matrices only, none on biases, norms and embeddings."""
    named = list(module.named_parameters())
    plain = [p for name, p in named if p.ndim < 2 or name.endswith(EMBEDDINGS)]
    skip = {id(p) for p in plain}
    decayed = [p for _, p in named if id(p) not in skip]
    return [{"params": decayed, "lr": lr, "weight_decay": weight_decay},
            {"params": plain, "lr": lr, "weight_decay": 0.0}]


def backbone_groups(backbone: nn.Module, lr: float, weight_decay: float,
                    layer_decay: float = 1.0) -> list[dict]:
    """Return the groups of a backbone, the learning rate lower the nearer a layer is to the input.

    Args:
        backbone: a ConvNeXt of timm.
        lr: of its last layer.
        weight_decay: on matrices.
        layer_decay: factor from a layer to the one before it; 1 for one rate throughout. Source:
            BEiT (Bao et al. 2021, appendix H), by timm.
    """
    if layer_decay == 1:
        return parameter_groups(backbone, lr, weight_decay)
    groups = timm.optim.param_groups_layer_decay(backbone, weight_decay=weight_decay,
                                                 layer_decay=layer_decay)
    return [{"params": group["params"], "lr": lr * group["lr_scale"],
             "weight_decay": group["weight_decay"]} for group in groups]


def lr_factor(step: int, warmup: int, total: int) -> float:
    """Return the learning rate's factor: linear warm-up, then half a cosine down to 1 %."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def moving_average(model: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of a model's weights.

    Over the first steps the decay is lower, (1 + steps) / (10 + steps), as in TensorFlow's
    ExponentialMovingAverage, so that the random start is forgotten.
    """
    def average(mean: torch.Tensor, new: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        factor = min(decay, (1 + float(steps)) / (10 + float(steps)))
        return mean + (new - mean) * (1 - factor)

    return AveragedModel(model, avg_fn=average, use_buffers=True)
