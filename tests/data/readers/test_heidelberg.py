"""Heidelberg's .vol files, good and bad."""

import struct

import numpy as np
import pytest
from oct_files import EMPTY, GREY, LINEAR, positions, write_export, write_vol
from scan_files import read_both, refused

from slivit.data.readers import read_volume, volume_header
from slivit.data.readers.heidelberg import shown


def test_b_scans_are_shown_as_heidelberg_does(tmp_path):
    values = LINEAR.copy()
    values[1, 2:5] = EMPTY
    values[2, 0, :3] = 0, 1, 3
    volume = read_both(write_vol(tmp_path / "x.VOL", values))
    assert volume.slices.dtype == np.uint8 and volume.slices.shape == values.shape
    assert (volume.slices[1, 2:5] == 0).all()
    assert volume.slices[2, 0, :3].tolist() == [0, 255, 255]
    curve = (np.log(values[3].astype(float) + 2.44e-4) + 8.3) / 8.285 * 255
    assert np.abs(volume.slices[3] - np.clip(curve, 0, 255)).max() <= 0.51
    assert volume.spacing == pytest.approx((0.25, 0.004, 0.5))


def test_the_curve_rises_with_intensity():
    grey = shown(np.linspace(0, 1, 2000, dtype=np.float32), np.zeros(2000, bool)).astype(int)
    assert grey[0] == 0 and grey[-1] == 255 and (np.diff(grey) >= 0).all()


def test_picked_b_scans_are_those_of_the_whole(tmp_path):
    path = write_vol(tmp_path / "x.vol")
    some = read_volume(path, lambda count: np.array([1, 3])).slices
    assert (some == read_volume(path).slices[[1, 3]]).all()


def test_eyepy_reads_the_same(tmp_path):
    reader = pytest.importorskip("eyepy.io.he")
    path = write_vol(tmp_path / "x.vol")
    theirs, ours = reader.HeVolReader(path).volume, read_volume(path)
    assert (theirs.data == ours.slices).all()
    assert theirs.scale == pytest.approx(ours.spacing)


def test_a_vol_and_an_xml_of_one_scan_are_the_same(tmp_path):
    shades = np.arange(1, 433, dtype=np.uint8).reshape(4, 9, 12)
    linear = np.exp(shades / np.float32(255) * 8.285 - 8.3) - 2.44e-4
    vol = read_both(write_vol(tmp_path / "x.vol", linear.astype(np.float32)))
    xml = read_both(write_export(tmp_path / "export", shades))
    assert (vol.slices == xml.slices).all()
    assert vol.spacing == pytest.approx(xml.spacing)


def test_values_that_eyepy_wrote_as_shown_stay_so(tmp_path):
    path = write_vol(tmp_path / "x.vol", GREY.astype(np.float32), version=b"ep-v0.6.8")
    assert (read_both(path).slices == GREY).all()
    write_vol(path, LINEAR, version=b"ep-v0.21.0")
    linear = read_both(path).slices
    write_vol(path, LINEAR)
    assert (read_both(path).slices == linear).all()


def test_a_spacing_that_cannot_be_comes_from_the_positions_or_is_unknown(tmp_path):
    path = write_vol(tmp_path / "x.vol", spacing=(0.0, 0.004, 0.5))
    assert read_both(path).spacing == pytest.approx((0.25, 0.004, 0.5))
    write_vol(path, spacing=(0.25, float("nan"), 0.5))
    assert read_both(path).spacing is None


def test_uneven_gaps_are_noted(tmp_path):
    places = positions(4)
    places[3] = (1.0, 2.0, 7.0, 2.0)
    header = volume_header(write_vol(tmp_path / "x.vol", places=places))
    assert header.notes == ("B-scans are 0.25 to 2.5 apart, 1 on average",)


@pytest.mark.parametrize(("pattern", "what"), [(1, "a single line scan"), (2, "a circle scan"),
                                               (5, r"a radial \(star\) scan")])
def test_scans_that_are_no_volume_are_named_and_refused(tmp_path, pattern, what):
    refused(write_vol(tmp_path / "x.vol", pattern=pattern), f"is {what}, expected a volume scan")


def test_b_scans_that_are_not_parallel_are_refused(tmp_path):
    path = write_vol(tmp_path / "x.vol", pattern=0, places=positions(4, turn=45))
    refused(path, "its B-scans are not parallel, as in a radial scan; expected a volume scan")


@pytest.mark.parametrize(("place", "value", "message"), [
    (12, 0, "is empty, its shape is .4, 9, 0."),
    (16, 1, "contains one B-scan, expected several"),
    (16, 2**32 - 1, "is truncated, or its header is damaged"),
    (20, 2**31, "is truncated, or its header is damaged"),
    (48, 2**30, "is truncated, or its header is damaged"),
    (2063 + 12, 0, "the header of B-scan 1 of 4 has 0 bytes, expected 256 or more"),
    (2063 + 12, 2**32 - 1, "is truncated or damaged: .* for B-scan 1 of 4"),
])
def test_headers_that_cannot_be_are_refused(tmp_path, place, value, message):
    path = write_vol(tmp_path / "x.vol")
    raw = bytearray(path.read_bytes())
    raw[place:place + 4] = struct.pack("<I", value)
    path.write_bytes(raw)
    refused(path, message)


def test_what_is_cut_or_not_heidelbergs_or_not_a_number_is_refused(tmp_path):
    path = write_vol(tmp_path / "x.vol")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    refused(path, "is truncated or damaged: .* for B-scan 4 of 4")
    path.write_bytes(whole[:500])
    refused(path, "is truncated: 500 bytes, expected 2048 or more")
    path.write_bytes(whole[:2048])
    refused(path, "is truncated, .* but the file contains at most 0$")
    path.write_bytes(b"VOL" + whole[3:])
    refused(path, "is not a Heidelberg .vol file")
    refused(tmp_path / "absent.vol", "does not exist")
    for value in (np.nan, np.inf):
        values = LINEAR.copy()
        values[2, 3, 4] = value
        refused(write_vol(path, values), "contains NaN or infinite values", both=False)
