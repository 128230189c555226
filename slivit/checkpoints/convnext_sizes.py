"""Which ConvNeXt of timm a state dict is: by the depths, widths and shapes of its tensors."""

import functools
from collections import Counter

import timm
import torch

from slivit.models.backbone import SCRATCH
from slivit.utils.errors import UserError

STAGES = 4

# Depths of the stages and width of the first, which doubles from stage to stage.
SIZES = {
    "zepto": ((2, 2, 4, 2), 32), "atto": ((2, 2, 6, 2), 40), "femto": ((2, 2, 6, 2), 48),
    "pico": ((2, 2, 6, 2), 64), "nano": ((2, 2, 8, 2), 80), "tiny": ((3, 3, 9, 3), 96),
    "small": ((3, 3, 27, 3), 96), "base": ((3, 3, 27, 3), 128), "large": ((3, 3, 27, 3), 192),
    "xlarge": ((3, 3, 27, 3), 256), "huge": ((3, 3, 27, 3), 352), "xxlarge": ((3, 4, 30, 3), 384)}


def architecture_of(state: dict[str, torch.Tensor]) -> str:
    """Return the timm name, without a tag, of the ConvNeXt whose tensors these most likely are.

    Depths, widths and kind (V2 or not) decide; among models alike in these, the fewest differences.

    Raises:
        UserError: none has these depths and widths.
    """
    depths, widths, v2 = _sizes(state)
    sizes = [size for size, (depth, width) in SIZES.items()
             if depth == depths and tuple(width * 2 ** s for s in range(STAGES)) == widths]
    names = [name for size in sizes for stem in [f"convnext{'v2' if v2 else ''}_{size}"]
             for name in timm.list_models([stem, f"{stem}_*"])]
    if not names:
        known = ", ".join(f"{size} {'-'.join(map(str, depth))} from {width}"
                          for size, (depth, width) in SIZES.items())
        raise UserError(
            f"its size is not known: found blocks {'-'.join(map(str, depths)) or 'none'} of widths"
            f" {'-'.join(map(str, widths)) or 'none'}{', of V2' if v2 else ''}; expected blocks in "
            f"four stages, each twice as wide as the one before, as in one of: {known}. An "
            "incomplete file is refused too; give a complete one")
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    return min(names, key=lambda name: (
        len(body(shapes).items() ^ body(shapes_of(name)).items()),
        len(shapes.items() ^ shapes_of(name).items())))


@functools.cache
def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of timm's model, with its classifier.

    A tag, and the `_bn` of create_backbone, are passed over: they change no shape.
    """
    with torch.device("meta"):
        model = timm.create_model(name.partition(".")[0].removesuffix(SCRATCH), pretrained=False)
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def body(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what is not head, without axes of length 1."""
    return {key: squeezed(shape) for key, shape in shapes.items() if not key.startswith("head.")}


def _sizes(state: dict[str, torch.Tensor]) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """Return depths, widths, and whether it is a V2."""
    blocks, widths = {}, {}
    for key, tensor in state.items():
        parts = key.split(".")
        if parts[0] == "stages" and parts[2] == "blocks":
            blocks.setdefault(int(parts[1]), set()).add(int(parts[3]))
            if parts[4] in ("conv_dw", "norm") and tensor.ndim:
                widths.setdefault(int(parts[1]), Counter())[len(tensor)] += 1
    return (tuple(len(blocks[s]) for s in sorted(blocks)),
            tuple(widths[s].most_common(1)[0][0] for s in sorted(widths)),
            any(".mlp.grn." in key for key in state))


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without axes of length 1."""
    return tuple(n for n in shape if n != 1)
