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


def test_probabilities_are_those_of_the_original_logits(path, state, scans, tmp_path, capsys):
    metrics, found = run_evaluate(path, tmp_path / "out", "--meta_csv", scans[0])
    printed = capsys.readouterr().out
    expected = sigmoid(reference_logits(state, scans[1], "width"))
    assert found["A_pred"].tolist() == pytest.approx(expected.tolist(), abs=2e-5)
    assert (metrics["task"], metrics["labels"]["A"]["n_pos"]) == ("binary", 3)
    assert [text for text in (
        "slices tiled along the width (as the original does with all data but MedMNIST), binary "
        "(its labels are 0 and 1) of A (the data's only label)",
        "slivit.pth is a model of the original SLIViT, which does not say whom it was trained on",
    ) if text not in printed] == []
    card = json.loads((tmp_path / "out/config.json").read_text())["card"]
    assert card["integrator"]["token"] == "channels_width"


@pytest.mark.parametrize("options", [[], ["--tiling", "width", "--label", "A", "--task", "binary"]])
def test_converted_file_predicts_the_same(path, scans, tmp_path, options):
    out = tmp_path / "slivit.safetensors"
    run_convert(path, out, *options)
    found = [run_evaluate(file, tmp_path / file.suffix[1:], "--meta_csv", scans[0])[1]["A_pred"]
             for file in (path, out)]
    assert found[0].tolist() == found[1].tolist()
    assert checkpoint.read(out)[0].data["assumed"] == (
        [] if options else ["tiling", "task", "label"])


def test_regression_is_in_the_unit_of_the_label(path, state, scans, tmp_path):
    metrics, found = run_evaluate(path, tmp_path / "out", "--meta_csv",
                                  scans[0].with_name("size.csv"))
    expected = reference_logits(state, scans[1], "width")
    assert found["size_pred"].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert metrics["task"] == "regression"


def test_medmnist_is_tiled_along_the_height(path, state, tmp_path, capsys):
    file = write_medmnist(tmp_path / "data/nodulemnist3d.npz", (2, 2, 4), (3, SIDE, SIDE))
    _, found = run_evaluate(path, tmp_path / "out", "--dataset", "nodulemnist3d", "--data_root",
                            tmp_path / "data")
    volumes = torch.from_numpy(np.load(file)["test_images"])
    expected = sigmoid(reference_logits(state, volumes, "height"))
    assert found["malignant_pred"].tolist() == pytest.approx(expected.tolist(), abs=2e-5)
    assert "along the height (as the original does with MedMNIST)" in capsys.readouterr().out


def test_options_file_names_data_task_and_label(path, scans, tmp_path, capsys):
    (tmp_path / "slivit.pth").symlink_to(path)
    (tmp_path / "finetune_options.txt").write_text("dataset: NoduleMNIST3D\ntask: regression\n"
                                                   "pathologies: B\nlr: 0.1\n")
    metrics, _ = run_evaluate(tmp_path / "slivit.pth", tmp_path / "out", "--meta_csv",
                              scans[0].with_name("two.csv"), "--split", "all")
    assert (metrics["task"], list(metrics["labels"])) == ("regression", ["B"])
    printed = capsys.readouterr().out
    assert "dataset NoduleMNIST3D, task regression, pathologies B taken, 1 other opt" in printed
    run_convert(tmp_path / "slivit.pth", tmp_path / "slivit.safetensors")
    card, _ = checkpoint.read(tmp_path / "slivit.safetensors")
    assert (card.integrator.token, card.target.task, card.target.labels, card.data["name"]) == (
        "channels_height", "regression", ("B",), "nodulemnist3d")
    assert card.data["assumed"] == ["label"]


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
    for options, values in (
            (["--volume", scans[0].with_name("4.npy"), "--pathologies", "IHRF"], expected[4:5]),
            (["--meta_csv", scans[0].with_name("unlabelled.csv")], expected)):
        out = tmp_path / str(len(values))
        evaluate.main(["--checkpoint", str(path), "--gpu_id", "cpu", "--out_dir", str(out),
                       *map(str, options)])
        found = pd.read_csv(out / "predictions.csv")
        name = "IHRF" if len(values) == 1 else "label"
        assert found[f"{name}_pred"].tolist() == pytest.approx(values.tolist(), abs=2e-5)


