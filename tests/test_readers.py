"""Images and volumes from disk, good and bad."""

import struct
import zipfile

import numpy as np
import pytest
import tifffile
from helpers import write_image
from PIL import Image
from scan_files import read_both, write_dicom, write_dicom_series, write_nifti, write_video

from slivit.readers import ReadError, image_header, read_image, read_volume, volume_header
from slivit.readers.base import natural_key

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
    (np.full((2, 3, 4), np.nan), "NaN or infinite"),
    (np.array([[["a"]]]), "holds <U1, expected numbers"),
    (np.full((2, 3, 4), None), "cannot be read as an array"),  # only pickle could read it
])
def test_bad_arrays_are_refused(tmp_path, content, message):
    np.save(tmp_path / "v.npy", content, allow_pickle=True)
    for look in (read_volume, volume_header):
        if (message, look) == ("NaN or infinite", volume_header):
            continue
        with pytest.raises(ReadError, match=message):
            look(tmp_path / "v.npy")


def test_bad_volumes_are_refused(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.zeros((1, 2, 2)), b=np.zeros((1, 2, 2)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:100])
    (tmp_path / "none").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "looping").mkdir()
    (tmp_path / "looping/x.png").symlink_to(tmp_path / "looping/x.png")
    write_image(tmp_path / "sizes/1.png", np.zeros((4, 5), np.uint8))
    write_image(tmp_path / "sizes/2.png", np.zeros((4, 6), np.uint8))
    for name, message in (("two.npz", r"holds 2 arrays \(a, b\)"), ("cut.npz", "cannot be read"),
                          ("none", "holds no slices"), ("sizes", r"differ in size \(4x5, 4x6\)"),
                          ("sizes/1.png", "is not a folder of slices"),
                          ("absent", "does not exist"), ("x" * 300, "cannot be read"),
                          ("loop", "(cannot be read|leads nowhere)"), ("looping", "cannot be read"),
                          ("nowhere", "is a symbolic link that leads nowhere")):
        for look in (read_volume, volume_header):
            with pytest.raises(ReadError, match=message):
                look(tmp_path / name)


STACK = np.random.default_rng(1).integers(0, 255, (4, 9, 12), dtype=np.uint8)
COLOUR = np.random.default_rng(2).integers(0, 255, (4, 9, 12, 3), dtype=np.uint8)


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
    ("x.txt", "is not a folder of slices nor one of .tif, .tiff, .dcm"), ("x", "is not a folder"),
])
def test_text_under_any_name_is_refused(tmp_path, name, message):
    path = tmp_path / ("folder" if name == "x.png" else name)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/x.png").write_text("this is no picture " * 40)
    if name != "x.png":
        path.write_text("this is no scan " * 40)
    for look in (read_volume, volume_header):
        with pytest.raises(ReadError, match=message):
            look(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, ">u2"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_pages_of_a_tiff_keep_their_type(tmp_path, dtype, compression):
    values = STACK.astype(dtype) * np.array(1.5 if dtype == np.float32 else 1, dtype)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="minisblack", compression=compression)
    found = read_both(tmp_path / "x.tif").slices
    assert found.dtype == values.dtype.newbyteorder("=")
    assert (found == values).all()


@pytest.mark.parametrize("options", [
    {"photometric": "rgb"}, {"photometric": "rgb", "planarconfig": "separate"},
    {"photometric": "rgb", "compression": "lzw"}, {"imagej": True}, {"ome": True},
])
def test_colour_pages_of_a_tiff(tmp_path, options):
    planar = options.get("planarconfig") == "separate"
    tifffile.imwrite(tmp_path / "x.tif", np.moveaxis(COLOUR, -1, 1) if planar else COLOUR,
                     **options)
    assert (read_both(tmp_path / "x.tif").slices == COLOUR).all()


def test_palettes_white_zero_and_bits_of_a_tiff(tmp_path):
    palette = np.random.default_rng(3).integers(0, 255, (3, 256)).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "p.tif", STACK, photometric="palette", colormap=palette)
    assert (read_both(tmp_path / "p.tif").slices == np.moveaxis(palette >> 8, 0, -1)[STACK]).all()
    tifffile.imwrite(tmp_path / "w.tif", STACK, photometric="miniswhite")
    assert (read_both(tmp_path / "w.tif").slices == 255 - STACK).all()
    tifffile.imwrite(tmp_path / "b.tif", STACK > 99, photometric="minisblack")
    assert (read_both(tmp_path / "b.tif").slices == (STACK > 99) * 255).all()


