"""SLIViT from Python: the numbers of evaluate.py, and one kind of error."""

import pickle
import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from helpers import absolute_table, run_evaluate
from sklearn.metrics import roc_auc_score

import slivit
from slivit.checkpoints import checkpoint
from slivit.cli.evaluate import SHIPPED
from slivit.data.named_sets import DATA_DIR, load_named
from slivit.data.readers import read_volume
from slivit.utils.cells import read_table


@pytest.fixture(scope="module")
def file(binary_run):
    return binary_run / "slivit.safetensors"


@pytest.fixture(scope="module")
def model(file):
    return slivit.load(file, gpu_id="cpu")


@pytest.fixture(scope="module")
def scans(volume_csv):
    return absolute_table(volume_csv)["Path"].tolist()


def test_predictions_are_those_of_evaluate_to_the_last_digit(file, model, scans, volume_csv,
                                                             tmp_path):
    metrics, _ = run_evaluate(file, tmp_path / "out", "--meta_csv", volume_csv, "--split", "all")
    table = pd.read_csv(tmp_path / "out/predictions.csv", dtype=str)
    result = model.predict(scans)
    assert result.labels == model.labels == ("A",)
    assert result.probabilities.shape == (len(scans), 1)
    assert result.probabilities[:, 0].tolist() == [float(cell) for cell in table["A_pred"]]
    point = metrics["labels"]["A"]["operating_point"]
    assert result.thresholds.tolist() == [point["threshold"]]
    known = table["A"].notna()
    positive = table["A"][known].astype(float) == 1
    assert (result.above_threshold[known, 0] & positive).sum() == point["tp"]


def test_several_models_are_averaged(file, model, scans, tmp_path):
    card, network = checkpoint.load(file)
    network.integrator.head.bias.data += 1
    checkpoint.save(other := tmp_path / "other.safetensors", network, card)
    mean = slivit.load([file, other], gpu_id="cpu").predict(scans[:3]).values
    one, two = model.predict(scans[:3]).values, slivit.load(other).predict(scans[:3]).values
    assert mean == pytest.approx((one + two) / 2)
    with pytest.raises(slivit.UserError, match="embed takes one model, found 2"):
        slivit.load(file, other).embed(scans[:1])


def test_arrays_and_images_give_what_their_files_give(model, scans, tmp_path):
    array = read_volume(scans[0]).slices
    image = nib.Nifti1Image(np.asarray(array, np.int16).transpose(2, 1, 0), np.diag([-2, -2, 3, 1]))
    nib.save(image, tmp_path / "a.nii.gz")
    np.save(tmp_path / "a.npy", array)
    from_file = model.predict([tmp_path / "a.nii.gz", str(tmp_path / "a.npy")])
    assert from_file.ids == ("a.nii.gz", "a.npy")
    from_memory = model.predict([image, array])
    assert from_memory.values.tolist() == from_file.values.tolist()
    assert model.predict(array).values.shape == (1, 1)


def test_explanations_are_saved_in_the_grid_of_the_scan(model, scans, tmp_path):
    array = read_volume(scans[0]).slices
    image = nib.Nifti1Image(np.asarray(array, np.int16).transpose(2, 1, 0), np.diag([-2, -2, 3, 1]))
    found = model.explain(image)
    assert found.heat.shape == array.shape[:3]
    assert found.label == "A"
    assert found.save(tmp_path / "new/out") == tmp_path / "new/out/A_scan_1.png"
    heat = nib.load(tmp_path / "new/out/A_scan_1_heat.nii.gz")
    assert heat.shape == image.shape
    assert (heat.affine == image.affine).all()
    assert (tmp_path / "new/out/A_scan_1.png").read_bytes().startswith(b"\x89PNG")


def test_explanations_go_to_other_processes_and_need_no_mode_of_torch(model, tmp_path):
    image = nib.Nifti1Image(np.arange(480, dtype=np.int16).reshape(8, 10, 6), np.diag([2, 2, 3, 1]))
    with torch.inference_mode():
        found = model.explain(image)
    copy = pickle.loads(pickle.dumps(found))
    assert (copy.heat == found.heat).all()
    assert copy.save(tmp_path).is_file()


