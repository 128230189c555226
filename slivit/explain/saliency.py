"""Where a model looked in one scan: attention over the slices, Grad-CAM within them.

Rollout follows attention from the class token back to the slices (Abnar & Zuidema 2020, section
3); it knows nothing of what is predicted. Relevance is gradient-times-attention (Chefer et al.
2021, "Generic attention-model explainability", section 3.2) and Grad-CAM (Selvaraju et al. 2017)
weighs the channels of the backbone's last feature map; both belong to one output. A linear
integrator has no attention; there the relevance of a slice is what its features add to the output
(gradient times features), which is exact.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from timm.models.vision_transformer import Attention
from torch import nn

from slivit.data.batch import Batch, model_slices
from slivit.models.integrator import Integrator, LinearIntegrator
from slivit.models.slivit import ImageClassifier, SLIViT, feature_maps

NOISE = 1e-4  # share of its summands' size below which a Grad-CAM counts as 0


@dataclass(frozen=True)
class Saliency:
    """Where a model looked in one scan, of n real slices, for one output.

    Attributes:
        logits: float32 (K,), of the pass that is explained.
        rollout: float64 (n,), sums to 1; None for an image, or without attention.
        relevance: float64 (n,), sums to 1, or 0 throughout where nothing speaks for the output;
            None for an image.
        cams: float32 (n, h, w), at least 0, Grad-CAM of each slice in units of the output.
    """

    logits: np.ndarray
    rollout: np.ndarray | None
    relevance: np.ndarray | None
    cams: np.ndarray


def explain(model: SLIViT | ImageClassifier, batch: Batch, output: int) -> Saliency:
    """Explain one output for one scan.

    The model predicts as in evaluation; its parameters, their gradients and its training mode are
    left as they were.

    Args:
        model: on the device of the batch.
        batch: of one scan (B = 1); its slices, not their features.
        output: k, the logit that is explained.
    """
    with _evaluating(model), torch.enable_grad():
        maps = _feature_maps(model, batch).requires_grad_()
        if isinstance(model, ImageClassifier):
            logits = model.backbone.forward_head(maps)
            attentions = []
        else:
            logits, attentions = _integrate(model, maps, batch.mask)
        *gradients, on_maps = torch.autograd.grad(logits[0, output], [*attentions, maps])
    cams = grad_cam(maps.detach(), on_maps).cpu().numpy()
    values = logits.detach()[0].float().cpu().numpy()
    if isinstance(model, ImageClassifier):
        return Saliency(values, None, None, cams)
    if not attentions:
        added = (on_maps * maps.detach()).flatten(1).sum(dim=1).double().clamp(min=0)
        return Saliency(values, None, _share(added), cams)
    attentions = [attention.detach()[0].double() for attention in attentions]
    gradients = [gradient[0].double() for gradient in gradients]
    real = batch.mask[0]
    return Saliency(values, _of_slices(rollout(attentions), real),
                    _of_slices(relevance(attentions, gradients), real), cams)


def rollout(attentions: list[torch.Tensor]) -> torch.Tensor:
    """Return how much each token draws from each, (T, T), rows summing to 1.

    Args:
        attentions: of each block, first to last, (heads, T, T), rows summing to 1.
    """
    total = torch.eye(attentions[0].shape[-1]).to(attentions[0])
    for attention in attentions:
        mixed = attention.mean(dim=0) + torch.eye(len(total)).to(total)
        total = mixed / mixed.sum(dim=1, keepdim=True) @ total
    return total


def relevance(attentions: list[torch.Tensor], gradients: list[torch.Tensor]) -> torch.Tensor:
    """Return how much each token speaks for the output by way of each, (T, T), at least 0.

    Args:
        attentions: of each block, first to last, (heads, T, T).
        gradients: of the output by them.
    """
    total = torch.eye(attentions[0].shape[-1]).to(attentions[0])
    for attention, gradient in zip(attentions, gradients, strict=True):
        total = total + (gradient * attention).clamp(min=0).mean(dim=0) @ total
    return total


def grad_cam(maps: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Return Grad-CAM (n, h, w), at least 0, of feature maps and the gradients by them.

    Both are (n, C, h, w). A map of one cell cannot tell places apart and gets 1.
    """
    if maps.shape[2] * maps.shape[3] == 1:
        return maps.new_ones((len(maps), 1, 1))
    parts = gradients.mean(dim=(2, 3), keepdim=True) * maps
    cams = parts.sum(dim=1).clamp(min=0)
    size = parts.abs().sum(dim=1).amax(dim=(1, 2), keepdim=True)
    return torch.where(cams.amax(dim=(1, 2), keepdim=True) > NOISE * size, cams, 0.0)


@contextlib.contextmanager
def recorded_attention(integrator: Integrator) -> Iterator[list[torch.Tensor]]:
    """Yield a list that gets each block's attention (B, heads, T, T) in a forward pass.

    timm's fused attention never makes these matrices; meanwhile each block attends explicitly, by
    the same weights, and what the integrator returns depends on the matrices.
    """
    matrices = []

    def attend(module: Attention, args: tuple, kwargs: dict, _: torch.Tensor) -> torch.Tensor:
        output, matrix = _attend(module, args[0], kwargs["attn_mask"])
        matrices.append(matrix)
        return output

    hooks = [block.attn.register_forward_hook(attend, with_kwargs=True)
             for block in integrator.blocks]
    try:
        yield matrices
    finally:
        for hook in hooks:
            hook.remove()


def _attend(attn: Attention, tokens: torch.Tensor, mask: torch.Tensor
            ) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the output (B, T, D) and the matrix (B, heads, T, T) of self-attention.

    Args:
        attn: as the integrator makes it, without norms or gate.
        tokens: (B, T, D).
        mask: bool, broadcast to the matrix; False where nothing is drawn from.
    """
    count, length, _ = tokens.shape
    qkv = attn.qkv(tokens).reshape(count, length, 3, attn.num_heads, -1)
    query, key, value = qkv.permute(2, 0, 3, 1, 4)
    scores = (query * attn.scale) @ key.transpose(-2, -1)
    matrix = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1)
    return attn.proj((matrix @ value).transpose(1, 2).flatten(2)), matrix


def _integrate(model: SLIViT, maps: torch.Tensor, mask: torch.Tensor
               ) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return logits (1, K) and attentions of the feature maps (n, C, h, w) of real slices."""
    features = maps.flatten(1) if model.token == "flatten" else maps.mean(dim=(2, 3))
    padded = features.new_zeros((*mask.shape, model.feature_dim))
    padded[mask] = features
    if isinstance(model.integrator, LinearIntegrator):
        return model.integrator(padded, mask), []
    with recorded_attention(model.integrator) as attentions:
        return model.integrator(padded, mask), attentions


@torch.no_grad()
def _feature_maps(model: SLIViT | ImageClassifier, batch: Batch) -> torch.Tensor:
    """Return the backbone's last maps (n, C, h, w) of the real slices."""
    return feature_maps(model, model_slices(batch, model.preprocess))


def _of_slices(matrix: torch.Tensor, real: torch.Tensor) -> np.ndarray:
    """Return the class token's row (T,) over the real slices, scaled to sum to 1 if not all 0."""
    return _share(matrix[0, 1:][real])


def _share(weights: torch.Tensor) -> np.ndarray:
    """Return weights scaled to sum to 1, if not all are 0."""
    total = weights.sum()
    return (weights / total if total > 0 else weights).cpu().numpy()


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode for a while."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
