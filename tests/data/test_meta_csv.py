"""Reading a meta.csv: what is accepted, and what each refusal says."""

import numpy as np
import pytest

from slivit.utils.errors import UserError


def test_stray_blanks_and_byte_order_mark_are_stripped(read):
    scans = read(" F_Name , Path ,  A ,Split \n one , a.png , 1 , train \n\ntwo,b.png, 0 ,val\n",
                 encoding="utf-8-sig")
    assert scans.ids == ("one", "two")
    assert scans.label_names == ("A",)
    assert scans.labels.tolist() == [[1], [0]]
    assert [path.name for path in scans.read.paths] == ["a.png", "b.png"]


def test_paths_are_relative_to_the_table(read, tmp_path):
    scans = read("F_Name,Path,A\n1,sub/a.png,1\n2,/else/b.png,0\n")
    assert [str(path) for path in scans.read.paths] == [str(tmp_path / "sub/a.png"), "/else/b.png"]


def test_empty_label_is_unknown_and_not_zero(read):
    scans = read("F_Name,Path,A,B\n1,a,,1\n2,b,0,NA\n3,c,1,n/a\n4,d,1,0\n")
    assert np.isnan(scans.labels).tolist() == [[True, False], [False, True], [False, True],
                                               [False, False]]


def test_bad_label_cells_are_all_listed(read):
    with pytest.raises(UserError, match="3 label cells are neither a number nor empty") as error:
        read("F_Name,Path,A,B\n1,a,yes,1\n2,b,0,?\n3,c,1,0\n4,d,1e300,0\n")
    for text in ("line 2, column A: 'yes'", "line 3, column B: '?'", "line 5, column A: '1e300'"):
        assert text in str(error.value)


def test_missing_columns_are_named(read):
    with pytest.raises(UserError, match="F_Name and Path not found. Available: name, A"):
        read("name,A\n1,0\n")


def test_duplicate_columns_are_refused(read):
    with pytest.raises(UserError, match="columns appear twice: 'A'"):
        read("F_Name,Path,A,A \n1,a,0,1\n")


def test_empty_columns_of_a_spreadsheet_are_ignored(read):
    assert read("F_Name,Path,A,,\n1,a,0,,\n2,b,1,,\n").label_names == ("A",)


@pytest.mark.parametrize(("text", "message"), [
    ("F_Name,Path,A\n", "has a header but no rows"),
    ("F_Name,Path\n1,a\n", "has no label column"),
    ("F_Name,Path,A,A_pred,id\n1,a,1,0,4\n", "A_pred, id cannot be a label"),
])
def test_broken_tables_are_refused(read, text, message):
    with pytest.raises(UserError, match=message):
        read(text)


TABLE = "F_Name,Path,dme,DME,Drusen\n1,a,0,1,0\n2,b,1,0,1\n"


def test_label_is_matched_exactly_before_case_is_ignored(read):
    assert read(TABLE, pathologies=["DME", "drusen"]).label_names == ("DME", "Drusen")


@pytest.mark.parametrize(("wanted", "message"), [
    ("Dme", "could be any of dme, DME"),
    ("Drusn", "'Drusn' .nearest: Drusen"),
    ("Path", "'Path' .nearest"),
])
def test_ambiguous_and_unknown_labels_are_refused(read, wanted, message):
    with pytest.raises(UserError, match=message):
        read(TABLE, pathologies=["Drusen", wanted])


def test_columns_without_a_number_are_no_labels(read):
    assert read("F_Name,Path,A,site\n1,a,0,Rome\n2,b,1,Oslo\n").label_names == ("A",)


def test_patient_column_is_found_and_is_no_label(read):
    scans = read("F_Name,Path,Patient_ID,A\n1,a,7,0\n2,b,8,1\n")
    assert scans.patients == ("7", "8")
    assert scans.label_names == ("A",)


def test_two_patient_columns_need_a_choice(read):
    text = "F_Name,Path,pid,patient,A\n1,a,7,1,0\n2,b,8,2,1\n"
    with pytest.raises(UserError, match="pid, patient could each be the patient column"):
        read(text)
    scans = read(text, pid_col="Patient")
    assert scans.patients == ("1", "2")
    assert scans.label_names == ("A",)
    with pytest.raises(UserError, match="--pid_col.*'person'"):
        read(text, pid_col="person")
