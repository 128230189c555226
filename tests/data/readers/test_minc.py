"""MINC files: scaled values, true samples, MINC2 with and without h5py, and what is refused."""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scan_files import read_both, refused, write_minc

from slivit.data.readers import ReadError, read_volume, volume_header

SAMPLES = Path(nib.__file__).parent / "tests/data"
BYTES = np.random.default_rng(0).integers(0, 255, (5, 6, 7), dtype=np.uint8)  # z, y, x
AXIAL = BYTES[:, ::-1, ::-1]


def test_values_are_scaled_to_the_range_of_each_slice(tmp_path):
    highest = np.array([1.0, 2, 3, 4, 5])
    path = write_minc(tmp_path / "x.mnc", BYTES, lowest=-highest, highest=highest)
    wanted = (AXIAL / 255 * 2 - 1) * highest[:, None, None]
    volume = read_both(path)
    assert np.allclose(volume.slices, wanted, atol=1e-6)
    assert (volume.slices.dtype, volume_header(path).dtype) == (np.float32, "uint8")


@pytest.mark.parametrize(("name", "spacing"), [
    ("tiny.mnc", 2.0), ("minc1_1_scale.mnc", 2.0), ("minc1-no-att.mnc", 1.0)])
def test_true_files_read(name, spacing):
    volume = read_both(SAMPLES / name)
    assert (volume.axes, volume.spacing) == ("SPL", (spacing,) * 3)
    values = nib.load(SAMPLES / name).get_fdata()  # its axes run to head, front and right
    assert np.allclose(volume.slices, values[:, ::-1, ::-1], rtol=1e-6)


def test_a_series_of_volumes_is_refused():
    refused(SAMPLES / "minc1_4d.mnc",
            r"has the shape \(10, 20, 20, 2\), expected three dimensions; save each volume")


def test_minc2_without_h5py_is_one_message(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(SAMPLES / "small.mnc", r"small.mnc: is a MINC2 file, which needs the package h5py: "
                                   r"install it \(pip install h5py\), or convert the file to NIfTI")


def test_minc2_reads_where_h5py_is_installed():
    pytest.importorskip("h5py")
    read_both(SAMPLES / "small.mnc")
    volume = read_both(SAMPLES / "minc2_1_scale.mnc")
    assert np.allclose(volume.slices, read_volume(SAMPLES / "minc1_1_scale.mnc").slices)


def test_minc2_in_other_files_or_not_all_there_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    whole = (SAMPLES / "minc2_1_scale.mnc").read_bytes()
    for name in ("linked.mnc", "empty.mnc", "vast.mnc"):
        (tmp_path / name).write_bytes(whole)
        with h5py.File(tmp_path / name, "r+") as file:
            group = file["minc-2.0/image/0"]
            attributes = dict(group["image"].attrs)
            del group["image"]
            if name == "linked.mnc":
                group["image"] = h5py.ExternalLink("other.mnc", "image")
            else:
                side = 10 if name == "empty.mnc" else 10**5
                image = group.create_dataset("image", (side, 20, 20), "u1", chunks=(5, 20, 20))
                image.attrs.update(attributes)
    refused(tmp_path / "linked.mnc", "linked.mnc: does not itself contain minc-2.0/image/0/image")
    refused(tmp_path / "empty.mnc", "empty.mnc: is truncated: contains 0 of the 2 chunks")
    refused(tmp_path / "vast.mnc", "vast.mnc: is truncated, or its header is damaged")


@pytest.mark.parametrize("kept", [-1, -100, 500, 60, 4, 3, 0])
def test_cut_off_files_are_found_by_the_header_alone(tmp_path, kept):
    path = write_minc(tmp_path / "x.mnc", BYTES)
    path.write_bytes(path.read_bytes()[:kept])
    refused(path, "x.mnc: is (truncated or damaged, or not MINC|not a MINC file)")


def test_bytes_after_the_last_variable_are_a_note(tmp_path):
    path = write_minc(tmp_path / "x.mnc", BYTES)
    assert volume_header(path).notes == ()
    path.write_bytes(path.read_bytes() + bytes(50))
    assert "bytes follow its last variable" in volume_header(path).notes[0]
    assert (read_both(path).slices == AXIAL).all()


def test_a_dimension_that_does_not_fit_is_refused(tmp_path):
    path = write_minc(tmp_path / "x.mnc", BYTES, lowest=np.zeros(5), highest=np.full(5, 255.0))
    content = path.read_bytes()
    place = content.index(b"xspace\0\0") + 8
    path.write_bytes(content[:place] + bytes([0, 0, 0, 9]) + content[place + 4:])
    refused(path, "x.mnc: (its header is damaged: its variables overlap|is truncated)")


@pytest.mark.parametrize(("change", "message"), [
    ((b"zspace", b"zother"), "has the dimensions zother, yspace, xspace, expected zspace, yspace"),
    ((b"image\0", b"imago\0"), "is truncated or damaged, or not MINC"),
    ((b"regular__", b"irregular"), "Irregular spacing not supported"),
])
def test_headers_that_cannot_be_are_refused(tmp_path, change, message):
    path = write_minc(tmp_path / "x.mnc", BYTES)
    path.write_bytes(path.read_bytes().replace(*change))
    refused(path, f"x.mnc: .*{message}")


def test_other_files_and_values_are_refused(tmp_path):
    (tmp_path / "text.mnc").write_text("this is no scan")
    refused(tmp_path / "text.mnc", "text.mnc: is not a MINC file: expected it to begin with CDF")
    refused(tmp_path / "absent.mnc", "absent.mnc: does not exist")
    with pytest.raises(ReadError, match="x.mnc: contains NaN or infinite values"):
        read_volume(write_minc(tmp_path / "x.mnc", BYTES, highest=np.nan))


def test_nothing_is_said_on_the_way(tmp_path, capfd, recwarn):
    path = write_minc(tmp_path / "x.mnc", BYTES)
    read_volume(path)
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, "is truncated")
    assert capfd.readouterr() == ("", "") and not recwarn.list
