"""DICOM: folders of single slices, and multi-frame files, by pydicom."""

import functools
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from slivit.data.readers.base import (
    Header,
    Pick,
    ReadError,
    Volume,
    check_same_size,
    picked,
    reason,
)
from slivit.data.readers.dicom_check import (
    check_length,
    check_pixel_fields,
    count_frames,
    image_shape,
)
from slivit.data.readers.dicom_geometry import Geometry, frame_geometry, slice_geometry
from slivit.data.readers.dicom_values import stored_pixels, volume_of
from slivit.data.readers.members import SliceFile, head_of, read_dicom, source_of

SUFFIXES = (".dcm", ".dicom", ".ima")
DICOM_ROOT = "1.2.840.10008."  # of all its UIDs, which a truncated one may be the beginning of
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def is_dicom(path: SliceFile) -> bool:
    """Return whether a file is DICOM by its suffix, or by the four letters at byte 128."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        return head_of(path, 132)[128:] == b"DICM" and path.name.upper() != "DICOMDIR"
    except OSError:
        return False


def _refuse_damage(look: Callable) -> Callable:
    """Turn what damaged header values lead to into a ReadError that names the file or folder."""
    @functools.wraps(look)
    def guarded(path: Path, *args: object) -> object:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pydicom's, of odd but readable headers
                return look(path, *args)
        except ReadError:
            raise
        except Exception as error:  # pydicom raises many kinds for a damaged header
            raise ReadError(f"{path}: its DICOM header is damaged ({reason(error, path)})"
                            ) from None
    return guarded


@_refuse_damage
def folder_header(path: Path, files: Sequence[SliceFile]) -> Header:
    """Return the header of a folder, or an archive, that holds one series.

    Raises:
        ReadError: a file that is truncated or not DICOM; several series, sizes or orientations;
            two slices at one place.
    """
    if len(slices := _open_series(path, files)) == 1 and count_frames(slices[0]) > 1:
        return header(source_of(slices[0]))
    return _header(slices[0], len(slices), slice_geometry(slices, path))


@_refuse_damage
def read_folder(path: Path, files: Sequence[SliceFile], pick: Pick | None = None) -> Volume:
    """Read the series in a folder or archive: one slice a file, sorted by position along a normal.

    Rows and columns stay as they are stored. Values are rescaled (CT: Hounsfield units), and
    MONOCHROME1 is inverted.

    Raises:
        ReadError: see `folder_header`; or pixels that cannot be decoded.
    """
    if len(slices := _open_series(path, files)) == 1 and count_frames(slices[0]) > 1:
        return read(source_of(slices[0]), pick)
    geometry = slice_geometry(slices, path)
    slices = [slices[geometry.order[i]] for i in picked(len(slices), pick)]
    return volume_of([stored_pixels(piece) for piece in slices], slices, geometry, path)


@_refuse_damage
def header(path: SliceFile) -> Header:
    """Return the header of a multi-frame file.

    Raises:
        ReadError: missing, not DICOM, truncated, or of a single frame.
    """
    dataset = _open_frames(path)
    return _header(dataset, count_frames(dataset), frame_geometry(dataset, path))


@_refuse_damage
def read(path: SliceFile, pick: Pick | None = None) -> Volume:
    """Read a multi-frame file (ultrasound, OCT, enhanced CT and MR).

    Frames that have positions are sorted by them; others stay as they are stored.

    Raises:
        ReadError: see `header`; or pixels that cannot be decoded.
    """
    dataset = _open_frames(path)
    geometry = frame_geometry(dataset, path)
    order = geometry.order[picked(count_frames(dataset), pick)]
    frames = stored_pixels(dataset)[order]
    scales = [(geometry.scales or [dataset] * count_frames(dataset))[i] for i in order]
    return volume_of(list(frames), scales, geometry, path, dataset)


@_refuse_damage
def read_image(path: Path) -> np.ndarray:
    """Read a single-frame file as an image (H, W) or (H, W, 3).

    Raises:
        ReadError: as `read`; or of several frames.
    """
    dataset = _open_image(path)
    return volume_of([stored_pixels(dataset).reshape(image_shape(dataset))], [dataset], Geometry(),
                   path).slices[0]


@_refuse_damage
def image_header(path: Path) -> Header:
    """Return the header of a single-frame file; errors as `read_image`."""
    dataset = _open_image(path)
    header = _header(dataset, 1, Geometry())
    return Header("dicom", header.shape[1:], header.dtype, modality=header.modality)


def _open(path: SliceFile) -> Dataset:
    """Read all but the pixels, and check that these are all there."""
    if not path.exists():
        raise ReadError(f"{path}: does not exist")
    try:
        forced = path.suffix.lower() in SUFFIXES  # old files have no preamble
        dataset = read_dicom(path, force=forced)
    except ReadError:  # of an archive
        raise
    except Exception as error:  # pydicom raises many kinds for a damaged file
        raise ReadError(f"{path}: cannot be read as DICOM ({reason(error, path)})") from None
    if "Rows" in dataset and "SamplesPerPixel" not in dataset:
        dataset.SamplesPerPixel = 1
    if _has_pixels(dataset):
        check_pixel_fields(dataset, path)
    if "Rows" in dataset and "PixelData" in dataset:
        check_length(dataset, path)
    return dataset


def _has_pixels(dataset: Dataset) -> bool:
    return "Rows" in dataset and any(name in dataset for name in PIXELS)


def _is_something_else(dataset: Dataset) -> bool:
    """Return whether a file says that it is not an image, as reports and presentation states do.

    One of no known kind is a damaged image: only makers' own kinds (private) have no name.
    """
    kind = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    return ("Rows" not in dataset and kind is not None and kind.is_valid
            and (kind.type == "SOP Class" or kind.is_private and not DICOM_ROOT.startswith(kind))
            and not kind.name.endswith("Image Storage"))


def _open_frames(path: SliceFile) -> Dataset:
    dataset = _open(path)
    if not _has_pixels(dataset):
        raise ReadError(f"{path}: contains no pixels; it is truncated, or not a DICOM image")
    if count_frames(dataset) == 1:
        raise ReadError(f"{path}: is a DICOM file of one frame, expected several; for a series of "
                        "such files, give their folder")
    return dataset


def _open_image(path: Path) -> Dataset:
    dataset = _open(path)
    if not _has_pixels(dataset):
        raise ReadError(f"{path}: contains no pixels; it is truncated, or not a DICOM image")
    if count_frames(dataset) > 1:
        raise ReadError(f"{path}: has {count_frames(dataset)} frames, expected one image")
    return dataset


def _open_series(path: Path, files: Sequence[SliceFile]) -> list[Dataset]:
    """Open the images among the files, which have to be of one series and size."""
    datasets = []
    for file in files:
        if _is_something_else(dataset := _open(file)):
            continue
        if not _has_pixels(dataset):
            raise ReadError(f"{file}: contains no pixels; it is truncated, or not a DICOM image")
        datasets.append(dataset)
    if not datasets:
        raise ReadError(f"{path}: none of its {len(files)} DICOM files is an image")
    series = Counter(str(dataset.get("SeriesInstanceUID", "unknown")) for dataset in datasets)
    if len(series) > 1:
        first = {str(dataset.get("SeriesInstanceUID", "unknown")): dataset
                 for dataset in reversed(datasets)}
        listed = "; ".join(
            f"{uid} ({first[uid].get('Modality', '')} "
            f"{str(first[uid].get('SeriesDescription', '')).strip() or 'no description'}, "
            f"{count} files, such as {source_of(first[uid]).name})"
            for uid, count in list(series.items())[:10])
        raise ReadError(f"{path}: contains {len(series)} series, expected one; put each into its "
                        f"own folder: {listed}{'; ...' if len(series) > 10 else ''}")
    if len(datasets) > 1 and any(count_frames(dataset) > 1 for dataset in datasets):
        raise ReadError(f"{path}: contains {len(datasets)} files, some with several frames; "
                        "expected one multi-frame file, or single slices")
    kinds = {str(dataset.get("PhotometricInterpretation", "MONOCHROME2")) for dataset in datasets}
    if len(kinds) > 1 and not all(kind.startswith(("RGB", "YBR")) for kind in kinds):
        raise ReadError(f"{path}: slices differ in kind ({', '.join(sorted(kinds))}), expected one "
                        "kind")
    check_same_size([image_shape(dataset) for dataset in datasets], path)
    return datasets


def _header(dataset: Dataset, count: int, geometry: Geometry) -> Header:
    bits = max(8, dataset.get("BitsAllocated", 16))  # one-bit masks are read as bytes
    dtype = f"{'int' if dataset.get('PixelRepresentation') else 'uint'}{bits}"
    if "PixelData" not in dataset:
        dtype = "float32" if "FloatPixelData" in dataset else "float64"
    shape = image_shape(dataset)
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        shape, dtype = (*shape[:2], 3), "uint8"
    return Header("dicom", (count, *shape), dtype, geometry.spacing, geometry.axes,
                  str(dataset.get("Modality", "")) or None, geometry.notes)
