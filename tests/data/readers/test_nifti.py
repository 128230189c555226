"""NIfTI files: values, geometry, the plane of acquisition, and what is refused."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scan_files import read_both, refused, write_nifti

from slivit.data.readers import ReadError, read_volume, volume_header
from slivit.data.readers.acquisition import acquisition_plane

SAMPLES = Path(nib.__file__).parent / "tests/data"
VALUES = np.random.default_rng(0).integers(-900, 900, (7, 6, 5)).astype(np.int16)
AXIAL = VALUES.transpose(2, 1, 0)[:, ::-1, ::-1]  # of a file whose axes run right, front, head


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32,
                                   np.float64])
def test_values_come_as_they_are_stored(tmp_path, dtype, suffix):
    values = VALUES.astype(dtype)
    path = write_nifti(tmp_path / f"x{suffix.lower()}", values).rename(tmp_path / f"y{suffix}")
    volume = read_both(path)
    assert (volume.slices == values.transpose(2, 1, 0)[:, ::-1, ::-1]).all()
    assert volume.slices.dtype == (np.float32 if dtype == np.float64 else dtype)
    assert (volume.spacing, volume.axes) == ((1, 1, 1), "SPL")


def test_slope_and_intercept_are_applied(tmp_path):
    image = nib.Nifti1Image(VALUES, np.eye(4))
    image.header.set_slope_inter(0.5, -100)
    nib.save(image, tmp_path / "x.nii")
    volume = read_both(tmp_path / "x.nii")
    assert volume.slices.dtype == np.float32
    assert (volume.slices == AXIAL * 0.5 - 100).all()
    assert volume_header(tmp_path / "x.nii").dtype == "int16"


def test_the_other_byte_order_gives_the_same_values(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti1Image(VALUES, np.eye(4), header), tmp_path / "x.nii")
    assert nib.load(tmp_path / "x.nii").get_data_dtype() == ">i2"
    assert (read_both(tmp_path / "x.nii").slices == AXIAL).all()


def test_colour_is_kept(tmp_path):
    colour = np.random.default_rng(1).integers(0, 255, (7, 6, 5, 3), dtype=np.uint8)
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    path = write_nifti(tmp_path / "x.nii.gz", np.ascontiguousarray(colour).view(rgb)[..., 0])
    assert (read_both(path).slices == colour.transpose(2, 1, 0, 3)[:, ::-1, ::-1]).all()


@pytest.mark.parametrize("shape", [(7, 6), (7, 6, 1), (1, 7, 6), (7, 1, 6), (7, 6, 1, 1)])
def test_one_slice_is_refused(tmp_path, shape):
    refused(write_nifti(tmp_path / "x.nii", np.zeros(shape, np.int16)),
            r"x.nii: has the shape \(.*\), which is one slice; expected a volume of at least two")


def test_a_trailing_axis_of_one_is_dropped(tmp_path):
    assert (read_both(write_nifti(tmp_path / "x.nii", VALUES[..., None])).slices == AXIAL).all()


@pytest.mark.parametrize("name", ["example4d.nii.gz", "example_nifti2.nii.gz", "functional.nii"])
def test_a_series_of_volumes_is_refused(name):
    refused(SAMPLES / name, r"has the shape \(.*\), expected three dimensions; save each volume")


@pytest.mark.parametrize(("name", "shape"), [
    ("anatomical.nii", (25, 41, 33)), ("reoriented_anat_moved.nii", (22, 26, 21)),
    ("standard.nii.gz", (5, 7, 4)),
])
def test_true_files_read(name, shape):
    volume = read_both(SAMPLES / name)
    assert volume.slices.shape == shape
    values = np.asanyarray(nib.load(SAMPLES / name).dataobj)
    assert (np.sort(volume.slices, axis=None) == np.sort(values, axis=None)).all()


@pytest.mark.parametrize(("suffix", "kept"), [
    (".nii", -1), *((suffix, kept) for suffix in (".nii", ".nii.gz")
                    for kept in (-20, 360, 200, 3, 0))])
def test_cut_off_files_are_found_by_the_header_alone(tmp_path, suffix, kept):
    values = np.random.default_rng(0).integers(-900, 900, (20, 20, 20)).astype(np.int16)
    path = write_nifti(tmp_path / f"x{suffix}", values)
    path.write_bytes(path.read_bytes()[:kept])
    refused(path, f"x{suffix}: (cannot be read as NIfTI|is truncated)")


def test_damage_inside_a_packed_file_is_found_when_it_is_read(tmp_path):
    path = write_nifti(tmp_path / "x.nii.gz", np.tile(VALUES, (5, 5, 5)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(ReadError, match="x.nii.gz: cannot be read as NIfTI"):
        read_volume(path)


def test_a_file_packed_in_several_parts_is_whole(tmp_path):
    content = write_nifti(tmp_path / "x.nii", VALUES).read_bytes()
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]))
    assert (read_both(path).slices == AXIAL).all()


def test_text_and_absent_files_are_refused(tmp_path):
    (tmp_path / "text.nii.gz").write_text("this is no scan " * 100)
    refused(tmp_path / "text.nii.gz", "text.nii.gz: cannot be read as NIfTI")
    refused(tmp_path / "absent.nii", "absent.nii: does not exist")


def test_values_that_are_no_grey_values_are_refused(tmp_path):
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        values = VALUES.astype(np.float32)
        values[1, 2, 3] = value
        with pytest.raises(ReadError, match=f"{name}.nii: contains NaN or infinite values"):
            read_volume(write_nifti(tmp_path / f"{name}.nii", values))
    refused(write_nifti(tmp_path / "c.nii", VALUES.astype(np.complex64)),
            "c.nii: contains complex64, expected numbers")


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.diag([1.0, 1, 0, 1]),
                                    np.full((4, 4), np.nan), np.eye(4)[[0, 0, 2, 3]]],
                         ids=["zero", "flat", "nan", "dependent"])
def test_a_file_without_directions_is_refused(tmp_path, affine):
    """No voxel size along an axis, as some converters leave it."""
    image = nib.Nifti1Image(VALUES, np.eye(4))
    image.header.set_sform(affine, 1)
    image.header.set_qform(None, 0)
    with (tmp_path / "x.nii").open("wb") as file:
        image.header.write_to(file)
        file.write(bytes(4) + VALUES.tobytes(order="F"))
    refused(tmp_path / "x.nii", "x.nii: ")


@pytest.mark.parametrize(("spacing", "named", "plane"), [
    ((1, 1, 1), None, "axial"),
    ((1, 1, 1), 0, "sagittal"),
    ((1, 1, 5), None, "axial"),
    ((1, 5, 1), None, "coronal"),
    ((5, 1, 1), None, "sagittal"),
    ((5, 1, 1), 2, "axial"),
    ((1, 1, 0.4), None, "axial"),  # thin slices
    ((0.4, 1, 1.001), None, "sagittal"),
    ((0.7, 0.8, 3), None, "axial"),
    ((0.7, 3, 0.8), None, "coronal"),
    ((3, 0.7, 0.8), None, "sagittal"),
])
def test_plane_of_acquisition_is_the_named_one_or_that_of_odd_spacing(
        tmp_path, spacing, named, plane):
    assert acquisition_plane(spacing, named) == plane
    affine = np.diag([*map(float, spacing), 1.0])
    volume = read_both(write_nifti(tmp_path / "x.nii", VALUES, affine, named))
    assert volume.axes == {"axial": "SPL", "coronal": "PIL", "sagittal": "RIP"}[plane]
    assert len(volume.slices) == VALUES.shape[("sagittal", "coronal", "axial").index(plane)]
    right, front, head = spacing
    assert volume.spacing == pytest.approx({
        "axial": (head, front, right), "coronal": (front, head, right),
        "sagittal": (right, head, front)}[plane])


def test_named_slice_axis_is_one_of_the_file(tmp_path):
    """The header names the file's own axis, which here runs to the front."""
    affine = np.eye(4)[:, [1, 0, 2, 3]]
    volume = read_both(write_nifti(tmp_path / "x.nii", VALUES, affine, 0))
    assert (volume.axes, len(volume.slices)) == ("PIL", 7)


def test_odd_fields_are_notes_and_nothing_else_is_said(tmp_path, capfd):
    path = write_nifti(tmp_path / "a.nii", VALUES)
    content = bytearray(path.read_bytes())
    content[80:84] = np.float32(0).tobytes()
    path.write_bytes(content)
    assert volume_header(path).notes == ("pixdim[1,2,3] should be non-zero; setting 0 dims to 1",)
    read_volume(path)
    assert capfd.readouterr() == ("", "")
