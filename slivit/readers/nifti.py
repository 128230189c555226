"""NIfTI volumes, by nibabel."""

from pathlib import Path

import nibabel as nib
import numpy as np

from slivit.readers.base import Header, Pick, ReadError, Volume, check_values, picked, reason
from slivit.readers.orientation import PLANES, reorient

SUFFIXES = (".nii", ".nii.gz")
RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
TINY = 1e-12   # mm3 a voxel
SQUARE = 0.01  # relative difference up to which two spacings are the same


def header(path: Path) -> Header:
    """Return the header of a NIfTI file.

    Raises:
        ReadError: missing, not NIfTI, cut off, of other than three dimensions, of one slice.
    """
    image = _open(path)
    whole = image.dataobj.offset + int(np.prod(image.shape)) * image.get_data_dtype().itemsize
    if path.suffix.lower() == ".gz":
        if _unpacked_length(path) != whole % 2**32:
            read(path)  # cut off, or packed in several parts
    elif path.stat().st_size < whole:
        raise ReadError(f"{path}: is cut off: {path.stat().st_size} bytes, expected {whole}")
    axes, spacing, shape = _geometry(image)
    colour = (3,) if image.get_data_dtype() == RGB else ()
    return Header("nifti", shape + colour, "uint8" if colour else str(image.get_data_dtype()),
                  spacing, axes)


def read(path: Path, pick: Pick | None = None) -> Volume:
    """Read a NIfTI file.

    Whatever way the file stores them, slices come as a scanner shows them: those of the
    acquisition (see `acquisition_plane`), from the feet to the head, the patient's left on the
    right of the picture, the front or the head up.

    Raises:
        ReadError: see `header`; or truncated, or with NaN in it.
    """
    image = _open(path)
    axes, spacing, _ = _geometry(image)
    try:
        values = np.asanyarray(image.dataobj)
    except Exception as error:  # gzip, zlib and numpy raise several kinds for a damaged file
        raise ReadError(f"{path}: cannot be read as NIfTI ({reason(error, path)})") from None
    values = values.reshape(image.shape[:3])
    if values.dtype == RGB:
        values = np.stack([values[name] for name in "RGB"], axis=-1)
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    slices = reorient(values, "".join(nib.aff2axcodes(image.affine)), axes)
    return Volume(check_values(slices[picked(len(slices), pick)], path), spacing, axes)


def acquisition_plane(spacing: tuple[float, ...], slice_axis: int | None) -> str:
    """Return the plane in which a NIfTI volume was acquired, as far as it tells.

    The axis that the header names (`dim_info`); else the one whose spacing differs while the
    other two are the same; else the one with the largest spacing; axial where all are the same.

    Args:
        spacing: mm between voxels to the right, to the front and to the head.
        slice_axis: of those three, where the header names it.
    """
    if slice_axis is None:
        others = ((1, 2), (0, 2), (0, 1))
        odd = [axis for axis, (a, b) in enumerate(others)
               if np.isclose(spacing[a], spacing[b], rtol=SQUARE)]
        slice_axis = {0: int(np.argmax(spacing)), 1: odd[0] if odd else 2}.get(len(odd), 2)
    return ("sagittal", "coronal", "axial")[slice_axis]


def _open(path: Path) -> nib.Nifti1Image:
    if not path.exists():
        raise ReadError(f"{path}: does not exist")
    try:
        image = nib.load(path)
    except Exception as error:  # nibabel raises several kinds for a damaged file
        raise ReadError(f"{path}: cannot be read as NIfTI ({reason(error, path)})") from None
    shape = image.shape
    if len(shape) < 3 or 1 in shape[:3]:
        raise ReadError(f"{path}: has the shape {shape}, which is one slice; expected a volume of "
                        "at least two")
    if any(side != 1 for side in shape[3:]):
        raise ReadError(f"{path}: has the shape {shape}, expected three dimensions; save each "
                        "volume of a series as a file of its own")
    if 0 in shape:
        raise ReadError(f"{path}: is empty, its shape is {shape}")
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine)) < TINY:
        raise ReadError(f"{path}: its affine gives the axes no directions; expected three "
                        "directions of more than 0 mm a voxel. Save it with a correct one")
    dtype = image.get_data_dtype()
    if dtype != RGB and dtype.kind not in "uif":
        raise ReadError(f"{path}: holds {dtype}, expected numbers, or RGB of 8 bits")
    return image


def _unpacked_length(path: Path) -> int:
    """Return the number of bytes in (the last part of) a gzip file, modulo 2**32."""
    with path.open("rb") as file:
        file.seek(-4, 2)
        return int.from_bytes(file.read(4), "little")


def _geometry(image: nib.Nifti1Image) -> tuple[str, tuple[float, ...], tuple[int, ...]]:
    """Return axes, spacing and shape of the slices as they will be read."""
    codes = "".join(nib.aff2axcodes(image.affine))
    place = [next(i for i, code in enumerate(codes) if code in pair) for pair in ("RL", "AP", "SI")]
    sizes = nib.affines.voxel_sizes(image.affine)
    named = image.header.get_dim_info()[2]
    plane = acquisition_plane(tuple(sizes[place]), None if named is None else place.index(named))
    axes = PLANES[plane]
    order = [next(i for i, code in enumerate(codes) if code in pair)
             for letter in axes for pair in ("RL", "AP", "SI") if letter in pair]
    return (axes, tuple(float(sizes[i]) for i in order), tuple(image.shape[i] for i in order))