def test_a_vector_a_volume_gives_the_prediction(model, scans):
    vectors = model.embed(scans[:3])
    head = model._trained[0].model.integrator.head
    logits = head(torch.from_numpy(vectors)).detach().numpy()
    assert 1 / (1 + np.exp(-logits)) == pytest.approx(model.predict(scans[:3]).values, abs=1e-6)


def test_vectors_of_slices_are_as_many_as_the_model_saw(model, scans):
    trained = model._trained[0]
    wanted = [min(len(read_volume(path).slices), trained.card.preprocess.n_slices)
              for path in scans[:3]]
    found = model.embed(scans[:3], per_slice=True)
    assert [one.shape for one in found] == [(n, trained.model.feature_dim) for n in wanted]


def test_a_backbone_takes_images(backbone_run, image_csv, tmp_path):
    model = slivit.load(backbone_run / "backbone.safetensors")
    paths = absolute_table(image_csv)["Path"].tolist()[:2]
    assert model.predict(paths).values.shape == (2, len(model.labels))
    assert model.embed(paths).dtype == np.float32
    assert model.explain(paths[0]).save(tmp_path).is_file()
    with pytest.raises(slivit.UserError, match="of images, which have no slices"):
        model.embed(paths, per_slice=True)
    with pytest.raises(slivit.UserError, match=r"scan_1: has the shape \(3, 40, 40\), expected"):
        model.predict(np.zeros((3, 40, 40), np.uint8))


@pytest.mark.parametrize(("scans", "message"), [
    ([], "no scans are given"),
    (np.zeros((5, 5)), r"scan_1: has the shape \(5, 5\), expected \(slices, height, width\)"),
    (np.full((3, 5, 5), np.nan), "scan_1: contains NaN"),
    ([np.zeros((3, 5, 5)), np.zeros((0, 5, 5))], "scan_2: is empty"),
    (np.array([[["a"]]]), "expected numbers"),
    ("absent.nii.gz", "absent.nii.gz: no such file or folder"),
    ([np.zeros((3, 5, 5)), "x"], "type ndarray, str; expected paths, or numpy"),
    (7, "found int, expected a scan"),
    (nib.Nifti1Image(np.zeros((5, 5, 1), np.uint8), np.eye(4)), "which is one slice"),
    (np.full((3, 5, 5), np.inf, np.float16), "scan_1: contains NaN or infinite values"),
    (np.ma.masked_less(np.eye(3)[None], 1), "scan_1: is a masked array, expected one with all"),
    ("", "a path is empty"), (b"a.npy", "found bytes, expected a scan"),
    ({"a": np.zeros((3, 5, 5))}, "found dict, expected a scan"),
    (pd.DataFrame({"Path": ["a.npy"]}), "found DataFrame, expected a scan"),
])
def test_what_is_no_scan_is_refused(model, scans, message):
    with pytest.raises(slivit.UserError, match=message):
        model.predict(scans)


def test_a_table_is_no_scan_for_the_scripts_either(file, model, volume_csv, tmp_path):
    with pytest.raises(slivit.UserError, match="is a table, expected a scan") as error:
        model.predict(volume_csv)
    with pytest.raises(slivit.UserError) as same:
        run_evaluate(file, tmp_path / "out", "--volume", volume_csv)
    assert str(same.value) == str(error.value)


@pytest.mark.parametrize(("given", "message"), [
    ((), "no checkpoint is given"), (([],), "no checkpoint is given"),
    (("absent",), "absent: no such checkpoint file"), ((7,), "of type int, expected a path"),
    (("",), "the name of a checkpoint is empty"), (("a" * 300,), "cannot be read .File name too"),
    (("hf://owner",), "^hf://owner: found 'owner/', expected owner/name"),
    (("https://huggingface.co/owner/name",), "one of the Hugging Face Hub is named hf://owner")])
