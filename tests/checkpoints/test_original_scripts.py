"""evaluate.py and slivit.convert on models of the original SLIViT."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import RUN_3D, content, run_evaluate, scan_pixels, write_medmnist, write_meta
from original_files import random_model, reference_logits
from safetensors.torch import save_file

import evaluate
import finetune
from slivit import convert
from slivit.checkpoints import checkpoint
from slivit.checkpoints.original.options_file import Hints, find_hints, parse_options
from slivit.utils.errors import UserError

SIDE = 32


@pytest.fixture(scope="module")
def state():
    """A model of three slices of 32 pixels."""
    return random_model(SIDE, depth=1)


@pytest.fixture(scope="module")
def path(state, tmp_path_factory):
    """The same in a file."""
    path = tmp_path_factory.mktemp("original") / "slivit.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Six volumes, of three slices but for one, their table, and the slices the model is to see."""
    folder, rng = tmp_path_factory.mktemp("scans"), np.random.default_rng(0)
    seen = []
    for i in range(6):
        volume = scan_pixels(rng, i % 2 == 1, (5 if i == 5 else 3, SIDE, SIDE))
        np.save(folder / f"{i}.npy", volume)
        seen.append(volume[[0, 2, 4]] if i == 5 else volume)
    ids = [f"v{i}" for i in range(6)]
    paths = [f"{i}.npy" for i in range(6)]
    write_meta(folder / "size.csv", F_Name=ids, Path=paths, size=[3.5, 1, 7, 2, 2, 9],
               Split=["test"] * 6)
    write_meta(folder / "unlabelled.csv", F_Name=ids, Path=paths)
    write_meta(folder / "two.csv", F_Name=ids, Path=paths, A=[0, 1] * 3, B=[0, 0, 1] * 2)
    table = write_meta(folder / "table.csv", F_Name=ids, Path=paths, A=[0, 1] * 3,
                       Split=["test"] * 6)
    return table, torch.from_numpy(np.stack(seen))


def sigmoid(logits):
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


def run_convert(*args):
    convert.main([*map(str, args)])


def settled(path, folder, label="A", task="binary", tiling="width"):
    """Convert the model with all that no file says; return the new file."""
    out = folder / f"{label}_{tiling}.safetensors"
    run_convert(path, out, "--tiling", tiling, "--task", task, "--label", label)
    return out


@pytest.fixture(scope="module")
def converted(path, tmp_path_factory):
    """The model converted, tiled along the width, of the label A."""
    return settled(path, tmp_path_factory.mktemp("converted"))


def test_probabilities_are_those_of_the_original_logits(converted, state, scans, tmp_path, capsys):
    metrics, found = run_evaluate(converted, tmp_path / "out", "--meta_csv", scans[0])
    expected = sigmoid(reference_logits(state, scans[1], "width"))
    assert found["A_pred"].tolist() == pytest.approx(expected.tolist(), abs=2e-5)
    assert (metrics["task"], metrics["labels"]["A"]["n_pos"]) == ("binary", 3)
    assert ("A_width.safetensors is a model of the original SLIViT, which does not record the "
            "patients it was trained on") in capsys.readouterr().out
    card = json.loads((tmp_path / "out/config.json").read_text())["card"]
    assert card["integrator"]["token"] == "channels_width"


def test_what_no_file_says_is_asked_for_with_the_command(path, scans, tmp_path):
    with pytest.raises(UserError) as error:
        run_evaluate(path, tmp_path / "out", "--meta_csv", scans[0], "--pathologies", "A")
    command = f"python -m slivit.convert {path} {path.with_suffix('.safetensors')} "
    flags = "--tiling width --task binary --label A"
    assert "no file states its tiling, task, label. Convert it once" in str(error.value)
    assert f"  {command}{flags}\n" in str(error.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="no file states the task, label of this model; give "
                                        "--task"):
        run_convert(path, tmp_path / "a.safetensors", "--tiling", "width")
    assert list(tmp_path.iterdir()) == []


def test_regression_is_in_the_unit_of_the_label(path, state, scans, tmp_path):
    metrics, found = run_evaluate(settled(path, tmp_path, "size", "regression"), tmp_path / "out",
                                  "--meta_csv", scans[0].with_name("size.csv"))
    expected = reference_logits(state, scans[1], "width")
    assert found["size_pred"].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert metrics["task"] == "regression"


