"""One scan as NIfTI, NIfTI pair, MGH, MGZ and MINC is one scan; so are its heat maps."""

import nibabel as nib
import numpy as np
import pytest
from scan_files import (
    AXES,
    DIRECTIONS,
    SPACING,
    read_both,
    scan_affine,
    write_mgh,
    write_minc,
    write_nifti,
    write_pair,
)

from slivit.data.readers import read_volume, scan_grid, volume_header

STORED = np.random.default_rng(0).integers(-2000, 2000, (6, 9, 11)).astype(np.int16)
STORAGES = [((0, 1, 2), (1, 1, 1)), ((2, 1, 0), (1, 1, 1)), ((2, 1, 0), (-1, 1, 1)),
            ((1, 2, 0), (1, -1, 1)), ((0, 2, 1), (-1, -1, -1))]
KINDS = {"nifti": lambda folder, *scan: write_nifti(folder / "x.nii.gz", *scan),
         "hdr/img": lambda folder, *scan: write_pair(folder / "x", *scan),
         "hdr/img 2": lambda folder, *scan: write_pair(folder / "y", *scan, kind=nib.Nifti2Pair),
         "mgh": lambda folder, *scan: write_mgh(folder / "x.mgh", *scan),
         "mgz": lambda folder, *scan: write_mgh(folder / "x.mgz", *scan),
         "minc": lambda folder, *scan: write_minc(folder / "x.mnc", *scan, -32768, 32767)}


def turned(degrees):
    """Return a rotation about a skew axis."""
    turn = np.deg2rad(degrees)
    skew = np.cross(np.eye(3), np.array([1, 2, 2]) / 3)
    rotation = np.eye(4)
    rotation[:3, :3] += np.sin(turn) * skew + (1 - np.cos(turn)) * skew @ skew
    return rotation


@pytest.mark.parametrize("degrees", [0, 14])
@pytest.mark.parametrize("plane", DIRECTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_slices_whatever_the_storage(tmp_path, kind, plane, degrees):
    image = nib.Nifti1Image(STORED, turned(degrees) @ scan_affine(plane))
    for order, flips in STORAGES:
        stored = image.as_reoriented(np.array(list(zip(order, flips, strict=True))))
        path = KINDS[kind](tmp_path, np.asarray(stored.dataobj), stored.affine)
        volume = read_both(path)
        assert (volume.slices == STORED).all(), (order, flips)
        assert volume.slices.dtype.isnative
        assert volume.axes == AXES[plane]
        assert volume.spacing == pytest.approx(SPACING, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_heat_maps_lie_in_the_grid_of_the_file(tmp_path, kind):
    affine = turned(14) @ scan_affine("coronal")
    path = KINDS[kind](tmp_path, STORED, affine)
    grid = scan_grid(path, volume_header(path))
    image = grid.image(read_volume(path).slices)
    assert np.allclose(image.affine, affine, atol=1e-4)
    assert (image.get_fdata() == STORED).all()
    again = nib.Nifti1Image.from_bytes(image.to_bytes()) if kind != "hdr/img 2" else (
        nib.Nifti2Image.from_bytes(image.to_bytes()))
    assert np.allclose(again.affine, affine, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pick_of_slices_is_that_of_all(tmp_path, kind):
    path = KINDS[kind](tmp_path, STORED, scan_affine("axial"))
    assert (read_volume(path, lambda n: np.array([1, n - 1])).slices == STORED[[1, -1]]).all()
