"""The values of DICOM images: decoded, and rescaled to what they mean."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array
from pydicom.uid import JPEG2000, JPEG2000Lossless, JPEGBaseline8Bit, JPEGExtended12Bit

from slivit.data.readers.base import ReadError, Volume, check_values, grey_if_equal, reason
from slivit.data.readers.dicom_geometry import Geometry
from slivit.data.readers.members import source_of


def _plugin(dataset: Dataset) -> str:
    """Return which of pydicom's decoders is to be used; the empty string for any.

    GDCM, its first, ends the process over some damaged JPEG, and writes to stderr over others.
    Pillow does not, but cannot decode all that GDCM can.
    """
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    bits = dataset.get("BitsStored", 0)
    is_jpeg = syntax in (JPEGBaseline8Bit, JPEGExtended12Bit) and bits == 8
    is_jpeg2000 = syntax in (JPEG2000Lossless, JPEG2000) and (
        bits <= 8 or bits <= 16 and dataset.SamplesPerPixel == 1)
    return "pillow" if is_jpeg or is_jpeg2000 else ""


def stored_pixels(dataset: Dataset) -> np.ndarray:
    """Return stored values, (H, W) or (N, H, W), in colour with a last axis of 3 (RGB).

    Raises:
        ReadError: they cannot be decoded.
    """
    path = source_of(dataset)
    try:
        return pixel_array(dataset, decoding_plugin=_plugin(dataset))
    except ReadError:  # of an archive
        raise
    except Exception as error:  # pydicom and its codecs raise many kinds
        raise ReadError(f"{path}: its pixels cannot be decoded ({reason(error, path)})") from None


def volume_of(frames: list[np.ndarray], headers: Sequence[Dataset], geometry: Geometry,
            path: Path, about: Dataset | None = None) -> Volume:
    """Return a volume of stored values, rescaled (CT: Hounsfield units), MONOCHROME1 inverted.

    Args:
        frames: of `stored_pixels`, (H, W) or (H, W, 3) each.
        headers: of each frame, for its own slope and intercept.
        geometry: gives spacing and axes.
        path: for the message.
        about: the header that says what the values are; default the first.

    Raises:
        ReadError: there are NaN or infinite values.
    """
    first = headers[0] if about is None else about
    kind = str(first.get("PhotometricInterpretation", "MONOCHROME2"))
    if kind == "PALETTE COLOR":
        frames = [apply_color_lut(frame, first) for frame in frames]
        return Volume(_colour(np.stack(frames)), geometry.spacing, geometry.axes)
    values = np.stack(frames)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.ndim == 4:
        return Volume(_colour(values), geometry.spacing, geometry.axes)
    if kind == "MONOCHROME1":
        bits = int(first.get("BitsStored", 8 * values.dtype.itemsize))
        top = -1 if values.dtype.kind == "i" else 2 ** bits - 1
        values = top - values if values.dtype.kind != "f" else -values
    if any("ModalityLUTSequence" in one for one in headers):
        values = np.stack([apply_modality_lut(frame, one)
                           for frame, one in zip(values, headers, strict=True)])
    else:
        values = _rescale(values, headers)
    return Volume(check_values(values, path), geometry.spacing, geometry.axes)


def _rescale(values: np.ndarray, headers: Sequence[Dataset]) -> np.ndarray:
    """Apply slope and intercept; whole numbers stay whole."""
    slopes, intercepts = (np.array([float(default if one.get(name) in (None, "") else one.get(name))
                                    for one in headers])
                          for name, default in (("RescaleSlope", 1), ("RescaleIntercept", 0)))
    if (slopes == 1).all() and (intercepts == 0).all():
        return values
    scaled = values * slopes[:, None, None] + intercepts[:, None, None]
    whole = values.dtype.kind in "iu" and not (slopes % 1).any() and not (intercepts % 1).any()
    for dtype in (np.int16, np.int32) if whole else ():
        if np.iinfo(dtype).min <= scaled.min() and scaled.max() <= np.iinfo(dtype).max:
            return scaled.astype(dtype)
    return scaled.astype(np.float32)


def _colour(values: np.ndarray) -> np.ndarray:
    if values.dtype != np.uint8:
        values = (values >> (8 * values.dtype.itemsize - 8)).astype(np.uint8)
    return grey_if_equal(values)
