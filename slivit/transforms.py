"""From grey values of any type to uint8 slices of one size, and the augmentation for training."""

import numpy as np
import torch
import torch.nn.functional as F

from slivit.config import Augmentation
from slivit.errors import UserError

PERCENTILES = (2.0, 98.0)


def parse_window(text: str) -> str:
    """Check `--window`: `percentile`, `full`, or `LOW,HIGH` with LOW below HIGH.

    Raises:
        UserError: anything else.
    """
    if text in ("percentile", "full"):
        return text
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not (np.isfinite([low, high]).all() and low < high):
        raise UserError(f"--window {text}: expected percentile, full, or LOW,HIGH "
                        "(a negative LOW with an equals sign: --window=-1000,400)")
    return text


def window_to_uint8(scan: np.ndarray, window: str) -> np.ndarray:
    """Map grey values linearly to 0..255, the same way over a whole image or volume.

    Args:
        scan: array of any shape; integers or finite floats.
        window: `percentile`, the 2nd to the 98th (contrast stretch of the SLIViT paper, Methods);
            `full`, the range of an unsigned type, the scan's own range otherwise; or `LOW,HIGH`.

    Returns:
        uint8 of the same shape; values outside the window are clipped. Where both percentiles
        are equal the scan's own range is used; a constant scan becomes 0 throughout.
    """
    unsigned = scan.dtype in (np.uint8, np.uint16)
    if window == "full" and scan.dtype == np.uint8:
        return scan
    if window == "percentile":
        low, high = _percentiles(scan) if unsigned else np.percentile(scan, PERCENTILES)
    elif window == "full":
        low, high = (0, np.iinfo(scan.dtype).max) if unsigned else (scan.min(), scan.max())
    else:
        low, high = (float(part) for part in window.split(","))
    low, high = float(low), float(high)  # their difference may not fit the scan's own type
    if not low < high:
        low, high = float(scan.min()), float(scan.max())
    if not low < high:
        return np.zeros(scan.shape, dtype=np.uint8)
    values = np.arange(np.iinfo(scan.dtype).max + 1) if unsigned else scan
    scaled = np.clip((values.astype(np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
    mapped = np.round(scaled * 255).astype(np.uint8)
    return mapped[scan] if unsigned else mapped


def _percentiles(scan: np.ndarray) -> tuple[float, float]:
    """Return both percentiles of an unsigned scan from its histogram."""
    counts = np.bincount(scan.ravel())
    cumulative = np.cumsum(counts)
    ranks = np.array(PERCENTILES) / 100 * (cumulative[-1] - 1)
    low, high = np.searchsorted(cumulative, ranks, side="right")
    return float(low), float(high)


def resize(slices: np.ndarray, size: int) -> torch.Tensor:
    """Resize all slices at once, bilinear with antialiasing.

    Args:
        slices: uint8 (N, H, W) or (N, H, W, 3).
        size: side of the square result in pixels.

    Returns:
        uint8 (N, 1, size, size) or (N, 3, size, size).
    """
    tensor = torch.from_numpy(np.ascontiguousarray(slices))
    tensor = tensor[:, None] if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2).contiguous()
    if tensor.shape[-2:] == (size, size):
        return tensor
    return F.interpolate(tensor, (size, size), mode="bilinear", antialias=True)


def pick_slices(found: int, wanted: int, sampling: str) -> np.ndarray:
    """Return which of `found` slices to take: all where they are at most `wanted`, else `wanted`.

    `uniform` spreads them evenly from the first to the last slice, `middle` takes the central
    ones; both keep the order, and one slice alone is the middle one.
    """
    if found <= wanted:
        return np.arange(found)
    if sampling == "middle" or wanted == 1:
        return np.arange(wanted) + (found - wanted) // 2
    return np.round(np.linspace(0, found - 1, wanted)).astype(int)


def augment(slices: torch.Tensor, rng: np.random.Generator,
            augmentation: Augmentation) -> torch.Tensor:
    """Apply one random light transform to all slices of a scan alike.

    Flips along each named axis with probability 1/2. Jitter of strength 1: rotation up to 10
    degrees, scale 0.9 to 1.1, shift up to 5 % of the side, gain 0.9 to 1.1 and offset up to 5 % of
    the grey range (black stays black).

    Args:
        slices: uint8 (N, C, H, W); an image is a volume of one slice.
        rng: where all randomness comes from.
        augmentation: axes of flips and strength of jitter.

    Returns:
        uint8 (N, C, H, W).
    """
    dims = [dim for letter, dim in (("z", 0), ("v", 2), ("h", 3))
            if letter in augmentation.flips and rng.random() < 0.5]
    flipped = torch.flip(slices, dims)
    if not augmentation.jitter:
        return flipped
    angle, scale, x, y, gain, offset = rng.uniform(-1, 1, size=6) * augmentation.jitter
    angle, scale = np.deg2rad(10 * angle), 1.1 ** scale
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    theta = torch.tensor([[cos, -sin, 0.1 * x], [sin, cos, 0.1 * y]], dtype=torch.float32)
    moved = flipped.float().flatten(0, 1)[None]
    grid = F.affine_grid(theta[None], list(moved.shape), align_corners=False)
    moved = F.grid_sample(moved, grid, padding_mode="zeros", align_corners=False)
    moved = (moved * 1.1 ** gain + 0.05 * 255 * offset * (moved > 0)).clamp(0, 255)
    return moved.round().to(torch.uint8).reshape(slices.shape)


def to_input(slices: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Turn uint8 slices into the backbone's input, on the slices' own device.

    Args:
        slices: uint8 (n, 1 or 3, H, W).
        mean, std: of the three channels, on the 0..1 scale.

    Returns:
        float32 (n, 3, H, W), channels last in memory.
    """
    scaled = slices.float().div_(255).expand(-1, 3, -1, -1)
    shape = (1, 3, 1, 1)
    result = (scaled - scaled.new_tensor(mean).view(shape)) / scaled.new_tensor(std).view(shape)
    return result.contiguous(memory_format=torch.channels_last)