def test_pillow_and_tifffile_write_the_same_stack(tmp_path):
    first, *others = map(Image.fromarray, STACK)
    first.save(tmp_path / "x.tiff", save_all=True, append_images=others)
    assert (read_both(tmp_path / "x.tiff").slices == STACK).all()


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1), ("micron", 1e-3), ("pixel", None)])
def test_spacing_of_an_imagej_stack(tmp_path, unit, scale):
    tifffile.imwrite(tmp_path / "x.tif", STACK, imagej=True, resolution=(4, 2),
                     metadata={"spacing": 3.0, "unit": unit, "axes": "ZYX"})
    expected = None if scale is None else pytest.approx((3 * scale, 0.5 * scale, 0.25 * scale))
    assert read_both(tmp_path / "x.tif").spacing == expected


def test_tiff_of_one_page_or_of_several_sizes_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "one.tif", STACK[0])
    with tifffile.TiffWriter(tmp_path / "sizes.tif") as file:
        file.write(STACK[0])
        file.write(STACK[0, :5])
    for name, message in (("one.tif", "has one page, expected a page for every slice"),
                          ("sizes.tif", r"its pages differ in size or kind \(2 series\)")):
        for look in (read_volume, volume_header):
            with pytest.raises(ReadError, match=f"{name}: {message}"):
                look(tmp_path / name)


def write_stack(path, stack, writer):
    """Write pages as one of several writers does."""
    if writer.startswith("pillow"):
        first, *others = map(Image.fromarray, stack)
        first.save(path, save_all=True, append_images=others,
                   compression="tiff_lzw" if "lzw" in writer else None)
    elif writer == "page by page":
        with tifffile.TiffWriter(path) as file:
            for page in stack:
                file.write(page, contiguous=False, metadata=None)
    else:
        options = {"lzw": {"compression": "lzw"}, "tiles": {"tile": (16, 16)}, "plain": {},
                   "imagej": {"imagej": True}, "ome": {"ome": True}, "big": {"bigtiff": True},
                   "without shape": {"metadata": None}}[writer]
        tifffile.imwrite(path, stack, photometric="minisblack", **options)


@pytest.mark.parametrize("writer", ["plain", "lzw", "tiles", "imagej", "ome", "big", "page by page",
                                    "without shape", "pillow", "pillow lzw"])
def test_cut_off_tiff_is_found_by_the_header_alone(tmp_path, writer):
    stack = np.random.default_rng(0).integers(0, 255, (5, 40, 48), dtype=np.uint8)
    path = tmp_path / "x.tif"
    write_stack(path, stack, writer)
    assert (read_both(path).slices == stack).all()
    content = path.read_bytes()
    for kept in (0.8, 0.6, 0.4, 0.2, 0.001, 0):
        path.write_bytes(content[:int(kept * len(content))])
        for look in (read_volume, volume_header):
            with pytest.raises(ReadError, match="x.tif: "):
                look(path)


def test_sixteen_bit_colour_picture(tmp_path):
    deep = COLOUR[0].astype(np.uint16) * 200
    tifffile.imwrite(tmp_path / "x.tif", deep, photometric="rgb")
    assert (read_image(tmp_path / "x.tif") == deep).all()
    found = image_header(tmp_path / "x.tif")
    assert (found.shape, found.dtype) == (deep.shape, "uint16")


@pytest.mark.parametrize("options", [{"rowsperstrip": 4}, {"rowsperstrip": 1}, {"rowsperstrip": 99},
                                     {"tile": (16, 16)}, {"photometric": "miniswhite"},
                                     {"compression": "packbits", "rowsperstrip": 4},
                                     {"byteorder": ">", "rowsperstrip": 2}])