def test_it_is_averaged_and_compared_with_a_model_of_ours(path, scans, tmp_path):
    table = write_meta(scans[0].with_name("train.csv"), F_Name=list("abcdef"),
                       Path=[f"{i}.npy" for i in range(6)], A=[0, 1] * 3,
                       Split=["train"] * 2 + ["val"] * 2 + ["test"] * 2)
    finetune.main(["--meta_csv", str(table), "--n_epochs", "1", *RUN_3D, "--out_dir",
                   str(tmp_path / "ours")])
    ours = tmp_path / "ours/slivit.safetensors"
    found = [run_evaluate(file, tmp_path / name, "--meta_csv", scans[0])[1]["A_pred"]
             for file, name in ((ours, "a"), (path, "b"))]
    two_labels = str(scans[0].with_name("two.csv"))  # of which it takes that of our model
    evaluate.main(["--checkpoint", str(path), str(ours), "--meta_csv", two_labels, "--split", "all",
                   "--gpu_id", "cpu", "--out_dir", str(tmp_path / "both")])
    both = pd.read_csv(tmp_path / "both/predictions.csv")["A_pred"]
    assert np.allclose(both, (found[0] + found[1]) / 2, atol=1e-6)
    assert json.loads((tmp_path / "both/metrics.json").read_text())["comparison"]


@pytest.mark.parametrize(("options", "message"), [
    ("--explain 2", "--explain: this is a model of the original SLIViT, whose tokens are blocks"),
    ("--tta flips", "--tta flips: .* not known which flips it was trained with; leave --tta away"),
    ("--mc_dropout 3", "not known which dropout it had; leave --mc_dropout away"),
    ("--calibrate", "not known what it gave on validation; leave --calibrate away"),
    ("--pathologies A,B", "predicts one label, --pathologies names 2"),
])
def test_what_it_cannot_do_is_refused(path, scans, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        run_evaluate(path, tmp_path / "out", "--meta_csv", scans[0].with_name("two.csv"),
                     *(["--pathologies", "A"] if "--path" not in options else []),
                     *options.split())
    assert not (tmp_path / "out").exists()


def test_a_label_and_data_that_are_not_known_are_asked_for(path, scans, tmp_path):
    with pytest.raises(UserError, match=r"two.csv has 2: A, B. Name it with --pathologies"):
        run_evaluate(path, tmp_path / "out", "--meta_csv", scans[0].with_name("two.csv"))
    with pytest.raises(UserError, match="does not say what it was trained on; name the scans"):
        run_evaluate(path, tmp_path / "out")


def test_conversion_says_what_was_decided_and_why(path, tmp_path, capsys):
    run_convert(path, tmp_path / "out.safetensors", "--label", "IHRF")
    assert capsys.readouterr().out.splitlines() == [
        "tiling: width (no file says; evaluate.py settles it by its data, or say --tiling here)",
        "task: binary (no file says; evaluate.py settles it by its data, or say --task here)",
        "label: IHRF (--label)",
        f"{path}: convnext_tiny, 3 slices of 32 pixels, 1 transformer blocks of width 48 with 3 "
        "heads; 201 tensors, 27,902,433 numbers", f"written to {tmp_path / 'out.safetensors'}"]


@pytest.mark.parametrize(("args", "message"), [
    (["{path}", "{new}.pth"], "expected a name that ends with .safetensors"),
    (["{path}", "{old}"], "exists already; name another file, or add --overwrite"),
    (["{path}", "{new}/a.safetensors"], "is no folder in which one can write"),
    (["{ours}", "{new}.safetensors"], "is a safetensors file; expected a slivit.pth"),
    (["{path}", "{new}.safetensors", "--label", "id"], "--label: id cannot be a label"),
    (["{path}", "{new}.safetensors", "--label", "A,B"], "predicts one label, found 2"),
    (["{wrong}", "{old}", "--overwrite"], "wrong.pth: is no model of the original SLIViT"),
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
    run_convert(path, out, "--overwrite")
    assert checkpoint.load(out)[0].kind == "slivit"
    assert list(tmp_path.iterdir()) == [out]
