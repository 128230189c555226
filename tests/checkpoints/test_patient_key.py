"""Hashes of patients in checkpoints: with a key that stays in the run's folder."""

import dataclasses
import hashlib
import json
import os
import shutil
from types import SimpleNamespace

import pytest
from helpers import RUN_3D, content, run_evaluate

import evaluate
import finetune
from slivit.checkpoints import checkpoint
from slivit.checkpoints.patient_key import (
    check_key,
    hashed_patients,
    known_patients,
    patient_key,
    read_key,
    write_key,
)
from slivit.data.meta_csv import read_meta
from slivit.utils.errors import UserError

KEY, OTHER = bytes(range(32)), bytes(32)
WARNING = "of 8 patients have ids that also appear in the training"
UNTOLD = "cannot tell whether any of these patients were in the training of"
NO_KEY = "the patient_key.txt of that training is not in its folder"


def plain_hashes(*patients):
    return sorted(hashlib.sha256(patient.encode()).hexdigest()[:12] for patient in patients)


def copy_run(run, folder, *names):
    """Copy some files of a run; return where its checkpoint is."""
    folder.mkdir()
    for name in names:
        shutil.copy(run / name, folder / name)
    return folder / "slivit.safetensors"


def with_patients(path, changed, **facts):
    """Write a checkpoint again that says other things of its patients; return where."""
    card, _ = checkpoint.read(path)
    _, model = checkpoint.load(path)
    data = {key: value for key, value in card.data.items() if "patient" not in key}
    checkpoint.save(changed, model, dataclasses.replace(card, data=data | facts))
    return changed


@pytest.fixture
def said(volume_csv, messages):
    """A function that returns what evaluate.py says of checkpoints and the patients of all rows."""
    scans = read_meta(volume_csv, 3, ["A"])

    def said(*paths):
        trained = [SimpleNamespace(path=path, card=checkpoint.read(path)[0]) for path in paths]
        messages.clear()
        evaluate.warn_of_training_patients(scans, scans.rows("all"), trained)
        return "\n".join(messages)
    return said


def test_numbers_of_patients_cannot_be_tried_on_a_checkpoint(binary_run):
    data = checkpoint.read(binary_run / "slivit.safetensors")[0].data
    numbers = [f"{kind}{i}" for kind in "pi" for i in range(100)]
    assert len(data["patients"]) == 6 + 18  # of the volumes, and of the backbone's images
    assert not set(data["patients"]) & set(plain_hashes(*numbers))
    key = read_key(binary_run)
    assert set(data["patients"]) < set(hashed_patients(numbers, key)["patients"])
    files = content(binary_run)
    for name in set(files) - {"patient_key.txt"}:
        assert key.hex().encode() not in files[name], name
        assert key not in files[name], name
    assert not any(word.encode() in files["config.json"] for word in data["patients"])


def test_key_may_be_read_by_whoever_may_read_the_split(binary_run):
    modes = {os.stat(binary_run / name).st_mode for name in ("patient_key.txt", "split.csv")}
    assert len(modes) == 1


@pytest.mark.usefixtures("unmeasured")
def test_resumed_run_keeps_its_key_and_a_new_one_gets_another(volume_csv, tmp_path):
    out = tmp_path / "run"
    command = ["--meta_csv", str(volume_csv), "--pathologies", "B", *RUN_3D, "--out_dir", str(out)]

    def train(*options):
        finetune.main([*command, *options])
        data = checkpoint.read(out / "slivit.safetensors")[0].data
        return read_key(out), data["patients"], data["patient_key"]
    first = train("--n_epochs", "1")
    assert train("--n_epochs", "2", "--resume") == first

    config = json.loads((out / "config.json").read_text())  # as earlier versions left it
    config["data"]["patients"] = plain_hashes("P1")
    (out / "config.json").write_text(json.dumps(config))
    (out / "patient_key.txt").unlink()
    assert train("--n_epochs", "3", "--resume")[0] not in (None, first[0])

    (out / "patient_key.txt").write_text("# cut off\n" + "a" * 40)
    before = content(out)
    with pytest.raises(UserError, match="(?s)patient_key.txt: is damaged: found 1 lines of 40 "
                                        "characters, expected one line of 64 hex.*remove it"):
        train("--n_epochs", "4", "--resume")
    assert content(out) == before

    (out / "patient_key.txt").unlink()
    again = train("--n_epochs", "1", "--overwrite")
    assert again[0] != first[0]
    assert again[2] != first[2]


def test_evaluation_without_the_key_says_that_it_cannot_tell(binary_run, tmp_path, said):
    alone = copy_run(binary_run, tmp_path / "alone", "slivit.safetensors")
    assert said(alone) == f"{UNTOLD} {alone}: {NO_KEY}"
    write_key(alone.parent, OTHER)
    assert said(alone).startswith(UNTOLD)
    write_key(alone.parent, read_key(binary_run))
    assert said(alone).startswith(f"warning: 6 {WARNING}")
    assert UNTOLD not in said(alone)


