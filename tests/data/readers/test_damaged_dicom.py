"""DICOM files that are so damaged that they could be overlooked, or end the process."""

import contextlib

import imagecodecs
import numpy as np
import pytest
from archive_files import contents, pack
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit
from scan_files import STORED, dicom_of, read_both, refused, write_dicom_series

from slivit.data.readers import ReadError, read_volume, volume_header

FRAMES = np.random.default_rng(0).normal(120, 40, (5, 16, 18)).clip(1, 255).astype(np.uint8)
CODECS = {JPEGBaseline8Bit: imagecodecs.jpeg8_encode,
          JPEG2000Lossless: lambda frame: imagecodecs.jpeg2k_encode(
              frame, level=0, reversible=True, codecformat="j2k")}


def rename(folder, names):
    """Give the files of a folder these names."""
    for k, name in enumerate(names):
        (folder / f"IM{k}").rename(folder / name)
    return folder


@pytest.mark.parametrize("names", [
    [f"IM{k}" for k in range(5)], [f"I{k:07}" for k in range(8, 13)],
    ["4A3B", "4A3C", "00FF", "1234", "E"], [f"1.2.840.{k}.77" for k in range(9, 14)]])
@pytest.mark.parametrize("damage", [lambda raw: b"", lambda raw: raw[:100],
                                    lambda raw: bytes(len(raw)), lambda raw: raw[:20] + raw[24:]])
def test_a_file_without_suffix_that_is_no_dicom_any_more_is_not_left_out(tmp_path, names, damage):
    folder = rename(write_dicom_series(tmp_path / "s", STORED), names)
    file = folder / names[2]
    file.write_bytes(damage(file.read_bytes()))
    message = f"{names[2]}: is not DICOM, but is named like the 4 DICOM files beside it"
    refused(folder, message)
    refused(pack(tmp_path / "x.zip", contents(folder)), message)


def test_other_files_beside_a_series_are_left_out(tmp_path):
    folder = write_dicom_series(tmp_path / "s", STORED)
    for name in ("LOCKFILE", "VERSION", "readme.txt", "DICOMDIR", "IM3.txt"):
        (folder / name).write_text("1")
    assert (read_both(folder).slices == STORED).all()


@pytest.mark.parametrize("kind", [
    "1.2.840.10008.5.1.4.1", "1.2.840.1000<.5.1.4.1.1.2", "1.2.840.10008.1.2", "1.2.840", "1"])
@pytest.mark.filterwarnings("ignore")  # pydicom's, of the very values
def test_an_image_whose_kind_is_damaged_is_not_left_out(tmp_path, kind):
    def change(dataset, k):
        if k == 2:
            dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind
            del dataset.Rows

    refused(write_dicom_series(tmp_path / "s", STORED, change=change),
            "contains no pixels; it is truncated, or not a DICOM image")


@pytest.mark.parametrize("syntax", CODECS)
def test_damaged_jpeg_neither_ends_the_process_nor_writes_to_stderr(tmp_path, capfd, recwarn,
                                                                     syntax):
    dataset = dicom_of(FRAMES, NumberOfFrames=5)
    dataset.PixelData = encapsulate([CODECS[syntax](frame) for frame in FRAMES])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    path = tmp_path / "x.dcm"
    dataset.save_as(path, enforce_file_format=True)
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(whole)
        place = int(rng.integers(700, len(whole)))
        damaged[place:place] = rng.bytes(12)
        damaged[int(rng.integers(700, len(whole)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        for look in (volume_header, read_volume):
            with contextlib.suppress(ReadError):
                look(path)
    assert capfd.readouterr() == ("", "") and not recwarn.list
