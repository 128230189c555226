"""DICOM: series in a folder, multi-frame files, single images, good and bad."""

import shutil
import struct

import numpy as np
import pytest
from helpers import write_image
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.uid import RLELossless
from scan_files import (
    ORIGIN,
    SAMPLES,
    STORED,
    read_both,
    refused,
    refused_image,
    write_dicom,
    write_dicom_series,
)

from slivit.data.readers import ReadError, image_header, read_image, read_volume, volume_header


def test_oblique_slices_are_sorted_along_their_normal(tmp_path):
    """Turned by 30 degrees about the left-right axis; positions fall from file to file."""
    down = np.array([0, np.sqrt(0.75), 0.5])
    normal = np.cross([1, 0, 0], down)

    def turn(dataset, k):
        dataset.ImageOrientationPatient = [1, 0, 0, *down]
        dataset.ImagePositionPatient = (np.array([-90.0, -80, -70]) - 2.5 * k * normal).tolist()
    volume = read_both(write_dicom_series(tmp_path / "s", STORED, change=turn))
    assert (volume.slices == STORED[::-1]).all()
    assert (volume.axes, volume.spacing[0]) == ("SPL", pytest.approx(2.5))


@pytest.mark.parametrize(("dtype", "slope", "intercept", "expected"), [
    (np.int16, 1, 0, np.int16),
    (np.uint16, 1, 0, np.uint16),
    (np.uint8, 1, 0, np.uint8),
    (np.uint16, 2, -1024, np.int16),
    (np.int16, 100, 0, np.int32),
    (np.int16, 0.5, -0.25, np.float32),
    (np.uint16, 1, 0.5, np.float32),
])
def test_values_are_rescaled_and_whole_numbers_stay_whole(tmp_path, dtype, slope, intercept,
                                                          expected):
    stored = STORED.astype(dtype)
    volume = read_both(write_dicom_series(tmp_path / "s", stored, RescaleSlope=slope,
                                          RescaleIntercept=intercept))
    assert volume.slices.dtype == expected
    assert (volume.slices == stored * np.float64(slope) + intercept).all()


@pytest.mark.parametrize("fraction", [0, 0.25])
def test_every_slice_has_a_slope_of_its_own(tmp_path, fraction):
    slopes = np.arange(5) + 1 + fraction

    def scale(dataset, k):
        dataset.RescaleSlope, dataset.RescaleIntercept = float(slopes[k]), -k
    found = read_both(write_dicom_series(tmp_path / "s", STORED, change=scale)).slices
    assert (found == STORED * slopes[:, None, None] - np.arange(5)[:, None, None]).all()
    assert found.dtype == (np.float32 if fraction else np.int16)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_monochrome1_is_inverted(tmp_path, dtype):
    stored = STORED.astype(dtype)
    write_dicom_series(tmp_path / "s", stored, PhotometricInterpretation="MONOCHROME1")
    assert (read_both(tmp_path / "s").slices == ~stored).all()
    write_dicom(tmp_path / "x.dcm", stored[0], PhotometricInterpretation="MONOCHROME1")
    assert (read_image(tmp_path / "x.dcm") == ~stored[0]).all()


def test_monochrome1_of_twelve_bits_is_inverted_within_them(tmp_path):
    write_dicom_series(tmp_path / "s", STORED.astype(np.uint16), BitsStored=12, HighBit=11,
                       PhotometricInterpretation="MONOCHROME1")
    assert (read_both(tmp_path / "s").slices == 4095 - STORED).all()


def test_several_series_are_listed_with_their_files(tmp_path):
    write_dicom_series(tmp_path, STORED)
    for k in range(2):
        write_dicom(tmp_path / f"other{k}.dcm", STORED[k], SeriesInstanceUID="4.5.6",
                    Modality="MR", SeriesDescription="Scout")
    refused(tmp_path, r"contains 2 series, expected one.*1\.2\.3 \(CT no description, 5 files, "
            r"such as IM0\); 4\.5\.6 \(MR Scout, 2 files, such as other0\.dcm\)$")


def move(k, **fields):
    """Return a change of slice number k."""
    def change(dataset, number):
        if number == k:
            for name, value in fields.items():
                delattr(dataset, name) if value is None else setattr(dataset, name, value)
    return change


@pytest.mark.parametrize(("fields", "message"), [
    ({"ImagePositionPatient": list(ORIGIN)}, "5 slices lie at 4 positions, expected one each"),
    ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "2 orientations, expected parallel slices"),
    ({"ImagePositionPatient": None}, r"1 of 5 slices have no position \(IM\d\), but the others "
                                      "have"),
    ({"ImageOrientationPatient": None}, "1 of 5 slices have no position"),
    ({"PhotometricInterpretation": "MONOCHROME1"}, "slices differ in .*MONOCHROME1, MONOCHROME2"),
    ({"Rows": 5}, r"slices differ in size \(5x9, 6x9\)"),
])
def test_slices_that_do_not_fit_each_other_are_refused(tmp_path, fields, message):
    refused(write_dicom_series(tmp_path / "s", STORED, change=move(2, **fields)), message)


