"""JPEG 2000 of more than 8 bits, by imagecodecs: Pillow scales, shifts or cuts such values."""

import struct

import imagecodecs
import numpy as np

from slivit.data.readers.base import grey_if_equal

START = b"\xff\x4f\xff\x51"  # of a codestream: its size follows
END = b"\xff\xd9"
COMPONENTS = 40              # bytes from there to the number of components, 3 bytes each


def deep_type(content: bytes) -> str | None:
    """Return numpy's name of the type of values of other than 8 unsigned bits or fewer, else None.

    Args:
        content: of a `.jp2` or `.j2k` file.

    Raises:
        ValueError, struct.error: it is damaged.
    """
    start = content.index(START) + COMPONENTS
    count, = struct.unpack_from(">H", content, start)
    depths = [content[start + 2 + 3 * i] for i in range(count)]
    bits, signed = 1 + max(depth & 0x7F for depth in depths), max(depths) > 0x7F
    if bits <= 8 and not signed:
        return None
    return f"{'' if signed else 'u'}int{next(size for size in (8, 16, 32, 64) if bits <= size)}"


def check_end(content: bytes) -> None:
    """Refuse a stream without its end, which imagecodecs overlooks where zeros are in its place.

    Raises:
        ValueError: it has none.
    """
    if content.rfind(END) < content.find(START):
        raise ValueError("its end is missing: it was not copied whole")


def decode(content: bytes) -> np.ndarray:
    """Return the stored values, (H, W) or in colour (H, W, 3); transparency is dropped."""
    check_end(content)
    values = imagecodecs.jpeg2k_decode(content)
    if values.ndim == 2:
        return values
    return values[..., 0] if values.shape[-1] < 3 else grey_if_equal(values[..., :3])
