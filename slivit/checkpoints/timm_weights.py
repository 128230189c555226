"""What timm's weights of a name were trained on, in words: its tags say it, not one flag."""

from dataclasses import dataclass

import timm

SETS = {"in1k": "ImageNet-1k", "in12k": "ImageNet-12k", "in22k": "ImageNet-22k",
        "laion2b": "LAION-2B", "laiona": "LAION-Aesthetic", "lvd1689m": "LVD-1689M"}
METHODS = {"clip": "CLIP", "dinov3": "DINOv3", "eupe": "EUPE", "fcmae": "FCMAE"}
UNLABELLED = {"fcmae": "ImageNet-1k, without labels"}  # Woo et al. 2023, section 3.1; not in a tag


@dataclass(frozen=True)
class TimmWeights:
    """Weights of a ConvNeXt that timm knows.

    Attributes:
        name: timm's, with the tag.
        method: of pre-training without class labels, such as DINOv3; empty where there were labels.
        data: what it was pre-trained on; empty where the tag does not say it.
        fine_tuned: data sets on which it was then trained with labels.
        licence: as timm states it.
    """

    name: str
    method: str
    data: str
    fine_tuned: tuple[str, ...]
    licence: str

    def __str__(self) -> str:
        """Return such as `DINOv3 weights (LVD-1689M) of convnext_tiny`."""
        architecture, _, tag = self.name.partition(".")
        data = f" ({self.data})" if self.data else ""
        kind = f"{self.method} weights{data}" if self.method else (
            f"{self.data} weights" if self.data else f"weights tagged {tag}")
        tuned = f", fine-tuned on {' and '.join(self.fine_tuned)}" if self.fine_tuned else ""
        return f"{kind} of {architecture}{tuned}"

    @property
    def origin(self) -> str:
        """Where they are from, such as `timm's convnext_tiny.fb_in1k, licence apache-2.0`."""
        return f"timm's {self.name}, licence {self.licence}"

    @property
    def trained_on(self) -> str:
        """What they were trained on, as reports say it."""
        data = ", then ".join((self.data or "unknown data", *self.fine_tuned))
        return f"{data} ({f'{self.method}; ' if self.method else ''}{self.origin})"


def find_timm_weights(name: str) -> TimmWeights | None:
    """Return timm's weights of a name, those of its default tag if it has none; None if none are.

    Args:
        name: such as `convnext_tiny.dinov3_lvd1689m` or `convnext_tiny`.
    """
    config = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None or not config.has_weights:
        return None
    before, _, after = config.tag.partition("_ft_")
    words = before.split("_")
    key = next((word for word in words if word in METHODS), "")
    data = next((SETS[word] for word in words if word in SETS), UNLABELLED.get(key, ""))
    return TimmWeights(f"{name.partition('.')[0]}.{config.tag}", METHODS.get(key, ""), data,
                       tuple(SETS[word] for word in after.split("_") if word in SETS),
                       config.license or "unknown")
