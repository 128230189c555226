"""Fine-tuned models of the original SLIViT, `slivit.pth`: recognised, checked, mapped onto ours.

The tensors tell the backbone, the sizes of the integrator, the number of slices and their side. How
slices are tiled, the task and the name of the label come from `finetune_options.txt` beside the
file, or from the options of slivit.convert.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from slivit.checkpoints.checkpoint import CheckpointHeader
from slivit.checkpoints.convnext_formats import hf_to_timm
from slivit.checkpoints.convnext_sizes import architecture_of
from slivit.checkpoints.original.options_file import OPTIONS_FILE, find_hints
from slivit.checkpoints.pretrained import read_tensors
from slivit.config import TILINGS, IntegratorConfig, Preprocess, Target
from slivit.models.backbone import create_backbone
from slivit.utils.errors import UserError, listing
from slivit.utils.runtime import versions

HEAD_DIM = 64  # of the original, always
STRIDE = 32    # pixels of a slice per cell of its feature map
EMBEDDINGS, ENCODER = "feature_extractor.0.", "feature_extractor.1."
SIZING = ("pos_embedding", "to_patch_embedding.1.weight", "to_patch_embedding.2.weight",
          "transformer.layers.0.0.to_qkv.weight", "transformer.layers.0.1.net.1.weight")
UNNAMED = "label"  # what the output is called until its name is known
NO_DATA = "unknown data"  # what such a model was trained on, where no file says


@dataclass(frozen=True)
class Sizes:
    """Sizes of the original's integrator; `in_dim` is the length of what a token is made of."""

    in_dim: int
    dim: int
    depth: int
    heads: int
    mlp_dim: int
    n_slices: int

    @property
    def projects(self) -> bool:
        """Whether attention ends with a projection; one head of the full width has none."""
        return (self.heads, HEAD_DIM) != (1, self.dim)


