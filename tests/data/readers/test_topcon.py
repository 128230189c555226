"""Topcon's .fda and .fds files, good and bad."""

import struct

import imagecodecs
import numpy as np
import pytest
from oct_files import (
    GREY,
    NAME,
    RAW,
    chunk,
    jpeg2000,
    jpeg_chunk,
    raw_chunk,
    sides_chunk,
    write_topcon,
)
from scan_files import read_both, refused

from slivit.data.readers import read_volume, scan_ndim, volume_header


def test_raw_b_scans_are_slices_with_depth_down_the_rows(tmp_path):
    volume = read_both(write_topcon(tmp_path / "x.fds", raw_chunk(), sides_chunk(6.0, 4.0, 2.5)))
    assert volume.slices.dtype == np.uint16
    assert (volume.slices == RAW).all()
    assert volume.spacing == pytest.approx((4.0 / 4, 0.0025, 6.0 / 12))
    assert volume.axes is None


@pytest.mark.parametrize("values", [GREY, RAW])
def test_jpeg_2000_b_scans_keep_their_type(tmp_path, values):
    path = write_topcon(tmp_path / "x.FDA", jpeg_chunk(jpeg2000(values)),
                        sides_chunk(name="@PARAM_SCAN_02"), start=b"FOCTFAA")
    volume = read_both(path)
    assert volume.slices.dtype == volume_header(path).dtype == values.dtype
    assert (volume.slices == values).all()
    assert volume.spacing == pytest.approx((1.0, 0.0025, 0.5))
    assert scan_ndim(path) == 3


def test_jpeg_b_scans_are_read(tmp_path):
    streams = [imagecodecs.jpeg8_encode(piece, level=100) for piece in GREY]
    found = read_both(write_topcon(tmp_path / "x.fda", jpeg_chunk(streams))).slices
    assert np.abs(found.astype(int) - GREY).max() < 12


def test_only_picked_b_scans_are_decoded(tmp_path):
    streams = [*jpeg2000(GREY)[:3], b"\xff" * 50]
    path = write_topcon(tmp_path / "x.fda", jpeg_chunk(streams))
    assert (read_volume(path, lambda count: np.array([0, 2])).slices == GREY[[0, 2]]).all()
    refused(path, "x.fda: B-scan 4 is neither JPEG 2000 nor JPEG", both=False)
    raw = write_topcon(tmp_path / "x.fds", raw_chunk())
    assert (read_volume(raw, lambda count: np.array([1, 3])).slices == RAW[[1, 3]]).all()


def test_raw_values_come_first_and_the_motion_corrected_copy_last(tmp_path):
    corrected = raw_chunk("@IMG_MOT_COMP_03", RAW[:, ::-1])
    path = write_topcon(tmp_path / "x.fda", corrected, jpeg_chunk(jpeg2000(GREY)), raw_chunk())
    assert (read_both(path).slices == RAW).all()
    write_topcon(path, corrected, jpeg_chunk(jpeg2000(GREY)))
    assert (read_both(path).slices == GREY).all()
    write_topcon(path, corrected)
    assert (read_both(path).slices == RAW[:, ::-1]).all()


def test_a_file_may_end_with_its_last_chunk(tmp_path):
    path = write_topcon(tmp_path / "x.fds", raw_chunk())
    path.write_bytes(path.read_bytes()[:-1])
    assert (read_both(path).slices == RAW).all()


@pytest.mark.parametrize("sides", [(0.0, 4.0, 2.5), (6.0, float("nan"), 2.5), (6.0, 4.0, 1e300)])
def test_sizes_that_cannot_be_are_unknown(tmp_path, sides):
    path = write_topcon(tmp_path / "x.fds", raw_chunk(), sides_chunk(*sides))
    assert read_both(path).spacing is None


@pytest.mark.parametrize(("mode", "what"), [(0, "a line scan"), (3, "a radial scan"),
                                            (4, "a cross scan"), (99, "a scan of mode 99")])
def test_other_scans_are_named_and_refused(tmp_path, mode, what):
    message = rf"is {what}, expected a 3D scan \(mode 2\)"
    refused(write_topcon(tmp_path / "x.fds", raw_chunk(mode=mode)), message)
    refused(write_topcon(tmp_path / "x.fda", jpeg_chunk(jpeg2000(GREY), mode=mode)), message)


