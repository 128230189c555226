"""Tables in Markdown: names of methods, scores with intervals, p-values."""

from collections.abc import Mapping, Sequence

import pandas as pd

NAMES = {
    "slivit": "**SLIViT, recommended**",
    "slivit_mean_logits": "SLIViT, recommended, without integrator: mean of slice logits",
    "plain": "SLIViT, plain recipe",
    "end_to_end": "plain recipe, trained on end to end",
    "no_pretraining": "plain recipe without 2D pre-training, end to end",
    "mean_logits": "plain recipe without integrator: mean of slice logits",
    "original_tokens": "plain recipe with the original's tokens",
    "plain_few_images": "plain recipe, images of the same patients alone",
    "resnet18_narrow": "3D ResNet-18, a quarter of the width",
    "resnet18_half_rate": "3D ResNet-18, a quarter of the width, half the rate",
    "resnet18_ratings": "3D ResNet-18, a quarter of the width, ratings as labels",
    "resnet18_full": "3D ResNet-18",
    "densenet": "3D DenseNet, small",
    "shape_boosting": "gradient boosting on shape features",
    "volume": "nodule volume alone",
    "frozen_logistic": "plain recipe, logistic regression as integrator",
    "image_backbone": "ConvNeXt of the plain recipe",
    "image_backbone_bn": "ConvNeXt with BatchNorm (`convnext_atto_bn`)",
    "image_resnet18": "ResNet-18",
    "image_shape_boosting": "gradient boosting on shape features",
    "image_area": "area alone",
    "few_volumes": "**SLIViT, few volumes**: linear integrator, random backbone",
    "plain_random": "plain recipe's integrator, random backbone",
    "probe_random": "logistic regression, features of a random `convnext_atto_bn`",
    "probe_few_images": "plain recipe, logistic regression, images of the same patients alone",
    "few_images": "few volumes: linear integrator, images of the same nodules",
    "ssl_few": "few volumes: linear integrator, pre-trained without labels",
    "ssl_few_images": "few volumes: linear integrator, pre-trained without labels, then on images "
                      "of the same nodules",
    "together": "mean of the three networks' logits",
}
REGION_NAMES = NAMES | {  # of benchmarks.regions
    "end_to_end": "SLIViT from random weights, end to end",
    "supervised_slices": "SLIViT, pre-trained on slices of the labelled crops",
    "few_volumes_slices": "linear integrator, pre-trained on slices of the labelled crops",
    "few_volumes": "linear integrator, random backbone",
    "ssl_few": "**linear integrator, pre-trained without labels**",
    "ssl_frozen": "SLIViT, pre-trained without labels",
    "ssl_slices_few": "linear integrator, pre-trained without labels, then on slices",
    "ssl_slices": "SLIViT, pre-trained without labels, then on slices",
    "original_tokens": "SLIViT with the original's tokens, pre-trained on slices",
    "mean_logits": "SLIViT without integrator (mean of slice logits), pre-trained on slices",
}


def name(method: str, names: Mapping[str, str] = NAMES) -> str:
    """Return a method's name to show."""
    return names.get(method, method)


def interval(row, key: str, sign: bool = False) -> str:
    """Return a score and its interval, of a row that has KEY, KEY_low and KEY_high."""
    get = row.get if isinstance(row, pd.Series) else (lambda one: getattr(row, one))
    value, low, high = get(key), get(f"{key}_low"), get(f"{key}_high")
    if pd.isna(value):
        return "-"
    form = "+.3f" if sign else ".3f"
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def p_value(value: float) -> str:
    """Return a p-value to show."""
    return "-" if pd.isna(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def markdown(heads: Sequence[str], rows: Sequence[Sequence]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
