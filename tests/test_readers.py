"""Images and volumes from disk, good and bad."""

import struct

import numpy as np
import pytest
from helpers import array_scans, write_image
from PIL import Image

from slivit.errors import UserError
from slivit.readers import ReadError, natural_key, read_image, read_volume
from slivit.scans import FileSource, check_scans

PIXELS = np.random.default_rng(0).integers(0, 255, (20, 31), dtype=np.uint8)


@pytest.mark.parametrize(("mode", "suffix", "expected"), [
    ("L", ".png", PIXELS),
    ("L", ".bmp", PIXELS),
    ("RGB", ".png", PIXELS),  # three equal channels are grey
    ("P", ".png", PIXELS),
    ("LA", ".png", PIXELS),
    ("RGBA", ".tif", PIXELS),
    ("I;16", ".png", PIXELS.astype(np.uint16) * 200),
    ("I;16", ".tiff", PIXELS.astype(np.uint16) * 200),
    ("F", ".tif", PIXELS.astype(np.float32) / 7),
    ("1", ".png", None),
])
def test_every_mode_gives_its_grey_values(tmp_path, mode, suffix, expected):
    image = read_image(write_image(tmp_path / f"x{suffix}", PIXELS, mode))
    if mode == "1":
        expected = np.array(Image.fromarray(PIXELS).convert("1").convert("L"))
        assert set(np.unique(image)) == {0, 255}
    assert image.dtype == expected.dtype
    assert (image == expected).all()


def test_colour_and_palette_keep_their_colours(tmp_path):
    colour = np.zeros((8, 9, 3), np.uint8)
    colour[:, 4:] = (200, 10, 90)
    Image.fromarray(colour).save(tmp_path / "rgb.png")
    Image.fromarray(colour).quantize(4).save(tmp_path / "palette.png")
    for name in ("rgb.png", "palette.png"):
        assert (read_image(tmp_path / name) == colour).all()