def test_raw_strips_equal_what_pillow_decodes(tmp_path, options):
    path, pixels = tmp_path / "x.tif", np.tile(STACK[0], (3, 3))
    tifffile.imwrite(path, pixels, **options)
    with Image.open(path) as picture:
        assert (read_image(path) == np.array(picture)).all()
    assert (read_image(path) == (255 - pixels if "photometric" in options else pixels)).all()
    path.write_bytes(path.read_bytes()[:-300])
    for look in (read_image, image_header):
        with pytest.raises(ReadError, match="x.tif: cannot be read as an image"):
            look(path)


def test_strips_in_another_order_are_put_in_their_place(tmp_path):
    """The second strip lies before the first in the file."""
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, STACK[0][:8], rowsperstrip=4)
    with tifffile.TiffFile(path, mode="r+b") as file:
        tag = file.pages[0].tags["StripOffsets"]
        tag.overwrite(tag.value[::-1])
    assert (read_image(path) == np.concatenate([STACK[0][4:8], STACK[0][:4]])).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_with_much_behind_its_end_is_accepted(tmp_path, mode):
    write_image(tmp_path / "x.jpg", PIXELS, mode)
    before = read_image(tmp_path / "x.jpg")
    with (tmp_path / "x.jpg").open("ab") as file:
        file.write(b"appended by the camera" * 200)
    assert image_header(tmp_path / "x.jpg").shape[:2] == PIXELS.shape
    assert (read_image(tmp_path / "x.jpg") == before).all()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("kept", [-30, 0.5, 40, 3, 0])
def test_cut_off_pictures_are_found_by_the_header_alone(tmp_path, suffix, kept):
    big = np.random.default_rng(0).integers(0, 255, (90, 80), dtype=np.uint8)
    path = write_image(tmp_path / f"x{suffix}", big)
    content = path.read_bytes()
    path.write_bytes(content[:int(kept * len(content)) if isinstance(kept, float) else kept])
    for look in (read_image, image_header):
        with pytest.raises(ReadError, match=f"x{suffix}: cannot be read as an image"):
            look(path)
    write_image(tmp_path / "y.png", big)
    for look in (read_volume, volume_header):
        with pytest.raises(ReadError, match=f"x{suffix}: cannot be read as an image"):
            look(tmp_path)


def test_slices_of_several_types_are_refused(tmp_path):
    write_image(tmp_path / "1.png", PIXELS)
    write_image(tmp_path / "2.png", PIXELS, "I;16")
    for look in (read_volume, volume_header):
        with pytest.raises(ReadError, match=r"slices differ in type \(uint16, uint8\), expected"):
            look(tmp_path)


def test_one_of_several_arrays_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", a=STACK, b=STACK[:2])
    assert (read_both(tmp_path / "x.npz:b").slices == STACK[:2]).all()
    np.savez(tmp_path / "one.npz", picture=PIXELS)
    assert (read_image(tmp_path / "one.npz") == PIXELS).all()
    for name, message in (
            ("x.npz", r"holds 2 arrays \(a, b\), expected one, or its name as in x.npz:a"),
            ("x.npz:c", r"is not there \(a, b\), expected one, or its name as in x.npz:a"),
            ("absent.npz:c", "absent.npz:c: does not exist"),
            ("one.npz", r"has the shape \(20, 31\), expected \(slices, height, width\)")):
        for look in (read_volume, volume_header):
            with pytest.raises(ReadError, match=message):
                look(tmp_path / name)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("kept", [-1, 0.5, 100, 20, 0])
def test_cut_off_arrays_are_found_by_the_header_alone(tmp_path, name, kept):
    np.save(tmp_path / "x.npy", STACK)
    np.savez_compressed(tmp_path / "x.npz", a=STACK)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(
        content[:int(kept * len(content)) if isinstance(kept, float) else kept])
    for look in (read_volume, volume_header):
        with pytest.raises(ReadError, match=f"{name}: cannot be read as an array"):
            look(tmp_path / name)


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
    for look in (read_volume, volume_header):
        with pytest.raises(ReadError, match="x.npz: (cannot be read as an|holds no) array"):
            look(tmp_path / "x.npz")


def test_masks_become_bytes(tmp_path):
    np.save(tmp_path / "x.npy", STACK > 99)
    assert (read_both(tmp_path / "x.npy").slices == (STACK > 99)).all()
    assert read_volume(tmp_path / "x.npy").slices.dtype == volume_header(tmp_path / "x.npy").dtype
