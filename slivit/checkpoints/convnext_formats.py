"""ConvNeXt weights in the formats in use: recognised by their names, mapped onto timm's.

`S` is a stage (0 to 3), `L` a block of it, `E` stands for `encoder.stages.S` and `D` for
`downsample_layers`. Each line but the layer scale is a weight and a bias.

    timm                       torchvision         transformers                 facebookresearch
    stem.0                     features.0.0        embeddings.patch_embeddings  D.0.0
    stem.1                     features.0.1        embeddings.layernorm         D.0.1
    stages.S.downsample.{0,1}  features.2S.{0,1}   E.downsampling_layer.{0,1}   D.S.{0,1}
    stages.S.blocks.L          features.2S+1.L     E.layers.L                   stages.S.L
      .conv_dw                   .block.0            .dwconv                      .dwconv
      .norm                      .block.2            .layernorm                   .norm
      .mlp.fc1, .mlp.fc2         .block.3, .block.5  .pwconv1, .pwconv2           .pwconv1, .pwconv2
      .mlp.grn (V2)                                  .grn                         .grn.{gamma,beta}
      .gamma (layer scale)       .layer_scale        .layer_scale_parameter       .gamma
    head.norm                  classifier.0        layernorm                    norm
    head.fc                    classifier.2        classifier                   head

In transformers all but `classifier` comes after `convnext.` (`convnextv2.`), unless the model has
no classifier. `feature_extractor.pth` of the original SLIViT is such a model after `model.`; in its
`slivit.pth` `feature_extractor.0.` are the embeddings, `feature_extractor.1.` is the encoder, and
`head` is absent. Nothing is transposed; axes of length 1 come or go where timm has another shape:
torchvision's layer scale, GRN, and the MLPs that timm makes of 1x1 convolutions. The LayerNorms'
epsilon is in no file: it is 1e-6, but for transformers' last norm, 1e-12.

transformers' DINOv3ConvNextModel has names of its own, and no classifier. `K` is `stages` in its
files and `model.stages` in its state dict (since version 5):

    timm                       transformers' DINOv3ConvNextModel
    stem.{0,1}                 K.0.downsample_layers.{0,1}
    stages.S.downsample.{0,1}  K.S.downsample_layers.{0,1}
    stages.S.blocks.L          K.S.layers.L
      .conv_dw, .norm            .depthwise_conv, .layer_norm
      .mlp.fc1, .mlp.fc2         .pointwise_conv1, .pointwise_conv2
      .gamma (layer scale)       .gamma
    head.norm                  layer_norm

Its last norm is where timm's is, after the pooling (transformers applies it to single cells too),
and its input has ImageNet's mean and deviation. Meta's own DINOv3 files have the names of
facebookresearch's ConvNeXt and the last norm once more, as `norms.3`; files of EUPE have further
norms and projectors. (Sources: transformers' convert_dinov3_convnext_to_hf.py and
modeling_dinov3_convnext.py, timm's convnext.checkpoint_filter_fn.)
"""

import functools
from dataclasses import dataclass

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from slivit.checkpoints.convnext_sizes import STAGES, architecture_of, shapes_of, squeezed
from slivit.utils.errors import UserError, listing

MOST_BLOCKS = 64
MOST_LISTED = 10
Rows = tuple[tuple[str, str], ...]  # name in the file, name in timm; `*`: weight and bias

TIMM: Rows = tuple((name, name) for name in (
    "stem.0.*", "stem.1.*", "stem.2.*", "stem.3.*", "stages.{s}.downsample.0.*",
    "stages.{s}.downsample.1.*", "stages.{s}.blocks.{l}.conv_dw.*", "stages.{s}.blocks.{l}.norm.*",
    "stages.{s}.blocks.{l}.mlp.fc1.*", "stages.{s}.blocks.{l}.mlp.grn.*",
    "stages.{s}.blocks.{l}.mlp.fc2.*", "stages.{s}.blocks.{l}.gamma", "norm_pre.*", "head.norm.*",
    "head.pre_logits.fc.*", "head.fc.*"))
TORCHVISION: Rows = (
    ("features.0.0.*", "stem.0.*"),
    ("features.0.1.*", "stem.1.*"),
    ("features.{twice_s}.0.*", "stages.{s}.downsample.0.*"),
    ("features.{twice_s}.1.*", "stages.{s}.downsample.1.*"),
    ("features.{twice_s_plus_1}.{l}.block.0.*", "stages.{s}.blocks.{l}.conv_dw.*"),
    ("features.{twice_s_plus_1}.{l}.block.2.*", "stages.{s}.blocks.{l}.norm.*"),
    ("features.{twice_s_plus_1}.{l}.block.3.*", "stages.{s}.blocks.{l}.mlp.fc1.*"),
    ("features.{twice_s_plus_1}.{l}.block.5.*", "stages.{s}.blocks.{l}.mlp.fc2.*"),
    ("features.{twice_s_plus_1}.{l}.layer_scale", "stages.{s}.blocks.{l}.gamma"),
    ("classifier.0.*", "head.norm.*"),
    ("classifier.2.*", "head.fc.*"))
