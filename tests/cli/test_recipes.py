"""Recipes: flags from files, as @FILE."""

import re
import shlex
import subprocess
import sys

import pytest
from helpers import ROOT

import bb_train
import evaluate
import finetune
from benchmarks.region_methods import SSL
from benchmarks.tasks import PLAIN_IMAGES, PLAIN_VOLUMES
from slivit.cli.parser import RECIPES, read_recipe


@pytest.mark.parametrize(("build", "name"), [
    (bb_train.build_parser, "nodules_images"), (bb_train.build_parser, "plain_images"),
    (finetune.build_parser, "nodules_volumes"), (finetune.build_parser, "plain_volumes"),
    (finetune.build_parser, "few_volumes"), (bb_train.build_parser, "unlabelled")])
def test_recipes_are_options_of_the_scripts(build, name):
    args = build().parse_args([f"@{RECIPES / name}"])
    assert args == build().parse_args(read_recipe(name))
    assert args.img_size == (None if name == "few_volumes" else 64)
    if build is finetune.build_parser:
        args.bb_path = "backbone.safetensors"
        finetune.check_args(args)


def test_the_recipe_without_labels_is_the_one_that_was_measured():
    parse = bb_train.build_parser().parse_args
    measured = vars(parse(shlex.split(SSL))) | {"window": None}
    assert vars(parse(read_recipe("unlabelled"))) == measured


def test_finished_jobs_of_the_benchmarks_are_known_by_these_words():
    assert PLAIN_IMAGES == ("--backbone convnext_atto --weights none --img_size 64 --drop_path 0 "
                            "--n_epochs 12 --patience 0 --b_size 32 --lr 2e-3 --select loss")
    assert PLAIN_VOLUMES == (
        "--img_size 64 --token pool --freeze_backbone --feature_augments 4 --n_epochs 12 "
        "--patience 0 --b_size 32 --lr 5e-4 --select loss --vit_dim 128 --vit_depth 2 "
        "--vit_heads 4 --vit_head_dim 32 --vit_mlp_dim 256")


def test_later_flags_win_and_remarks_are_none(tmp_path):
    recipe = tmp_path / "mine"
    recipe.write_text("# mine\n\n--b_size 7 --lr 1e-3  # slow\n--out_dir 'a b'\n")
    parse = finetune.build_parser().parse_args
    assert parse([f"@{recipe}"]).b_size == 7
    assert str(parse([f"@{recipe}"]).out_dir) == "a b"
    assert parse([f"@{recipe}", "--b_size", "9"]).b_size == 9
    assert parse(["--b_size", "9", f"@{recipe}"]).b_size == 7


def test_quotation_marks_hold_words_together_and_backslashes_stay(tmp_path):
    recipe = tmp_path / "mine"
    recipe.write_text("\ufeff--pathologies 'C:\\data\\x y' --seed 3\r\n", encoding="utf-8")
    args = finetune.build_parser().parse_args([f"@{recipe}"])
    assert (args.pathologies, args.seed) == (["C:\\data\\x y"], 3)


def test_a_recipe_may_include_others(tmp_path):
    (tmp_path / "inner").write_text("--b_size 3\n--seed 5\n")
    (tmp_path / "outer").write_text(f"--b_size 2\n@{tmp_path / 'inner'} --lr 0.5\n")
    args = finetune.build_parser().parse_args([f"@{tmp_path / 'outer'}"])
    assert (args.b_size, args.seed, args.lr) == (3, 5, 0.5)


@pytest.mark.parametrize(("mine", "other", "more", "message"), [
    (None, "", [], r"error: @.*mine: cannot be read \(No such file or directory\); expected a fil"),
    ("--seed 1\n--b_size none\n", "", [], "mine, line 2: argument --b_size: 'none': expected a wh"),
    ("--seed 1\n\n--wieghts none\n", "", [], "mine, line 3: unrecognized arguments: --wieghts non"),
    ("--out_dir 'a\n", "", [], r"mine, line 1: .*cannot be read as flags \(no closing quotation\)"),
    ("--seed 1\nplainword\n", "", [], "mine, line 2: unrecognized arguments: plainword"),
    ("--b_size x\n--b_size 3\n", "", [], "mine, line 1: argument --b_size: 'x'"),
    ("--seed 1\n", "", ["--b_size", "x"], "error: argument --b_size: 'x'"),
    ("--b_size x\n", "--b_size 2\n", ["@OTHER"], "mine, line 1: argument --b_size: 'x'"),
    ("--seed 1\n@OTHER\n", "\n--b_size x\n", [], "other, line 2: argument --b_size: 'x'"),
    ("--seed 1\n@GONE\n", "", [], "mine, line 2: @.*gone: cannot be read"),
    ("--seed 1\n@MINE\n", "", [], "mine, line 2: @.*mine includes itself"),
    ("@OTHER\n", "@MINE\n", [], "other, line 1: @.*mine includes itself")])
@pytest.mark.parametrize("script", [bb_train, finetune, evaluate])
def test_what_is_wrong_in_a_recipe_is_said_with_its_line(tmp_path, capsys, script, mine, other,
                                                         more, message):
    def named(text):
        return re.sub("OTHER|GONE|MINE", lambda found: str(tmp_path / found[0].lower()), text)

    for name, text in (("mine", mine), ("other", other)):
        if text is not None:
            (tmp_path / name).write_text(named(text))
    given = ["--checkpoint", "a"] if script is evaluate else []
    with pytest.raises(SystemExit) as stop:
        script.build_parser().parse_args([*given, f"@{tmp_path / 'mine'}",
                                           *map(named, more)])
    assert stop.value.code == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("script", ["bb_train", "finetune", "evaluate"])
@pytest.mark.parametrize("flag", ["--help", "--wieghts"])
def test_help_and_wrong_flags_import_nothing_heavy(script, flag):
    run = subprocess.run([sys.executable, "-X", "importtime", f"{script}.py", flag], cwd=ROOT,
                         capture_output=True, text=True, check=False)
    assert run.returncode == (0 if flag == "--help" else 2)
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "slivit.cli.parser" in imported
    assert not imported & {"torch", "sklearn", "scipy", "pandas", "pydicom", "nibabel", "PIL"}
