"""DICOM: series in a folder, multi-frame files, single images, good and bad."""

import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers import write_image
from pydicom.data.data_manager import DATA_ROOT
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless
from scan_files import (
    AXES,
    DIRECTIONS,
    ORIGIN,
    SPACING,
    dicom_of,
    read_both,
    write_dicom,
    write_dicom_series,
)

from slivit.readers import ReadError, image_header, read_image, read_volume, volume_header

SAMPLES = Path(DATA_ROOT) / "test_files"
STORED = np.random.default_rng(0).integers(0, 2000, (5, 6, 9)).astype(np.int16)


def refused(path, message, both=True):
    """Check that a volume is refused, by its header alone too."""
    with pytest.raises(ReadError, match=message):
        read_volume(path)
    if both:
        with pytest.raises(ReadError, match=message):
            volume_header(path)


@pytest.mark.parametrize("plane", DIRECTIONS)
def test_slices_are_sorted_by_position(tmp_path, plane):
    volume = read_both(write_dicom_series(tmp_path / "s", STORED, plane))
    assert (volume.slices == STORED).all()
    assert volume.slices.dtype == np.int16
    assert (volume.spacing, volume.axes) == (pytest.approx(SPACING), AXES[plane])
    assert volume_header(tmp_path / "s").modality == "CT"


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
    refused(tmp_path, r"holds 2 series, expected one.*1\.2\.3 \(CT no description, 5 files, such "
            r"as IM0\); 4\.5\.6 \(MR Scout, 2 files, such as other0\.dcm\)$")


def move(k, **fields):
    """Return a change of slice number k."""
    def change(dataset, number):
        if number == k:
            for name, value in fields.items():
                delattr(dataset, name) if value is None else setattr(dataset, name, value)
    return change


@pytest.mark.parametrize(("fields", "message"), [
    ({"ImagePositionPatient": list(ORIGIN)}, "5 slices lie at 4 positions, expected one each"),
    ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "2 orientations, expected parallel ones"),
    ({"ImagePositionPatient": None}, r"1 of 5 slices have no position \(IM\d\), the others have"),
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
    refused(tmp_path, r"holds 5 DICOM files and 1 pictures \(such as key.png\), expected one kind")


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
    for look in (read_image, image_header):
        with pytest.raises(ReadError, match="MR_truncated.dcm: .* expected"):
            look(tmp_path / "MR_truncated.dcm")


def test_text_called_dcm_is_refused(tmp_path):
    write_dicom_series(tmp_path / "s", STORED)
    for path in (tmp_path / "text.dcm", tmp_path / "s/text.dcm"):
        path.write_text("this is no scan " * 30)
        for look in (read_image, image_header):
            with pytest.raises(ReadError, match="text.dcm: "):
                look(path)
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
    refused(SAMPLES / "dicomdirtests/98892003/MR2", "holds 3 series, expected one")


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


def test_frames_are_sorted_by_their_positions_and_rescaled_each(tmp_path):
    order = np.array([3, 0, 4, 1, 2])
    path = write_frames(tmp_path / "x.dcm", STORED[order], -4.0 + 2 * order, scales=order + 1)
    volume = read_both(path)
    scale, offset = np.arange(5)[:, None, None] + 1, np.argsort(order)[:, None, None]
    assert (volume.slices == STORED * scale + offset).all()
    assert (volume.spacing, volume.axes) == ((2.0, 0.5, 0.6), "SPL")
    picked = read_volume(path, lambda count: np.array([0, count - 1])).slices
    assert (picked == volume.slices[[0, -1]]).all()


def test_frames_without_positions_stay_as_they_are_stored(tmp_path):
    path = write_frames(tmp_path / "us", STORED.astype(np.uint8), Modality="US",
                        PixelSpacing=[0.5, 0.6], SpacingBetweenSlices=2)
    volume = read_both(path)
    assert (volume.slices == STORED.astype(np.uint8)).all()
    assert (volume.spacing, volume.axes) == ((2.0, 0.5, 0.6), None)
    assert (volume_header(path).kind, volume_header(path).modality) == ("dicom", "US")
    still = write_frames(tmp_path / "cine.dcm", STORED, [7] * 5)  # a time series of one place
    assert (read_both(still).slices == STORED).all()


def test_a_multi_frame_file_may_lie_in_a_folder_of_its_own(tmp_path):
    write_frames(tmp_path / "one/x", STORED)
    assert (read_both(tmp_path / "one").slices == STORED).all()
    for name in ("a", "b"):
        write_frames(tmp_path / "two" / name, STORED)
    refused(tmp_path / "two", "holds 2 files, some of several frames")


def test_frames_at_one_place_and_a_single_frame_are_refused(tmp_path):
    refused(write_frames(tmp_path / "x.dcm", STORED, [0, 1, 1, 2, 2]),
            "5 slices lie at 3 positions")
    refused(write_dicom(tmp_path / "y.dcm", STORED[0]), "is a DICOM file of one frame, expected "
            "several; for a series of such files, name their folder")
    path = write_frames(tmp_path / "z.dcm", STORED)
    for look in (read_image, image_header):
        with pytest.raises(ReadError, match="has 5 frames, expected one image"):
            look(path)
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, "z.dcm: is cut off: its pixels take 539 bytes, expected 540")


def test_colour_frames_and_grey_stored_as_colour(tmp_path):
    colour = np.random.default_rng(1).integers(0, 255, (3, 4, 5, 3), dtype=np.uint8)
    path = write_frames(tmp_path / "rgb.dcm", colour, Modality="US")
    assert (read_both(path).slices == colour).all()
    grey = np.repeat(colour[..., :1], 3, axis=-1)
    volume = read_volume(write_frames(tmp_path / "grey.dcm", grey, Modality="US"))
    assert (volume.slices == colour[..., 0]).all()
    assert (read_image(write_dicom(tmp_path / "one.dcm", colour[0])) == colour[0]).all()


def test_palette_colours_are_resolved(tmp_path):
    palette = np.array([[0, 200, 10], [90, 20, 255], [7, 7, 7]], np.uint16) * 257
    stored = np.array([[[0, 1, 2, 0], [2, 1, 0, 2]]] * 2, np.uint8)
    fields = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, entries in zip(("Red", "Green", "Blue"), palette.T, strict=True):
        fields[f"{colour}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
        fields[f"{colour}PaletteColorLookupTableData"] = entries.tobytes()
    volume = read_both(write_frames(tmp_path / "x.dcm", stored, **fields))
    assert volume.slices.dtype == np.uint8
    assert (volume.slices == (palette >> 8)[stored]).all()


def test_images_say_their_shape_and_modality():
    found = image_header(SAMPLES / "examples_palette.dcm")
    assert (found.shape, found.modality) == (read_image(SAMPLES / "examples_palette.dcm").shape,
                                             "US")
    for name in ("test-SR", "waveform_ecg"):
        for look in (read_image, image_header):
            with pytest.raises(ReadError, match="is not a DICOM image; it holds no pixels"):
                look(SAMPLES / f"{name}.dcm")


def test_floating_point_pixels_keep_their_values(tmp_path):
    values = STORED.astype(np.float32) / 7

    def store_floats(dataset, k):
        del dataset.PixelData
        dataset.FloatPixelData = values[k].tobytes()
    write_dicom_series(tmp_path / "s", values, change=store_floats)
    assert volume_header(tmp_path / "s").dtype == "float32"
    assert (read_both(tmp_path / "s").slices == values).all()
