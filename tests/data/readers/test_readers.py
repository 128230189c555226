"""Images and volumes from disk, good and bad."""

import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from helpers import write_image
from PIL import Image
from scan_files import (
    PIXELS,
    STACK,
    read_both,
    refused,
    refused_image,
    write_dicom,
    write_dicom_series,
    write_nifti,
    write_video,
)

from slivit.data.readers import ReadError, image_header, read_image, read_volume, volume_header
from slivit.data.readers.base import natural_key


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
    ("L", ".gif", PIXELS),
    ("P", ".gif", PIXELS),
    ("L", ".jp2", PIXELS),
    ("LA", ".j2k", PIXELS),
    ("RGBA", ".jp2", PIXELS),
    ("I;16", ".jp2", PIXELS.astype(np.uint16) * 200),
])
def test_every_mode_gives_its_grey_values(tmp_path, mode, suffix, expected):
    image = read_image(write_image(tmp_path / f"x{suffix}", PIXELS, mode))
    assert image_header(tmp_path / f"x{suffix}").shape[:2] == image.shape
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
    assert image_header(tmp_path / "x.jpg").shape == PIXELS.T.shape


@pytest.mark.parametrize(("number", "turn"), [
    (1, lambda p: p), (2, np.fliplr), (3, lambda p: np.rot90(p, 2)), (4, np.flipud),
    (5, np.transpose), (6, lambda p: np.rot90(p, -1)), (7, lambda p: np.rot90(p, 2).T),
    (8, np.rot90)])
@pytest.mark.parametrize("kind", ["png", "tif", "packed tif"])
def test_orientation_of_a_picture_is_applied(tmp_path, kind, number, turn):
    path = tmp_path / f"x.{kind[-3:]}"
    if kind == "png":
        exif = Image.Exif()
        exif[274] = number
        Image.fromarray(PIXELS).save(path, exif=exif)
    else:
        tifffile.imwrite(path, PIXELS, extratags=[(274, "H", 1, number, True)],
                         compression="packbits" if kind == "packed tif" else None)
    assert np.array_equal(read_image(path), turn(PIXELS))
    assert image_header(path).shape == turn(PIXELS).shape


def damaged(path, kind):
    """Write a file that cannot be read in one of several ways."""
    if kind == "absent":
        return
    if kind == "text":
        path.write_text("this is no picture")
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
    ("a.png", "text", r"a.png: cannot be read as an image \(cannot identify image file\)$"),
    ("a.tif", "pages", "has 2 pages"),
    ("a.tif", "nan", "contains NaN"),
    ("a.tif", "tags", "a.tif: cannot be read as an image"),
    ("a.svg", "absent", "is not one of .png"),
])
def test_damaged_images_are_refused(tmp_path, name, kind, message):
    damaged(tmp_path / name, kind)
    for look in (read_image, image_header):
        if (kind, look) == ("nan", image_header):
            continue  # values are seen once they are decoded
        with pytest.raises(ReadError, match=message):
            look(tmp_path / name)


def test_slices_come_in_natural_order(tmp_path):
    for name, value in (("s10", 3), ("s2", 2), ("S1", 1), ("s010b", 4)):
        write_image(tmp_path / f"{name}.png", np.full((4, 5), value, np.uint8))
    (tmp_path / "notes.txt").write_text("not a slice")
    (tmp_path / "._s1.png").write_text("left by a file manager")
    assert read_volume(tmp_path).slices[:, 0, 0].tolist() == [1, 2, 3, 4]
    assert sorted(["1²2", "1²", "10", "9"], key=natural_key) == ["1²", "1²2", "9", "10"]


def test_one_colour_slice_makes_a_colour_volume(tmp_path):
    write_image(tmp_path / "1.png", np.full((4, 5), 7, np.uint8))
    Image.fromarray(np.full((4, 5, 3), (1, 2, 3), np.uint8)).save(tmp_path / "2.png")
    volume = read_volume(tmp_path).slices
    assert volume[:, 0, 0].tolist() == [[7, 7, 7], [1, 2, 3]]


def test_bad_volumes_are_refused(tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "looping").mkdir()
    (tmp_path / "looping/x.png").symlink_to(tmp_path / "looping/x.png")
    write_image(tmp_path / "sizes/1.png", np.zeros((4, 5), np.uint8))
    write_image(tmp_path / "sizes/2.png", np.zeros((4, 6), np.uint8))
    for name, message in (("none", "contains no slices"), ("sizes", r"differ in size \(4x5, 4x6\)"),
                          ("sizes/1.png", "is neither a folder of slices"),
                          ("absent", "does not exist"), ("looping", "cannot be read"),
                          ("nowhere", "is a broken symbolic link")):
        refused(tmp_path / name, message)


