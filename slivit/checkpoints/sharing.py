"""What of a checkpoint may leave the place where it was trained: nothing of people or of folders.

What stays is on lists here; whatever else a header says goes.
"""

import re
from collections.abc import Iterator, Mapping

from slivit.checkpoints.header import CheckpointHeader, Validation
from slivit.checkpoints.model_card import OPTIONS, WITHOUT_LABELS
from slivit.checkpoints.subjects import starts_public, subject_kind
from slivit.data.named_sets import set_and_size
from slivit.data.scan_table import UNKNOWN
from slivit.metrics.operating_point import choose, parse_rule
from slivit.models.outputs import to_predictions

UNNAMED = "a private table"  # for the name of a table
OTHER_WEIGHTS = "other weights"  # for the name of what a backbone was trained on
WORDS = ("imagenet", "none", "score", "loss", "last", "auto", "off", "bf16", "fp16",
         "vicreg")  # of options
PACKAGES = ("slivit", "python", "torch", "torchvision", "timm", "numpy")
SCORES = ("val_loss", "roc_auc", "pr_auc", "accuracy", "balanced_accuracy", "kappa", "f1_macro",
          "brier", "ece", "r2", "pearson", "spearman", "mae", "rmse")
PENALTY = re.compile(r"(C|alpha) [\d.e+-]+(, (C|alpha) [\d.e+-]+)*")  # of a linear integrator
FEWEST = 5  # known values, below which their mean would tell of single people


def shared_header(card: CheckpointHeader, validation: Validation | None) -> CheckpointHeader:
    """Return what a header says without anything of people, files or folders.

    Labels keep their names, and the text on the intended use stays. A set that everybody has
    (embedded, MedMNIST) keeps its name and fingerprint, a table does not. Outputs on validation are
    no part of a header; of them, the thresholds of Youden's index stay.

    Args:
        card: what the header says.
        validation: the checkpoint's outputs on validation, where it has them.
    """
    data, public = card.data, set_and_size(card.data["name"]) is not None
    kept = {"name": data["name"] if public else UNNAMED,
            "fingerprint": data["fingerprint"] if public else "",
            "split_ratio": data["split_ratio"], "split_seed": data["split_seed"], "patients": []}
    if subject_kind(card) is not None:
        kept["subjects"] = UNKNOWN
    if data.get("assumed"):
        kept["assumed"] = data["assumed"]
    return CheckpointHeader(
        kind=card.kind, backbone=card.backbone, integrator=card.integrator, target=card.target,
        preprocess=card.preprocess, data=kept, epoch=card.epoch,
        score={name: value for name, value in card.score.items() if name in SCORES},
        seed=card.seed,
        versions={name: text for name, text in card.versions.items() if name in PACKAGES},
        training=_training(card), temperature=card.temperature, intended_use=card.intended_use,
        thresholds=card.thresholds if validation is None else _thresholds(card, validation),
        precision=card.precision)


def removed(card: CheckpointHeader, validation: Validation | None) -> list[str]:
    """Return in words what `shared_header` leaves out of a checkpoint."""
    kept = shared_header(card, validation)
    options, left = card.training.get("options", {}), kept.training.get("options", {})
    gone = [name for name, value in options.items() if value is not None and name not in left]
    start, start_kept = (one.training.get("backbone_data") for one in (card, kept))
    who = "scans" if subject_kind(card) in ("images", "volumes") else "patients"
    lines = [
        validation is not None
        and f"validation predictions and labels of {len(validation.labels)} scans",
        card.data["patients"] and f"hashes of {len(card.data['patients'])} {who}",
        card.data.get("patient_key") and "the mark of the key of these hashes",
        kept.data["name"] != card.data["name"]
        and f"the name of the table ({card.data['name']}) and its fingerprint",
        start != start_kept and f"what the backbone was trained on ({start})",
        gone and f"options: {', '.join(gone)}"]
    return [line for line in lines if line]


def readable(content: Mapping, indent: str = "  ") -> Iterator[str]:
    """Yield nested values as indented lines, what is empty left out."""
    values = {key: value for key, value in content.items() if value not in (None, "", [], (), {})}
    plain = [f"{key} {_text(value)}" for key, value in values.items()
             if not isinstance(value, Mapping)]
    if plain:
        yield f"{indent}{'; '.join(plain)}"
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from readable(value, indent + "  ")


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:.4g}" if isinstance(value, float) else "none" if value is None else str(value)


def _training(card: CheckpointHeader) -> dict:
    """Return what may be said of the training: cohorts as counts, and options on the list."""
    facts, kept = card.training, {}
    if "cohort" in facts:
        kept["cohort"] = {split: {**cohort, "labels": {
            name: counts for name in card.target.labels
            if (counts := cohort["labels"].get(name)) and counts["known"] >= FEWEST}}
            for split, cohort in facts["cohort"].items()}
    if "augmentation" in facts:
        kept["augmentation"] = facts["augmentation"]
    if facts.get("backbone_data"):
        name = facts["backbone_data"].partition(" (hf://")[0]
        known = starts_public(card) or name.removesuffix(WITHOUT_LABELS) in (UNNAMED, OTHER_WEIGHTS)
        kept["backbone_data"] = name if known else OTHER_WEIGHTS
    if "options" in facts:
        kept["options"] = {name: value for name, value in facts["options"].items()
                           if name in OPTIONS and (not isinstance(value, str) or value in WORDS)
                           or name == "penalty" and PENALTY.fullmatch(str(value))}
    return kept


def _thresholds(card: CheckpointHeader, validation: Validation) -> tuple[float | None, ...] | None:
    """Return the threshold of each label by Youden's index on validation; None if there is none."""
    if card.target.task == "regression":
        return None
    pred = to_predictions(validation.logits, card.target)
    chosen = [choose(truth, column, parse_rule("youden"), "validation")
              for truth, column in zip(validation.labels.T, pred.T, strict=True)]
    return tuple(one and one.value for one in chosen) if any(chosen) else None
