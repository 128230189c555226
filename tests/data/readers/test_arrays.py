"""`.npy` and `.npz` volumes, good and bad."""

import zipfile

import numpy as np
import pytest
from scan_files import PIXELS, STACK, read_both, refused

from slivit.data.readers import ReadError, read_image, read_volume, volume_header


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_arrays_keep_their_type(tmp_path, dtype):
    volume = np.arange(24).reshape(2, 3, 4).astype(dtype)
    np.save(tmp_path / "v.npy", volume)
    np.savez(tmp_path / "v.npz", anything=volume)
    for name in ("v.npy", "v.npz"):
        read = read_both(tmp_path / name).slices
        assert read.dtype == dtype
        assert (read == volume).all()


@pytest.mark.parametrize(("content", "message"), [
    (np.zeros((3, 4)), "shape .3, 4., expected .slices, height, width"),
    (np.zeros((2, 3, 4, 2)), "shape .2, 3, 4, 2."),
    (np.zeros((0, 3, 4)), "is empty"),
    (np.array([[["a"]]]), "contains <U1, expected numbers"),
    (np.full((2, 3, 4), None), "cannot be read as an array"),  # only pickle could read it
])
def test_bad_arrays_are_refused(tmp_path, content, message):
    np.save(tmp_path / "v.npy", content, allow_pickle=True)
    refused(tmp_path / "v.npy", message)


def test_one_of_several_arrays_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", a=STACK, b=STACK[:2])
    assert (read_both(tmp_path / "x.npz:b").slices == STACK[:2]).all()
    np.savez(tmp_path / "one.npz", picture=PIXELS)
    assert (read_image(tmp_path / "one.npz") == PIXELS).all()
    for name, message in (
            ("x.npz", r"contains 2 arrays \(a, b\), expected one, or its name as in x.npz:a"),
            ("x.npz:c", r"no such array \(a, b\), expected one, or its name as in x.npz:a"),
            ("absent.npz:c", "absent.npz:c: does not exist"),
            ("one.npz", r"has the shape \(20, 31\), expected \(slices, height, width\)")):
        refused(tmp_path / name, message)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("kept", [-1, 0.5, 100, 20, 0])
def test_cut_off_arrays_are_found_by_the_header_alone(tmp_path, name, kept):
    np.save(tmp_path / "x.npy", STACK)
    np.savez_compressed(tmp_path / "x.npz", a=STACK)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(
        content[:int(kept * len(content)) if isinstance(kept, float) else kept])
    refused(tmp_path / name, f"{name}: (cannot be read as an array|is truncated)")


def test_damage_inside_a_packed_array_is_found_when_it_is_read(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", a=STACK)
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ReadError, match="x.npz: cannot be read as an array"):
        read_volume(tmp_path / "x.npz")


def test_member_that_is_no_array_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", b"this is no array" * 20)
    refused(tmp_path / "x.npz", "x.npz: (cannot be read as an|contains no) array")


def test_masks_become_bytes(tmp_path):
    np.save(tmp_path / "x.npy", STACK > 99)
    assert (read_both(tmp_path / "x.npy").slices == (STACK > 99)).all()
    assert read_volume(tmp_path / "x.npy").slices.dtype == volume_header(tmp_path / "x.npy").dtype


@pytest.mark.parametrize("value", [1e300, -1e39, float("nan"), float("inf")])
def test_values_that_float32_does_not_hold_are_refused(tmp_path, value):
    values = np.zeros((2, 4, 4))
    values[1, 2, 3] = value
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ReadError, match="values beyond 3.4e|NaN or infinite values"):
        read_volume(tmp_path / "a.npy")