FACEBOOK: Rows = (
    ("downsample_layers.0.0.*", "stem.0.*"),
    ("downsample_layers.0.1.*", "stem.1.*"),
    ("downsample_layers.{s}.0.*", "stages.{s}.downsample.0.*"),
    ("downsample_layers.{s}.1.*", "stages.{s}.downsample.1.*"),
    ("stages.{s}.{l}.dwconv.*", "stages.{s}.blocks.{l}.conv_dw.*"),
    ("stages.{s}.{l}.norm.*", "stages.{s}.blocks.{l}.norm.*"),
    ("stages.{s}.{l}.pwconv1.*", "stages.{s}.blocks.{l}.mlp.fc1.*"),
    ("stages.{s}.{l}.pwconv2.*", "stages.{s}.blocks.{l}.mlp.fc2.*"),
    ("stages.{s}.{l}.gamma", "stages.{s}.blocks.{l}.gamma"),
    ("stages.{s}.{l}.grn.gamma", "stages.{s}.blocks.{l}.mlp.grn.weight"),
    ("stages.{s}.{l}.grn.beta", "stages.{s}.blocks.{l}.mlp.grn.bias"),
    ("norm.*", "head.norm.*"),
    ("head.*", "head.fc.*"))


def _dinov3(stages: str) -> Rows:
    """Return all rows of a DINOv3 model of transformers, whose stages come after `stages`."""
    layer, block = f"{stages}.{{s}}.layers.{{l}}", "stages.{s}.blocks.{l}"
    return (
        (f"{stages}.0.downsample_layers.0.*", "stem.0.*"),
        (f"{stages}.0.downsample_layers.1.*", "stem.1.*"),
        (f"{stages}.{{s}}.downsample_layers.0.*", "stages.{s}.downsample.0.*"),
        (f"{stages}.{{s}}.downsample_layers.1.*", "stages.{s}.downsample.1.*"),
        (f"{layer}.depthwise_conv.*", f"{block}.conv_dw.*"),
        (f"{layer}.layer_norm.*", f"{block}.norm.*"),
        (f"{layer}.pointwise_conv1.*", f"{block}.mlp.fc1.*"),
        (f"{layer}.pointwise_conv2.*", f"{block}.mlp.fc2.*"),
        (f"{layer}.gamma", f"{block}.gamma"),
        ("layer_norm.*", "head.norm.*"))


def transformers_rows(embeddings: str, encoder: str) -> Rows:
    """Return the rows of stem and stages of a transformers model with these two prefixes."""
    layer, block = f"{encoder}stages.{{s}}.layers.{{l}}", "stages.{s}.blocks.{l}"
    return (
        (f"{embeddings}patch_embeddings.*", "stem.0.*"),
        (f"{embeddings}layernorm.*", "stem.1.*"),
        (f"{encoder}stages.{{s}}.downsampling_layer.0.*", "stages.{s}.downsample.0.*"),
        (f"{encoder}stages.{{s}}.downsampling_layer.1.*", "stages.{s}.downsample.1.*"),
        (f"{layer}.dwconv.*", f"{block}.conv_dw.*"),
        (f"{layer}.layernorm.*", f"{block}.norm.*"),
        (f"{layer}.pwconv1.*", f"{block}.mlp.fc1.*"),
        (f"{layer}.grn.*", f"{block}.mlp.grn.*"),
        (f"{layer}.pwconv2.*", f"{block}.mlp.fc2.*"),
        (f"{layer}.layer_scale_parameter", f"{block}.gamma"))


def _transformers(base: str, head: str = "") -> Rows:
    """Return all rows of a transformers model, its backbone after `base`."""
    return (*transformers_rows(f"{base}embeddings.", f"{base}encoder."),
            (f"{base}layernorm.*", "head.norm.*"), (f"{head}classifier.*", "head.fc.*"))


@dataclass(frozen=True)
class WeightFormat:
    """One way of naming a ConvNeXt's tensors.

    Attributes:
        title: what it is called in messages.
        rows: of its table.
        mean, std: of the input that such weights expect; None for timm's of the architecture.
        ignored: prefixes of the names of whatever else such files contain.
    """

    title: str
    rows: Rows
    mean: tuple[float, ...] | None = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] | None = IMAGENET_DEFAULT_STD
    ignored: tuple[str, ...] = ()


NO_SHIFT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # the original fed images of 0..1
FORMATS = (
    WeightFormat("timm's ConvNeXt", TIMM, None, None),
    WeightFormat("torchvision's ConvNeXt", TORCHVISION),
    WeightFormat("Hugging Face transformers' ConvNextForImageClassification",
                 _transformers("convnext.")),
    WeightFormat("Hugging Face transformers' ConvNextV2ForImageClassification",
                 _transformers("convnextv2.")),
    WeightFormat("Hugging Face transformers' ConvNextModel", _transformers("")),
    WeightFormat("Hugging Face transformers' DINOv3ConvNextModel", _dinov3("stages")),
    WeightFormat("the state dict of Hugging Face transformers' DINOv3ConvNextModel",
                 _dinov3("model.stages")),
    WeightFormat("facebookresearch's ConvNeXt", FACEBOOK, ignored=("norms.", "projectors.")),
    WeightFormat("feature_extractor.pth of the original SLIViT",
                 _transformers("model.convnext.", "model."), **NO_SHIFT),
    WeightFormat("slivit.pth of the original SLIViT, of which only the backbone is taken",
                 transformers_rows("feature_extractor.0.", "feature_extractor.1."), **NO_SHIFT,
                 ignored=("pos_embedding", "cls_token", "to_patch_embedding.", "transformer.",
                          "mlp_head.")))


