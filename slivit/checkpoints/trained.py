"""Trained models, loaded from checkpoints of ours or of the original SLIViT."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from slivit.checkpoints import checkpoint
from slivit.checkpoints.header import CheckpointHeader, Validation
from slivit.checkpoints.hub import local_file
from slivit.checkpoints.original.reader import read_original
from slivit.checkpoints.tensor_files import is_safetensors
from slivit.utils.errors import UserError, listing
from slivit.utils.precision import choose_precision


@dataclass(frozen=True)
class Trained:
    """A checkpoint, loaded: its file, card, model on the device, and validation outputs."""

    path: Path
    card: CheckpointHeader
    model: nn.Module
    validation: Validation | None


def load_trained(path: Path, device: torch.device, amp: str = "auto") -> Trained:
    """Load a checkpoint for prediction; see load_models.

    Raises:
        UserError: see checkpoint.read and checkpoint.restore.
    """
    return _restore(path, *checkpoint.read(path), device, amp)


def load_models(paths: Sequence[Path | str], device: torch.device, label: str | None = None,
                amp: str = "auto") -> list[Trained]:
    """Load the checkpoints of a model, or of several whose predictions are to be averaged.

    Args:
        paths: files of ours, or of the original SLIViT, on this machine or the Hub.
        device: where the models are to run.
        label: what the model predicts, for the message on a file that does not say it.
        amp: type of number in which the backbones multiply; `auto` for that in which each was
            trained, where the device multiplies it in hardware, else float32.

    Raises:
        UserError: a file that is not a checkpoint, or does not state what it predicts; models that
            cannot be averaged.
    """
    paths = [local_file(path) for path in paths]
    read = [read_any(path) for path in paths]
    for path, (card, _) in zip(paths, read, strict=True):
        if not card.target.labels:
            raise UserError(f"--checkpoint {path}: is a backbone that was pre-trained without "
                            "labels and predicts nothing yet; fine-tune it with finetune.py "
                            f"--bb_path {path}, and evaluate the model that this gives")
        if unsaid := card.data.get("assumed"):
            raise UserError(_say_what_it_is(path, unsaid, label))
    trained = [_restore(path, card, state, device, amp)
               for path, (card, state) in zip(paths, read, strict=True)]
    _check_alike(trained)
    return trained


def read_any(path: Path) -> tuple[CheckpointHeader, dict[str, torch.Tensor]]:
    """Read card and tensors of a checkpoint of ours, or of a model of the original SLIViT.

    Raises:
        UserError: see checkpoint.read (safetensors, whatever their name) and
            original.reader.read_original (other files).
    """
    return (checkpoint.read if is_safetensors(path) else read_original)(path)


def _restore(path: Path, card: CheckpointHeader, state: dict[str, torch.Tensor],
             device: torch.device, amp: str) -> Trained:
    """Make a model of what `read_any` has read; see checkpoint.restore for errors."""
    model = checkpoint.restore(path, card, state).to(device)
    model.precision = choose_precision(amp, device, card.precision)
    validation = checkpoint.read_validation(path) if is_safetensors(path) else None
    return Trained(path, card, model, validation)


def _say_what_it_is(path: Path, unsaid: list[str], label: str | None) -> str:
    """Return the command that supplies what no file states of a model of the original SLIViT."""
    choices = {"tiling": ("width", "width, or height for MedMNIST"),
               "task": ("binary", "binary or regression"),
               "label": (label or "NAME", "the column of your tables that the model predicts")}
    words = ["python", "-m", "slivit.convert", str(path), str(path.with_suffix(".safetensors"))]
    words += [word for name in unsaid for word in (f"--{name}", choices[name][0])]
    return (f"--checkpoint {path}: is a model of the original SLIViT, and no file states its "
            f"{', '.join(unsaid)}. Convert it once as below, and evaluate the file that this "
            f"writes:\n  {shlex.join(words)}\n"
            f"({'; '.join(f'--{name}: {choices[name][1]}' for name in unsaid)})")


def _check_alike(trained: Sequence[Trained]) -> None:
    """Refuse checkpoints whose predictions cannot be averaged or compared.

    Raises:
        UserError: listing what each of them is.
    """
    kinds = [f"{one.card.kind}, {one.card.target.task}: {', '.join(one.card.target.labels)}"
             for one in trained]
    if len(set(kinds)) > 1:
        rows = [f"{one.path}: {kind}" for one, kind in zip(trained, kinds, strict=True)]
        raise UserError("--checkpoint: only models of the same kind, task and labels can be "
                        f"averaged and compared:\n{listing(rows)}\nEvaluate them one by one.")
    paths = [one.path.resolve() for one in trained]
    if len(set(paths)) < len(paths):
        raise UserError("--checkpoint: a file is given twice")
