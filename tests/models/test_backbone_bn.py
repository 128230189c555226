"""Backbones with BatchNorm, to be trained from random weights."""

import pytest
import torch
from helpers import BACKBONE, RUN_2D, VIT
from safetensors.torch import load_file

import bb_train
import finetune
from slivit.checkpoints.pretrained import choose_start, read_start
from slivit.models.backbone import create_backbone
from slivit.utils.errors import UserError


@torch.no_grad()
def test_blocks_for_random_weights_change_what_they_are_given():
    torch.manual_seed(0)
    x = torch.randn(8, 40, 8, 8)
    blocks = [create_backbone(name).stages[0].blocks[0]
              for name in ("convnext_atto", "convnext_atto_bn")]
    plain, scratch = ((block(x) - x).std() for block in blocks)
    assert plain < 1e-4  # the identity, nearly
    assert 0.2 < scratch < 5


def test_backbone_for_random_weights_has_none_of_imagenet():
    with pytest.raises(UserError, match="timm has no weights for convnext_atto_bn; use --weights"):
        choose_start("imagenet", "convnext_atto_bn").load_into(torch.nn.Identity())


def test_weights_of_another_norm_are_refused(tmp_path):
    path = tmp_path / "plain.pth"
    torch.save(create_backbone("convnext_atto", 2).state_dict(), path)
    with pytest.raises(UserError, match="--backbone convnext_atto_bn and .* do not match"):
        read_start(path, "convnext_atto_bn")


@pytest.mark.usefixtures("unmeasured")
def test_batch_norm_is_trained_on_images_and_kept_on_volumes(tmp_path, image_csv, volume_csv):
    name, out = f"{BACKBONE}_bn", tmp_path / "images"
    bb_train.main(["--meta_csv", str(image_csv), *RUN_2D, "--backbone", name, "--b_size", "11",
                   "--n_epochs", "2", "--ema", "0.9", "--out_dir", str(out)])  # 12: the last of 1
    before = load_file(out / "backbone.safetensors")
    assert float(before["stem.1.running_var"].std()) > 0
    run = ["--meta_csv", str(volume_csv), "--pathologies", "A", "--n_epochs", "1", "--gpu_id",
           "cpu", "--n_cpu", "0", "--img_size", "32", *VIT]
    finetune.main([*run, "--bb_path", str(out / "backbone.safetensors"), "--bb_lr", "1e-3",
                   "--out_dir", str(tmp_path / "volumes")])
    after = load_file(tmp_path / "volumes/slivit.safetensors")
    assert torch.equal(after["backbone.stem.1.running_var"], before["stem.1.running_var"])
    assert not torch.equal(after["backbone.stem.1.weight"], before["stem.1.weight"])
    with pytest.raises(UserError, match="has no running statistics until it is pre-trained; .* "
                                        "--bb_path"):
        finetune.main([*run, "--weights", "none", "--backbone", name,
                       "--out_dir", str(tmp_path / "none")])