def test_a_colour_slice_among_grey_ones_is_refused(tmp_path):
    write_dicom_series(tmp_path, STORED)
    write_dicom(tmp_path / "screen", np.zeros((6, 9, 3), np.uint8),
                ImageOrientationPatient=[1, 0, 0, 0, 1, 0], ImagePositionPatient=[0, 0, 99])
    refused(tmp_path, "slices differ in .*MONOCHROME2, RGB")


def forget_place(*names):
    """Return a change that removes positions and more."""
    def change(dataset, k):
        for name in ("ImagePositionPatient", "ImageOrientationPatient", *names):
            delattr(dataset, name)
    return change


def test_without_positions_the_instance_number_decides(tmp_path):
    write_dicom_series(tmp_path / "s", STORED, change=forget_place())
    volume = read_both(tmp_path / "s")
    assert (volume.slices == STORED[::-1]).all()
    assert (volume.axes, volume.spacing) == (None, None)
    assert volume_header(tmp_path / "s").notes == ("no slice positions: sorted by instance number",)


@pytest.mark.parametrize("numbers", [None, 1])
def test_without_instance_numbers_the_names_decide(tmp_path, numbers):
    for k, name in enumerate(("s1.dcm", "s2.dcm", "s10.dcm")):
        fields = {} if numbers is None else {"InstanceNumber": numbers}  # all the same
        write_dicom(tmp_path / name, STORED[k], **fields)
    assert (read_both(tmp_path).slices == STORED[:3]).all()
    assert volume_header(tmp_path).notes == ("no slice positions: sorted by file name",)


def test_a_missing_slice_is_noted_and_the_spacing_is_the_usual_one(tmp_path):
    write_dicom_series(tmp_path / "s", STORED)
    assert volume_header(tmp_path / "s").notes == ()
    next(file for file in (tmp_path / "s").iterdir()
         if (read_image(file) == STORED[1]).all()).unlink()
    volume = read_both(tmp_path / "s")
    assert (volume.slices == STORED[[0, 2, 3, 4]]).all()
    assert volume.spacing[0] == pytest.approx(3)
    assert volume_header(tmp_path / "s").notes == (
        "slices are 3.00 to 6.00 mm apart: some may be missing",)


def test_pictures_among_dicom_files_are_refused(tmp_path):
    write_dicom_series(tmp_path, STORED)
    write_image(tmp_path / "key.png", STORED[0].astype(np.uint8))
    refused(tmp_path, r"contains 5 DICOM files and 1 pictures "
            r"\(such as key.png\), expected only one kind")


def test_other_files_beside_the_slices_are_ignored(tmp_path):
    write_dicom_series(tmp_path, STORED)
    shutil.copy(SAMPLES / "dicomdirtests/DICOMDIR", tmp_path / "DICOMDIR")
    shutil.copy(SAMPLES / "test-SR.dcm", tmp_path / "report.dcm")
    (tmp_path / "notes.txt").write_text("of the technician" * 20)
    (tmp_path / "empty").write_bytes(b"")
    write_dicom(tmp_path / ".hidden.dcm", STORED[0])
    write_dicom(tmp_path / "scout/1.dcm", STORED[0])
    assert (read_both(tmp_path).slices == STORED).all()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kept", [-20, -100, "tag", 300, 140, 20, 0])
def test_cut_off_files_are_found_by_the_header_alone(tmp_path, compressed, kept):
    def compress(dataset, k):
        if compressed:
            dataset.compress(RLELossless)
    write_dicom_series(tmp_path / "s", STORED, change=compress)
    path = (tmp_path / "s/IM2").rename(tmp_path / "s/IM2.dcm")
    content = path.read_bytes()
    path.write_bytes(content[:content.index(b"\xe0\x7f\x10\x00") if kept == "tag" else kept])
    refused(tmp_path / "s", "IM2.dcm: ")
    with pytest.raises(ReadError, match="IM2.dcm: "):
        image_header(path)


def test_pixel_data_that_declare_too_few_bytes_are_found_by_the_header_alone(tmp_path):
    shutil.copy(SAMPLES / "MR_truncated.dcm", tmp_path)
    refused_image(tmp_path / "MR_truncated.dcm", "MR_truncated.dcm: .* expected")


@pytest.mark.parametrize(("kept", "message"), [
    (0, "begins with zeros"), (132, "begins with zeros"), (600, "no pixels; it is truncated")])
