"""Headers that cannot be are refused at the start of a run, not when the pixels are read."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from scan_files import (
    STACK,
    STORED,
    dicom_of,
    refused,
    write_dicom,
    write_dicom_series,
    write_frames,
    write_nifti,
)

from slivit.data.readers import ReadError, image_header, read_volume, volume_header


@pytest.mark.parametrize(("field", "value", "message"), [
    ("Rows", 0, "Rows: found 0, expected 1 to 65535"),
    ("Columns", 0, "Columns: found 0, expected 1 to 65535"),
    ("BitsAllocated", 12, "BitsAllocated: found 12, expected 1 or a multiple of 8"),
    ("BitsAllocated", 0, "BitsAllocated: found 0"),
    ("BitsStored", 20, "BitsStored: found 20, expected 1 to 16"),
    ("BitsStored", 0, "BitsStored: found 0"),
    ("SamplesPerPixel", 2, "SamplesPerPixel: found 2, expected 1 or 3"),
    ("PhotometricInterpretation", "XYZ", "PhotometricInterpretation: found XYZ, expected one of"),
    ("PhotometricInterpretation", None, "PhotometricInterpretation: missing"),
    ("PhotometricInterpretation", "PALETTE COLOR", "PALETTE COLOR without a palette"),
    ("PhotometricInterpretation", "RGB", "SamplesPerPixel: found 1, expected 3 for RGB"),
    ("PhotometricInterpretation", "HSV", "PhotometricInterpretation: found HSV, expected one of"),
    ("HighBit", 14, "HighBit: found 14, expected 15"),
    ("PixelData", STORED[0].tobytes() * 2, "its pixels take 216 bytes, expected 108 for 1 frames"),
    ("BitsAllocated", 8, "HighBit|BitsStored"),
    ("PixelRepresentation", None, "PixelRepresentation: missing, expected 0 or 1"),
    ("PixelRepresentation", 7, "PixelRepresentation: found 7"),
    ("NumberOfFrames", -1, "NumberOfFrames: found -1"),
    ("RescaleSlope", "nan", "RescaleSlope: found nan, expected a number"),
    ("RescaleSlope", 0, "RescaleSlope: found 0, which would make all grey values the same"),
    ("RescaleIntercept", 1e300, "RescaleIntercept: found 1e.?300, expected a number"),
])
@pytest.mark.filterwarnings("ignore")  # pydicom's, of the very values
def test_dicom_fields_that_cannot_be_are_refused(tmp_path, field, value, message):
    def change(dataset, k):
        if value is None:
            delattr(dataset, field)
        else:
            setattr(dataset, field, value)
    series = write_dicom_series(tmp_path / "series", STORED, change=change)
    with pytest.raises(ReadError, match=message):
        volume_header(series)
    image = next(series.iterdir())
    with pytest.raises(ReadError, match=f"{image.name}.*{message}"):
        image_header(image)


@pytest.mark.parametrize(("field", "value"), [
    ("ImagePositionPatient", ["nan", 0, 1]), ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0]),
    ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), ("ImagePositionPatient", [0, 0, "inf"])])
@pytest.mark.filterwarnings("ignore")
def test_dicom_slices_that_lie_nowhere_are_refused(tmp_path, field, value):
    series = write_dicom_series(tmp_path / "series", STORED, **{field: value})
    refused(series, "ImageOrientationPatient and ImagePositionPatient do not give the")


@pytest.mark.parametrize("value", [[0, 0], [-0.7, 0.8], [0.7], ["nan", 0.8]])
@pytest.mark.filterwarnings("ignore")
def test_dicom_pixels_of_no_size_have_none(tmp_path, value):
    series = write_dicom_series(tmp_path / "series", STORED, PixelSpacing=value)
    assert volume_header(series).spacing is read_volume(series).spacing is None


@pytest.mark.parametrize("fields", [{"NumberOfFrames": 2}, {
    "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}])
def test_dicom_frames_of_more_pixels_than_the_header_says_are_refused(tmp_path, fields):
    path = tmp_path / "a.dcm"
    dataset = dicom_of(STORED, NumberOfFrames=5)
    for name, value in fields.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    refused(path, "its pixels take 540 bytes, expected (216|270) for . frames")


def test_dicom_frames_scaled_by_0_are_refused(tmp_path):
    frames = write_frames(tmp_path / "a.dcm", STORED, range(5), scales=[1, 1, 0, 1, 1])
    refused(frames, "RescaleSlope: found 0, which would make all grey values the same")


def test_a_way_to_store_pixels_that_is_not_known_is_said_at_the_start(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", STORED[0])
    # MPEG2 in place of explicit little endian: as long, so that only this element changes
    content = path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0")
    path.write_bytes(content)
    with pytest.raises(ReadError, match="TransferSyntaxUID|cannot be read as DICOM"):
        image_header(path)


@pytest.mark.parametrize(("place", "content", "message"), [
    (42, np.int16(-5).tobytes(), "(?i)header is damaged|cannot be read as NIfTI|is empty"),
    (42, np.int16(0).tobytes(), "is empty|which is one slice"),
    (42, np.int16(32000).tobytes(), "is truncated"),
    (70, np.int16(0).tobytes(), "cannot be read as NIfTI|holds"),
    (70, np.int16(9999).tobytes(), "cannot be read as NIfTI"),
    (108, np.float32(np.nan).tobytes(), "cannot be read as NIfTI"),
    (108, np.float32(1e9).tobytes(), "is truncated"),
    (112, np.float32(np.inf).tobytes(), "scl_slope"),
    (344, b"ni1\0", "voxels are in another file"),
    (344, b"abc\0", "cannot be read as NIfTI|another file"),
])
def test_nifti_fields_that_cannot_be_are_refused(tmp_path, place, content, message):
    path = write_nifti(tmp_path / "a.nii", STACK.astype(np.int16), np.eye(4))
    damaged = bytearray(path.read_bytes())
    damaged[place:place + len(content)] = content
    path.write_bytes(damaged)
    with pytest.raises(ReadError, match=message):
        volume_header(path)
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(bytes(damaged)))
    with pytest.raises(ReadError):
        volume_header(packed)


def test_a_flipped_bit_in_a_packed_nifti_is_noticed(tmp_path):
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(STACK.astype(np.int16), np.eye(4)), path)
    packed = bytearray(gzip.compress(path.read_bytes(), compresslevel=0))
    packed[-200] ^= 1
    (tmp_path / "b.nii.gz").write_bytes(packed)
    with pytest.raises(ReadError, match="cannot be read as NIfTI"):
        read_volume(tmp_path / "b.nii.gz")
