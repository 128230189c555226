"""Cells that a spreadsheet would run as formulas: written so that it does not, and read back."""

import json

import numpy as np
import pandas as pd
import pytest
from converters import GREY, run
from helpers import RUN_2D, run_evaluate, write_image, write_image_table

import bb_train
from slivit.data.meta_csv import read_meta
from slivit.data.splits import Splitting
from slivit.utils.cells import escape, read_table, unescape, write_table

FORMULAS = ("=cmd|' /C calc'!A0", "=1+1", "+1+1", "-1-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1",
            " =1", "＝1", "+", "-P7", "-inf", "+49 30 1234", "--5", "-5 ", "-1_000", "'=1", "''=1",
            "'-5", "'\t1")
PLAIN = ("-5", "+3.2e1", "-.5", "-5.", "+1E-3", "P=1", "a-b", "", "'", "'s", "''", "NA", "nan",
         "007", 'a "b"', "a,b", "a\nb", "a\rb", "a\r\nb", "\ufeffx", "ä")


def runs(cell):
    """Say whether a spreadsheet would take a cell of a CSV file for a formula."""
    return cell.lstrip()[:1] in tuple("=+-@＝＋－＠") or cell[:1] in tuple("\t\r\n")


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_gets_an_apostrophe_and_loses_it(text):
    assert escape(text) == f"'{text}"
    assert unescape(escape(text)) == text


@pytest.mark.parametrize("text", PLAIN)
def test_a_number_and_other_text_stay_as_they_are(text):
    assert escape(text) == unescape(text) == text


def test_a_table_comes_back_as_it_was(tmp_path):
    texts = [*FORMULAS, *PLAIN]
    table = pd.DataFrame({"id": texts, "=A": np.linspace(-1, 1, len(texts)), "'=A": texts[::-1],
                          "n": pd.array([-3, None] * (len(texts) // 2), dtype="Int64"),
                          "yes": [True, False] * (len(texts) // 2)})
    write_table(tmp_path / "t.csv", table)
    found = read_table(tmp_path / "t.csv")
    assert list(found) == list(table)
    assert found["id"].tolist() == texts
    assert found["'=A"].tolist() == texts[::-1]
    assert found["=A"].astype(float).tolist() == table["=A"].tolist()
    assert found["n"].tolist()[:2] == ["-3", ""]
    plain = pd.read_csv(tmp_path / "t.csv", dtype=str, keep_default_na=False)
    assert [text for text in plain["id"] if runs(text)] == ["-5", "+3.2e1", "-.5", "-5.", "+1E-3"]
    assert not any(map(runs, plain.columns))


def test_a_table_without_such_cells_is_written_as_ever(tmp_path):
    table = pd.DataFrame({"id": ["a", "b,c"], "x": [0.1, -2.5], "y": pd.array([1, None], "Int64")})
    write_table(tmp_path / "t.csv", table)
    assert (tmp_path / "t.csv").read_text() == table.to_csv(index=False)


@pytest.fixture(scope="module")
def formula_run(tmp_path_factory):
    """The output of bb_train.py on images whose ids, patients and label are formulas."""
    folder = tmp_path_factory.mktemp("formulas")
    table = pd.read_csv(write_image_table(folder), dtype=str).drop(columns="B")
    table["F_Name"] = [f"=cmd|'/C calc'!A{i}" if i % 2 else f"-{i}" for i in range(len(table))]
    table["patient"] = "@" + table["patient"]
    table.rename(columns={"A": "=A"}).to_csv(folder / "meta.csv", index=False)
    bb_train.main(["--meta_csv", str(folder / "meta.csv"), "--n_epochs", "1", *RUN_2D,
                   "--out_dir", str(folder / "out")])
    return folder


@pytest.mark.parametrize("name", ["split.csv", "predictions.csv"])
def test_no_file_of_a_run_has_a_formula(formula_run, name):
    cells = pd.read_csv(formula_run / "out" / name, header=None, dtype=str, keep_default_na=False)
    found = {cell for cell in cells.to_numpy().ravel() if runs(cell)}
    assert all(cell[1:].isdecimal() for cell in found)  # ids that are numbers
    table = read_table(formula_run / "out" / name)
    meta = pd.read_csv(formula_run / "meta.csv", dtype=str)
    if name == "predictions.csv":
        assert list(table) == ["id", "patient", "=A", "=A_pred"]
        meta = meta[meta["Split"] == "test"]
    assert table["id"].tolist() == meta["F_Name"].tolist()
    assert table["patient"].tolist() == meta["patient"].tolist()


def test_all_else_has_them_raw(formula_run, tmp_path, capsys):
    metrics = json.loads((formula_run / "out/metrics.json").read_text())
    assert list(metrics["labels"]) == ["=A"]
    run_evaluate(formula_run / "out/backbone.safetensors", tmp_path / "out", "--meta_csv",
                 formula_run / "meta.csv", "--split", "train")
    assert "12 of 12 patients have ids" in capsys.readouterr().out


def test_a_table_made_of_a_split_has_the_same_ids_and_patients(formula_run):
    meta = read_meta(formula_run / "meta.csv", 2)
    table = pd.read_csv(formula_run / "out/split.csv", dtype=str)  # a user's own program
    table = table.rename(columns={"id": "F_Name"}).assign(Path="images/0.png", **{"'=A": 1})
    table.to_csv(formula_run / "again.csv", index=False)
    again = read_meta(formula_run / "again.csv", 2, splitting=Splitting(refuse_overlap=False))
    assert (again.ids, again.patients) == (meta.ids, meta.patients)
    assert again.label_names == ("=A",)


def test_converters_write_such_names_and_they_are_found(scripts, tmp_path):
    names = ["+cat/=1+1.png", "-dog/@x.png"]
    for name in names:
        write_image(tmp_path / name, GREY)
    run(scripts.folder, tmp_path, "--patient_from", "(.)[.x]")
    cells = pd.read_csv(tmp_path / "meta.csv", header=None, dtype=str).to_numpy().ravel()
    assert not any(map(runs, cells))
    scans = read_meta(tmp_path / "meta.csv", 2)
    assert scans.ids == tuple(names)
    assert scans.label_names == ("+cat", "-dog")
    assert scans.patients == ("1", "@")
    assert scans.read(0).slices.shape[0] == 1


def test_a_formula_behind_a_semicolon_stays_within_its_cell(tmp_path):
    ids = ["a;=1+1;x0", "b"]
    write_table(tmp_path / "a.csv", pd.DataFrame({"id": ids, "x": [0.5, 1.5]}))
    assert (tmp_path / "a.csv").read_text().splitlines()[1] == '"a;=1+1;x0","0.5"'
    assert read_table(tmp_path / "a.csv")["id"].tolist() == ids
