"""The secret by which a checkpoint's hashes of patients are made; it stays in the run's folder.

A plain hash of a hospital number is no secret: all numbers can be tried. Hashes with a random key,
which does not travel with the checkpoint, tell nothing to those who do not have the key.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from slivit.data.splits import plain_patient
from slivit.utils.errors import UserError
from slivit.utils.files import atomic_write
from slivit.utils.log import LOG

KEY_FILE = "patient_key.txt"
KEY_BYTES = 32
HASH_DIGITS = 12
REMARK = """\
# The key of the patients' hashes in the checkpoint of this folder, by which evaluate.py notices
# patients who were in training. As secret as split.csv: do not pass it on with the checkpoint.
"""


def patient_key(out_dir: Path, resume: bool, before: bytes | None = None) -> bytes:
    """Return the key of a run: the one in its folder where it is resumed, `before`, or a new one.

    `before` is that of the backbone it starts from: one key then tells the patients of both. A run
    that is resumed without a key (of an earlier version, or stopped before it was written) gets
    one like a new run.

    Nothing is written: see `write_key`.

    Raises:
        UserError: the run's key is damaged, or cannot be read.
    """
    key = None
    if resume:
        try:
            key = read_key(out_dir)
        except OSError as error:
            raise UserError(f"{out_dir / KEY_FILE}: cannot be read ({error.strerror})") from None
    return key or before or secrets.token_bytes(KEY_BYTES)


def write_key(out_dir: Path, key: bytes) -> None:
    """Write the key of a run to its folder, whole or not at all.

    It may be read by whoever may read split.csv beside it, which names the same patients.
    """
    with atomic_write(out_dir / KEY_FILE) as part:
        part.write_text(f"{REMARK}{key.hex()}\n", encoding="utf-8")


def read_key(folder: Path) -> bytes | None:
    """Return the key in a folder; None where there is none.

    Raises:
        OSError: it cannot be read.
        UserError: it is damaged.
    """
    path = folder / KEY_FILE
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if len(keys) != 1 or not re.fullmatch(f"[0-9a-fA-F]{{{2 * KEY_BYTES}}}", keys[0]):
        raise UserError(f"{path}: is damaged: found {len(keys)} lines of "
                        f"{', '.join(str(len(line)) for line in keys[:3]) or 'no'} characters, "
                        f"expected one line of {2 * KEY_BYTES} hexadecimal digits. Restore a copy "
                        "of it, or remove it; without it nobody can tell which patients were in "
                        "training")
    return bytes.fromhex(keys[0])


def check_key(out_dir: Path, data: dict) -> None:
    """Refuse to continue with a key other than that of the run's checkpoint; warn if there is none.

    Args:
        out_dir: of the run.
        data: of the checkpoint's header.

    Raises:
        UserError: the key there is another run's.
    """
    mark, key = data.get("patient_key"), read_key(out_dir)
    if mark is None:
        return
    if key is None:
        LOG.warning("warning: %s is missing; checkpoints written earlier can no longer be compared "
                    "with patients. Later ones get a new key", out_dir / KEY_FILE)
    elif key_mark(key) != mark:
        raise UserError(f"--resume: {out_dir / KEY_FILE} is not the key of this run, according "
                        "to its checkpoint. Restore the run's own key, or remove this one")


def hash_patient(patient: str, key: bytes | None) -> str:
    """Return a short hash of a patient; without a key, as in checkpoints of earlier versions."""
    if key is None:
        return hashlib.sha256(patient.encode()).hexdigest()[:HASH_DIGITS]
    return hmac.new(key, patient.encode(), hashlib.sha256).hexdigest()[:HASH_DIGITS]


def key_mark(key: bytes) -> str:
    """Return a short hash of a key, by which a checkpoint knows its own."""
    return hashlib.sha256(b"slivit patient key" + key).hexdigest()[:HASH_DIGITS]


def hashed_patients(patients: Iterable[str], key: bytes, before: Iterable[str] = ()) -> dict:
    """Return what a checkpoint's `data` says of the patients whom it was trained on.

    `patients`: their hashes, sorted; `patient_key`: the key's mark, None where there are none.

    Args:
        patients: of the run, as splits.plain_patient writes them.
        key: of the run.
        before: hashes, made with the same key, of the patients of the checkpoint it started from.
    """
    hashes = {hash_patient(patient, key) for patient in patients} | set(before)
    return {"patients": sorted(hashes), "patient_key": key_mark(key) if hashes else None}


def known_patients(patients: set[str], data: dict, path: Path) -> set[str] | None:
    """Return those of the patients whom a checkpoint, or what it started from, was trained on.

    Args:
        patients: the patients to look for.
        data: of the checkpoint's header.
        path: of the checkpoint; the key is looked for beside it, and beside what it links to.

    Returns:
        The patients; None where that is unknown because the checkpoint's own key is missing.

    Raises:
        UserError: the key beside it is damaged.
    """
    key, mark = None, data.get("patient_key")
    if mark is not None and patients:
        key = own_key(path, mark)
        if key is None:
            return None
    known = set(data["patients"])
    return {patient for patient in patients if not known.isdisjoint(
        {hash_patient(patient, key), hash_patient(plain_patient(patient), key)})}


def own_key(path: Path, mark: str) -> bytes | None:
    """Return the key of that mark beside a checkpoint, if it is there and may be read."""
    for folder in (path.parent, path.resolve().parent):
        try:
            key = read_key(folder)
        except OSError:
            continue
        if key is not None and key_mark(key) == mark:
            return key
    return None
