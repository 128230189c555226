"""GIF, WebP and JPEG 2000 as images and as slices."""

import imagecodecs
import numpy as np
import pytest
from helpers import write_image
from PIL import Image
from scan_files import COLOUR, PIXELS, STACK, read_both, refused, refused_image

from slivit.data.readers import image_header, is_scan, read_image, read_volume, scan_ndim

SUFFIXES = (".gif", ".webp", ".jp2", ".j2k")
LOSSLESS = {".webp": {"lossless": True}}
DEEP = np.random.default_rng(4).integers(0, 4096, (20, 31)).astype(np.uint16)


def write(path, pixels):
    """Write a picture without loss."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path, **LOSSLESS.get(path.suffix, {}))
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_grey_pictures_keep_their_values(tmp_path, suffix):
    path = write(tmp_path / f"x{suffix}", PIXELS)
    assert np.array_equal(read_image(path), PIXELS)
    assert read_image(path).dtype == image_header(path).dtype == "uint8"
    assert image_header(path).shape[:2] == PIXELS.shape
    assert is_scan(path)
    assert scan_ndim(path) == 2


@pytest.mark.parametrize("suffix", [".webp", ".jp2", ".j2k"])
def test_colours_are_kept(tmp_path, suffix):
    path = write(tmp_path / f"x{suffix}", COLOUR[0])
    assert np.array_equal(read_image(path), COLOUR[0])
    assert image_header(path).shape == COLOUR[0].shape


def test_a_palette_and_transparency_of_a_gif_are_resolved(tmp_path):
    colour = np.zeros((8, 9, 3), np.uint8)
    colour[:, 4:] = (200, 10, 90)
    Image.fromarray(colour).quantize(4).save(tmp_path / "x.gif", transparency=0)
    assert np.array_equal(read_image(tmp_path / "x.gif"), colour)
    assert image_header(tmp_path / "x.gif").shape == colour.shape


def test_a_webp_is_turned_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(PIXELS).save(tmp_path / "x.webp", exif=exif, lossless=True)
    assert np.array_equal(read_image(tmp_path / "x.webp"), np.rot90(PIXELS, -1))
    assert image_header(tmp_path / "x.webp").shape[:2] == PIXELS.T.shape


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_slices_of_a_folder_are_read(tmp_path, suffix):
    for k, pixels in enumerate(STACK):
        write(tmp_path / f"v/{5 * k + 1}{suffix}", pixels)
    assert (read_volume(tmp_path / "v").slices == STACK).all()
    if suffix != ".webp":  # which are always in colour, or grey by having three equal channels
        assert (read_both(tmp_path / "v").slices == STACK).all()
    picked = read_volume(tmp_path / "v", lambda count: np.array([0, count - 1])).slices
    assert (picked == STACK[[0, 3]]).all()


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_several_frames_are_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    first, *others = map(Image.fromarray, STACK)
    first.save(path, save_all=True, append_images=others)
    refused_image(path, f"x{suffix}: has 4 frames, expected one frame$")
    refused(tmp_path, f"x{suffix}: has 4 frames, expected one frame$")


@pytest.mark.parametrize("codec", ["jp2", "j2k"])
@pytest.mark.parametrize(("values", "bits"), [
    (DEEP, 12), (DEEP * 16, 16), (DEEP.astype(np.int16) - 1024, 16),
    (np.stack([DEEP, DEEP * 2, DEEP * 3], axis=-1), 16), (DEEP.astype(np.uint32) * 200, 20),
    ((DEEP % 256).astype(np.int8), 8)])
def test_jpeg_2000_of_more_than_8_bits_keeps_its_values(tmp_path, codec, values, bits):
    path = tmp_path / f"x.{codec}"
    path.write_bytes(imagecodecs.jpeg2k_encode(values, level=0, codecformat=codec, reversible=True,
                                               bitspersample=bits))
    found = read_image(path)
    assert found.dtype == values.dtype == image_header(path).dtype
    assert np.array_equal(found, values)
    assert image_header(path).shape == values.shape


@pytest.mark.parametrize("suffix", [".jp2", ".j2k"])
def test_cut_off_deep_jpeg_2000_is_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    whole = imagecodecs.jpeg2k_encode(DEEP, level=0, codecformat=suffix[1:], reversible=True)
    for kept in (-3, len(whole) // 2, 90, 20):
        path.write_bytes(whole[:kept])
        refused_image(path, f"x{suffix}: cannot be read as an image")


def test_a_picture_under_another_suffix_is_read(tmp_path):
    write_image(tmp_path / "x.png", PIXELS).rename(tmp_path / "x.webp")
    assert np.array_equal(read_image(tmp_path / "x.webp"), PIXELS)
