"""Heat maps lie where the scan lies: from what the model saw back to mm in the patient."""

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import BACKBONE, TINY_VIT, array_scans, preprocess
from scan_files import DIRECTIONS, dicom_of, write_dicom, write_dicom_series, write_nifti

from slivit.data.datasets import ScanDataset, make_loader
from slivit.data.readers import scan_grid
from slivit.data.scan_table import FileSource
from slivit.explain.explanation import by_view
from slivit.explain.heatmaps import enlarge, heat_volume, save_heat
from slivit.explain.saliency import Saliency
from slivit.models.slivit import SLIViT

CPU = torch.device("cpu")
CELL = 4  # of the 64 pixels of a slice, in the pretended maps


def blob(shape, centre, widths):
    """Return a uint8 Gaussian of these widths (in voxels) on grey."""
    away = [(axis - c) / w for axis, c, w in zip(np.indices(shape), centre, widths, strict=True)]
    return (40 + 200 * np.exp(-0.5 * np.sum(np.square(away), axis=0))).astype(np.uint8)


def pretended_heat(path, views, n_slices, tmp_path, sampling="uniform"):
    """Return affine and heat map of a model that looks where the scan is bright.

    Its weights and Grad-CAM are the slices themselves, as they come to the model.
    """
    options = preprocess(n_slices, img_size=64, views=views, slice_sampling=sampling)
    scans = array_scans(np.zeros((1, 2, 2, 2), np.uint8), [1], read=FileSource((path,), 3))
    torch.manual_seed(0)
    model = SLIViT(BACKBONE, 1, options, TINY_VIT)
    model.backbone.feature_info = [{"reduction": CELL}]
    batch = next(iter(make_loader(ScanDataset(scans, np.array([0]), options), 1, 0, CPU)))
    seen = torch.nn.functional.interpolate(batch.x[batch.mask].float() - 40, (64 // CELL,) * 2,
                                           mode="bilinear", antialias=True)[:, 0].clamp(min=0)
    weights = seen.amax(dim=(1, 2)).double().numpy()
    weights /= weights.sum()
    found = Saliency(np.zeros(1), weights, weights, seen.numpy())
    volume = scans.read(0)
    looks = by_view(batch, found, volume, model)
    save_heat(tmp_path / "heat.nii.gz", heat_volume(looks, volume.axes),
              scan_grid(path, scans.read.header(0)))
    return nib.load(tmp_path / "heat.nii.gz")


def peak(image):
    """Return where the heat lies in mm: the centre of what is above nine tenths."""
    values = image.get_fdata()
    assert values.min() == 0 and values.max() == 1
    return nib.affines.apply_affine(image.affine, np.argwhere(values > 0.9)).mean(axis=0)


def oblique(codes, sizes, degrees):
    """Return an affine whose axes run nearly to these letters, turned about a skew axis."""
    turn = np.deg2rad(degrees)
    skew = np.cross(np.eye(3), np.array([1, 2, 2]) / 3)
    rotation = np.eye(3) + np.sin(turn) * skew + (1 - np.cos(turn)) * skew @ skew
    start = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), (1, 1, 1))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.linalg.inv(start) * sizes
    affine[:3, 3] = (12.0, -40.0, 33.0)
    return affine


@pytest.mark.parametrize(("codes", "views", "n_slices", "degrees"), [
    ("RAS", ("acquisition",), 32, 0), ("LPI", ("acquisition",), 32, 12),
    ("ASL", ("acquisition",), 9, 20), ("PIR", ("coronal",), 32, 15),
    ("SRP", ("sagittal", "axial"), 20, 8), ("ILA", ("1",), 32, 10), ("IPR", ("2", "0"), 32, 25)])
def test_nifti_heat_lies_where_the_scan_is_bright(codes, views, n_slices, degrees, tmp_path):
    sizes, shape, centre = np.array([1.5, 2.0, 3.0]), (30, 26, 14), (21, 7, 4)
    affine = oblique(codes, sizes, degrees)
    assert "".join(nib.aff2axcodes(affine)) == codes
    path = write_nifti(tmp_path / "scan.nii.gz", blob(shape, centre, 5 / sizes), affine)
    heat = pretended_heat(path, views, n_slices, tmp_path)
    assert heat.shape == shape and heat.get_data_dtype() == np.float32
    assert np.array_equal(heat.affine, nib.load(path).affine)
    away = peak(heat) - nib.affines.apply_affine(affine, centre)
    assert np.linalg.norm(away) < 3


@pytest.mark.parametrize(("plane", "views"), [
    ("axial", ("acquisition",)), ("coronal", ("axial", "sagittal")), ("sagittal", ("2",))])
def test_dicom_heat_lies_where_the_scan_is_bright(plane, views, tmp_path):
    shape, centre, mm = (12, 40, 30), (8, 27, 9), np.array([3.0, 0.7, 0.8])
    path = write_dicom_series(tmp_path / "series", blob(shape, centre, 5 / mm), plane)
    heat = pretended_heat(path, views, 40, tmp_path)
    assert heat.shape == shape[::-1] and heat.header["sform_code"] == 1
    along, down = np.array(DIRECTIONS[plane])
    first = np.array((-10.0, 5.0, 20.0))
    place = (first + centre[0] * mm[0] * np.cross(along, down) + centre[1] * mm[1] * down
             + centre[2] * mm[2] * along)  # of the patient's coordinates in DICOM's standard
    assert np.linalg.norm(peak(heat) - place * (-1, -1, 1)) < 3
    assert np.allclose(heat.get_qform(), heat.affine, atol=1e-4)


def test_frames_with_and_without_positions_have_a_grid(tmp_path):
    frames = blob((5, 9, 12), (1, 2, 3), (1, 1, 1))
    plain = write_dicom(tmp_path / "plain.dcm", frames, NumberOfFrames=5)
    groups = []
    for k in range(5):
        place, turned, group = dicom_of(frames), dicom_of(frames), dicom_of(frames)
        place.ImagePositionPatient = [0, 0, -2.0 * k]
        turned.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        group.PlanePositionSequence, group.PlaneOrientationSequence = [place], [turned]
        for one in (place, turned, group):
            del one.PixelData
        groups.append(group)
    placed = write_dicom(tmp_path / "placed.dcm", frames, NumberOfFrames=5, PixelSpacing=[0.5, 0.7],
                         PerFrameFunctionalGroupsSequence=groups)
    grids = [scan_grid(path, FileSource((path,), 3).header(0)) for path in (plain, placed)]
    assert np.array_equal(grids[0].affine, np.diag([-1, -1, 1, 1]))
    assert np.allclose(grids[1].affine, [[-0.7, 0, 0, 0], [0, -0.5, 0, 0], [0, 0, 2, -8],
                                         [0, 0, 0, 1]])
    assert grids[1].place(frames).shape == (12, 9, 5)


def test_beyond_the_slices_that_were_looked_at_the_heat_is_zero(tmp_path):
    path = write_nifti(tmp_path / "scan.nii", blob((12, 12, 10), (6, 6, 5), (3, 3, 3)))
    heat = pretended_heat(path, ("acquisition",), 4, tmp_path, "middle").get_fdata()
    assert heat.any(axis=(0, 1)).tolist() == [3 <= k < 7 for k in range(10)]


def test_cells_are_enlarged_in_their_place():
    maps = np.array([[[0.0, 1.0]]])
    assert np.allclose(enlarge(maps, (1, 8), 0.5), [[[0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]]])
    # Of 40 pixels one cell of 32 is seen; the rest is nearest to it.
    assert (enlarge(np.ones((1, 1, 1)), (40, 40), 0.8) == 1).all()