@pytest.mark.parametrize(("changed", "message"), [
    ({"width": 0}, "is empty, its shape is .4, 9, 0."),
    ({"count": 1}, "contains one B-scan, expected several"),
    ({"count": 5}, r"is truncated, or its header is damaged: an array of \(5, 9, 12\)"),
    ({"height": 2**32 - 1}, "is truncated, or its header is damaged"),
    ({"bits": 8}, "its B-scans have 8 bits per pixel and take 864 bytes, expected 16 and 864"),
    ({"size": 7}, "take 7 bytes, expected 16 and 864"),
])
def test_raw_headers_that_cannot_be_are_refused(tmp_path, changed, message):
    refused(write_topcon(tmp_path / "x.fds", raw_chunk(**changed)), message)


def test_streams_that_are_not_as_announced_are_refused(tmp_path):
    path, good = tmp_path / "x.fda", jpeg2000(GREY)
    write_topcon(path, jpeg_chunk(jpeg2000(GREY[:, :, :5])))
    refused(path, "B-scan 1 has 9x5 pixels of 1 channels and 8 bits, expected 9x12 in grey")
    write_topcon(path, jpeg_chunk(good[:3]))
    refused(path, "is truncated or damaged: B-scan 4 of 4 takes 0 bytes, .*contains 0 more|"
                  "contains -?[0-9]+ more")
    write_topcon(path, jpeg_chunk(good, shape=(2**31, 9, 12)))
    refused(path, "is truncated, or its header is damaged: an array of .2147483648,.")
    write_topcon(path, jpeg_chunk([good[0].replace(struct.pack(">I", 12), struct.pack(
        ">I", 2**30)), *good[1:]]))
    refused(path, "B-scan 1 has 9x1073741824 pixels")
    write_topcon(path, jpeg_chunk([good[0], good[1][:-60], *good[2:]]))
    refused(path, "B-scan 2 cannot be decoded", both=False)


def test_a_truncated_jpeg_is_refused(tmp_path):
    streams = [imagecodecs.jpeg8_encode(piece, level=100) for piece in GREY]
    streams[1] = streams[1][:-40]
    path = write_topcon(tmp_path / "x.fda", jpeg_chunk(streams))
    refused(path, "B-scan 2 cannot be decoded", both=False)


def test_what_is_not_topcons_or_is_cut_is_refused(tmp_path):
    path = write_topcon(tmp_path / "x.fds", raw_chunk())
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    refused(path, "is truncated or damaged: after .* bytes, expected a chunk of 886 bytes")
    path.write_bytes(whole[:60])
    refused(path, "is truncated or damaged: after 36 of 60 bytes, expected a chunk of 96 bytes")
    path.write_bytes(whole[:3])
    refused(path, "is not a file of Topcon's OCT .* begin with FOCTFDA or FOCTFAA")
    path.write_bytes(b"FOCTFDS" + whole[7:])
    refused(path, "is not a file of Topcon's OCT .* begin with FOCTFDA or FOCTFAA")
    path.write_bytes(whole[:15] + b"\3abc" + bytes(4))
    refused(path, "is truncated or damaged")
    write_topcon(path, chunk("@IMG_OBS", b"fundus"))
    refused(path, "contains no B-scans, expected one of @IMG_SCAN_03, @IMG_JPEG")
    write_topcon(path, raw_chunk(), raw_chunk())
    refused(path, "contains 2 scans .@IMG_SCAN_03., expected one")
    write_topcon(path, *[chunk("@X", b"")] * 10_001)
    refused(path, "is damaged: it contains more than 10000 chunks")
    refused(tmp_path / "absent.fds", "does not exist")


def test_the_patient_is_in_no_message(tmp_path):
    path = write_topcon(tmp_path / "x.fds", raw_chunk(mode=3))
    assert NAME in path.read_bytes()
    refused(path, "^(?!.*Muster).*radial")


@pytest.mark.parametrize("codec", ["jpeg2000", "jpeg"])
def test_zeros_in_place_of_the_end_of_a_b_scan_are_refused(tmp_path, codec):
    streams = jpeg2000(GREY) if codec == "jpeg2000" else list(map(imagecodecs.jpeg8_encode, GREY))
    for lost in (3, 20, len(streams[3]) // 3):
        cut = streams[3][:-lost] + bytes(lost)
        path = write_topcon(tmp_path / "x.fda", jpeg_chunk([*streams[:3], cut]), sides_chunk())
        refused(path, "x.fda: B-scan 4 cannot be decoded .*not copied whole", both=False)
