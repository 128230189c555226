"""Whom a checkpoint was trained on: patients or, in a table without them, the scans themselves."""

from dataclasses import dataclass
from pathlib import Path

from slivit.checkpoints.header import CheckpointHeader
from slivit.checkpoints.model_card import WITHOUT_LABELS
from slivit.checkpoints.patient_key import KEY_FILE, hashed_patients, key_mark, known_patients
from slivit.checkpoints.timm_weights import find_timm_weights
from slivit.data.named_sets import set_and_size
from slivit.data.scan_table import UNKNOWN, ScanTable
from slivit.data.splits import plain_patient


def subject_word(scans: ScanTable) -> str:
    """Return what the subjects of a table are called."""
    return "patients" if scans.subject_kind == "patients" else "scans"


def also_in_training(scans: ScanTable, found: int, total: int, where: str, what: str) -> str:
    """Return in words that some subjects seem to be in a training; what follows is left to say.

    Args:
        scans: whose they are.
        found: how many seem to be.
        total: how many were looked for.
        where: of which split they are, such as ` of test`.
        what: the model that was trained.
    """
    patients = scans.subject_kind == "patients"
    verbs = ("has an id that also appears", "have ids that also appear") if patients else (
        "has a name that also appears", "have names that also appear")
    return (f"{found} of {total} {subject_word(scans)}{where} {verbs[found != 1]} in the training "
            f"or validation data of {what}; if they are the same "
            f"{'people' if patients else 'scans'}, ")


def subject_kind(card: CheckpointHeader) -> str | None:
    """Return by what a header knows all that the model was trained on.

    `patients`, names of `images` or `volumes`, or UNKNOWN: hashes are missing, of a shared or an
    original model, or of what it started from. None for public sets without patients.
    """
    if "subjects" in card.data:
        return card.data["subjects"]
    public = set_and_size(card.data["name"])
    if card.data["patients"]:  # of earlier versions, which did not say what they could not tell
        return "patients" if public or starts_public(card) else UNKNOWN
    had_patients = any(one["patients"] for one in card.training.get("cohort", {}).values())
    return None if public and not had_patients else UNKNOWN


def starts_public(card: CheckpointHeader) -> bool:
    """Return whether a model's backbone started from nothing, a public set or timm's weights."""
    name = (card.training.get("backbone_data") or "").partition(" (hf://")[0]
    timm = find_timm_weights(card.backbone)
    return bool(not name or set_and_size(name.removesuffix(WITHOUT_LABELS))
                or (timm and name == timm.trained_on))


def _written(scans: ScanTable, subjects: set[str]) -> set[str]:
    """Return subjects as they are hashed: names of scans as they are, patients without variants."""
    kind = scans.subject_kind
    return {plain_patient(one) if kind == "patients" else f"{kind}\n{one}" for one in subjects}


def subject_facts(scans: ScanTable, key: bytes, before: CheckpointHeader | None = None) -> dict:
    """Return what a checkpoint remembers of whom it has seen in training and validation.

    Hashes made with the run's key, by which an evaluation that also has the key recognises them,
    a mark of the key, and of what kind they are. (Models of the original SLIViT have no hashes,
    those of earlier versions hashes without a key.)

    Args:
        scans: of the run.
        key: of the run.
        before: header of what it started from. Its hashes are taken over where the key is the same.
    """
    kinds, hashes = {scans.subject_kind}, []
    if before is not None:
        same = before.data.get("patient_key") == key_mark(key)
        hashes = before.data["patients"] if same else []
        kind = subject_kind(before)
        kinds.add(kind if same or kind is None else UNKNOWN)
    kinds.discard(None)
    facts = hashed_patients(_written(scans, scans.subjects_of("train", "val")), key, hashes)
    if kinds:
        facts["subjects"] = kinds.pop() if len(kinds) == 1 else UNKNOWN
    return facts


@dataclass(frozen=True)
class Seen:
    """Who of some scans' people a checkpoint, or what it started from, has seen in training.

    Attributes:
        found: those who were recognised, in some spelling.
        untold: why there may be others; empty where there are none.
    """

    found: set[str]
    untold: str


def seen_in_training(scans: ScanTable, subjects: set[str], card: CheckpointHeader, path: Path
                     ) -> Seen:
    """Look for the people of some scans in a checkpoint.

    Args:
        scans: the scans.
        subjects: whom to look for, of ScanTable.subjects_of.
        card: the checkpoint's header.
        path: of the checkpoint, beside which the key is looked for.

    Raises:
        UserError: the key beside it is damaged.
    """
    here, there = scans.subject_kind, subject_kind(card)
    if here is None or there is None:
        return Seen(set(), "")
    if here == UNKNOWN:
        return Seen(set(), f"{scans.name} has no patient column, and several rows have one name")
    found = known_patients(subjects if here == "patients" else _written(scans, subjects),
                           card.data, path)
    if found is None:
        return Seen(set(), f"the {KEY_FILE} of that training is not in its folder")
    if here == there:
        return Seen(found, "")
    if there == UNKNOWN:
        return Seen(found, "it does not record everyone on whom it, or a backbone before it, was "
                    "trained")
    if here == "patients":
        return Seen(found, "the table that it was trained on had no patient column")
    if there == "patients":
        return Seen(found, f"{scans.name} has no patient column")
    return Seen(found, f"neither {scans.name} nor the table that it was trained on has a patient "
                "column")
