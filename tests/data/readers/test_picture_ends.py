"""Pictures whose decoders overlook damage: zeros at the end, wrong checksums, odd tags."""

import contextlib
import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from scan_files import STACK

from slivit.data.readers import ReadError, read_image, read_volume, volume_header

GREY = np.random.default_rng(0).normal(120, 40, (24, 30)).clip(1, 255).astype(np.uint8)
DEEP = GREY.astype(np.uint16) * 200


def packed(suffix, **options):
    """Return the bytes of a picture."""
    if suffix == "deep.jp2":
        return imagecodecs.jpeg2k_encode(DEEP, level=0, reversible=True, codecformat="jp2")
    stream = io.BytesIO()
    Image.fromarray(DEEP if suffix == "deep.png" else GREY).save(
        stream, {"jpg": "jpeg", "deep.png": "png"}.get(suffix, suffix), **options)
    return stream.getvalue()


@pytest.mark.parametrize("suffix", ["png", "deep.png", "jpg", "gif", "deep.jp2"])
@pytest.mark.parametrize("lost", [0.5, 0.1, 4])
def test_zeros_in_place_of_the_end_are_refused(tmp_path, suffix, lost):
    content = packed(suffix)
    kept = int((1 - lost) * len(content)) if lost < 1 else len(content) - lost
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(content[:kept].ljust(len(content), b"\0"))
    with pytest.raises(ReadError, match=r"x\.\S*: cannot be read as an image"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "gif"])
def test_zeros_after_the_end_are_accepted(tmp_path, suffix):
    for more in (bytes(1), bytes(5000), b"of some maker" + bytes(3) if suffix == "jpg" else b""):
        (tmp_path / f"x.{suffix}").write_bytes(packed(suffix) + more)
        assert read_image(tmp_path / f"x.{suffix}").shape == GREY.shape


@pytest.mark.parametrize("suffix", ["png", "deep.png"])
def test_a_wrong_checksum_of_a_png_is_noticed(tmp_path, suffix):
    content = bytearray(packed(suffix, compress_level=0))
    content[len(content) // 2] ^= 1
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ReadError, match="x.png: cannot be read as an image .* checksum is wrong"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("place", [4, 12, 14, 26])
def test_nothing_is_said_of_damaged_tags(tmp_path, caplog, recwarn, place):
    for k, pixels in enumerate(STACK):
        Image.fromarray(pixels).save(tmp_path / f"{k}.tif")
    whole = (tmp_path / "2.tif").read_bytes()
    (tmp_path / "2.tif").write_bytes(whole[:place] + b"\xff\x7f" + whole[place + 2:])
    for look in (volume_header, read_volume):
        with contextlib.suppress(ReadError):
            look(tmp_path)
    assert not caplog.records and not recwarn.list


def test_nothing_is_said_of_more_samples_than_can_be(tmp_path, caplog):
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, STACK[0], photometric="minisblack")
    with tifffile.TiffFile(path, mode="r+") as pages:
        pages.pages[0].tags["SamplesPerPixel"].overwrite(122)
    with pytest.raises(ReadError, match="x.tif: cannot be read as an image"):
        read_image(path)
    assert not caplog.records