@dataclass(frozen=True)
class Recognised:
    """A backbone from a file.

    Attributes:
        format: how it was written.
        architecture: timm's name.
        state: its tensors in timm's names and shapes; `head.norm` or `head.fc` may be absent.
        n_classes: outputs of its classifier; 0 for none.
    """

    format: WeightFormat
    architecture: str
    state: dict[str, torch.Tensor]
    n_classes: int


def recognise(state: dict[str, torch.Tensor], what: str) -> Recognised:
    """Find out what a state dict is, and map it onto timm's names.

    Args:
        state: of pretrained.read_tensors.
        what: the file, for messages.

    Raises:
        UserError: not a ConvNeXt, of unknown size, or incomplete: listing, in the file's own
            names, the tensors that are missing, unknown or of another shape or kind.
    """
    counts = [sum(key in names_of(one.rows) for key in state) for one in FORMATS]
    best = FORMATS[counts.index(max(counts))]
    names = names_of(best.rows)
    rest = [key for key in state if key not in names and not key.startswith(best.ignored)]
    if len(rest) * 2 > len(state) or not max(counts):
        raise UserError(f"{what}: is not a ConvNeXt (its tensors: {', '.join(list(state)[:3])}, "
                        "...). Expected the tensors of one of:\n"
                        f"{listing(one.title for one in FORMATS)}")
    mapped = {names[key]: tensor for key, tensor in state.items() if key in names}
    try:
        architecture = architecture_of(mapped)
    except UserError as error:
        raise UserError(f"{what}: read as {best.title}, {error}") from None
    expected = _expected(architecture, mapped)
    theirs = {ours: name for name, ours in names.items()}
    bad = [f"missing: {theirs.get(key, key)}" for key in expected if key not in mapped]
    bad += [f"unknown: {key}" for key in rest]
    bad += [f"unknown: {theirs[key]}" for key in mapped if key not in expected]
    bad += [f"{theirs[key]}: found {tuple(tensor.shape)}, expected {expected[key]}"
            for key, tensor in mapped.items()
            if key in expected and squeezed(tensor.shape) != squeezed(expected[key])]
    bad += [f"{theirs[key]}: found {tensor.dtype}, expected floating-point numbers"
            for key, tensor in mapped.items() if not tensor.is_floating_point()]
    if bad:
        raise UserError(f"{what}: read as {best.title}, it is not a complete {architecture}:\n"
                        f"{listing(bad, MOST_LISTED)}\nUse the original, unmodified file.")
    n_classes = len(mapped["head.fc.weight"]) if "head.fc.weight" in mapped else 0
    return Recognised(best, architecture, {key: tensor.reshape(expected[key])
                                           for key, tensor in mapped.items()}, n_classes)


def hf_to_timm(state: dict[str, torch.Tensor], embeddings: str, encoder: str
               ) -> dict[str, torch.Tensor]:
    """Return stem and stages of a transformers model in timm's names, and nothing else.

    Args:
        state: with whatever else.
        embeddings, encoder: prefixes, such as `convnext.embeddings.` and `convnext.encoder.`.
    """
    names = names_of(transformers_rows(embeddings, encoder))
    return {names[key]: tensor for key, tensor in state.items() if key in names}


@functools.cache
def names_of(rows: Rows) -> dict[str, str]:
    """Return every name of a table, and timm's name of it."""
    names = {}
    for theirs, ours in rows:
        for s in range(STAGES):
            if s == 0 and "downsample" in ours:  # the stem's place
                continue
            for block in range(MOST_BLOCKS if "{l}" in ours else 1):
                at = {"s": s, "l": block, "twice_s": 2 * s, "twice_s_plus_1": 2 * s + 1}
                pair = theirs.format(**at), ours.format(**at)
                for part in ("weight", "bias") if theirs.endswith("*") else ("",):
                    names[pair[0].replace("*", part)] = pair[1].replace("*", part)
    return names


def _expected(name: str, mapped: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes that a file of this architecture has; a head, or a part, may be absent."""
    expected = dict(shapes_of(name))
    for part in ("head.norm.", "head.pre_logits.", "head.fc."):
        if not any(key.startswith(part) for key in mapped):
            expected = {key: shape for key, shape in expected.items() if not key.startswith(part)}
    if "head.fc.weight" in mapped and mapped["head.fc.weight"].ndim:
        n_classes = len(mapped["head.fc.weight"])
        expected |= {key: (n_classes, *shape[1:]) for key, shape in expected.items()
                     if key.startswith("head.fc.")}
    return expected