def test_a_file_of_which_the_rest_is_zeros_is_refused(tmp_path, kept, message):
    content = (SAMPLES / "MR_small.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(content[:kept] + bytes(100_000))
    refused_image(tmp_path / "a.dcm", f"a.dcm: .*{message}")


def test_zeros_after_the_pixels_are_ignored(tmp_path):
    content = (SAMPLES / "MR_small.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(content + bytes(100_000))
    assert (read_image(tmp_path / "a.dcm") == read_image(SAMPLES / "MR_small.dcm")).all()


def test_text_called_dcm_is_refused(tmp_path):
    write_dicom_series(tmp_path / "s", STORED)
    for path in (tmp_path / "text.dcm", tmp_path / "s/text.dcm"):
        path.write_text("this is no scan " * 30)
        refused_image(path, "text.dcm: ")
    refused(tmp_path / "text.dcm", "text.dcm: ")
    refused(tmp_path / "s", "text.dcm: ")


@pytest.mark.parametrize("name", ["NumberOfFrames", "InstanceNumber", "PixelSpacing",
                                  "ImagePositionPatient", "RescaleSlope"])
def test_malformed_numbers_in_a_header_are_refused(tmp_path, name):
    change = forget_place() if name == "InstanceNumber" else lambda dataset, k: None
    path = write_dicom_series(tmp_path / "s", STORED, change=change, NumberOfFrames=1,
                              RescaleSlope=10) / "IM0"
    content, tag = path.read_bytes(), tag_for_keyword(name)
    start = content.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF)
                          + dictionary_VR(tag).encode()) + 8
    path.write_bytes(content[:start] + b"1A" + content[start + 2:])
    with pytest.raises(ReadError, match=r"/s(/IM0)?: "):
        read_volume(tmp_path / "s")


@pytest.mark.parametrize("name", ["Columns", "ImagePositionPatient", "SeriesInstanceUID"])
def test_an_unknown_type_of_value_is_refused(tmp_path, name):
    path, tag = write_dicom_series(tmp_path / "s", STORED) / "IM0", tag_for_keyword(name)
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    known = start + dictionary_VR(tag).encode()
    path.write_bytes(path.read_bytes().replace(known, start + b"QQ"))
    refused(tmp_path / "s", r"/s(/IM0)?: .*damaged")


@pytest.mark.parametrize(("name", "twin"), [
    ("MR_small_RLE", "MR_small"), ("MR_small_jp2klossless", "MR_small"),
    ("MR_small_jpeg_ls_lossless", "MR_small"), ("MR_small_bigendian", "MR_small"),
    ("MR_small_implicit", "MR_small"), ("MR_small_expb", "MR_small"),
    ("MR_small_padded", "MR_small"), ("SC_rgb_rle", "SC_rgb_gdcm_KY"),
    ("SC_rgb_small_odd_big_endian", "SC_rgb_small_odd"),
    ("SC_rgb_rle_16bit", "SC_rgb_rle"), ("SC_rgb_rle_32bit", "SC_rgb_rle"),
])
def test_other_transfer_syntaxes_give_the_same_pixels(name, twin):
    found, expected = read_image(SAMPLES / f"{name}.dcm"), read_image(SAMPLES / f"{twin}.dcm")
    assert found.dtype == expected.dtype
    assert (found == expected).all()


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_gdcm", "SC_rgb_dcmtk_+eb+cr", "SC_rgb_jpeg_dcmtk",
                                  "SC_rgb_dcmtk_+eb+cy+s4", "SC_rgb_jpeg_lossy_gdcm",
                                  "SC_ybr_full_422_uncompressed", "SC_rgb_jls_lossy_line"])
def test_colour_spaces_and_lossy_codecs_give_nearly_the_same_colours(name):
    found = read_image(SAMPLES / f"{name}.dcm").astype(int)
    assert np.abs(found - read_image(SAMPLES / "SC_rgb_rle.dcm")).mean() < 6


def test_lossless_jpeg_is_decoded(tmp_path):
    """JPEG lossless, process 14, as many scanners write it; encoded by GDCM from STORED."""
    gdcm = pytest.importorskip("gdcm")
    write_dicom(tmp_path / "raw.dcm", STORED[0].astype(np.uint16))
    reader, writer = gdcm.ImageReader(), gdcm.ImageWriter()
    change = gdcm.ImageChangeTransferSyntax()
    reader.SetFileName(str(tmp_path / "raw.dcm"))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(tmp_path / "jpeg.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert (read_image(tmp_path / "jpeg.dcm") == STORED[0]).all()


def test_a_true_series_reads():
    volume = read_both(SAMPLES / "dicomdirtests/98892001/CT5N")
    assert volume.slices.shape == (5, 16, 16)
    assert (volume.spacing, volume.axes) == (pytest.approx((2.5, 0.488281, 0.488281)), "SPL")
    refused(SAMPLES / "dicomdirtests/98892001/CT2N", "a localiser is not a volume")
    refused(SAMPLES / "dicomdirtests/98892003/MR2", "contains 3 series, expected one")
