"""`--explain`: which scans are explained, and the files that are written of them."""

import types

import nibabel as nib
import numpy as np
import pytest
import torch
from helpers import BACKBONE, array_scans, preprocess, tiny_slivit
from PIL import Image
from scan_files import scan_affine, write_dicom, write_nifti

from slivit.checkpoints.trained import Trained
from slivit.config import Target
from slivit.data.scan_table import FileSource
from slivit.explain.cases import choose_cases, write_explanations
from slivit.models.slivit import ImageClassifier

RNG = np.random.default_rng(0)


def chosen(truth, pred, task="multilabel", n=2, thresholds=None):
    """Return (label, kind, rank, row) of each chosen scan."""
    truth, pred = np.array(truth, dtype=np.float32), np.array(pred)
    target = Target(task, tuple("abc"[:pred.shape[1]]))
    return [(case.label, case.kind, case.rank, case.index)
            for case in choose_cases(truth, pred, target, thresholds, n)]


def test_surest_right_and_wrong_of_each_label():
    truth = [[1, 0], [0, np.nan], [1, 1], [0, 0], [1, 0]]
    pred = [[0.9, 0.2], [0.1, 0.99], [0.2, 0.6], [0.6, 0.7], [0.7, 0.5]]
    assert chosen(truth, pred) == [
        (0, "right", 1, 0), (0, "right", 2, 1), (0, "wrong", 1, 2), (0, "wrong", 2, 3),
        (1, "right", 1, 0), (1, "right", 2, 2), (1, "wrong", 1, 3), (1, "wrong", 2, 4)]


def test_confidence_is_how_far_of_the_way_beyond_the_threshold():
    thresholds = [types.SimpleNamespace(value=0.15)]
    assert chosen([[1], [0], [1]], [[0.2], [0.1], [0.9]], "binary", 9, thresholds) == [
        (0, "right", 1, 2), (0, "right", 2, 1), (0, "right", 3, 0)]  # 0.88, 0.33, 0.06


def test_of_several_classes_the_predicted_one_counts():
    truth, pred = np.eye(3)[[0, 1, 2, 0]], [[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.3, 0.3, 0.4],
                                            [0.9, 0.1, 0.0]]
    assert chosen(truth, pred, "multiclass") == [
        (0, "right", 1, 3), (0, "right", 2, 0), (0, "wrong", 1, 1), (2, "right", 1, 2)]


def test_regression_shows_small_and_large_errors():
    assert chosen([[1], [2], [3]], [[1.5], [2.1], [5]], "regression", 3) == [
        (0, "right", 1, 1), (0, "right", 2, 0), (0, "wrong", 1, 2)]


def test_without_labels_the_highest_predictions():
    assert chosen([[np.nan]] * 3, [[0.1], [0.9], [0.5]], "binary") == [
        (0, "highest", 1, 1), (0, "highest", 2, 2)]


def trained(model, target):
    """Return a model with as much of its card as explanations need."""
    return Trained(None, types.SimpleNamespace(target=target), model, None)


@pytest.fixture
def model():
    """An untrained model of three views."""
    return tiny_slivit(n_outputs=1, img_size=64, views=("axial", "coronal", "sagittal"))


def test_a_picture_of_each_scan_and_a_heat_map_in_its_grid(model, tmp_path):
    values = RNG.integers(0, 255, (9, 20, 31), dtype=np.uint8)
    paths = (write_nifti(tmp_path / "a.nii.gz", values, scan_affine("coronal")),
             tmp_path / "b.npy")
    np.save(paths[1], values)
    scans = array_scans(np.zeros((2, 2, 2, 2), np.uint8), [1, 1], read=FileSource(paths, 3),
                        ids=("study/1 é" + 40 * " long", "$b$"))
    found = write_explanations(trained(model, Target("binary", ("tumour / any",))), scans,
                               np.array([0, 1]), np.array([[0.7], [0.1]]), None, 5, tmp_path)
    right, wrong = (one.picture.name for one in found)
    assert right.startswith("tumour_any_right_1_study_1_e_long_long") and len(right) < 100
    assert wrong == "tumour_any_wrong_1_b.png"
    assert found[1].title == "$b$: tumour / any, wrong; no. 1 by confidence"
    assert found[1].facts == (("Predicted", "0.100"), ("Truth", "1"))
    heat = f"{right[:-4]}_heat.nii.gz"
    assert {path.name for path in (tmp_path / "explain").iterdir()} == {right, wrong, heat}
    for one in found:
        with Image.open(one.picture) as picture:
            assert picture.width == 1080 and np.ptp(np.asarray(picture)) > 200
        assert [view.name for view in one.strips.views] == ["axial", "coronal", "sagittal"]
    heat = nib.load(tmp_path / "explain" / heat)
    assert heat.shape == (9, 20, 31)
    assert np.array_equal(heat.affine, nib.load(paths[0]).affine)
    assert heat.get_fdata().min() >= 0 and heat.get_fdata().max() == 1


def test_names_stay_apart(tmp_path):
    target = Target("multilabel", ("A/b", "a b"))
    scans = array_scans(RNG.integers(0, 255, (1, 3, 20, 24), dtype=np.uint8), [[np.nan, np.nan]])
    found = write_explanations(trained(tiny_slivit(), target), scans, np.array([0]),
                               np.array([[0.1, 0.2]]), None, 1, tmp_path)
    assert [one.picture.name for one in found] == ["A_b_highest_1_r0.png", "a_b_highest_1_r0-2.png"]


def test_an_image_gets_its_grad_cam(tmp_path):
    torch.manual_seed(0)
    model = ImageClassifier(BACKBONE, 1, preprocess(0, img_size=64)).eval()
    path = write_dicom(tmp_path / "image.dcm", RNG.integers(0, 255, (48, 60), dtype=np.uint8),
                       PixelSpacing=[0.5, 0.25], ImagePositionPatient=[1, 2, 3],
                       ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    scans = array_scans(np.zeros((1, 2, 2), np.uint8), [2.5], read=FileSource((path,), 2))
    target = Target("regression", ("grade",), None, (0.0,), (1.0,))
    found, = write_explanations(trained(model, target), scans, np.array([0]), np.array([[2.0]]),
                                None, 1, tmp_path)
    heat = nib.load(found.picture.with_name("grade_right_1_r0_heat.nii.gz"))
    assert heat.shape == (60, 48, 1) and heat.get_fdata().max() == 1
    assert np.allclose(heat.affine[:3], [[-0.25, 0, 0, -1], [0, -0.5, 0, -2], [0, 0, 1, 3]])