def read_original(path: Path) -> tuple[CheckpointHeader, dict[str, torch.Tensor]]:
    """Read a `slivit.pth` of the original SLIViT.

    Returns:
        A card as of our own checkpoints, and the tensors in our names. `card.data["assumed"]` lists
        what neither the tensors nor `finetune_options.txt` state: `tiling`, `task`, `label`.

    Raises:
        UserError: no such file, not a file of plain tensors, or not such a model: listing the
            tensors that are missing, unknown or of another shape.
    """
    state = read_tensors(path)
    _check_kind(state, path)
    sizes = _find_sizes(state, path)
    integrator = {key: tensor for key, tensor in state.items()
                  if not key.startswith("feature_extractor.")}
    names, shapes = _integrator_names(sizes), _integrator_shapes(sizes)
    bad = _differences(integrator, shapes)
    backbone, wrong, architecture = _read_backbone(state, path)
    if bad := wrong + bad:
        raise UserError(f"{path}: is not a complete slivit.pth of the original SLIViT:\n"
                        f"{listing(bad, 20)}\nGive the file as the original SLIViT wrote it.")
    channels = _last_channels(backbone)
    side = math.isqrt(sizes.in_dim // channels)
    if channels * side ** 2 != sizes.in_dim or not side:
        raise UserError(f"{path}: to_patch_embedding takes {sizes.in_dim} numbers, which is not a "
                        f"square map of the {channels} channels of {architecture}; expected "
                        f"{channels} x 64 for slices of 256 pixels")
    mapped = {f"backbone.{key}": tensor for key, tensor in backbone.items()}
    mapped |= {f"integrator.{names[key]}": tensor for key, tensor in integrator.items()}
    for i in range(sizes.depth if not sizes.projects else 0):  # no projection is that of 1
        mapped[f"integrator.blocks.{i}.attn.proj.weight"] = torch.eye(sizes.dim)
        mapped[f"integrator.blocks.{i}.attn.proj.bias"] = torch.zeros(sizes.dim)
    return (_make_card(path, architecture, sizes, side * STRIDE),
            {key: tensor.float() for key, tensor in mapped.items()})


def _check_kind(state: dict[str, torch.Tensor], path: Path) -> None:
    """Refuse a state dict that is not a fine-tuned model of the original, saying what it is."""
    if any(key.startswith(("feature_extractor.", "to_patch_embedding.")) for key in state):
        return
    if any(key.startswith("model.convnext.") for key in state):
        raise UserError(f"{path}: is a feature_extractor.pth, a backbone without an integrator; "
                        "expected a fine-tuned slivit.pth. Fine-tune it with finetune.py "
                        "--bb_path, or continue training it with bb_train.py --weights")
    some = ", ".join(list(state)[:3]) or "none"
    raise UserError(f"{path}: is not a model of the original SLIViT (tensors: {some}, ...); "
                    "expected its slivit.pth, or a slivit.safetensors of finetune.py")


def _find_sizes(state: dict[str, torch.Tensor], path: Path) -> Sizes:
    """Read the integrator's sizes from its tensors."""
    missing = [f"missing: {key}" for key in SIZING if key not in state]
    wrong = [f"{key}: found {tuple(state[key].shape)}, expected {count} axes"
             for key, count in zip(SIZING, (3, 1, 2, 2, 2), strict=True)
             if key in state and state[key].ndim != count]
    if missing or wrong:
        raise UserError(f"{path}: is not a complete slivit.pth of the original SLIViT; its sizes "
                        f"cannot be read:\n{listing(missing + wrong)}")
    positions, norm, embed, qkv, mlp = (state[key] for key in SIZING)
    if positions.shape[1] < 2 or qkv.shape[0] % (3 * HEAD_DIM) or not qkv.shape[0]:
        raise UserError(f"{path}: pos_embedding has {positions.shape[1]} rows and to_qkv "
                        f"{qkv.shape[0]}; expected the class token and at least one slice, and a "
                        f"multiple of 3 x {HEAD_DIM}, the width of a head")
    layers = {key.split(".")[2] for key in state if key.startswith("transformer.layers.")}
    return Sizes(norm.shape[0], embed.shape[0], len(layers), qkv.shape[0] // (3 * HEAD_DIM),
                 mlp.shape[0], positions.shape[1] - 1)


def _integrator_names(sizes: Sizes) -> dict[str, str]:
    """Return the original's name of each of the integrator's tensors, and ours."""
    modules = {"to_patch_embedding.1": "embed.0", "to_patch_embedding.2": "embed.1",
               "to_patch_embedding.3": "embed.2", "transformer.norm": "norm", "mlp_head": "head"}
    names = {"pos_embedding": "pos_embed", "cls_token": "cls_token"}
    for i in range(sizes.depth):
        theirs, ours = f"transformer.layers.{i}", f"blocks.{i}"
        names[f"{theirs}.0.to_qkv.weight"] = f"{ours}.attn.qkv.weight"
        modules |= {f"{theirs}.0.norm": f"{ours}.norm1", f"{theirs}.1.net.0": f"{ours}.norm2",
                    f"{theirs}.1.net.1": f"{ours}.mlp.fc1", f"{theirs}.1.net.4": f"{ours}.mlp.fc2"}
        if sizes.projects:
            modules[f"{theirs}.0.to_out.0"] = f"{ours}.attn.proj"
    return names | {f"{theirs}.{part}": f"{ours}.{part}" for theirs, ours in modules.items()
                    for part in ("weight", "bias")}


def _integrator_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return the shape of each of the integrator's tensors, by the original's names."""
    dim, inner = sizes.dim, sizes.heads * HEAD_DIM
    weights = {"to_patch_embedding.1": (sizes.in_dim,), "mlp_head": (1, dim),
               "to_patch_embedding.2": (dim, sizes.in_dim)}
    by_end = {"to_qkv": (3 * inner, dim), "to_out.0": (dim, inner), "net.1": (sizes.mlp_dim, dim),
              "net.4": (dim, sizes.mlp_dim)}
    shapes = {"pos_embedding": (1, sizes.n_slices + 1, dim), "cls_token": (1, 1, dim)}
    for name in _integrator_names(sizes):
        module, _, part = name.rpartition(".")
        if module:
            end = next((end for end in by_end if module.endswith(f".{end}")), None)
            shape = weights.get(module, by_end.get(end, (dim,)))
            shapes[name] = shape if part == "weight" else shape[:1]
    return shapes


def _read_backbone(state: dict[str, torch.Tensor], path: Path
                   ) -> tuple[dict[str, torch.Tensor], list[str], str]:
    """Return the backbone's tensors in timm's names, what is wrong with them, timm's name of it."""
    mapped = hf_to_timm(state, EMBEDDINGS, ENCODER)
    try:
        name = architecture_of(mapped)
    except UserError as error:
        raise UserError(f"{path}: the backbone (feature_extractor): {error}") from None
    own = {key: tuple(tensor.shape) for key, tensor in create_backbone(name).state_dict().items()}
    theirs = {key: next(iter(hf_to_timm({key: tensor}, EMBEDDINGS, ENCODER)), "")
              for key, tensor in state.items() if key.startswith("feature_extractor.")}
    expected = {key: own[timm_key] for key, timm_key in theirs.items() if timm_key in own}
    given = {key: state[key] for key in theirs}
    missing = [f"missing: {key} of the backbone {name} (timm's name)" for key in own
               if key not in theirs.values()]
    return mapped, missing + _differences(given, expected), name


def _differences(given: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]]
                 ) -> list[str]:
    """Return a line on each tensor that is missing, unknown or of another shape."""
    return [f"missing: {key}" for key in expected if key not in given] + [
        f"unknown: {key}" for key in given if key not in expected] + [
        f"{key}: found {tuple(tensor.shape)}, expected {expected[key]}"
        for key, tensor in given.items() if key in expected
        and tuple(tensor.shape) != expected[key]]


def _last_channels(backbone: dict[str, torch.Tensor]) -> int:
    """Return the channels of the last stage's feature map."""
    last = max(int(key.split(".")[1]) for key in backbone if key.startswith("stages."))
    return len(backbone[f"stages.{last}.blocks.0.norm.weight"])


def _make_card(path: Path, architecture: str, sizes: Sizes, img_size: int) -> CheckpointHeader:
    """Return what is known of the model; see read_original."""
    hints = find_hints(path.with_name(OPTIONS_FILE))
    assumed = {"tiling": hints.tiling is None, "task": hints.task is None,
               "label": hints.label is None}
    task = hints.task or "binary"
    target = make_target(task, hints.label or UNNAMED)
    config = IntegratorConfig(TILINGS[hints.tiling or "width"], sizes.dim, sizes.depth,
                              sizes.heads, HEAD_DIM, sizes.mlp_dim)
    preprocess = Preprocess(img_size, "full", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), sizes.n_slices)
    data = {"name": hints.dataset or NO_DATA, "fingerprint": "", "split_ratio": None,
            "split_seed": 0, "patients": [],
            "assumed": [name for name, unsure in assumed.items() if unsure]}
    return CheckpointHeader("slivit", architecture, config, target, preprocess, data,
                            versions=versions())


def make_target(task: str, label: str) -> Target:
    """Return a target of one label; regression is in the label's own unit."""
    moments = {"mean": (0.0,), "std": (1.0,)} if task == "regression" else {}
    return Target(task, (label,), **moments)