def test_medmnist_is_tiled_along_the_height(path, state, tmp_path):
    file = write_medmnist(tmp_path / "data/nodulemnist3d.npz", (2, 2, 4), (3, SIDE, SIDE))
    checkpoint_file = settled(path, tmp_path, "malignant", tiling="height")
    _, found = run_evaluate(checkpoint_file, tmp_path / "out", "--dataset", "nodulemnist3d",
                            "--data_root", tmp_path / "data")
    volumes = torch.from_numpy(np.load(file)["test_images"])
    expected = sigmoid(reference_logits(state, volumes, "height"))
    assert found["malignant_pred"].tolist() == pytest.approx(expected.tolist(), abs=2e-5)


def test_options_file_names_data_task_and_label(path, scans, tmp_path, capsys):
    (tmp_path / "slivit.pth").symlink_to(path)
    (tmp_path / "finetune_options.txt").write_text("dataset: NoduleMNIST3D\ntask: regression\n"
                                                   "pathologies: B\nlr: 0.1\n")
    metrics, _ = run_evaluate(tmp_path / "slivit.pth", tmp_path / "out", "--meta_csv",
                              scans[0].with_name("two.csv"), "--split", "all")
    assert (metrics["task"], list(metrics["labels"])) == ("regression", ["B"])
    printed = capsys.readouterr().out
    assert "dataset NoduleMNIST3D, task regression, pathologies B used, 1 other opt" in printed
    run_convert(tmp_path / "slivit.pth", tmp_path / "slivit.safetensors")
    card, _ = checkpoint.read(tmp_path / "slivit.safetensors")
    assert (card.integrator.token, card.target.task, card.target.labels, card.data["name"]) == (
        "channels_height", "regression", ("B",), "nodulemnist3d")
    assert card.data["assumed"] == []


@pytest.mark.parametrize("text", [
    "dataset: mydata\ntask = regression\nlabel grade\nlr: 1\n",
    "Namespace(dataset='mydata', lr=1, task='regression', label=['grade'], x=(1, 2))",
    '{"dataset": "mydata", "task": "regression", "label": ["grade"], "lr": 1}',
    "python finetune.py --dataset mydata --task=regression --pathologies 'grade' --flag --lr 1",
    "export dataset=mydata\nexport task=\"regression\"\nexport label=grade\n\n# a remark",
])
def test_options_are_found_however_they_are_written(tmp_path, text):
    (tmp_path / "finetune_options.txt").write_text(text)
    assert find_hints(tmp_path / "finetune_options.txt") == Hints(
        "width", "regression", "grade", "mydata")


def test_options_that_say_nothing_are_left(tmp_path):
    (tmp_path / "o.txt").write_text("task: ssl\npathologies: A,B\ndataset: None\n\x00\xff: :::\n")
    assert find_hints(tmp_path / "o.txt") == find_hints(tmp_path / "absent.txt") == Hints()
    assert parse_options("") == parse_options("[1, 2]") == {}


def test_one_volume_and_tables_without_labels_are_predicted(path, state, scans, tmp_path):
    expected = sigmoid(reference_logits(state, scans[1], "width"))
    model = settled(path, tmp_path, "IHRF")
    for options, values in (
            (["--volume", scans[0].with_name("4.npy")], expected[4:5]),
            (["--meta_csv", scans[0].with_name("unlabelled.csv")], expected)):
        out = tmp_path / str(len(values))
        evaluate.main(["--checkpoint", str(model), "--gpu_id", "cpu", "--out_dir", str(out),
                       *map(str, options)])
        found = pd.read_csv(out / "predictions.csv")
        assert found["IHRF_pred"].tolist() == pytest.approx(values.tolist(), abs=2e-5)


