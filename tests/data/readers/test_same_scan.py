"""One scan as DICOM, NIfTI, MetaImage and NRRD is one scan, in whatever way a file stores it."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from helpers import file_scans, preprocess
from itk_files import LPS, itk_image, write_itk, write_metaimage, write_nrrd
from scan_files import (
    AXES,
    COLOUR,
    DIRECTIONS,
    ORIGIN,
    SPACING,
    read_both,
    scan_affine,
    write_dicom_series,
    write_nifti,
)

from slivit.data.datasets import prepare
from slivit.data.readers import scan_grid, volume_header

STORED = np.random.default_rng(0).integers(0, 2000, (6, 9, 11)).astype(np.int16)
STORAGES = list(itertools.product(itertools.permutations(range(3)),
                                  itertools.product((1, -1), repeat=3)))
FEW = STORAGES[::7]  # of every order of the axes one, and both ways of every axis
FORMS = (("x.mha", False), ("x.mha", True), ("x.mhd", False), ("x.mhd", True), ("x.nrrd", False),
         ("x.nrrd", True), ("x.nhdr", False), ("x.nhdr", True))
TURN = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]]) @ np.array(
    [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])  # 16 and 37 degrees


def stored_as(values, affine, order, flips):
    """Return the same scan, its voxels and affine, with other axes first and other ways round."""
    image = nib.Nifti1Image(values, affine).as_reoriented(
        np.array(list(zip(order, flips, strict=True))))
    return np.asanyarray(image.dataobj), image.affine


def same_as(path, series):
    volume = read_both(path)
    assert (volume.slices == series.slices).all()
    assert volume.axes == series.axes
    assert volume.spacing == pytest.approx(series.spacing)
    return volume


@pytest.mark.parametrize("plane", DIRECTIONS)
@pytest.mark.parametrize(("name", "packed"), FORMS)
def test_what_itk_writes_gives_the_slices_of_dicom(tmp_path, plane, name, packed):
    series = read_both(write_dicom_series(tmp_path / "dicom", STORED, plane))
    assert (series.axes, series.spacing) == (AXES[plane], pytest.approx(SPACING))
    for order, flips in STORAGES if (name, packed) == FORMS[0] else FEW:
        same_as(write_itk(tmp_path / name, *stored_as(STORED, scan_affine(plane), order, flips),
                          packed), series)


@pytest.mark.parametrize("plane", DIRECTIONS)
def test_an_oblique_scan_is_the_same_in_every_kind_of_file(tmp_path, plane):
    def turn(dataset, k):
        dataset.ImageOrientationPatient = [*TURN @ along, *TURN @ down]
        dataset.ImagePositionPatient = list(
            TURN @ (np.array(ORIGIN) + k * SPACING[0] * np.cross(along, down)))

    along, down = DIRECTIONS[plane]
    series = read_both(write_dicom_series(tmp_path / "dicom", STORED, plane, turn))
    turned = np.eye(4)
    turned[:3, :3] = TURN
    affine = LPS @ turned @ LPS @ scan_affine(plane)
    for order, flips in FEW:
        values, placed = stored_as(STORED, affine, order, flips)
        same_as(write_nifti(tmp_path / "x.nii", values, placed), series)
        same_as(write_itk(tmp_path / "x.mha", values, placed), series)
        same_as(write_itk(tmp_path / "x.nrrd", values, placed, packed=True), series)


@pytest.mark.parametrize("plane", DIRECTIONS)
@pytest.mark.parametrize(("space", "signs"), [
    ("left-posterior-superior", (-1, -1, 1)), ("right-anterior-superior", (1, 1, 1)),
    ("left-anterior-superior", (-1, 1, 1))])
def test_nrrd_in_every_space_is_the_same_scan(tmp_path, plane, space, signs):
    series = read_both(write_dicom_series(tmp_path / "dicom", STORED, plane))
    nifti = write_nifti(tmp_path / "x.nii", STORED, scan_affine(plane))
    for order, flips in FEW:
        values, affine = stored_as(STORED, scan_affine(plane), order, flips)
        vectors = [f"({','.join(map(repr, map(float, column)))})"
                   for column in (np.array(signs)[:, None] * affine[:3]).T]
        path = write_nrrd(tmp_path / "x.nrrd", values, space=space, space_origin=vectors[3],
                          space_directions=" ".join(vectors[:3]))
        same_as(path, series)
        assert_same_place(path, nifti, series.slices)


@pytest.mark.parametrize("name", ["x.mha", "x.nrrd", "x.mhd", "x.nhdr"])
@pytest.mark.parametrize("packed", [False, True])
def test_colour_is_the_same_in_every_kind_of_file(tmp_path, name, packed):
    series = read_both(write_dicom_series(tmp_path / "dicom", COLOUR))
    assert (series.slices == COLOUR).all()
    for order, flips in FEW:
        image = nib.Nifti1Image(COLOUR, scan_affine("axial"))  # whose last axis stays the last
        stored = image.as_reoriented(np.array(list(zip(order, flips, strict=True))))
        same_as(write_itk(tmp_path / name, np.asanyarray(stored.dataobj), stored.affine, packed),
                series)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "uint32", "float32",
                                   "float64"])
@pytest.mark.parametrize("name", ["x.mha", "x.nrrd"])
def test_every_type_of_number_comes_as_from_nifti(tmp_path, name, dtype):
    values = (STORED % 120).astype(dtype)
    nifti = read_both(write_nifti(tmp_path / "x.nii", values, scan_affine("coronal")))
    volume = same_as(write_itk(tmp_path / name, values, scan_affine("coronal")), nifti)
    assert volume.slices.dtype == nifti.slices.dtype
    assert volume_header(tmp_path / name).dtype == dtype


def assert_same_place(path, nifti, slices):
    """Check that heat maps of both files have every value at the same place in the patient."""
    one, other = (nib.as_closest_canonical(scan_grid(file, volume_header(file)).image(slices))
                  for file in (path, nifti))
    assert one.affine == pytest.approx(other.affine, abs=1e-4)
    assert (np.asanyarray(one.dataobj) == np.asanyarray(other.dataobj)).all()


@pytest.mark.parametrize("plane", DIRECTIONS)
@pytest.mark.parametrize("name", ["x.mha", "x.mhd", "x.nrrd"])
def test_heat_maps_lie_where_those_of_nifti_do_in_the_grid_of_the_file(tmp_path, plane, name):
    nifti = write_nifti(tmp_path / "x.nii", STORED, scan_affine(plane))
    for order, flips in FEW:
        values, affine = stored_as(STORED, scan_affine(plane), order, flips)
        path = write_itk(tmp_path / name, values, affine)
        assert_same_place(path, nifti, STORED)
        image = scan_grid(path, volume_header(path)).image(read_both(path).slices)
        assert image.affine == pytest.approx(affine, abs=1e-4)
        assert (np.asanyarray(image.dataobj) == values).all()


def test_all_kinds_of_file_become_the_same_input(tmp_path):
    affine = scan_affine("sagittal")
    paths = [write_dicom_series(tmp_path / "dicom", STORED, "sagittal"),
             write_nifti(tmp_path / "x.nii.gz", STORED, affine),
             *(write_itk(tmp_path / name, STORED, affine, packed) for name, packed in FORMS[1::2])]
    scans = file_scans(*paths)
    first, *others = (prepare(scans, row, preprocess(5, views=("axial", "coronal", "acquisition")))
                      for row in range(len(paths)))
    assert len(np.unique(first.slices)) > 50
    for other in others:
        assert other.counts == first.counts
        assert (other.slices == first.slices).all()


def test_names_of_the_matrix_in_old_metaimage_files_mean_the_same(tmp_path):
    values, affine = stored_as(STORED, scan_affine("coronal"), (2, 0, 1), (1, -1, 1))
    image = itk_image(values, affine)
    turned = " ".join(map(str, np.reshape(image.GetDirection(), (3, 3)).T.ravel()))
    series = read_both(write_dicom_series(tmp_path / "dicom", STORED, "coronal"))
    for matrix, offset, sides in (("TransformMatrix", "Offset", "ElementSpacing"),
                                  ("Orientation", "Position", "ElementSize"),
                                  ("Rotation", "Origin", "ElementSpacing")):
        path = write_metaimage(tmp_path / "x.mha", values, **{
            matrix: turned, offset: " ".join(map(str, image.GetOrigin())),
            sides: " ".join(map(str, image.GetSpacing()))})
        same_as(path, series)
        assert_same_place(path, write_nifti(tmp_path / "x.nii", values, affine), series.slices)
