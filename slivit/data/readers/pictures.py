"""Pictures, and volumes of them: PNG, JPEG, BMP, TIFF, GIF, WebP and JPEG 2000 by Pillow.

What it lacks is read by tifffile and imagecodecs.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageOps

from slivit.data.readers.base import (
    Header,
    Pick,
    ReadError,
    Volume,
    check_same_size,
    check_values,
    grey_if_equal,
    picked,
    reason,
)
from slivit.data.readers.jpeg2000 import decode, deep_type
from slivit.data.readers.members import SliceFile
from slivit.data.readers.picture_ends import check_end
from slivit.data.readers.tiff import TIFF_SUFFIXES, read_pages, silence

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".jp2", ".j2k",
                    *TIFF_SUFFIXES)
# Near the end of a whole file.
ENDINGS = {"PNG": b"IEND", "JPEG": b"\xff\xd9", "JPEG2000": b"\xff\xd9"}
ORIENTATION = 274  # number of the tag in EXIF and TIFF; 5 and more: height and width swapped
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF
DTYPES = {"I": "int32", "F": "float32"}


def read_picture(path: SliceFile) -> np.ndarray:
    """Read a picture file.

    Returns:
        (H, W) for grey or (H, W, 3) for colour; uint8, or the file's own type where it has more
        than 8 bits. Palettes are resolved, transparency is dropped, a colour picture with three
        equal channels is grey, and EXIF orientation is applied.

    Raises:
        ReadError: missing, truncated, not a picture, with several pages or frames, or with NaN.
    """
    return _guarded(path, lambda picture, file: check_values(_to_array(picture, path, file), path),
                    lambda pages: check_values(read_pages(pages, path, None)[0], path))


def picture_header(path: SliceFile) -> Header:
    """Return the header of a picture file.

    A file that seems to be truncated is decoded, so that only what cannot be read is refused.

    Raises:
        ReadError: see `read_picture`.
    """
    def look(picture: Image.Image, file: BinaryIO) -> Header:
        turned = "exif" in picture.info and picture.getexif().get(ORIENTATION, 1) >= 5
        height, width = picture.size if turned else picture.size[::-1]
        dtype = DTYPES.get(picture.mode, "uint8")
        if picture.mode.startswith("I;16") or _is_deep(picture):
            dtype = "uint16"
        if picture.format == "JPEG2000":
            dtype = deep_type(_content(file)) or dtype
        if not _is_whole(picture, file):
            _to_array(picture, path, file)
        grey = picture.mode in ("L", "1", "LA", "I", "F") or picture.mode.startswith("I;16") or (
            _is_deep(picture) and picture.tile[0][3].startswith("LA")) or (  # made RGBA
            picture.mode == "P" and _has_grey_palette(picture))
        return Header("pictures", (height, width) if grey else (height, width, 3), dtype)

    def look_at_pages(pages: tifffile.TiffFile) -> Header:
        image = read_pages(pages, path, None)[0]
        return Header("pictures", image.shape, str(image.dtype))

    return _guarded(path, look, look_at_pages)


def _guarded(path: SliceFile, look: callable, look_at_pages: callable) -> object:
    """Open a picture and look at it; a TIFF that Pillow does not know by tifffile."""
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        raise ReadError(f"{path}: is not one of {', '.join(PICTURE_SUFFIXES)}")
    silence()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of odd tags
            return _opened(path, look, look_at_pages)
    except FileNotFoundError:
        raise ReadError(f"{path}: does not exist") from None
    except ReadError:
        raise
    except Exception as error:  # the libraries raise a dozen kinds for a damaged file
        raise ReadError(f"{path}: cannot be read as an image ({reason(error, path)})") from None


def _opened(path: SliceFile, look: callable, look_at_pages: callable) -> object:
    try:
        # Of a path Pillow maps some TIFFs into memory, and garbles those to be turned.
        with path.open("rb") as file, Image.open(file) as picture:
            if picture.format == "TIFF" and _is_garbled(picture):
                raise Image.UnidentifiedImageError
            if getattr(picture, "n_frames", 1) > 1:
                what = "pages, expected one picture" if picture.format == "TIFF" else (
                    "frames, expected one frame")
                raise ReadError(f"{path}: has {picture.n_frames} {what}")
            return look(picture, file)
    except Image.UnidentifiedImageError:
        if path.suffix.lower() not in TIFF_SUFFIXES:
            raise
        with path.open("rb") as file, tifffile.TiffFile(file) as pages:
            if len(pages.pages) > 1:
                raise ReadError(f"{path}: has {len(pages.pages)} pages, expected one "
                                "picture") from None
            return look_at_pages(pages)


def _is_garbled(picture: Image.Image) -> bool:
    """Return whether Pillow reads a TIFF of more than 8 bits wrong.

    It makes bytes of colours, swaps those of some big-endian grey values that are packed, does not
    invert values of which 0 is white, and takes uint32 for int32 and int8 for uint8. All such, and
    whatever else has other than 8 unsigned bits, goes to tifffile.
    """
    tags = picture.tag_v2
    bits, kind = max(tags.get(BITS, (1,))), np.max(tags.get(SAMPLE_FORMAT, 1))
    swapped = tags.prefix == b"MM" and tags.get(ORIENTATION, 1) == 1
    return bits > 8 and (picture.mode in ("RGB", "RGBA") or swapped
                         or tags.get(PHOTOMETRIC) == 0) or (bits, kind) in ((32, 1), (8, 2))


def _is_deep(picture: Image.Image) -> bool:
    """Return whether a PNG has colours or transparency of 16 bits, of which Pillow keeps 8."""
    return picture.format == "PNG" and picture.mode in ("RGB", "RGBA", "LA") and any(
        ";16" in str(tile[3]) for tile in picture.tile)


def _has_grey_palette(picture: Image.Image) -> bool:
    colours = np.reshape(picture.getpalette("RGB"), (-1, 3))
    return bool((colours == colours[:, :1]).all())


def _content(file: BinaryIO, start: int = 0) -> bytes:
    """Return the bytes of a file from a place on; its position stays."""
    place = file.tell()
    file.seek(start)
    content = file.read()
    file.seek(place)
    return content


def _length(file: BinaryIO) -> int:
    place = file.tell()
    length = file.seek(0, 2)
    file.seek(place)
    return length


def _is_whole(picture: Image.Image, file: BinaryIO) -> bool:
    """Return whether a picture file is certainly not truncated, from its end or its tags."""
    if picture.format == "WEBP":
        return True  # Pillow does not open it otherwise
    size = _length(file)
    if picture.format == "TIFF":
        starts = picture.tag_v2.get(273, picture.tag_v2.get(324, ()))
        counts = picture.tag_v2.get(279, picture.tag_v2.get(325, ()))
        return bool(starts) and len(starts) == len(counts) and all(
            start + count <= size for start, count in zip(starts, counts, strict=True))
    ending = ENDINGS.get(picture.format)
    return ending is not None and ending in _content(file, max(0, size - 1024))


def _to_array(picture: Image.Image, path: SliceFile, file: BinaryIO) -> np.ndarray:
    raw = _raw_pixels(picture, file)
    if raw is not None:
        return raw
    check_end(picture.format, _content(file))
    if _is_deep(picture):
        if picture.getexif().get(ORIENTATION, 1) != 1:
            raise ReadError(f"{path}: is a 16-bit PNG rotated by its EXIF tag; save it upright")
        values = imagecodecs.png_decode(_content(file))
        return values[..., 0] if values.shape[-1] == 2 else grey_if_equal(values[..., :3])
    if picture.format == "JPEG2000" and deep_type(content := _content(file)):
        return decode(content)
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("L", "1"):
        return np.array(picture.convert("L"))
    if picture.mode == "LA":
        return np.array(picture)[..., 0]
    if picture.mode.startswith("I;16"):
        return np.array(picture).astype(np.uint16)
    if picture.mode in ("I", "F"):
        return np.array(picture)
    return grey_if_equal(np.array(picture.convert("RGB")))


def _raw_pixels(picture: Image.Image, file: BinaryIO) -> np.ndarray | None:
    """Return the pixels of an 8-bit grey TIFF that lie in the file as they are; else None.

    Twice as fast as to have Pillow decode them; OCT volumes are often stored so.
    """
    if picture.format != "TIFF" or picture.mode != "L" or picture.tag_v2.get(ORIENTATION, 1) != 1:
        return None
    width, height = picture.size
    row = 0
    start = picture.tile[0].offset if picture.tile else 0
    for codec, (left, top, right, bottom), offset, args in picture.tile:
        if (codec != "raw" or args != ("L", 0, 1) or (left, right, top) != (0, width, row)
                or offset != start + row * width):
            return None
        row = bottom
    if row != height:
        return None
    pixels = np.empty((height, width), np.uint8)
    file.seek(start)
    return pixels if file.readinto(pixels) == pixels.size else None


def read_picture_folder(path: Path, files: Sequence[SliceFile], pick: Pick | None = None
                        ) -> Volume:
    """Read a volume whose slices are picture files, in this order.

    Raises:
        ReadError: one cannot be read; sizes or types differ.
    """
    slices = [read_picture(files[i]) for i in picked(len(files), pick)]
    if any(piece.ndim == 3 for piece in slices):
        slices = [piece if piece.ndim == 3 else np.repeat(piece[..., None], 3, axis=-1)
                  for piece in slices]
    check_same_size([piece.shape for piece in slices], path)
    _check_types({str(piece.dtype) for piece in slices}, path)
    return Volume(np.stack(slices))


def picture_folder_header(path: Path, files: Sequence[SliceFile]) -> Header:
    """Return the header of such a volume.

    Raises:
        ReadError: see `read_picture_folder`.
    """
    headers = [picture_header(file) for file in files]
    check_same_size([header.shape for header in headers], path)
    _check_types({header.dtype for header in headers}, path)
    colour = (3,) if any(len(header.shape) == 3 for header in headers) else ()
    return Header("pictures", (len(files), *headers[0].shape[:2], *colour), headers[0].dtype)


def _check_types(types: set[str], path: Path) -> None:
    if len(types) > 1:
        raise ReadError(f"{path}: slices differ in type ({', '.join(sorted(types))}), expected the "
                        "same number of bits in all")