@pytest.mark.usefixtures("unmeasured")
def test_it_is_averaged_and_compared_with_a_model_of_ours(converted, scans, tmp_path):
    table = write_meta(scans[0].with_name("train.csv"), F_Name=list("abcdef"),
                       Path=[f"{i}.npy" for i in range(6)], A=[0, 1] * 3,
                       Split=["train"] * 2 + ["val"] * 2 + ["test"] * 2)
    finetune.main(["--meta_csv", str(table), "--n_epochs", "1", *RUN_3D, "--out_dir",
                   str(tmp_path / "ours")])
    ours, theirs = tmp_path / "ours/slivit.safetensors", converted
    found = [run_evaluate(file, tmp_path / name, "--meta_csv", scans[0])[1]["A_pred"]
             for file, name in ((ours, "a"), (theirs, "b"))]
    evaluate.main(["--checkpoint", str(theirs), str(ours), "--meta_csv", str(scans[0]), "--split",
                   "all", "--gpu_id", "cpu", "--out_dir", str(tmp_path / "both")])
    both = pd.read_csv(tmp_path / "both/predictions.csv")["A_pred"]
    assert np.allclose(both, (found[0] + found[1]) / 2, atol=1e-6)
    assert json.loads((tmp_path / "both/metrics.json").read_text())["comparison"]


@pytest.mark.parametrize(("options", "message"), [
    ("--explain 2", "--explain: this is a model of the original SLIViT, whose tokens are blocks"),
    ("--tta flips", "--tta flips: .* not known which flips it was trained with; omit --tta"),
    ("--mc_dropout 3", "not known which dropout it had; omit --mc_dropout"),
    ("--calibrate", "not known what it predicted on validation; omit --calibrate"),
    ("--pathologies A,B", "labels of the checkpoint: not found: 'B'"),
])
def test_what_it_cannot_do_is_refused(converted, scans, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        run_evaluate(converted, tmp_path / "out", "--meta_csv", scans[0], *options.split())
    assert not (tmp_path / "out").exists()


def test_data_that_are_not_known_are_asked_for(converted, tmp_path):
    with pytest.raises(UserError, match="does not record what it was trained on; give the scans"):
        run_evaluate(converted, tmp_path / "out")


def test_conversion_says_what_was_decided_and_why(path, tmp_path, capsys):
    out = settled(path, tmp_path, "IHRF")
    assert capsys.readouterr().out.splitlines() == [
        "tiling: width (--tiling)", "task: binary (--task)", "label: IHRF (--label)",
        f"{path}: convnext_tiny, 3 slices of 32 pixels, 1 transformer blocks of width 48 with 3 "
        "heads; 201 tensors, 27,902,433 numbers", f"written to {out}"]


@pytest.mark.parametrize(("args", "message"), [
    (["{path}", "{new}.pth"], "expected a name that ends with .safetensors"),
    (["{path}", "{old}"], "already exists; name another file, or add --overwrite"),
    (["{path}", "{new}/a.safetensors"], "is not a writable folder"),
    (["{ours}", "{new}.safetensors"], "is a safetensors file; expected a slivit.pth"),
    (["{path}", "{new}.safetensors", "--label", "id"], "--label: id cannot be a label"),
    (["{path}", "{new}.safetensors", "--label", "A,B"], "predicts one label, found 2"),
    (["{wrong}", "{old}", "--overwrite"], "wrong.pth: is not a model of the original SLIViT"),
])
def test_conversions_that_cannot_be_are_refused(path, tmp_path, args, message):
    (tmp_path / "old.safetensors").write_bytes(b"old")
    torch.save({"a": torch.zeros(1)}, tmp_path / "wrong.pth")
    save_file({"a": torch.zeros(1)}, tmp_path / "ours.pth")
    before = content(tmp_path)
    names = {"path": path, "old": tmp_path / "old.safetensors", "new": tmp_path / "new",
             "wrong": tmp_path / "wrong.pth", "ours": tmp_path / "ours.pth"}
    with pytest.raises(UserError, match=message):
        run_convert(*(arg.format(**names) for arg in args))
    assert content(tmp_path) == before


def test_overwrite_replaces_a_file(path, tmp_path):
    out = tmp_path / "slivit.safetensors"
    out.write_bytes(b"old")
    run_convert(path, out, "--overwrite", "--tiling", "width", "--task", "binary", "--label", "A")
    assert checkpoint.load(out)[0].kind == "slivit"
    assert list(tmp_path.iterdir()) == [out]