def test_what_is_no_checkpoint_is_refused(given, message):
    with pytest.raises(slivit.UserError, match=message):
        slivit.load(*given)


def test_other_options_are_refused(model, scans):
    with pytest.raises(slivit.UserError, match="tta='rotations': expected None or 'flips'"):
        model.predict(scans[:1], tta="rotations")
    with pytest.raises(slivit.UserError, match="labels: not found: 'B'"):
        model.explain(scans[0], label="B")
    with pytest.raises(slivit.UserError, match="label=0: expected one of A"):
        model.explain(scans[0], label=0)
    with pytest.raises(slivit.UserError, match="explain takes one scan, found 2"):
        model.explain(scans[:2])


@pytest.mark.parametrize("b_size", [0, -1, 1.5, "4", None])
def test_other_batch_sizes_are_refused(model, scans, b_size):
    for method in (model.predict, model.embed):
        with pytest.raises(slivit.UserError, match=f"b_size={b_size!r}: expected a whole number"):
            method(scans[:1], b_size=b_size)
    assert model.predict(scans[:3], b_size=np.int64(2)).values.shape == (3, 1)


def test_the_command_line_is_not_imported():
    words = ("import sys, slivit; assert 'torch' not in sys.modules; slivit.load;"
             "assert 'torch' in sys.modules;"
             "sys.exit(any(name.startswith('slivit.cli') for name in sys.modules))")
    assert subprocess.run([sys.executable, "-c", words]).returncode == 0


def test_unknown_names_are_no_attributes():
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = slivit.lode
    assert {"load", "UserError", "Model"} <= set(dir(slivit))


def test_features_have_what_they_are_of(file, model, scans, volume_csv, tmp_path):
    run_evaluate(file, tmp_path / "out", "--meta_csv", volume_csv, "--split", "all", "--features",
                 tmp_path / "out/f.npz")
    table = read_table(tmp_path / "out/predictions.csv")
    with np.load(tmp_path / "out/f.npz", allow_pickle=False) as found:
        assert found["features"].tolist() == model.embed(scans).tolist()
        assert found["ids"].tolist() == table["id"].tolist()
        assert found["patients"].tolist() == table["patient"].tolist()
        assert found["split"].tolist() == table["split"].tolist()
        assert found["label_names"].tolist() == ["A"]
        assert np.array_equal(found["labels"][:, 0], pd.to_numeric(table["A"]), equal_nan=True)


@pytest.mark.parametrize(("name", "message"), [
    ("f.csv", "expected a name that ends with .npz"), ("absent/f.npz", "there is no folder"),
    ("old.npz", "exists already")])
def test_features_are_not_written_where_they_cannot_be(file, volume_csv, tmp_path, name, message):
    (tmp_path / "old.npz").write_bytes(b"mine")
    with pytest.raises(slivit.UserError, match=f"--features .*{name}: {message}"):
        run_evaluate(file, tmp_path / "out", "--meta_csv", volume_csv, "--features",
                     tmp_path / name)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "old.npz").read_bytes() == b"mine"


def test_a_home_folder_is_expanded(file, scans, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model.safetensors").symlink_to(file)
    (tmp_path / "scan.npy").symlink_to(scans[1])
    assert slivit.load("~/model.safetensors").predict("~/scan.npy").ids == ("scan.npy",)


def test_the_model_that_ships_tells_malignant_outlines_from_benign_ones():
    model, nodules = slivit.load(SHIPPED), load_named("noduleshapes3d", 3, DATA_DIR)
    rows = nodules.rows("test")[:40]
    found = model.predict([nodules.read(row).slices for row in rows]).probabilities[:, 0]
    assert roc_auc_score(nodules.labels[rows, 0], found) > 0.85
    assert SHIPPED.stat().st_size < 8e6
    assert "of no use on CT" in model._trained[0].card.intended_use
    assert model._trained[0].card.data["fingerprint"] == nodules.fingerprint()
