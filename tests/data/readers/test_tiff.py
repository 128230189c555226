"""TIFF pictures and stacks, good and bad."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from scan_files import COLOUR, STACK, read_both, refused, refused_image

from slivit.data.readers import image_header, read_image, read_volume


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
def test_colour_pages_of_a_tiff_keep_their_colours(tmp_path, options):
    planar = options.get("planarconfig") == "separate"
    tifffile.imwrite(tmp_path / "x.tif", np.moveaxis(COLOUR, -1, 1) if planar else COLOUR,
                     **options)
    assert (read_both(tmp_path / "x.tif").slices == COLOUR).all()


def test_palettes_white_zero_and_bits_of_a_tiff_are_resolved(tmp_path):
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
def test_spacing_of_an_imagej_stack_is_read_in_mm(tmp_path, unit, scale):
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
        refused(tmp_path / name, f"{name}: {message}")


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
        refused(path, "x.tif: ")


def test_sixteen_bit_colour_picture_keeps_its_values(tmp_path):
    deep = COLOUR[0].astype(np.uint16) * 200
    tifffile.imwrite(tmp_path / "x.tif", deep, photometric="rgb")
    assert (read_image(tmp_path / "x.tif") == deep).all()
    found = image_header(tmp_path / "x.tif")
    assert (found.shape, found.dtype) == (deep.shape, "uint16")


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i2", ">i2"])
@pytest.mark.parametrize("compression", [None, "packbits"])
def test_sixteen_bit_grey_picture_keeps_its_values(tmp_path, dtype, compression):
    """Older versions of Pillow swap the bytes of some."""
    values = STACK[0].astype(dtype) * 100 - (7000 if "i" in dtype else 0)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="minisblack", byteorder=dtype[0],
                     compression=compression)
    assert (read_image(tmp_path / "x.tif") == values).all()


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
    refused_image(path, "x.tif: cannot be read as an image")


def test_strips_in_another_order_are_put_in_their_place(tmp_path):
    """The second strip lies before the first in the file."""
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, STACK[0][:8], rowsperstrip=4)
    with tifffile.TiffFile(path, mode="r+b") as file:
        tag = file.pages[0].tags["StripOffsets"]
        tag.overwrite(tag.value[::-1])
    assert (read_image(path) == np.concatenate([STACK[0][4:8], STACK[0][:4]])).all()


@pytest.mark.parametrize(("values", "options", "expected"), [
    (np.arange(16, dtype=np.uint16) * 100, {"photometric": "miniswhite"},
     65535 - np.arange(16) * 100),
    (np.arange(16, dtype=np.uint8), {"photometric": "miniswhite"}, 255 - np.arange(16)),
    (np.arange(16, dtype=np.uint32) + 4 * 10**9, {"photometric": "minisblack"},
     np.arange(16) + 4 * 10**9),
    (np.arange(-8, 8).astype(np.int8), {"photometric": "minisblack"}, np.arange(-8, 8)),
])
def test_pictures_are_read_as_pages_are(tmp_path, values, options, expected):
    values = values.reshape(4, 4)
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    tifffile.imwrite(tmp_path / "b.tif", np.stack([values] * 2), **options)
    found = read_image(tmp_path / "a.tif")
    assert (found == expected.reshape(4, 4)).all() and found.dtype == values.dtype
    assert (read_volume(tmp_path / "b.tif").slices == found).all()
    assert image_header(tmp_path / "a.tif").dtype == str(values.dtype)


@pytest.mark.parametrize("compression", ["lzw", "jpeg"])
def test_zeros_in_place_of_the_end_of_packed_pages_are_refused(tmp_path, compression):
    path = tmp_path / "x.tif"
    values = np.random.default_rng(0).integers(1, 255, (4, 24, 32), dtype=np.uint8)
    tifffile.imwrite(path, values, photometric="minisblack", compression=compression)
    whole = path.read_bytes()
    for lost in (5, 50):
        path.write_bytes(whole[:-lost] + bytes(lost))
        refused(path, "x.tif: its last pixels end with zeros: it was not copied whole")


@pytest.mark.parametrize(("tag", "name"), [(259, "Compression"),
                                           (262, "PhotometricInterpretation")])
def test_tags_that_were_lost_are_named_and_nothing_is_said_on_the_way(tmp_path, caplog, tag, name):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, STACK, photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(path) as pages:
        place = pages.pages[0].tags[tag].offset
    whole = path.read_bytes()
    path.write_bytes(whole[:place + 2] + b"\xff\xff" + whole[place + 4:])
    refused(path, f"x.tif: its header is damaged: it does not contain {name}")
    assert not caplog.records
