"""FreeSurfer's volumes: values, what may follow them, and what is refused."""

import gzip
import struct

import numpy as np
import pytest
from scan_files import read_both, refused, write_mgh

from slivit.data.readers import ReadError, read_volume, volume_header

VALUES = np.random.default_rng(0).integers(-900, 900, (7, 6, 5)).astype(np.int16)
AXIAL = VALUES.transpose(2, 1, 0)[:, ::-1, ::-1]  # of a file whose axes run right, front, head
DATA = 284  # where voxels begin


@pytest.mark.parametrize("suffix", [".mgh", ".mgz", ".MGZ"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32])
def test_values_come_as_they_are_stored(tmp_path, dtype, suffix):
    values = VALUES.astype(dtype)
    path = write_mgh(tmp_path / f"x{suffix}", values)
    assert (read_both(path).slices == values.transpose(2, 1, 0)[:, ::-1, ::-1]).all()
    header = volume_header(path)
    assert (header.kind, header.dtype, header.spacing, header.axes, header.notes) == (
        "mgh", np.dtype(dtype).name, (1, 1, 1), "SPL", ())


@pytest.mark.parametrize("suffix", [".mgh", ".mgz"])
@pytest.mark.parametrize("tags", [b"", b"mri_convert a.dcm b.mgz" * 99])
def test_tags_and_no_footer_are_as_good(tmp_path, suffix, tags):
    path = write_mgh(tmp_path / f"x{suffix}", VALUES, tags=tags)
    assert (read_both(path).slices == AXIAL).all()
    bare = write_mgh(tmp_path / "bare.mgh", VALUES).read_bytes()[:DATA + VALUES.nbytes]
    (tmp_path / f"y{suffix}").write_bytes(gzip.compress(bare) if suffix == ".mgz" else bare)
    assert (read_both(tmp_path / f"y{suffix}").slices == AXIAL).all()


def test_many_bytes_after_the_last_voxel_are_a_note(tmp_path):
    values = np.zeros((70, 60, 50), np.int16)
    path = write_mgh(tmp_path / "x.mgh", values)
    assert volume_header(path).notes == ()
    content = bytearray(path.read_bytes())
    content[4:16] = struct.pack(">3i", 70, 60, 20)  # of 50 slices
    path.write_bytes(content)
    assert volume_header(path).notes == ("252020 bytes follow its last voxel",)


def test_a_file_packed_in_several_parts_is_whole(tmp_path):
    content = write_mgh(tmp_path / "x.mgh", VALUES).read_bytes()
    path = tmp_path / "x.mgz"
    path.write_bytes(gzip.compress(content[:600]) + gzip.compress(content[600:]))
    assert (read_both(path).slices == AXIAL).all()


def test_a_file_without_orientation_has_freesurfers_axes_and_says_so(tmp_path):
    path = write_mgh(tmp_path / "x.mgh", VALUES, np.diag([2.0, 2, 2, 1]))
    content = bytearray(path.read_bytes())
    content[28:30] = bytes(2)
    path.write_bytes(content)
    header = volume_header(path)
    assert (header.notes[0][:58], header.spacing) == (
        "does not state its orientation and spacing (goodRASFlag 0)", (1, 1, 1))
    # FreeSurfer's axes run to left, feet and front
    assert (read_both(path).slices == VALUES.transpose(1, 2, 0)[::-1, ::-1]).all()


def test_frames_are_refused(tmp_path):
    frames = np.zeros((7, 6, 5, 3), np.int16)
    for name in ("x.mgh", "x.mgz"):
        refused(write_mgh(tmp_path / name, frames),
                rf"{name}: contains 3 frames of the shape \(7, 6, 5\), expected one; save each")


@pytest.mark.parametrize(("suffix", "kept"), [
    (suffix, kept) for suffix in (".mgh", ".mgz") for kept in (-40, 300, 100, 50, 3, 0)])
def test_cut_off_files_are_found_by_the_header_alone(tmp_path, suffix, kept):
    path = write_mgh(tmp_path / f"x{suffix}", VALUES)
    path.write_bytes(path.read_bytes()[:kept])
    refused(path, f"x{suffix}: (is truncated|cannot be read as MGH)")


def test_a_packed_file_of_too_few_voxels_is_found_by_the_header_alone(tmp_path):
    content = write_mgh(tmp_path / "x.mgh", VALUES).read_bytes()
    (tmp_path / "x.mgz").write_bytes(gzip.compress(content[:DATA + VALUES.nbytes - 2]))
    refused(tmp_path / "x.mgz", "x.mgz: cannot be read as MGH .Expected 420 bytes, got 418")


def test_a_flipped_bit_in_a_packed_file_is_noticed(tmp_path):
    content = write_mgh(tmp_path / "x.mgh", VALUES).read_bytes()
    packed = bytearray(gzip.compress(content, compresslevel=0))
    for place in (400, len(packed) - 20):  # in the voxels; in the footer, after the last of them
        damaged = packed.copy()
        damaged[place] ^= 1
        (tmp_path / "x.mgz").write_bytes(damaged)
        with pytest.raises(ReadError, match="x.mgz: cannot be read as MGH .CRC check failed"):
            read_volume(tmp_path / "x.mgz")


@pytest.mark.parametrize(("place", "content", "message"), [
    (0, struct.pack(">i", 2), "is not a FreeSurfer volume: its version is 2, expected 1"),
    (4, struct.pack(">i", -7), r"its header is damaged: it has the shape \(-7, 6, 5\)"),
    (4, struct.pack(">i", 1), r"has the shape \(1, 6, 5\), which is one slice"),
    (4, struct.pack(">i", 0), "is empty"),
    (4, struct.pack(">3i", 2**30, 2**30, 2**30), "is truncated"),
    (16, struct.pack(">i", 0), "contains 0 frames"),
    (20, struct.pack(">i", 2), "gives voxels of type 2, expected one of 0, 1, 3, 4, 10"),
    (30, struct.pack(">f", 0), "its affine does not give the directions of the axes"),
    (42, struct.pack(">f", np.nan), "its affine does not give the directions of the axes"),
])
def test_fields_that_cannot_be_are_refused(tmp_path, place, content, message):
    for name in ("x.mgh", "x.mgz"):
        path = write_mgh(tmp_path / name, VALUES)
        damaged = bytearray((gzip.decompress if name == "x.mgz" else bytes)(path.read_bytes()))
        damaged[place:place + len(content)] = content
        path.write_bytes(gzip.compress(damaged) if name == "x.mgz" else damaged)
        refused(path, f"{name}: .*{message}")


def test_other_files_and_values_are_refused(tmp_path):
    (tmp_path / "text.mgh").write_text("this is no scan " * 100)
    refused(tmp_path / "text.mgh", "text.mgh: is not a FreeSurfer volume: its version is")
    (tmp_path / "text.mgz").write_text("this is no scan " * 100)
    refused(tmp_path / "text.mgz", "text.mgz: cannot be read as MGH .Not a gzipped file")
    refused(tmp_path / "absent.mgz", "absent.mgz: does not exist")
    with pytest.raises(ReadError, match="x.mgh: contains NaN or infinite values"):
        read_volume(write_mgh(tmp_path / "x.mgh", np.full((3, 4, 5), np.inf, np.float32)))
