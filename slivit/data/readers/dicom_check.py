"""What a DICOM header says of its pixels: refused where no codec could decode them so."""

import math

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.pixels.common import PhotometricInterpretation

from slivit.data.readers.base import ReadError
from slivit.data.readers.members import SliceFile, length_of

LARGEST = 1e9  # of slope and intercept
PALETTE = "RedPaletteColorLookupTableDescriptor"
GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")  # of one sample a pixel
RETIRED = ("HSV", "ARGB", "CMYK", "YBR_PARTIAL_422")  # colours that nothing here makes RGB of
UNDEFINED = 0xFFFFFFFF  # length of compressed pixels, which end with a delimiter
SIDE = range(1, 2**16)  # rows, columns
# Of PixelData, the field, the values that the standard has (PS3.3, C.7.6.3), and in words.
FIELDS = (("BitsAllocated", {1, *range(8, 65, 8)}, "1 or a multiple of 8 up to 64"),
          ("PixelRepresentation", {0, 1}, "0 or 1"))


def check_pixel_fields(dataset: Dataset, path: SliceFile) -> None:
    """Refuse a header whose fields no decoder takes, or whose pixels none here can decode.

    Raises:
        ReadError: naming every field, what was found and what was expected.
    """
    bad = [_fault(dataset, name, SIDE, "1 to 65535") for name in ("Rows", "Columns")]
    bad.append(_fault(dataset, "SamplesPerPixel", {1, 3}, "1 or 3"))
    if "PixelData" in dataset:
        bad += [_fault(dataset, *field) for field in FIELDS]
        bits = dataset.get("BitsAllocated")
        if isinstance(bits, int):
            bad.append(_fault(dataset, "BitsStored", range(1, bits + 1), f"1 to {bits}"))
        if isinstance(stored := dataset.get("BitsStored"), int) and "HighBit" in dataset:
            bad.append(_fault(dataset, "HighBit", {stored - 1}, f"{stored - 1}"))
        bad += [_kind_fault(dataset), _syntax_fault(dataset)]
    frames = dataset.get("NumberOfFrames")
    if frames not in (None, "", 0) and not 1 <= int(frames) < 2**31:
        bad.append(f"NumberOfFrames: found {frames}, expected 1 or more")
    bad += rescale_faults(dataset)
    if bad := [fault for fault in bad if fault]:
        raise ReadError(f"{path}: its DICOM header is damaged, or its pixels cannot be decoded: "
                        f"{'; '.join(bad)}")


def check_length(dataset: Dataset, path: SliceFile) -> None:
    """Refuse uncompressed pixels that are fewer or more than the header says, unread.

    A little more, as some writers pad with, is less than half a frame.
    """
    element = dataset.get_item("PixelData", keep_deferred=True)
    if not isinstance(element, RawDataElement) or element.length == UNDEFINED:
        return
    bits = int(np.prod(image_shape(dataset))) * count_frames(dataset) * int(dataset.BitsAllocated)
    if dataset.get("PhotometricInterpretation") == "YBR_FULL_422":
        bits = bits * 2 // 3  # two pixels share their colour
    there = min(element.length, length_of(path) - element.value_tell)
    if there < max(-(-bits // 8), element.length):
        raise ReadError(f"{path}: is truncated: its pixels take {there} bytes, expected "
                        f"{max(-(-bits // 8), element.length)}")
    if element.length - bits / 8 >= max(2, bits / count_frames(dataset) / 16):
        raise ReadError(f"{path}: its DICOM header is damaged: its pixels take {element.length} "
                        f"bytes, expected {-(-bits // 8)} for {count_frames(dataset)} frames of "
                        f"{dataset.Rows} x {dataset.Columns} pixels, {dataset.SamplesPerPixel} "
                        f"samples of {dataset.BitsAllocated} bits")


def image_shape(dataset: Dataset) -> tuple[int, ...]:
    """Return (H, W) or (H, W, 3) of one frame."""
    colour = (3,) if dataset.SamplesPerPixel == 3 else ()
    return (int(dataset.Rows), int(dataset.Columns), *colour)


def count_frames(dataset: Dataset) -> int:
    """Return the number of frames of a file."""
    return int(dataset.get("NumberOfFrames") or 1)


def _fault(dataset: Dataset, name: str, known: range | set[int], words: str) -> str:
    value = dataset.get(name)
    if value is None:
        return f"{name}: missing, expected {words}"
    return "" if isinstance(value, int) and value in known else (
        f"{name}: found {value}, expected {words}")


def _kind_fault(dataset: Dataset) -> str:
    kind = dataset.get("PhotometricInterpretation")
    known = [one.value for one in PhotometricInterpretation if one.value not in RETIRED]
    if kind not in known:
        return (f"PhotometricInterpretation: {'missing' if kind is None else f'found {kind}'}, "
                f"expected one of {', '.join(known)}")
    samples = 1 if kind in GREY else 3
    if dataset.get("SamplesPerPixel") in (1, 3) and dataset.SamplesPerPixel != samples:
        return f"SamplesPerPixel: found {dataset.SamplesPerPixel}, expected {samples} for {kind}"
    if samples == 3 and dataset.get("PlanarConfiguration", 0) not in (0, 1):
        return f"PlanarConfiguration: found {dataset.PlanarConfiguration}, expected 0 or 1"
    if kind == "PALETTE COLOR" and PALETTE not in dataset and (
            "PaletteColorLookupTableUID" not in dataset):
        return "PhotometricInterpretation: PALETTE COLOR without a palette"
    return ""


def _syntax_fault(dataset: Dataset) -> str:
    syntax = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    if syntax is None:
        return ""  # an old file without a preamble, which is not compressed
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return f"TransferSyntaxUID: found {syntax.name}, which is not supported"
    return "" if decoder.is_available else (
        f"TransferSyntaxUID: found {syntax.name}, for which no codec is installed")


def rescale_faults(dataset: Dataset) -> list[str]:
    """Return what is wrong with a slope, which cannot be 0, and an intercept."""
    bad = []
    for name in ("RescaleSlope", "RescaleIntercept"):
        value = dataset.get(name)
        if value in (None, ""):
            continue
        if not _is_number(value):
            bad.append(f"{name}: found {value}, expected a number")
        elif name == "RescaleSlope" and float(value) == 0:
            bad.append(f"{name}: found 0, which would make all grey values the same")
    return bad


def _is_number(value: object) -> bool:
    try:
        return math.isfinite(float(value)) and abs(float(value)) <= LARGEST
    except (TypeError, ValueError):
        return False
