"""Writers of made-up scans in true medical file formats, and a reader that checks the header."""

import gzip
from collections.abc import Callable
from pathlib import Path

import av
import nibabel as nib
import numpy as np
import pytest
from nibabel.externals.netcdf import netcdf_file
from pydicom.data.data_manager import DATA_ROOT
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from slivit.data.readers import (
    ReadError,
    Volume,
    image_header,
    read_image,
    read_volume,
    volume_header,
)

# Where rows and columns run to in DICOM's patient coordinates (left, back, head).
DIRECTIONS = {"axial": ((1, 0, 0), (0, 1, 0)), "coronal": ((1, 0, 0), (0, 0, -1)),
              "sagittal": ((0, 1, 0), (0, 0, -1))}
AXES = {"axial": "SPL", "coronal": "PIL", "sagittal": "RIP"}
SPACING = (3.0, 0.7, 0.8)
ORIGIN = (-10.0, 5.0, 20.0)
SAMPLES = Path(DATA_ROOT) / "test_files"  # that come with pydicom
PIXELS = np.random.default_rng(0).integers(0, 255, (20, 31), dtype=np.uint8)
STACK = np.random.default_rng(1).integers(0, 255, (4, 9, 12), dtype=np.uint8)
COLOUR = np.random.default_rng(2).integers(0, 255, (4, 9, 12, 3), dtype=np.uint8)
STORED = np.random.default_rng(0).integers(0, 2000, (5, 6, 9)).astype(np.int16)  # DICOM values


def refused(path, message, both=True):
    """Check that a volume is refused, by its header alone too."""
    with pytest.raises(ReadError, match=message):
        read_volume(path)
    if both:
        with pytest.raises(ReadError, match=message):
            volume_header(path)


def refused_image(path, message):
    """Check that an image is refused, by its header alone too."""
    for look in (read_image, image_header):
        with pytest.raises(ReadError, match=message):
            look(path)


def read_both(path: Path) -> Volume:
    """Read a volume; what its header promised has to be true."""
    header, volume = volume_header(path), read_volume(path)
    assert header.shape == volume.slices.shape
    assert (header.spacing, header.axes) == (volume.spacing, volume.axes)
    return volume


def dicom_of(pixels: np.ndarray, **fields) -> Dataset:
    """Return a CT data set of stored values (H, W[, 3]) or frames, with some fields changed."""
    colour = pixels.ndim > 2 and pixels.shape[-1] == 3
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
    dataset.Modality, dataset.SeriesInstanceUID = "CT", "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
    for name, value in fields.items():
        setattr(dataset, name, value)
    return dataset


