"""Two processes on the CPU that train as one."""

import json
import logging
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ROOT, RUN_3D, run_evaluate, write_meta

import finetune
from slivit.data.samplers import interleave, make_batches
from slivit.utils import session
from slivit.utils.distributed import MEETING, ProcessGroup, join_world
from slivit.utils.errors import NotWritten, RunError, UserError
from slivit.utils.failures import explain
from slivit.utils.log import LOG

TWO = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port"]


def test_batches_are_shared_out_and_rows_come_back_in_order():
    shares = [make_batches(range(7), 3, ProcessGroup(rank, 2)) for rank in (0, 1)]
    assert shares[0] == [[0, 2], [3, 5], [6]]
    assert shares[1] == [[1], [4], [~6]]  # takes part, without a label
    assert make_batches(range(7), 3, ProcessGroup(0, 2), start=2) == [[6]]
    rows = np.arange(14).reshape(7, 2)
    shares = [ProcessGroup(rank, 3).shard(rows) for rank in range(3)]
    assert np.array_equal(interleave(shares), rows)


@pytest.mark.parametrize(("port", "more"), [
    (29611, []), (29613, ["--freeze_backbone", "--unfreeze_after", "1", "--accumulate", "2"])])
def test_two_processes_train_as_one(volume_csv, backbone_run, tmp_path, port, more):
    command = ["--meta_csv", str(volume_csv), "--pathologies", "A", *RUN_3D[4:], "--bb_path",
               str(backbone_run / "backbone.safetensors"), "--n_epochs", "2", "--b_size", "3",
               "--drop_path", "0", "--amp", "off", "--quiet", *more]
    finetune.main([*command, "--out_dir", str(tmp_path / "one")])
    done = subprocess.run([*TWO, str(port), "finetune.py", *command, "--out_dir",
                           str(tmp_path / "two")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch 2/2") == 1  # one process speaks
    one, two = (pd.read_csv(tmp_path / name / "log.csv").drop(columns="seconds")
                for name in ("one", "two"))
    assert one["epoch"].tolist() == two["epoch"].tolist() == [1, 2]
    assert np.allclose(one.astype(float), two.astype(float), atol=2e-5)
    one, two = (pd.read_csv(tmp_path / name / "predictions.csv") for name in ("one", "two"))
    assert one["id"].tolist() == two["id"].tolist()
    assert np.allclose(one["A_pred"], two["A_pred"], atol=2e-5)
    assert {path.name for path in (tmp_path / "one").iterdir()} == {
        path.name for path in (tmp_path / "two").iterdir()}


def test_damage_ends_two_processes_with_one_message(tmp_path):
    scans = [tmp_path / f"{k}.npz" for k in range(8)]
    for path in scans:
        np.savez_compressed(path, np.random.default_rng(0).integers(0, 99, (4, 24, 20), np.uint8))
    content = bytearray(scans[5].read_bytes())
    content[len(content) // 2] ^= 255
    scans[5].write_bytes(content)
    table = write_meta(tmp_path / "t.csv", F_Name=range(8), Path=scans, A=[0, 1] * 4,
                       Split=["train"] * 4 + ["val"] * 2 + ["test"] * 2)
    done = subprocess.run([*TWO, "29615", "finetune.py", "--meta_csv", str(table), *RUN_3D,
                           "--check_scans", "--out_dir", str(tmp_path / "out")], cwd=ROOT,
                          capture_output=True, text=True)
    own = done.stderr.partition("Traceback")[0]  # what follows is torchrun's
    assert own.count("error: 1 of 8 scans cannot be read") == 1
    assert "finetune.py\", line" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_two_processes_evaluate_as_one(volume_csv, binary_run, tmp_path):
    options = ["--meta_csv", volume_csv, "--split", "all", "--b_size", "5", "--tta", "flips",
               "--group_by", "grade"]
    checkpoint = binary_run / "slivit.safetensors"
    metrics, one = run_evaluate(checkpoint, tmp_path / "one", *options, "--features",
                                tmp_path / "one.npz")
    command = [*TWO, "29617", "evaluate.py", "--checkpoint", checkpoint, *options, "--features",
               tmp_path / "two.npz", "--gpu_id", "cpu", "--out_dir", tmp_path / "two"]
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to") == 1
    two = pd.read_csv(tmp_path / "two/predictions.csv")
    assert one.drop(columns="A_pred").equals(two.drop(columns="A_pred"))
    assert np.allclose(one["A_pred"], two["A_pred"], rtol=0, atol=1e-6)
    again = json.loads((tmp_path / "two/metrics.json").read_text())
    groups = metrics["by_group"]["groups"], again["by_group"]["groups"]
    assert len(groups[0]) > 1 and groups[0].keys() == groups[1].keys()
    for one, other in ((metrics, again), *((groups[0][name], groups[1][name])
                                           for name in groups[0])):
        one, other = one["labels"]["A"], other["labels"]["A"]
        for score in ("roc_auc", "roc_auc_ci", "brier", "brier_ci"):
            assert one[score] == pytest.approx(other[score], abs=1e-6)
    one, two = ({path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*")}
                for name in ("one", "two"))
    assert one == two
    one, two = (np.load(tmp_path / name) for name in ("one.npz", "two.npz"))
    assert one["ids"].tolist() == two["ids"].tolist()
    assert np.allclose(one["features"], two["features"], rtol=0, atol=1e-5)


class Apart(ProcessGroup):
    """Rank 0 of three processes; the others have found what `others` says."""

    others = ()

    def all_gather(self, shares):
        return [pickle.loads(pickle.dumps(one)) for one in (shares, *self.others)]


@pytest.mark.parametrize("fault", [UserError("bad"), RunError("broken"), NotWritten("a", "full")])
def test_what_ends_one_process_ends_all_of_them(fault, monkeypatch):
    world = Apart(0, 3)
    monkeypatch.setattr(Apart, "others", (1, 2))
    assert world.gather_work(lambda: 0) == [0, 1, 2]
    monkeypatch.setattr(Apart, "others", (1, fault))
    with pytest.raises(type(fault), match=str(fault).split()[0]):
        world.gather_work(lambda: 0)

    def fail():
        raise fault

    monkeypatch.setattr(Apart, "others", (1, 2))
    with pytest.raises(type(fault)) as raised:
        world.gather_work(fail)
    assert str(raised.value) == str(fault)
    assert not raised.value.by_one  # rank 0 reports it


def test_the_first_process_of_another_machine_neither_speaks_nor_looks_at_the_folder(
        monkeypatch, tmp_path):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(session, "join_world", lambda device: ProcessGroup(1, 2))
    (tmp_path / "file").write_text("not empty")
    level = LOG.level
    with session.open_session(session.SessionOptions(tmp_path, "cpu", 0, False, False, True,
                                                     False, {}),
                              ()) as run:
        assert (run.world.is_main, LOG.level) == (False, logging.ERROR)
    LOG.setLevel(level)


def test_a_process_whose_peer_has_gone_leaves_the_message_to_it(monkeypatch):
    for text in ("[pair.cc:534] Connection closed by peer [127.0.0.1]:2", "Failed to recv, got 0 "
                 "bytes. Connection was likely closed. Did the remote server shutdown or crash?"):
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert not explain(RuntimeError(text), {}).by_one
        monkeypatch.delenv("WORLD_SIZE")
        assert explain(ConnectionResetError(text), {}) is None  # of a download: there is no peer


def test_a_world_size_without_torchrun_is_one_message(monkeypatch):
    for name in MEETING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="WORLD_SIZE=4 in the environment .* but MASTER_ADDR and "
                                        "MASTER_PORT are not set; start it by torchrun, or unset"):
        join_world(torch.device("cpu"))
