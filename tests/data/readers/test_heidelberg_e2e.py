"""Heidelberg's .e2e files, good and bad."""

import struct
from pathlib import Path

import numpy as np
import pytest
from oct_files import LINEAR, NAME, series, stored, write_e2e
from scan_files import read_both, refused

from slivit.data.given_scans import given_scans
from slivit.data.readers import files_of, read_volume, volume_header
from slivit.data.readers.heidelberg import shown
from slivit.utils.errors import UserError

STORED = stored(LINEAR)


@pytest.mark.parametrize("shift", [0, 64])
def test_b_scans_come_by_the_number_of_their_slice(tmp_path, shift):
    volume = read_both(write_e2e(tmp_path / "x.E2E", series(5, STORED), shift=shift))
    expected = shown(LINEAR, LINEAR > 2)
    assert volume.slices.dtype == np.uint8 and volume.slices.shape == LINEAR.shape
    assert np.abs(volume.slices.astype(int) - expected).max() <= 1
    assert volume.spacing == pytest.approx((0.25 * 0.2896, 0.004, 6 / 12 * 0.2896))


def test_no_data_is_black_and_more_is_brighter(tmp_path):
    values = STORED.copy()
    values[0, 0, :4] = 0xFFFF, 62 << 10, (62 << 10) + 1023, 63 << 10  # none, 0.5, almost 1, 1
    found = read_volume(write_e2e(tmp_path / "x.e2e", series(5, values))).slices[0, 0, :4]
    assert found.tolist() == [0, 234, 255, 255]
    rising = np.arange(63 << 10, dtype=np.uint16)[-2160:].reshape(2, 9, 120)
    path = write_e2e(tmp_path / "x.e2e", series(5, rising))
    assert (np.diff(read_volume(path).slices.reshape(-1).astype(int)) >= 0).all()


def test_eyepy_finds_the_same_b_scans_in_the_same_order(tmp_path):
    reader = pytest.importorskip("eyepy.io.he")
    values = STORED & 0xFC00  # eyepy takes the bits of the mantissa in the opposite order
    path = write_e2e(tmp_path / "x.e2e", series(5, values, b"L"), series(8, values[:3]))
    with reader.HeE2eReader(path) as opened:
        theirs = {one.id: np.stack([one.slices[2 * i].get_bscan() for i in range(one.n_bscans)])
                  for one in opened.series if one.id}
    assert sorted(theirs) == [5, 8]
    for key, linear in theirs.items():
        assert (read_volume(Path(f"{path}:{key}")).slices == shown(linear, linear > 1.99)).all()


def test_several_volumes_are_listed_and_one_is_named(tmp_path):
    path = write_e2e(tmp_path / "x.e2e", series(12, STORED[:3], b"L"), series(5, STORED))
    refused(path, r"x.e2e: contains 2 volumes, expected one, or its number as in x.e2e:5: "
                  r"5 \(right eye, 4 B-scans\); 12 \(left eye, 3 B-scans\)$")
    named = Path(f"{path}:12")
    assert (read_both(named).slices == read_volume(Path(f"{path}:5")).slices[:3]).all()
    assert files_of(named) == [path]
    assert given_scans(named, 3, ["A"]).ids == ("x.e2e:12",)
    refused(Path(f"{path}:7"), r"x.e2e:7: no such series, expected one, or its number as in "
                               r"x.e2e:5: 5 \(right eye")
    with pytest.raises(UserError, match="no such file"):
        given_scans(tmp_path / "absent.e2e:3", 3, ["A"])


def test_series_of_the_same_number_are_told_apart(tmp_path):
    path = write_e2e(tmp_path / "x.e2e", series(5, STORED, study=1), series(5, STORED[:2], study=2))
    refused(path, r"contains 2 volumes.*: 1_5 \(right.*; 2_5 \(right")
    assert volume_header(Path(f"{path}:2_5")).shape == (2, 9, 12)


def test_scans_that_are_no_volume_do_not_stand_in_the_way(tmp_path):
    circle = series(9, STORED[:1], pattern=2)
    path = write_e2e(tmp_path / "x.e2e", circle, series(5, STORED))
    assert read_both(path).slices.shape == STORED.shape
    refused(Path(f"{path}:9"), "x.e2e:9: is a circle scan, expected a volume scan")
    write_e2e(path, circle, series(5, STORED, b"?", pattern=5))
    refused(path, r"contains no volume scan, expected one; it contains 5 \(unknown eye, 4 "
                  r"B-scans, a radial \(star\) scan\); 9 \(right eye, 1 B-scans, a circle scan\)")
    write_e2e(path, series(5, STORED, turn=45))
    refused(path, "its B-scans are not parallel, as in a radial scan")


def test_fewer_b_scans_than_announced_are_noted(tmp_path):
    header = volume_header(write_e2e(tmp_path / "x.e2e", series(5, STORED, announced=25)))
    assert header.notes == ("4 B-scans, but it announces 25",)


def test_damaged_files_are_refused(tmp_path):
    path = write_e2e(tmp_path / "x.e2e", series(5, STORED))
    whole = path.read_bytes()

    def changed(place, value):
        path.write_bytes(whole[:place] + struct.pack("<I", value) + whole[place + 4:])
        return path

    path.write_bytes(whole[:-1])
    refused(path, "is truncated or damaged: .* bytes, expected .* for B-scan 1 of series 5")
    path.write_bytes(whole[:5000])
    refused(path, "is truncated or damaged: 5000 bytes, but its directories take 22528")
    path.write_bytes(b"x" + whole)
    refused(path, "is not a Heidelberg .e2e file")
    refused(changed(36 + 40, 2**31), "is truncated or damaged")  # first directory
    refused(changed(88 + 44, 88), "its directories lead round in a circle")  # before it: itself
    refused(changed(88 + 36, 2**31), "is truncated or damaged: .* directories take")  # entries
    image = whole.rindex(struct.pack("<I", 35652097)) - 4
    refused(changed(image + 12, 2**31), "is truncated or damaged: .* for B-scan 1 of series 5")
    refused(changed(image + 12, 0), "B-scan 1 of series 5 is empty")
    refused(changed(image + 12, 4), "slices differ in size .4x12, 9x12.")
    write_e2e(path, series(5, STORED) + series(5, STORED))
    refused(path, "series 5 contains two B-scans for one slice")
    write_e2e(path, [one for one in series(5, STORED) if one[2] < 0])
    refused(path, "contains no B-scans")


def test_the_patient_is_in_no_message(tmp_path):
    path = write_e2e(tmp_path / "x.e2e", series(5, STORED), series(6, STORED))
    assert NAME in path.read_bytes()
    refused(path, "^(?!.*Muster).*contains 2 volumes")