def write_dicom(path: Path, pixels: np.ndarray, **fields) -> Path:
    """Write one DICOM file; see dicom_of."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dicom_of(pixels, **fields).save_as(path, enforce_file_format=True)
    return path


def write_dicom_series(folder: Path, stored: np.ndarray, plane: str = "axial",
                       change: Callable[[Dataset, int], None] = lambda dataset, k: None,
                       **fields) -> Path:
    """Write a slice a file, (N, H, W), in the order of their positions.

    Names are shuffled and have no suffix; instance numbers run the other way.

    Args:
        folder: that is made.
        stored: values before rescaling.
        plane: of the acquisition, see DIRECTIONS.
        change: called with each data set and its number before it is written.
        fields: set in every data set.
    """
    along, down = DIRECTIONS[plane]
    names = np.random.default_rng(5).permutation(len(stored))
    for k, pixels in enumerate(stored):
        place = np.array(ORIGIN) + k * SPACING[0] * np.cross(along, down)
        dataset = dicom_of(pixels, **{
            "ImageOrientationPatient": [*along, *down], "ImagePositionPatient": place.tolist(),
            "PixelSpacing": list(SPACING[1:]), "InstanceNumber": len(stored) - k, **fields})
        folder.mkdir(parents=True, exist_ok=True)
        dataset.filename = folder / f"IM{names[k]}"
        change(dataset, k)
        dataset.save_as(dataset.filename, enforce_file_format=True)
    return folder


def write_frames(path, frames, heights=None, scales=None, **fields):
    """Write a multi-frame file, with positions and slopes of the frames where they are given."""
    dataset = dicom_of(frames, NumberOfFrames=len(frames), **fields)
    if heights is not None:
        shared = Dataset()
        shared.PlaneOrientationSequence = [Dataset()]
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        shared.PixelMeasuresSequence = [Dataset()]
        shared.PixelMeasuresSequence[0].PixelSpacing = [0.5, 0.6]
        dataset.SharedFunctionalGroupsSequence = [shared]
        dataset.PerFrameFunctionalGroupsSequence = []
        for k, height in enumerate(heights):
            group = Dataset()
            group.PlanePositionSequence = [Dataset()]
            group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, float(height)]
            if scales is not None:
                group.PixelValueTransformationSequence = [Dataset()]
                group.PixelValueTransformationSequence[0].RescaleSlope = scales[k]
                group.PixelValueTransformationSequence[0].RescaleIntercept = k
            dataset.PerFrameFunctionalGroupsSequence.append(group)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def scan_affine(plane: str) -> np.ndarray:
    """Return nibabel's affine of an array whose axes are slices, rows and columns of a series."""
    along, down = np.array(DIRECTIONS[plane])
    affine = np.eye(4)
    affine[:3] = np.stack([np.cross(along, down) * SPACING[0], down * SPACING[1],
                           along * SPACING[2], ORIGIN], axis=1)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray | None = None,
                slice_axis: int | None = None) -> Path:
    """Write a NIfTI file; its axes run to right, front and head, 1 mm, by default."""
    image = nib.Nifti1Image(values, np.eye(4) if affine is None else affine)
    image.header.set_dim_info(slice=slice_axis)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def write_video(path: Path, frames: np.ndarray, codec: str = "ffv1", pix_fmt: str = "gray",
                rate: int = 10, **options: str) -> Path:
    """Write frames (N, H, W[, 3]); ffv1 in gray and png in rgb24 lose nothing."""
    with av.open(str(path), "w") as box:
        stream = box.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, "rgb24" if frame.ndim == 3 else "gray")
            box.mux(stream.encode(picture))
        box.mux(stream.encode(None))
    return path


def write_pair(stem: Path, values: np.ndarray, affine: np.ndarray | None = None,
               kind: type = nib.Nifti1Pair, endianness: str = "<") -> Path:
    """Write `STEM.hdr` and `STEM.img`, NIfTI or Analyze; return the header's path."""
    header = kind.header_class(endianness=endianness)
    header.set_data_dtype(values.dtype)
    image = kind(values, np.eye(4) if affine is None else affine, header)
    image.to_filename(stem.with_name(f"{stem.name}.hdr"))
    return stem.with_name(f"{stem.name}.hdr")


def write_mgh(path: Path, values: np.ndarray, affine: np.ndarray | None = None,
              tags: bytes = b"") -> Path:
    """Write a FreeSurfer volume, packed if its name ends in z, with what may follow its voxels."""
    image = nib.MGHImage(values, np.eye(4) if affine is None else affine)
    content = image.to_bytes() + tags
    path.write_bytes(gzip.compress(content) if path.suffix.lower() == ".mgz" else content)
    return path


def write_minc(path: Path, values: np.ndarray, affine: np.ndarray | None = None,
               lowest: np.ndarray | float = 0, highest: np.ndarray | float = 255) -> Path:
    """Write a MINC1 file.

    Args:
        values: uint8 or int16, along axes of which the third is x, the second y, the first z.
        affine: from those axes, in that order, to mm to the right, to the front and to the head.
        lowest, highest: what the type's range means, of all slices or of each.
    """
    affine = np.eye(4)[[2, 1, 0, 3]] if affine is None else affine
    names = ("zspace", "yspace", "xspace")
    with netcdf_file(path, "w") as file:
        for axis, name in enumerate(names):
            file.createDimension(name, values.shape[axis])
            variable = file.createVariable(name, "i4", ())
            step = np.linalg.norm(affine[:3, axis])
            variable.step, variable.spacing = float(step), b"regular__"
            variable.direction_cosines = affine[:3, axis] / step
            variable.start = float(affine[:3, axis] @ affine[:3, 3] / step)
        for name, bound in (("image-min", lowest), ("image-max", highest)):
            scale = file.createVariable(name, "f8", names[:np.ndim(bound)])
            scale[...] = bound
        bounds = np.iinfo(values.dtype)
        image = file.createVariable("image", "b" if bounds.bits == 8 else "h", names)
        image.signtype = b"signed__" if bounds.min else b"unsigned"
        image.valid_range = np.array([bounds.min, bounds.max], float)
        image[:] = values.view(f"i{values.dtype.itemsize}")
    return path