def write_any(folder, kind):
    """Write STACK as a volume of one kind."""
    if kind == "pictures":
        for k, pixels in enumerate(STACK):
            write_image(folder / f"v/{k}.png", pixels)
        return folder / "v"
    if kind == "series":
        return write_dicom_series(folder / "v", STACK)
    if kind == "frames":
        return write_dicom(folder / "no_suffix", STACK, NumberOfFrames=4)
    if kind == "nifti":
        return write_nifti(folder / "v.nii.gz", STACK.transpose(2, 1, 0)[::-1, ::-1])
    if kind == "video":
        return write_video(folder / "v.avi", STACK)
    if kind == "tiff":
        tifffile.imwrite(folder / "v.tif", STACK, photometric="minisblack")
        return folder / "v.tif"
    if kind == "imagej":
        tifffile.imwrite(folder / "v.tif", STACK, imagej=True)
        return folder / "v.tif"
    np.save(folder / "v.npy", STACK)
    np.savez_compressed(folder / "v.npz", a=STACK, b=STACK)
    return folder / ("v.npy" if kind == "npy" else "v.npz:a")


@pytest.mark.parametrize("kind", ["pictures", "series", "frames", "nifti", "video", "tiff",
                                  "imagej", "npy", "npz"])
def test_every_kind_gives_the_same_slices_and_those_picked(tmp_path, kind):
    path = write_any(tmp_path, kind)
    assert (read_both(path).slices == STACK).all()
    assert volume_header(path).dtype == "uint8"
    picked = read_volume(path, lambda count: np.array([0, 2, count - 1])).slices
    assert (picked == STACK[[0, 2, 3]]).all()


@pytest.mark.parametrize(("name", "message"), [
    ("x.png", "x.png: cannot be read as an image"), ("x.tif", "cannot be read as a TIFF"),
    ("x.nii", "cannot be read as NIfTI"), ("x.avi", "cannot be read as a video"),
    ("x.npy", "cannot be read as an array"), ("x.npz", "cannot be read as an array"),
    ("x.txt", "is neither a folder of slices nor one of .tif, .tiff, .dcm"),
    ("x", "is neither a folder"),
])
def test_text_under_any_name_is_refused(tmp_path, name, message):
    path = tmp_path / ("folder" if name == "x.png" else name)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/x.png").write_text("this is no picture " * 40)
    if name != "x.png":
        path.write_text("this is no scan " * 40)
    refused(path, message)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_with_much_behind_its_end_is_accepted(tmp_path, mode):
    write_image(tmp_path / "x.jpg", PIXELS, mode)
    before = read_image(tmp_path / "x.jpg")
    with (tmp_path / "x.jpg").open("ab") as file:
        file.write(b"appended by the camera" * 200)
    assert image_header(tmp_path / "x.jpg").shape[:2] == PIXELS.shape
    assert (read_image(tmp_path / "x.jpg") == before).all()


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_png_of_16_bits_keeps_them(tmp_path, channels):
    values = np.random.default_rng(0).integers(0, 4096, (9, 7, channels)).astype(np.uint16)
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(values))
    expected = values[..., 0] if channels == 2 else values[..., :3]
    assert (read_image(path) == expected).all()
    assert (image_header(path).dtype, image_header(path).shape) == ("uint16", expected.shape)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".gif", ".webp", ".jp2",
                                    ".j2k"])
@pytest.mark.parametrize("kept", [-30, 0.5, 40, 3, 0])
def test_cut_off_pictures_are_found_by_the_header_alone(tmp_path, suffix, kept):
    big = np.random.default_rng(0).integers(0, 255, (90, 80), dtype=np.uint8)
    path = write_image(tmp_path / f"x{suffix}", big)
    content = path.read_bytes()
    path.write_bytes(content[:int(kept * len(content)) if isinstance(kept, float) else kept])
    refused_image(path, f"x{suffix}: cannot be read as an image")
    write_image(tmp_path / "y.png", big)
    refused(tmp_path, f"x{suffix}: cannot be read as an image")


def test_slices_of_several_types_are_refused(tmp_path):
    write_image(tmp_path / "1.png", PIXELS)
    write_image(tmp_path / "2.png", PIXELS, "I;16")
    refused(tmp_path, r"slices differ in type \(uint16, uint8\), expected")
