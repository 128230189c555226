"""What every option refuses: empty texts, impossible paths, numbers out of range."""

import argparse
import os
import sys
from pathlib import Path

import pytest
from converters import DATA

import bb_train
import evaluate
import finetune
from demo import __main__ as demo
from demo import nodule_tables
from slivit import check, convert, share
from slivit.cli import types

sys.path.insert(0, str(DATA))  # where the converters find meta_table

import build_model
import build_nodule_shapes
import export_medmnist_nifti
import make_echonet_meta
import make_folder_meta
import make_kermany_meta

PROGRAMS = (bb_train, finetune, evaluate, check, convert, share, demo, nodule_tables, build_model,
            build_nodule_shapes, export_medmnist_nifti, make_echonet_meta, make_folder_meta,
            make_kermany_meta)
HUGE = ("99999999999999999999", "-99999999999999999999", "1e400", "9" * 5000)


def options():
    """Return every option and positional of every program that takes a value."""
    return [pytest.param(program, action, id=f"{program.__name__}-{action.dest}")
            for program in PROGRAMS for action in program.build_parser()._actions
            if action.nargs != 0]


def parse(program, action, value):
    """Parse a value of an option as the program does, without the others it needs."""
    parser = program.build_parser()
    for other in parser._actions:
        other.required = False
    if action.option_strings:
        return parser.parse_args([f"{action.option_strings[0]}={value}"])
    places = [other for other in parser._actions if not other.option_strings]
    return parser.parse_args([value if other.dest == action.dest else "x" for other in places])


def refusal(program, action, value, capsys):
    """Return the message with which the parser refuses a value."""
    with pytest.raises(SystemExit) as stop:
        parse(program, action, value)
    assert stop.value.code == 2
    return capsys.readouterr().err.rpartition("error: ")[2]


@pytest.mark.parametrize(("program", "action"), options())
def test_empty_values_are_refused_by_every_option(program, action, capsys):
    for value in ("", " "):
        try:
            message = refusal(program, action, value, capsys)
        except Exception as error:  # of --window and --split_ratio
            message = str(error)
        assert "expected" in message or "is empty" in message or "invalid" in message


@pytest.mark.parametrize(("program", "action"), [
    case for case in options() if case.values[1].type not in (None, types.names, types.text,
                                                             types.weights, types.weights_file,
                                                             types.path)
    and case.values[1].choices is None])
def test_huge_numbers_are_refused_by_every_option(program, action, capsys):
    for value in HUGE:
        try:
            message = refusal(program, action, value, capsys)
        except Exception as error:  # of --window and --split_ratio
            message = str(error)
        assert "expected" in message
        assert len(message) < 1000 or value == HUGE[-1]


def paths():
    return [case for case in options()
            if case.values[1].type in (types.path, types.weights, types.weights_file)]


def test_options_that_name_files_are_known():
    """So that none is forgotten: every option whose value is a file or folder."""
    found = {case.values[1].dest for case in paths()}
    assert found >= {"meta_csv", "data_root", "cache_dir", "out_dir", "bb_path", "weights",
                     "volume", "checkpoint", "source", "out", "root", "sqlite"}
    assert not [case.id for case in options() if case.values[1].type is Path]


@pytest.mark.parametrize(("program", "action"), paths())
def test_paths_are_expanded_and_impossible_ones_refused(program, action, capsys, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    found = getattr(parse(program, action, "~/x y"), action.dest)
    assert (found[0] if isinstance(found, list) else found) in (Path("/home/me/x y"),
                                                                "/home/me/x y")
    for value, message in (("~nobody_of_that_name/x", "there is no such user"),
                           ("a\0b", "contains a NUL byte"), ("a" * 256, "is too long"),
                           ("a/" * 2500, "is too long"), (os.fsdecode(b"M\xfcller.csv"),
                                                         "'M\\udcfcller.csv': is not UTF-8")):
        assert message in refusal(program, action, value, capsys)


def test_names_that_begin_with_a_tilde_stay_reachable(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert types.path("./~x") == tmp_path / "~x"  # so that no other program expands it again
    assert types.path("a/~x") == Path("a/~x")
    with pytest.raises(argparse.ArgumentTypeError):
        types.path("~x")


def test_weights_are_names_or_files(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    names = ("none", "imagenet", "~/w.pth", "w.pth", "hf://lab/model@v1")
    assert [types.weights(text) for text in names] == [
        "none", "imagenet", "/home/me/w.pth", "w.pth", "hf://lab/model@v1"]


@pytest.mark.parametrize(("option", "message"), [
    ("--medmnist_size=0", "'0': expected a whole number from 1 to 8192"),
    ("--n_slices=10001", "'10001': expected a whole number from 1 to 10000"),
    ("--vit_dim=16385", "from 1 to 16384"), ("--folds=2", "from 3 to 1000"),
    ("--jitter=101", "a number from 0 to 100"),
    ("--weight_decay=inf", "a number from 0 to 1000000"),
    ("--patience=-1", "a whole number from 0 to 1000000"),
    ("--train_fraction=1.1", "a number above 0 and at most 1"),
    ("--gpu_id=1000", "expected a GPU number from 0 to 999, or 'cpu'"),
])
def test_ranges_are_said(option, message, capsys):
    with pytest.raises(SystemExit):
        finetune.build_parser().parse_args([option])
    assert message in capsys.readouterr().err