def test_orientation_of_a_photograph_is_applied(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees
    Image.fromarray(PIXELS).save(tmp_path / "x.jpg", exif=exif, quality=100)
    assert read_image(tmp_path / "x.jpg").shape == PIXELS.T.shape


def damaged(path, kind):
    """Write a file that cannot be read in one of several ways."""
    if kind == "absent":
        return
    if kind == "text":
        path.write_text("this is no picture")
    elif kind == "truncated":
        Image.fromarray(PIXELS).save(path)
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "pages":
        Image.fromarray(PIXELS).save(path, save_all=True, append_images=[Image.fromarray(PIXELS)])
    elif kind == "nan":
        Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(path)
    elif kind == "tags":  # a second page without any tag, which Pillow meets with a TypeError
        Image.fromarray(PIXELS).save(path)
        content = bytearray(path.read_bytes())
        start = struct.unpack_from("<I", content, 4)[0]
        end = start + 2 + 12 * struct.unpack_from("<H", content, start)[0]
        struct.pack_into("<I", content, end, len(content))
        path.write_bytes(content + bytes(6))


@pytest.mark.parametrize(("name", "kind", "message"), [
    ("a.png", "absent", "a.png: does not exist"),
    ("a.png", "text", "a.png: cannot be read as an image"),
    ("a.jpg", "truncated", "a.jpg: cannot be read as an image"),
    ("a.png", "truncated", "a.png: cannot be read as an image"),
    ("a.tif", "pages", "has 2 pages"),
    ("a.tif", "nan", "holds NaN"),
    ("a.tif", "tags", "a.tif: cannot be read as an image"),
    ("a.gif", "absent", "is not one of .png"),
])
def test_damaged_images_are_refused(tmp_path, name, kind, message):
    damaged(tmp_path / name, kind)
    with pytest.raises(ReadError, match=message):
        read_image(tmp_path / name)


def test_slices_come_in_natural_order(tmp_path):
    for name, value in (("s10", 3), ("s2", 2), ("S1", 1), ("s010b", 4)):
        write_image(tmp_path / f"{name}.png", np.full((4, 5), value, np.uint8))
    (tmp_path / "notes.txt").write_text("not a slice")
    (tmp_path / "._s1.png").write_text("left by a file manager")
    assert read_volume(tmp_path)[:, 0, 0].tolist() == [1, 2, 3, 4]
    assert sorted(["1²2", "1²", "10", "9"], key=natural_key) == ["1²", "1²2", "9", "10"]


def test_one_colour_slice_makes_a_colour_volume(tmp_path):
    write_image(tmp_path / "1.png", np.full((4, 5), 7, np.uint8))
    Image.fromarray(np.full((4, 5, 3), (1, 2, 3), np.uint8)).save(tmp_path / "2.png")
    volume = read_volume(tmp_path)
    assert volume[:, 0, 0].tolist() == [[7, 7, 7], [1, 2, 3]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_arrays_keep_their_type(tmp_path, dtype):
    volume = np.arange(24).reshape(2, 3, 4).astype(dtype)
    np.save(tmp_path / "v.npy", volume)
    np.savez(tmp_path / "v.npz", anything=volume)
    for name in ("v.npy", "v.npz"):
        read = read_volume(tmp_path / name)
        assert read.dtype == dtype
        assert (read == volume).all()


@pytest.mark.parametrize(("content", "message"), [
    (np.zeros((3, 4)), "shape .3, 4., expected .slices, height, width"),
    (np.zeros((2, 3, 4, 2)), "shape .2, 3, 4, 2."),
    (np.zeros((0, 3, 4)), "is empty"),
    (np.full((2, 3, 4), np.nan), "NaN or infinite"),
    (np.array([[["a"]]]), "holds <U1, expected numbers"),
    (np.full((2, 3, 4), None), "cannot be read as an array"),  # only pickle could read it
])
def test_bad_arrays_are_refused(tmp_path, content, message):
    np.save(tmp_path / "v.npy", content, allow_pickle=True)
    with pytest.raises(ReadError, match=message):
        read_volume(tmp_path / "v.npy")


def test_bad_volumes_are_refused(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.zeros((1, 2, 2)), b=np.zeros((1, 2, 2)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:100])
    (tmp_path / "none").mkdir()
    write_image(tmp_path / "sizes/1.png", np.zeros((4, 5), np.uint8))
    write_image(tmp_path / "sizes/2.png", np.zeros((4, 6), np.uint8))
    for name, message in (("two.npz", r"holds 2 arrays \(a, b\)"), ("cut.npz", "cannot be read"),
                          ("none", "holds no slices"), ("sizes", r"differ in size \(4x5, 4x6\)"),
                          ("sizes/1.png", "is not a folder of slices"),
                          ("absent", "does not exist"), ("x" * 300, "cannot be read")):
        with pytest.raises(ReadError, match=message):
            read_volume(tmp_path / name)


def test_check_lists_every_unreadable_scan_at_once(tmp_path):
    write_image(tmp_path / "good.png", PIXELS)
    damaged(tmp_path / "bad.png", "text")
    paths = tuple(tmp_path / name for name in ("bad.png", "good.png", "absent.png"))
    scans = array_scans(np.zeros((3, 1, 1)), [0, 1, 0], read=FileSource(paths, 2))
    with pytest.raises(UserError, match="2 of 3 scans cannot be read") as error:
        check_scans(scans)
    assert "bad.png" in str(error.value)
    assert "absent.png: does not exist" in str(error.value)
    assert check_scans(scans, np.array([1])) == []


def test_blank_scans_are_counted_and_named(messages):
    volumes = np.ones((4, 2, 3, 3), np.uint8)
    volumes[[1, 3]] = 0
    assert check_scans(array_scans(volumes, [0, 1, 0, 1])) == [1, 3]
    assert any("2 of 4 scans are blank" in text and "train r1, train r3" in text
               for text in messages)