def test_key_is_found_beside_what_a_link_leads_to(binary_run, tmp_path, said):
    (tmp_path / "link.safetensors").symlink_to(binary_run / "slivit.safetensors")
    assert f"6 {WARNING}" in said(tmp_path / "link.safetensors")


def test_damaged_key_is_one_message_before_anything_is_written(binary_run, volume_csv, tmp_path):
    path = copy_run(binary_run, tmp_path / "run", "slivit.safetensors", "patient_key.txt")
    (path.parent / "patient_key.txt").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match="patient_key.txt: is damaged.*Restore a copy of it, or"):
        run_evaluate(path, tmp_path / "out", "--meta_csv", volume_csv)
    assert not (tmp_path / "out").exists()


def test_checkpoints_of_earlier_versions_still_warn(binary_run, tmp_path, said):
    old = with_patients(binary_run / "slivit.safetensors", tmp_path / "old.safetensors",
                        patients=plain_hashes("P0", "P3", "elsewhere"))
    assert f"2 {WARNING}" in said(old)
    assert UNTOLD not in said(old)


def test_each_of_several_checkpoints_has_its_own_key(binary_run, tmp_path, said):
    paths = []
    for name, key, patients in (("a", KEY, ("P0", "P1")), ("b", OTHER, ("P1", "P7")),
                                ("c", bytes([7] * 32), ("P4",))):
        (tmp_path / name).mkdir()
        write_key(tmp_path / name, key)
        paths.append(with_patients(binary_run / "slivit.safetensors",
                                   tmp_path / name / "slivit.safetensors",
                                   **hashed_patients(patients, key)))
    assert f"4 {WARNING}" in said(*paths)
    (tmp_path / "c/patient_key.txt").unlink()
    assert f"3 {WARNING}" in said(*paths)
    assert said(*paths).endswith(f"{paths[2]}: {NO_KEY}".replace("any", "more"))


@pytest.mark.usefixtures("unmeasured")
def test_scans_of_a_table_without_patients_are_known_by_their_names(volume_csv, tmp_path, capsys):
    table = tmp_path / "meta.csv"
    lines = [line.rsplit(",", 1)[0] for line in volume_csv.read_text().splitlines()]
    table.write_text("\n".join(lines).replace(",volumes/", f",{volume_csv.parent}/volumes/"))
    finetune.main(["--meta_csv", str(table), "--pathologies", "B", *RUN_3D, "--n_epochs", "1",
                   "--out_dir", str(tmp_path / "run")])
    path = tmp_path / "run/slivit.safetensors"
    one = SimpleNamespace(path=path, card=checkpoint.read(path)[0])

    def said(table, split):
        scans = read_meta(table, 3, ["B"])
        capsys.readouterr()
        evaluate.warn_of_training_patients(scans, scans.rows(split), [one])
        return capsys.readouterr().out
    assert "18 of 24 scans have names that also appear in the training" in said(table, "all")
    assert said(table, "test") == ""
    assert said(volume_csv, "all") == (
        f"{UNTOLD} {path}: the table that it was trained on had no patient column\n")


def test_a_key_is_kept_on_resume_and_refused_where_it_cannot_be_read(tmp_path, monkeypatch):
    write_key(tmp_path, KEY)
    assert patient_key(tmp_path, resume=True) == KEY
    assert patient_key(tmp_path, resume=False) != KEY
    assert patient_key(tmp_path / "new", resume=True) not in (KEY, None)
    for resume in (False, True):  # a job that always says --resume begins like any other
        assert patient_key(tmp_path / "new", resume, before=OTHER) == OTHER
    assert patient_key(tmp_path, resume=True, before=OTHER) == KEY

    def denied(*args, **options):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr("pathlib.Path.read_text", denied)
    with pytest.raises(UserError, match=r"patient_key.txt: cannot be read \(Permission denied\)"):
        patient_key(tmp_path, resume=True)


def test_patients_are_known_however_a_spreadsheet_writes_them(tmp_path):
    key = KEY
    write_key(tmp_path, key)
    data = hashed_patients(["7", "p9"], key)
    found = known_patients({"7", "7.0", "p9", "8"}, data, tmp_path / "x.safetensors")
    assert found == {"7", "7.0", "p9"}


def test_a_run_goes_on_with_its_own_key_alone(tmp_path, messages):
    data = hashed_patients(["P1"], KEY)
    check_key(tmp_path, data)
    assert "patient_key.txt is missing" in messages[-1]
    write_key(tmp_path, OTHER)
    with pytest.raises(UserError, match="is not the key of this run"):
        check_key(tmp_path, data)
