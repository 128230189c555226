"""Read one image or one volume from disk as a numpy array."""

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from slivit.errors import UserError, listing

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
ARRAY_SUFFIXES = (".npy", ".npz")


class ReadError(UserError):
    """A scan cannot be read; the message names the file and what is wrong with it."""


def natural_key(name: str) -> list[tuple[int, object]]:
    """Return a sorting key that puts `slice2` before `slice10`."""
    return [(0, int(part)) if part.isdecimal() else (1, part.lower())
            for part in re.split(r"(\d+)", name) if part]


def read_image(path: Path) -> np.ndarray:
    """Read a picture file.

    Returns:
        (H, W) for grey or (H, W, 3) for colour; uint8, or uint16, int32 or float32 where the
        file has more than 8 bits. Palettes are resolved, transparency is dropped, a colour
        picture with three equal channels is grey, and EXIF orientation is applied.

    Raises:
        ReadError: missing, truncated, not a picture, with several pages, or with NaN in it.
    """
    path = Path(path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise ReadError(f"{path}: is not one of {', '.join(IMAGE_SUFFIXES)}")
    try:
        with Image.open(path) as picture:
            if getattr(picture, "n_frames", 1) > 1:
                raise ReadError(f"{path}: has {picture.n_frames} pages, expected one picture")
            image = _to_array(ImageOps.exif_transpose(picture))
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            raise ReadError(f"{path}: holds NaN or infinite values")
        return image
    except FileNotFoundError:
        raise ReadError(f"{path}: does not exist") from None
    except ReadError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds for a damaged file
        reason = str(error).replace(f"'{path}'", "").strip() or type(error).__name__
        raise ReadError(f"{path}: cannot be read as an image ({reason})") from None


def _to_array(picture: Image.Image) -> np.ndarray:
    if picture.mode in ("L", "1"):
        return np.array(picture.convert("L"))
    if picture.mode == "LA":
        return np.array(picture)[..., 0]
    if picture.mode.startswith("I;16"):
        return np.array(picture).astype(np.uint16)
    if picture.mode in ("I", "F"):
        return np.array(picture)
    colour = np.array(picture.convert("RGB"))
    grey = colour[..., 0]
    if (grey == colour[..., 1]).all() and (grey == colour[..., 2]).all():
        return np.ascontiguousarray(grey)
    return colour


def read_volume(path: Path) -> np.ndarray:
    """Read a volume: a folder of slice images, or a `.npy` or `.npz` file.

    Slices of a folder are taken in natural order of their names (`2` before `10`).

    Returns:
        (N, H, W) or, in colour, (N, H, W, 3); N slices in order, of the file's own type.

    Raises:
        ReadError: missing, empty, slices of different sizes, not numeric, of another shape.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _read_folder(path)
    except OSError as error:
        raise ReadError(f"{path}: cannot be read ({error.strerror})") from None
    if path.suffix.lower() in ARRAY_SUFFIXES:
        return _read_array(path)
    if not path.exists():
        raise ReadError(f"{path}: does not exist")
    raise ReadError(f"{path}: is not a folder of slices nor one of {', '.join(ARRAY_SUFFIXES)}")


def _read_folder(path: Path) -> np.ndarray:
    files = sorted((file for file in path.iterdir()
                    if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")),
                   key=lambda file: (natural_key(file.name), file.name))
    if not files:
        raise ReadError(f"{path}: holds no slices ({', '.join(IMAGE_SUFFIXES)})")
    slices = [read_image(file) for file in files]
    if any(piece.ndim == 3 for piece in slices):
        slices = [piece if piece.ndim == 3 else np.repeat(piece[..., None], 3, axis=-1)
                  for piece in slices]
    shapes = {piece.shape for piece in slices}
    if len(shapes) > 1:
        sizes = ", ".join(sorted(f"{shape[0]}x{shape[1]}" for shape in shapes))
        raise ReadError(f"{path}: slices differ in size ({sizes}), expected one size a volume")
    types = {str(piece.dtype) for piece in slices}
    if len(types) > 1:
        raise ReadError(f"{path}: slices differ in type ({', '.join(sorted(types))}), expected the "
                        "same number of bits in all")
    return np.stack(slices)


def _read_array(path: Path) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                if len(loaded.files) != 1:
                    raise ReadError(f"{path}: holds {len(loaded.files)} arrays "
                                    f"({', '.join(loaded.files)}), expected one")
                volume = loaded[loaded.files[0]]
        else:
            volume = loaded
    except FileNotFoundError:
        raise ReadError(f"{path}: does not exist") from None
    except ReadError:
        raise
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a damaged file
        raise ReadError(f"{path}: cannot be read as an array ({error})") from None
    if volume.dtype.kind not in "buif":
        raise ReadError(f"{path}: holds {volume.dtype}, expected numbers")
    if volume.ndim != 3 and not (volume.ndim == 4 and volume.shape[-1] == 3):
        raise ReadError(f"{path}: has the shape {volume.shape}, "
                        "expected (slices, height, width) or (slices, height, width, 3)")
    if volume.size == 0:
        raise ReadError(f"{path}: is empty, its shape is {volume.shape}")
    if volume.dtype.kind == "f" and not np.isfinite(volume).all():
        raise ReadError(f"{path}: holds NaN or infinite values")
    return volume.astype(np.uint8) if volume.dtype == bool else volume


def missing_or_unreadable(errors: list[ReadError], total: int) -> UserError:
    """Return the one error that lists every scan that could not be read."""
    return UserError(f"{len(errors)} of {total} scans cannot be read:\n"
                     f"{listing(errors)}\nCorrect the Path column or the files.")
