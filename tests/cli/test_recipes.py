"""Recipes: flags from files, as @FILE."""

import pytest

import bb_train
import evaluate
import finetune
from benchmarks.tasks import PLAIN_IMAGES, PLAIN_VOLUMES
from slivit.cli.parser import RECIPES, read_recipe


@pytest.mark.parametrize(("build", "name"), [
    (bb_train.build_parser, "nodules_images"), (bb_train.build_parser, "plain_images"),
    (finetune.build_parser, "nodules_volumes"), (finetune.build_parser, "plain_volumes")])
def test_recipes_are_options_of_the_scripts(build, name):
    args = build().parse_args([f"@{RECIPES / name}"])
    assert args == build().parse_args(read_recipe(name))
    assert args.img_size == 64
    if build is finetune.build_parser:
        args.bb_path = "backbone.safetensors"
        finetune.check_args(args)


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


@pytest.mark.parametrize(("text", "message"), [
    (None, r"mine: cannot be read \(No such file or directory\); expected a file of flags"),
    ("--seed 1\n--b_size none\n", "mine, line 2: argument --b_size: 'none': expected a whole num"),
    ("--seed 1\n\n--wieghts none\n", "mine, line 3: unrecognized arguments: --wieghts none"),
    ("--out_dir 'a\n", r"mine, line 1: .*cannot be read as flags \(no closing quotation\)"),
])
@pytest.mark.parametrize("script", [bb_train, finetune, evaluate])
def test_what_is_wrong_in_a_recipe_is_said_with_its_line(tmp_path, capsys, script, text, message):
    if text is not None:
        (tmp_path / "mine").write_text(text)
    given = ["--checkpoint", "a"] if script is evaluate else []
    with pytest.raises(SystemExit) as stop:
        script.build_parser().parse_args([*given, f"@{tmp_path / 'mine'}"])
    assert stop.value.code == 2
    import re
    assert re.search(message, capsys.readouterr().err)
