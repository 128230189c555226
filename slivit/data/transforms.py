"""From grey values of any type to uint8 slices of one size, and the augmentation for training."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from slivit.config import Augmentation

PERCENTILES = (2.0, 98.0)
CHUNK = 1 << 16  # values counted at a time, so that they stay in the processor's cache
FLIPPED_AXES = {  # of (N, C, H, W), per view: what a flip along an axis of the axial view turns
    "axial": {"z": 0, "v": 2, "h": 3},
    "coronal": {"z": 2, "v": 0, "h": 3},
    "sagittal": {"z": 2, "v": 3, "h": 0},
}


def window_range(scan: np.ndarray, window: str) -> tuple[float, float]:
    """Return the lowest and the highest grey value that a window tells apart.

    Args:
        scan: a whole image or volume; integers or finite floats.
        window: `percentile`, the 2nd to the 98th (contrast stretch of the SLIViT paper, Methods);
            `full`, the range of an unsigned type, the scan's own range otherwise; or `LOW,HIGH`.

    Returns:
        low < high; where both percentiles are equal, the scan's own range; (v, v) if constant.
    """
    if window == "percentile":
        low, high = _percentiles(scan)
        if low == high:
            low, high = float(scan.min()), float(scan.max())
        return low, high
    if window == "full":
        if has_fixed_range(scan.dtype):
            return 0.0, float(np.iinfo(scan.dtype).max)
        return float(scan.min()), float(scan.max())
    low, high = (float(part) for part in window.split(","))
    return low, high


def has_fixed_range(dtype: np.dtype) -> bool:
    """Return whether the window `full` is the range of the type, not that of the scan."""
    return dtype.kind == "u" and dtype.itemsize <= 2


def to_uint8(slices: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map grey values linearly from low..high to 0..255 and clip; 0 where low equals high.

    Types of up to 16 bits go through a table, which is the same and faster.
    """
    if not low < high:
        return np.zeros(slices.shape, dtype=np.uint8)
    small = slices.dtype.kind in "iu" and slices.dtype.itemsize <= 2
    values = _all_values(slices.dtype) if small else slices
    scaled = (values.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    mapped = np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    if not small:
        return mapped
    if slices.dtype != np.uint8:
        return mapped[slices.view(f"u{slices.dtype.itemsize}")]
    if (mapped == values).all():
        return slices
    flat = bytearray(np.ascontiguousarray(slices).reshape(-1))
    return np.frombuffer(flat.translate(mapped.tobytes()), np.uint8).reshape(slices.shape)


def _all_values(dtype: np.dtype) -> np.ndarray:
    """Return every value of an integer type, in the order of its bit pattern."""
    return np.arange(256 ** dtype.itemsize).astype(f"u{dtype.itemsize}").view(dtype)


def _percentiles(scan: np.ndarray) -> tuple[float, float]:
    """Return the 2nd and 98th percentile, each a value of the scan (the lower of two)."""
    ranks = np.array(PERCENTILES) / 100 * (scan.size - 1)
    if scan.dtype == np.uint8:
        rows = np.ascontiguousarray(scan).reshape(len(scan), -1)
        counts = np.sum([Image.fromarray(rows[i:i + 1]).histogram() for i in range(len(rows))],
                        axis=0)
    elif scan.dtype.kind in "iu" and scan.dtype.itemsize <= 2:
        flat = np.ascontiguousarray(scan).ravel().view(f"u{scan.dtype.itemsize}")
        size = 256 ** scan.dtype.itemsize
        counts = sum(np.bincount(flat[i:i + CHUNK], minlength=size)
                     for i in range(0, len(flat), CHUNK))
    else:
        low, high = np.percentile(scan, PERCENTILES, method="lower")
        return float(low), float(high)
    values = _all_values(scan.dtype)
    order = np.argsort(values, kind="stable")
    which = np.searchsorted(np.cumsum(counts[order]), np.floor(ranks), side="right")
    low, high = values[order[which]]
    return float(low), float(high)


def resize(slices: torch.Tensor, size: int) -> torch.Tensor:
    """Resize slices, bilinear with antialiasing, on their own device.

    Args:
        slices: uint8 (N, C, H, W).
        size: side of the square result in pixels.

    Returns:
        uint8 (N, C, size, size).
    """
    count, channels = slices.shape[:2]
    if slices.shape[-2:] == (size, size) or not count:
        return slices.reshape(count, channels, *(slices.shape[-2:] if count else (size, size)))
    if slices.device.type != "cpu":  # only the CPU resizes bytes
        resized = F.interpolate(slices.float(), (size, size), mode="bilinear", antialias=True)
        return resized.round_().clamp_(0, 255).to(torch.uint8)
    # Four grey slices at a time, as if they were channels: three times as fast as one.
    group = 4 if channels == 1 else 1
    filled = F.pad(slices, (0, 0, 0, 0, 0, 0, 0, -count % group)) if count % group else slices
    grouped = filled.reshape(-1, group * channels, *slices.shape[-2:])
    resized = F.interpolate(grouped, (size, size), mode="bilinear", antialias=True)
    return resized.reshape(-1, channels, size, size)[:count]


def pick_slices(count: int, wanted: int, sampling: str) -> np.ndarray:
    """Return which of `found` slices to take: all where they are at most `wanted`, else `wanted`.

    `uniform` spreads them evenly from the first to the last slice, `middle` takes the central
    ones; both keep the order, and one slice alone is the middle one.
    """
    if count <= wanted:
        return np.arange(count)
    if sampling == "middle" or wanted == 1:
        return np.arange(wanted) + (count - wanted) // 2
    return np.round(np.linspace(0, count - 1, wanted)).astype(int)


def draw_transform(rng: np.random.Generator, augmentation: Augmentation) -> torch.Tensor:
    """Draw one random light transform of a scan.

    Flips along each named axis with probability 1/2. Jitter of strength 1: rotation up to 10
    degrees, scale 0.9 to 1.1, shift up to 5 % of the side, gain 0.9 to 1.1 and offset up to 5 % of
    the grey range (black stays black).

    Returns:
        float64 (9,), as `augment` takes it: whether to flip z, v and h (0 or 1), then angle, scale,
        shift in x and y, gain and offset, each in -jitter..jitter.
    """
    flips = [float(letter in augmentation.flips and rng.random() < 0.5) for letter in "zvh"]
    jitter = rng.uniform(-1, 1, size=6) if augmentation.jitter else np.zeros(6)
    return torch.tensor([*flips, *jitter * augmentation.jitter], dtype=torch.float64)


def augment(slices: torch.Tensor, transform: torch.Tensor, view: str = "acquisition"
            ) -> torch.Tensor:
    """Apply a transform to all slices of a scan alike, on their own device.

    Args:
        slices: uint8 (N, C, H, W) of one view; an image is a volume of one slice.
        transform: of `draw_transform`, on the CPU.
        view: of the slices. The letters of a flip are axes of the axial view (h left-right, v
            front-back, z foot-head), so that all views of a volume are flipped alike.

    Returns:
        uint8 (N, C, H, W).
    """
    axes = FLIPPED_AXES.get(view, FLIPPED_AXES["axial"])
    flips = [axes[letter] for letter, flip in zip("zvh", transform[:3].tolist(), strict=True)
             if flip]
    flipped = torch.flip(slices, flips) if flips else slices
    angle, scale, x, y, gain, offset = transform[3:].numpy()
    if not transform[3:].any():
        return flipped
    angle, scale = np.deg2rad(10 * angle), 1.1 ** scale
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    theta = torch.tensor([[cos, -sin, 0.1 * x], [sin, cos, 0.1 * y]], dtype=torch.float32)
    moved = flipped.float().flatten(0, 1)[None]
    grid = F.affine_grid(theta[None].to(slices.device), list(moved.shape), align_corners=False)
    moved = F.grid_sample(moved, grid, padding_mode="zeros", align_corners=False)
    moved = (moved * 1.1 ** gain + 0.05 * 255 * offset * (moved > 0)).clamp(0, 255)
    return moved.round().to(torch.uint8).reshape(slices.shape)


def adjacent(slices: torch.Tensor) -> torch.Tensor:
    """Give every slice its neighbours as channels: the one before it, itself, the one after it.

    Args:
        slices: uint8 (N, 1 or 3, H, W), one view of one volume; of colours, the mean is taken.

    Returns:
        uint8 (N, 3, H, W); the first and the last slice are their own missing neighbours.
    """
    if slices.shape[1] > 1:
        slices = slices.float().mean(dim=1, keepdim=True).round().to(torch.uint8)
    return torch.cat([slices[:1], slices, slices[-1:]])[:, 0].unfold(0, 3, 1).movedim(-1, 1)


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
