"""What a training says of the backbone that it starts from."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import BACKBONE, preprocess

from slivit.checkpoints.patient_key import hashed_patients, key_mark, write_key
from slivit.checkpoints.pretrained import PretrainedBackbone
from slivit.checkpoints.start_checks import tell_of_input, warn_of_seen
from slivit.checkpoints.subjects import subject_facts, subject_kind
from slivit.data.scan_table import FileSource, ScanTable

KEY, OTHER = bytes(range(32)), bytes(32)
UNTOLD = "cannot tell whether patients of test were in the training of the backbone"


def card_of(data, training=None, **facts):
    """Return what of a header is looked at, with this `data`."""
    return SimpleNamespace(data={"name": "all.csv", **data}, training=training or {},
                           backbone=BACKBONE, **facts)


def start_of(folder, card):
    """Return the start from a file in a folder, with this header."""
    return PretrainedBackbone(BACKBONE, (0.5,) * 3, (0.5,) * 3, str(folder / "b.safetensors"),
                              card=card)


def scans_of(*names, ndim=3, patients=True, split="test"):
    """Return a table of files, of which each has a patient of its name, or no one has any."""
    paths = tuple(Path(f"{name}.nii.gz") for name in names)
    return ScanTable("here.csv", ndim, names, np.array([split] * len(names)),
                     np.zeros((len(names), 0), np.float32), (), names if patients else None,
                     FileSource(paths, ndim))


def trained_on(names, ndim=3, patients=True, before=None):
    return card_of(subject_facts(scans_of(*names, ndim=ndim, patients=patients, split="train"),
                                 KEY, before))


def test_patients_of_test_whom_the_backbone_has_seen_are_told(tmp_path, messages):
    start = start_of(tmp_path, trained_on(["007", "P1", "P2"]))
    warn_of_seen(start, scans_of("P1", "P9"))
    assert messages[-1] == (f"{UNTOLD} {tmp_path}/b.safetensors: the patient_key.txt of that "
                            "training is not in its folder")
    write_key(tmp_path, KEY)
    warn_of_seen(start, scans_of("7", "P1", "P9"))
    assert "2 of 3 patients of test have ids that also appear" in messages[-1]
    count = len(messages)
    warn_of_seen(start, scans_of("P9"))
    warn_of_seen(start, scans_of("P1", split="train"))
    assert len(messages) == count


def test_without_patients_the_scans_themselves_are_known(tmp_path, messages):
    write_key(tmp_path, KEY)
    start = start_of(tmp_path, trained_on(["s1", "s2"], patients=False))
    warn_of_seen(start, scans_of("s1", "s3", patients=False))
    assert ("1 of 2 scans of test has a name that also appears in the training or validation "
            "data of the backbone") in messages[-1]
    assert "if they are the same scans, the scores on test are too optimistic" in messages[-1]


def test_names_of_scans_are_exact_and_say_nothing_where_several_rows_have_one(tmp_path, messages):
    write_key(tmp_path, KEY)
    start = start_of(tmp_path, trained_on(["s_1", "Scan1"], patients=False))
    warn_of_seen(start, scans_of("s_01", "scan1", patients=False))
    assert not messages
    warn_of_seen(start, scans_of("s_1", "s_1", patients=False))
    assert messages[-1].endswith("here.csv has no patient column, and several rows have one name")
    double = card_of(subject_facts(scans_of("a", "a", patients=False, split="train"), KEY))
    assert subject_kind(double) == "unknown" and not double.data["patients"]


@pytest.mark.parametrize(("before", "here", "why"), [
    ({"patients": False}, {}, "the table that it was trained on had no patient column"),
    ({}, {"patients": False}, "here.csv has no patient column"),
    ({"patients": False, "ndim": 2}, {"patients": False},
     "neither here.csv nor the table that it was trained on has a patient column")])
def test_where_tables_do_not_name_the_same_it_cannot_be_told(before, here, why, tmp_path, messages):
    write_key(tmp_path, KEY)
    warn_of_seen(start_of(tmp_path, trained_on(["s1"], **before)), scans_of("s9", **here))
    assert messages[-1].startswith("cannot tell") and messages[-1].endswith(f": {why}")


def test_what_cannot_be_told_of_one_training_cannot_be_told_after_the_next(tmp_path, messages):
    write_key(tmp_path, KEY)
    cohort = {"train": {"scans": 3, "patients": 3, "labels": {}}}
    shared = card_of({"patients": []}, {"cohort": cohort})
    foreign = card_of({**hashed_patients(["p9"], OTHER), "subjects": "patients"})
    old = card_of(hashed_patients(["p7"], KEY), {"backbone_data": "images.csv"})
    for first in (shared, foreign, old):
        chain = trained_on(["P2"], before=trained_on(["P1"], before=first))
        warn_of_seen(start_of(tmp_path, chain), scans_of("P1", "P9"))
        assert "1 of 2 patients of test has an id" in messages[-2]
        assert messages[-1] == (
            f"{UNTOLD} {tmp_path}/b.safetensors: it does not record everyone on whom it, "
            "or a backbone before it, was trained").replace("whether", "whether more")


def test_a_public_set_without_patients_says_nothing(tmp_path, messages):
    public = card_of({"name": "pathmnist", "patients": []})
    warn_of_seen(start_of(tmp_path, public), scans_of("P1"))
    assert not messages
    assert subject_kind(trained_on(["P1"], before=public)) == "patients"


def test_patients_of_what_a_run_started_from_are_kept_under_one_key():
    first, both = trained_on(["P1"]), trained_on(["P2"], before=trained_on(["P1"]))
    assert set(both.data["patients"]) == set(hashed_patients(["p1", "p2"], KEY)["patients"])
    assert trained_on([], before=first).data == first.data
    assert both.data["patient_key"] == key_mark(KEY)


@pytest.mark.parametrize(("own", "here", "told"), [
    ("percentile", "-1000,1000", True), ("full", "percentile", False), ("full", "full", False)])
def test_another_window_or_size_is_told(own, here, told, tmp_path, messages):
    tell_of_input(start_of(tmp_path, card_of({}, preprocess=preprocess(window=own))),
                  preprocess(window=here, img_size=64))
    text = f"trained on grey values in the window {own}, but here the window is {here}"
    assert (text in "".join(messages)) == told
    assert "images of 32 pixels a side (--img_size 32); here they have 64" in messages[-1]
