"""Whom a checkpoint was trained on: patients or, in a table without them, the scans themselves."""

from dataclasses import dataclass
from pathlib import Path

from slivit.checkpoints.header import CheckpointHeader
from slivit.checkpoints.patient_key import KEY_FILE, hashed_patients, key_mark, known_patients
from slivit.data.named_sets import set_and_size
from slivit.data.scan_table import ScanTable

UNKNOWN = "unknown"  # kind of subjects where not all of them are known


def words(kind: str | None) -> tuple[str, str, str]:
    """Return what subjects of a kind are called, by what they are known, and who they are."""
    return ("patients", "ids", "people") if kind == "patients" else ("scans", "names", "scans")


def subject_kind(card: CheckpointHeader) -> str | None:
    """Return by what a header knows all that the model was trained on.

    `patients`, names of `images` or `volumes`, or UNKNOWN: hashes are missing, of a shared or an
    original model, or of what it started from. None for public sets without patients.
    """
    if "subjects" in card.data:
        return card.data["subjects"]
    if card.data["patients"]:  # of earlier versions, these included
        return "patients"
    had_patients = any(one["patients"] for one in card.training.get("cohort", {}).values())
    return None if set_and_size(card.data["name"]) and not had_patients else UNKNOWN


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
    facts = hashed_patients(scans.subjects_of("train", "val"), key, hashes)
    if kinds:
        facts["subjects"] = kinds.pop() if len(kinds) == 1 else UNKNOWN
    return facts


@dataclass(frozen=True)
class Seen:
    """Who of some scans' people a checkpoint, or what it started from, has seen in training.

    Attributes:
        found: those who were recognised.
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
    if not subjects or there is None:
        return Seen(set(), "")
    found = known_patients(subjects, card.data, path)
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
