"""The soak program's own parts: it must see what it looks for."""

import random
import signal

import pytest
import torch

from tests.soak.damage import HOWS, hurt
from tests.soak.folders import broken_files, differences
from tests.soak.processes import ROOT, Launcher, Shot, finish
from tests.soak.signals import has_begun
from tests.soak.tamper import change

SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
time.sleep(float(sys.argv[1]))
"""


@pytest.mark.parametrize("how", HOWS)
def test_damage_leaves_another_file(tmp_path, how):
    path = tmp_path / "run" / "last.pt"
    path.parent.mkdir()
    path.write_bytes(bytes(range(256)) * 9)
    before = path.read_bytes()
    assert str(path) in hurt(path, how, random.Random(3), tmp_path)
    if how == "link":
        assert path.is_symlink() and path.read_bytes() == before
    else:
        assert not path.is_file() or path.read_bytes() != before


def test_runs_are_compared_but_for_the_seconds(tmp_path):
    for name, seconds in (("a", 1), ("b", 2)):
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "run" / "log.csv").write_text(f"epoch,seconds\n1,{seconds}\n")
        (tmp_path / name / "run" / "metrics.json").write_text("{}")
    assert differences(tmp_path / "a", tmp_path / "b") == []
    (tmp_path / "b/run/log.csv").write_text("epoch,seconds\n2,1\n")
    (tmp_path / "b/run/metrics.json").rename(tmp_path / "b/run/.metrics.7.part.json")
    found = differences(tmp_path / "a", tmp_path / "b")
    assert [line.partition(":")[0] for line in found] == [
        "run/metrics.json", "run/.metrics.7.part.json", "run/log.csv"]
    assert broken_files(tmp_path / "b") == ["run/.metrics.7.part.json: was left behind"]
    assert broken_files(tmp_path / "b", killed=True) == []
    (tmp_path / "a/run/metrics.json").write_text("{")
    assert "run/metrics.json: is not whole" in broken_files(tmp_path / "a")[0]


@pytest.mark.parametrize(("errors", "begun"), [
    ("", False), ("stopped by SIGTERM\n", True), ("KeyboardInterrupt\n", False),
    (f'  File "{ROOT}/tests/soak/launch.py", line 94, in become\n'
     '  File "<frozen runpy>", line 259, in _get_code_from_file\nKeyboardInterrupt\n', False),
    (f'  File "{ROOT}/finetune.py", line 13, in <module>\nKeyboardInterrupt\n', True)])
def test_a_script_that_has_not_begun_is_told_from_one_that_has(errors, begun):
    assert has_begun(errors) == begun


def test_every_part_of_last_pt_can_be_changed():
    content = {"rng": [[torch.zeros(3, dtype=torch.uint8)]], "model": {"step": torch.tensor(1.0)}}
    for seed in range(50):
        changed, place, _ = change(content, random.Random(seed))
        assert repr(changed) != repr(content) and place[0] in content


def test_every_change_of_a_header_is_one():
    card = {"kind": "slivit", "target": {"labels": ["A"], "mean": []}, "score": {"auc": 0.5}}
    for seed in range(50):
        changed, place, _ = change(card, random.Random(seed))
        assert changed != card and place[0] in card


@pytest.mark.parametrize(("shots", "limit", "code"), [
    ([], 20, 0), ([Shot(signal.SIGTERM, 0.3)], 20, 1), ([Shot(signal.SIGKILL, 0.1)], 20, -9),
    ([], 0.5, None)], ids=["to its end", "stopped", "killed", "hung"])
def test_a_process_gets_its_signals(tmp_path, shots, limit, code):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = Launcher().start([str(script), "5" if shots or limit < 1 else "0"], tmp_path / "1",
                               fresh=True)
    ended = finish(process, shots, limit)
    assert ended.code == code
    assert len(ended.shots) == len(shots)
    assert ("stopped" in ended.err) == (code == 1)
    assert process.poll() is not None
