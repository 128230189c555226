"""What a training says of the backbone that it starts from."""

from types import SimpleNamespace

import pytest
from helpers import BACKBONE, preprocess

from slivit.checkpoints.patient_key import hashed_patients, key_mark, write_key
from slivit.checkpoints.pretrained import PretrainedBackbone
from slivit.checkpoints.start_checks import tell_of_input, warn_of_seen

KEY, OTHER = bytes(range(32)), bytes(32)


def start_of(folder, training=None, **facts):
    """Return the start from a file in a folder, whose header says these facts."""
    card = SimpleNamespace(training=training or {}, **facts)
    return PretrainedBackbone(BACKBONE, (0.5,) * 3, (0.5,) * 3, str(folder / "b.safetensors"),
                              card=card)


def test_patients_of_test_whom_the_backbone_has_seen_are_told(tmp_path, messages):
    start = start_of(tmp_path, data=hashed_patients(["007", "P1", "P2"], KEY))
    warn_of_seen(start, {"P1", "P9"})
    assert "cannot tell whether patients of test were in the backbone's training" in messages[-1]
    write_key(tmp_path, KEY)
    warn_of_seen(start, {"7", "P1", "P9"})
    assert "2 of 3 patients of test have ids that also appear" in messages[-1]
    count = len(messages)
    warn_of_seen(start, {"P9"})
    warn_of_seen(start, set())
    assert len(messages) == count


def test_a_shared_backbone_cannot_tell_whom_it_has_seen(tmp_path, messages):
    cohort = {"train": {"scans": 3, "patients": 3, "labels": {}}}
    warn_of_seen(start_of(tmp_path, {"cohort": cohort}, data={"patients": []}), {"P1"})
    assert "was shared without anything about its patients" in messages[-1]


def test_patients_of_what_a_run_started_from_are_kept_under_one_key():
    first = hashed_patients(["P1"], KEY)
    both = hashed_patients(["P2"], KEY, first)
    assert set(both["patients"]) == set(hashed_patients(["P1", "P2"], KEY)["patients"])
    assert hashed_patients([], KEY, first) == first
    assert hashed_patients(["P2"], OTHER, first) == hashed_patients(["P2"], OTHER)
    assert both["patient_key"] == key_mark(KEY)


@pytest.mark.parametrize(("own", "here", "told"), [
    ("percentile", "-1000,1000", True), ("full", "percentile", False), ("full", "full", False)])
def test_another_window_or_size_is_told(own, here, told, tmp_path, messages):
    tell_of_input(start_of(tmp_path, preprocess=preprocess(window=own)),
                  preprocess(window=here, img_size=64))
    text = f"trained on grey values in the window {own}, but here the window is {here}"
    assert (text in "".join(messages)) == told
    assert "images of 32 pixels a side (--img_size 32); here they have 64" in messages[-1]
