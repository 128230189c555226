"""Checkpoints: safetensors weights whose header says everything needed to rebuild the model."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from slivit.config import IntegratorConfig, Preprocess, Target
from slivit.errors import UserError
from slivit.files import whole_file
from slivit.model import ImageClassifier, SLIViT
from slivit.patient_key import hashed_patients
from slivit.scans import Scans

FORMAT = 1
KEY = "slivit"  # of all metadata: safetensors writes several keys in any order


@dataclasses.dataclass(frozen=True)
class Validation:
    """What a model gave on the validation scans, from which thresholds and temperature come.

    Attributes:
        logits: float32 (n, K), as the model gave them.
        labels: float32 (n, K), NaN where unknown.
    """

    logits: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Card:
    """What a checkpoint's header says.

    Attributes:
        kind: `backbone` (2D classifier) or `slivit` (volumes).
        backbone: timm's name.
        integrator: sizes; None for a backbone.
        target: outputs.
        preprocess: how scans become input.
        data: of data_facts and patient_facts.
        epoch, score: of the saved weights, on validation.
        seed: of the run.
        versions: of the packages that made it.
        training: of model_card.training_facts; empty in files of earlier versions.
        temperature: by which logits are divided where calibrated predictions are asked for; None
            where there is none.
    """

    kind: str
    backbone: str
    integrator: IntegratorConfig | None
    target: Target
    preprocess: Preprocess
    data: dict
    epoch: int = 0
    score: dict = dataclasses.field(default_factory=dict)
    seed: int = 0
    versions: dict = dataclasses.field(default_factory=dict)
    training: dict = dataclasses.field(default_factory=dict)
    temperature: float | None = None


def data_facts(scans: Scans, fingerprint: str, split_ratio: str | None, seed: int) -> dict:
    """Return what a run and its checkpoints remember of the data.

    Name, fingerprint, ratio and seed of the split of a table that has none; a checkpoint adds
    `patient_facts`. (Models of the original SLIViT have under `assumed` what no file tells.)
    """
    return {"name": scans.name, "fingerprint": fingerprint, "split_ratio": split_ratio,
            "split_seed": seed}


def patient_facts(scans: Scans, key: bytes) -> dict:
    """Return what a checkpoint remembers of the patients in training and validation.

    Hashes with the run's key, by which an evaluation that has the key as well notices that it meets
    them again, and a mark of the key. (Models of the original SLIViT have no hashes, those of
    earlier versions hashes without a key.)
    """
    return hashed_patients(scans.patients_of("train", "val"), key)


def build(card: Card, drop_path: float = 0.0) -> ImageClassifier | SLIViT:
    """Create the model a card describes, with random weights."""
    outputs = len(card.target.labels)
    if card.kind == "backbone":
        return ImageClassifier(card.backbone, outputs, card.preprocess, drop_path)
    return SLIViT(card.backbone, outputs, card.preprocess, card.integrator, drop_path)


def save(path: Path, model: nn.Module, card: Card, validation: Validation | None = None) -> None:
    """Write model, card and what it gave on validation, whole or not at all.

    A backbone's tensors have timm's own names, so that timm can load the file as well. Outputs of
    the integrator beyond the card's labels are left out.
    """
    module = model.backbone if card.kind == "backbone" else model
    outputs = len(card.target.labels)
    state = {key: (tensor[:outputs] if key.startswith("integrator.head.") else tensor
                   ).detach().cpu().contiguous() for key, tensor in module.state_dict().items()}
    content = {"format": FORMAT, **dataclasses.asdict(card)}
    if validation is not None:
        content["validation"] = {name: _to_lists(values)
                                 for name, values in vars(validation).items()}
    with whole_file(path) as part:
        save_file(state, part, metadata={KEY: json.dumps(content, allow_nan=False)})


def _to_lists(values: np.ndarray) -> list[list[float | None]]:
    """Return numbers (n, K) to seven digits, None for NaN."""
    return [[None if np.isnan(value) else float(f"{value:.7g}") for value in row]
            for row in values]


def read_validation(path: Path) -> Validation | None:
    """Return what the model gave on validation; None in files of earlier versions."""
    with safe_open(path, framework="pt") as file:
        found = json.loads(file.metadata()[KEY]).get("validation")
    if found is None:
        return None
    return Validation(**{name: np.array(values, dtype=np.float32)
                         for name, values in found.items()})


def read(path: Path, kind: str | None = None) -> tuple[Card, dict[str, torch.Tensor]]:
    """Read card and tensors.

    Args:
        path: the file.
        kind: the only kind to accept; None for any.

    Raises:
        UserError: missing, truncated, not a checkpoint of this project, or of another kind.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: is not a whole safetensors file ({error}); expected a "
                        "slivit.safetensors or backbone.safetensors of this project") from None
    try:
        content = json.loads(metadata[KEY])
        found = content.pop("format")
        content.pop("validation", None)
        if found != FORMAT:
            raise UserError(f"{path}: has format {found}, this version reads {FORMAT}")
        integrator = content.pop("integrator")
        target, preprocess = content.pop("target"), content.pop("preprocess")
        card = Card(
            **content,
            integrator=IntegratorConfig(**integrator) if integrator else None,
            target=Target(target["task"], tuple(target["labels"]), target["column"],
                          tuple(target["mean"]), tuple(target["std"]),
                          tuple(target.get("shift", ()))),
            preprocess=Preprocess(**{**preprocess, "mean": tuple(preprocess["mean"]),
                                     "std": tuple(preprocess["std"]),
                                     "views": tuple(preprocess.get("views", ["acquisition"]))}))
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: is a safetensors file without this project's header; expected a "
                        "slivit.safetensors or backbone.safetensors written by finetune.py or "
                        "bb_train.py") from None
    if kind is not None and card.kind != kind:
        raise UserError(f"{path}: is a {card.kind} checkpoint, expected a {kind} checkpoint")
    return card, state


def load(path: Path) -> tuple[Card, ImageClassifier | SLIViT]:
    """Rebuild a trained model from its file alone, ready for evaluation.

    Raises:
        UserError: see `read` and `restore`.
    """
    card, state = read(path)
    return card, restore(path, card, state)


def restore(path: Path, card: Card, state: dict[str, torch.Tensor]) -> ImageClassifier | SLIViT:
    """Return the model of a card and tensors that were read from `path`, ready for evaluation.

    Raises:
        UserError: tensors that do not fit the card.
    """
    model = build(card)
    try:
        (model.backbone if card.kind == "backbone" else model).load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path}: tensors do not fit the header ({error})") from None
    return model.eval()
