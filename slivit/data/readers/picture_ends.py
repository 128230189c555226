"""Damage of pictures that their decoders overlook: ends of zeros, and checksums that are wrong.

A file that was not copied whole often has its full length, with zeros where the rest should be.
Decoders take these for pixels. Of WebP, whose pixels may well end with zeros, nothing can tell.
"""

import zlib

JPEG_PIXELS, JPEG_END, GIF_END = b"\xff\xda", b"\xff\xd9", b"\0;"
PNG_START, END = 8, b"IEND"


def check_end(kind: str, content: bytes) -> None:
    """Refuse a picture file that was damaged or not copied whole, as far as its format tells.

    Args:
        kind: Pillow's name of its format.
        content: all its bytes.

    Raises:
        ValueError: it is.
    """
    if kind == "PNG":
        _check_png(content)
    elif content.endswith(b"\0") and (
            kind == "JPEG" and content.rfind(JPEG_END) < content.rfind(JPEG_PIXELS)
            or kind == "GIF" and not content.rstrip(b"\0").endswith(GIF_END)):
        raise ValueError("it ends with zeros in place of its own end: it was not copied whole")


def _check_png(content: bytes) -> None:
    """Refuse a PNG with a wrong checksum; Pillow does not compare those of pixels."""
    place, name = PNG_START, b""
    while name != END:
        length = int.from_bytes(content[place:place + 4], "big")
        name, chunk = content[place + 4:place + 8], content[place + 4:place + 8 + length]
        place += 12 + length
        if place > len(content) or zlib.crc32(chunk) != int.from_bytes(
                content[place - 4:place], "big"):
            raise ValueError("it is truncated, or a checksum is wrong")
