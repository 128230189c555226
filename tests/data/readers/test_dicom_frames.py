"""Multi-frame DICOM files and DICOM images."""

import numpy as np
from scan_files import (
    SAMPLES,
    STORED,
    read_both,
    refused,
    refused_image,
    write_dicom,
    write_dicom_series,
    write_frames,
)

from slivit.data.readers import image_header, read_image, read_volume, volume_header


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
    refused(tmp_path / "two", "contains 2 files, some with several frames")


def test_frames_at_one_place_and_a_single_frame_are_refused(tmp_path):
    refused(write_frames(tmp_path / "x.dcm", STORED, [0, 1, 1, 2, 2]),
            "5 slices lie at 3 positions")
    refused(write_dicom(tmp_path / "y.dcm", STORED[0]), "is a DICOM file of one frame, expected "
            "several; for a series of such files, give their folder")
    path = write_frames(tmp_path / "z.dcm", STORED)
    refused_image(path, "has 5 frames, expected one image")
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, "z.dcm: is truncated: its pixels take 539 bytes, expected 540")


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
        refused_image(SAMPLES / f"{name}.dcm", "contains no pixels; it is truncated, or not")


def test_floating_point_pixels_keep_their_values(tmp_path):
    values = STORED.astype(np.float32) / 7

    def store_floats(dataset, k):
        del dataset.PixelData
        dataset.FloatPixelData = values[k].tobytes()
    write_dicom_series(tmp_path / "s", values, change=store_floats)
    assert volume_header(tmp_path / "s").dtype == "float32"
    assert (read_both(tmp_path / "s").slices == values).all()


def test_inverted_frames_that_are_rescaled_each(tmp_path):
    stored = STORED.astype(np.uint16)
    path = write_frames(tmp_path / "x.dcm", stored, range(5), scales=[2] * 5, BitsStored=12,
                        HighBit=11, PhotometricInterpretation="MONOCHROME1")
    offset = np.arange(5)[:, None, None]
    assert (read_both(path).slices == (4095 - stored.astype(int)) * 2 + offset).all()


def test_frames_may_have_their_distance_with_a_sign(tmp_path):
    path = write_frames(tmp_path / "nm", STORED, PixelSpacing=[0.5, 0.6], SpacingBetweenSlices=-2)
    assert read_both(path).spacing == (2.0, 0.5, 0.6)
