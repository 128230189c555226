"""One scan in every format and way of storing it is one scan; views cut from it."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import file_scans, preprocess
from PIL import Image
from scan_files import (
    AXES,
    DIRECTIONS,
    SPACING,
    read_both,
    scan_affine,
    write_dicom_series,
    write_nifti,
)

from slivit.config import Augmentation
from slivit.data.datasets import prepare
from slivit.data.readers import read_volume
from slivit.data.readers.orientation import axes_of, cut
from slivit.data.transforms import augment, draw_transform

STORED = np.random.default_rng(0).integers(0, 2000, (6, 9, 11)).astype(np.int16)
HOUNSFIELD = STORED * 2 - 1024
STORAGES = list(itertools.product(itertools.permutations(range(3)),
                                  itertools.product((1, -1), repeat=3)))
VIEWS = ("axial", "coronal", "sagittal")


def write_pictures(folder):
    """Write the scan as PNGs, moved up by 1024, whose names sort in DICOM's order."""
    folder.mkdir()
    for k, pixels in enumerate(HOUNSFIELD + 1024):
        Image.fromarray(pixels.astype(np.uint16)).save(folder / f"slice{k + 8}.png")
    return folder


@pytest.mark.parametrize("plane", DIRECTIONS)
def test_dicom_pictures_and_every_nifti_give_the_same_slices(tmp_path, plane):
    """Same slices, same order, same way up, whatever axes the file stores first, and which way."""
    series = read_both(write_dicom_series(tmp_path / "dicom", STORED, plane, RescaleSlope=2,
                                          RescaleIntercept=-1024))
    assert (series.slices == HOUNSFIELD).all()
    assert (read_both(write_pictures(tmp_path / "png")).slices == HOUNSFIELD + 1024).all()
    image = nib.Nifti1Image(HOUNSFIELD, scan_affine(plane))
    for order, flips in STORAGES:
        stored = image.as_reoriented(np.array(list(zip(order, flips, strict=True))))
        nib.save(stored, tmp_path / "x.nii")
        volume = read_both(tmp_path / "x.nii")
        assert (volume.slices == HOUNSFIELD).all(), (order, flips)
        assert (volume.axes, series.axes) == (AXES[plane], AXES[plane])
        assert volume.spacing == pytest.approx(SPACING)
    assert series.spacing == pytest.approx(SPACING)


@pytest.mark.parametrize("window", ["percentile", "full", "100,900"])
@pytest.mark.parametrize("views", [("acquisition",), VIEWS])
def test_all_kinds_of_file_become_the_same_input(tmp_path, views, window):
    """Values of the pictures lie higher by 1024; only what does not depend on it is compared."""
    write_dicom_series(tmp_path / "dicom", STORED, RescaleSlope=2, RescaleIntercept=-1024)
    write_nifti(tmp_path / "x.nii.gz", HOUNSFIELD, scan_affine("axial"))
    write_nifti(tmp_path / "y.nii", HOUNSFIELD.astype(np.float32), scan_affine("axial"))
    paths = [tmp_path / name for name in ("dicom", "x.nii.gz", "y.nii")]
    if window == "percentile":
        paths.append(write_pictures(tmp_path / "png"))
    scans = file_scans(*paths)
    first, *others = (prepare(scans, row, preprocess(5, window=window, views=views))
                      for row in range(len(paths)))
    assert len(np.unique(first.slices)) > 50
    for other in others:
        assert other.counts == first.counts == (5,) * len(views)
        assert (other.slices == first.slices).all()


@pytest.mark.parametrize("plane", DIRECTIONS)
@pytest.mark.parametrize("view", VIEWS)
def test_a_voxel_appears_where_it_is_in_the_patient(tmp_path, plane, view):
    """A bright voxel high up, near the front, on the patient's left."""
    values = np.zeros((10, 12, 14), np.uint8)  # to right, front, head
    values[1, 9, 12] = 200
    image = nib.Nifti1Image(values, np.diag([1.0, 1.1, 1.2, 1]))
    image.header.set_dim_info(slice=VIEWS[::-1].index(plane))
    nib.save(image, tmp_path / "x.nii")
    volume = read_volume(tmp_path / "x.nii")
    found = np.argwhere(cut(volume.slices, volume.axes, view) == 200).tolist()
    # slices from the feet, the front, the left; rows from the front or the head
    assert found == [{"axial": [12, 2, 8], "coronal": [2, 1, 8], "sagittal": [1, 1, 2]}[view]]


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 3)])
def test_views_of_a_scan_that_does_not_say_are_those_of_an_axial_one(shape):
    slices = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    assert cut(slices, None, "acquisition") is slices
    assert (cut(slices, None, "axial") == slices).all()
    for view in VIEWS:
        assert (cut(slices, None, view) == cut(slices, "SPL", view)).all()
    assert (cut(slices, None, "coronal")[2, 0] == slices[3, 2]).all()


@pytest.mark.parametrize("axes", [None, "SPL", "PIL", "RAS"])
def test_numbered_axes_are_the_array_s(axes):
    slices = np.random.default_rng(0).integers(0, 255, (4, 5, 6, 3), dtype=np.uint8)
    for axis in range(3):
        found = cut(slices, axes, str(axis))
        assert len(found) == slices.shape[axis]
        assert (found[2] == slices.take(2, axis)).all()


@pytest.mark.parametrize("plane", DIRECTIONS)
def test_directions_become_letters(plane):
    along, down = np.array(DIRECTIONS[plane], float)
    directions = np.stack([np.cross(along, down), down, along], axis=1)
    assert axes_of(directions) == AXES[plane]
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])  # 16 degrees
    assert axes_of(turn @ directions) == AXES[plane]


@pytest.mark.parametrize("letter", "zvh")
@pytest.mark.parametrize("view", ["acquisition", *VIEWS, "0"])
def test_views_are_flipped_as_the_volume_is(view, letter):
    volume = np.random.default_rng(0).integers(0, 255, (4, 5, 6), dtype=np.uint8)
    seed = next(seed for seed in range(99) if draw_transform(
        np.random.default_rng(seed), Augmentation(letter, 0))["zvh".index(letter)])
    transform = draw_transform(np.random.default_rng(seed), Augmentation(letter, 0))
    slices = torch.from_numpy(np.ascontiguousarray(cut(volume, "SPL", view)))[:, None]
    flipped = cut(np.flip(volume, "zvh".index(letter)), "SPL", view)
    assert (augment(slices, transform, view)[:, 0].numpy() == flipped).all()
