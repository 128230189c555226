"""What `make gpu` does, at tiny sizes on a CPU."""

import shutil

import pandas as pd
import pytest
import torch

import bb_train
import evaluate
import finetune
import slivit
from benchmarks import gpu, gpu_checks
from benchmarks.gpu_rows import Bench
from slivit.utils.errors import RunError, UserError
from slivit.utils.failures import explain

CPU = torch.device("cpu")
QUICK = ["--quick", "--gpu_id", "cpu", "--repeats", "1"]
SCRIPTS = {"bb_train.py": bb_train, "finetune.py": finetune, "evaluate.py": evaluate}


def table_of(folder, parts):
    gpu.main([*QUICK, "--parts", parts, "--results", str(folder)])
    return pd.read_csv(folder / "gpu.csv")


def test_what_is_measured_and_what_is_omitted_is_in_one_table(tmp_path):
    table = table_of(tmp_path, "memory,processes,steps,deterministic,loading")
    assert table.columns.tolist() == ["what", "setting", "value", "unit", "device", "torch"]
    assert table["value"][:2].str.startswith("omitted: ").all()
    numbers = table[2:].assign(value=table["value"][2:].astype(float))
    assert numbers["unit"].tolist() == ["ms"] * 4 + ["%"] * 2 + ["images/s"] * 2 + ["%"]
    assert (numbers["value"][numbers["unit"] != "%"] > 0).all()
    assert 0 <= numbers["value"].iloc[-1] < 100
    assert table["setting"][4] == "slivit, bf16, weights channels_last"


def test_a_check_that_fails_is_a_row_and_the_exit_code(tmp_path, monkeypatch, capsys):
    commands = []

    def launch(words, kill_at=None):
        SCRIPTS[words[0]].build_parser().parse_args(words[1:])  # every flag is one
        commands.append(words)
        return gpu_checks.Ended(*((1, 0.0, "error: broken") if "bf16" in words else (0, 2.0, "")))

    monkeypatch.setattr(gpu_checks, "launch", launch)
    with pytest.raises(RunError, match="1 of 8 rows of .*gpu.csv say .* finetune.py --amp bf16$"):
        table_of(tmp_path, "scripts,memory,processes")
    table = pd.read_csv(tmp_path / "gpu.csv")
    failed = table[table["setting"] == "--amp bf16"].iloc[0]
    assert failed["value"] == "failed: exit code 1, error: broken"
    assert table["what"].tolist()[-2:] == ["advice when memory runs out",
                                           "two processes: difference of predictions"]
    assert len({words[words.index("--out_dir") + 1] for words in commands}) == len(commands) == 6


def test_without_a_gpu_one_message_says_what_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for flags, message in (([], "make gpu needs an NVIDIA GPU .* found none"),
                           (["--gpu_id", "0"], "there is no such GPU; found none"),
                           (["--gpu_id", "cpu"], "is for --quick only")):
        with pytest.raises(UserError, match=message):
            gpu.main([*flags, "--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_devices_are_compared_by_their_predictions(binary_run, tmp_path, monkeypatch):
    (tmp_path / "devices").mkdir()
    shutil.copy(binary_run / "slivit.safetensors", tmp_path / "devices")

    numbers = []

    def launch(words):
        numbers.append(words[words.index("--amp") + 1])
        SCRIPTS[words[0]].main(words[1:])
        return gpu_checks.Ended(0, 1.0, "")

    monkeypatch.setattr(gpu_checks, "launch", launch)
    monkeypatch.setattr(slivit, "load", lambda path, load=slivit.load, **how: numbers.append(
        how["amp"]) or load(path, **how))
    rows = gpu_checks.devices(Bench(CPU, tmp_path, True, 1))
    assert numbers == ["off"] * 4  # a model trained in bfloat16 would differ by more
    assert [row.value for row in rows] == [1.0, 1.0, 0.0, 0.0]
    assert [row.what.partition(":")[0] for row in rows[2:]] == ["evaluate.py", "slivit.load"]


def test_advice_is_one_message_that_says_what_to_lower():
    settings = dict(b_size=4, accumulate=1, n_slices=28, img_size=256)
    text = f"error: {explain(torch.OutOfMemoryError('CUDA out of memory.'), settings)}\n"
    assert gpu_checks.advice_fault(gpu_checks.Ended(1, 1.0, text)) is None
    for code, errors in ((0, text), (1, "Traceback\n" + text), (1, text * 2), (1, "error: no")):
        assert gpu_checks.advice_fault(gpu_checks.Ended(code, 1.0, errors)).startswith("failed: ")


def test_a_training_is_killed_once_its_file_is_there(tmp_path):
    words = ["-c", f"import time; open({str(tmp_path / 'last.pt')!r}, 'w'); time.sleep(60)"]
    assert gpu_checks.launch(words, tmp_path / "last.pt").code == -9
    ended = gpu_checks.launch(["-c", "raise SystemExit('error: of this')"])
    assert ended.value() == "failed: exit code 1, error: of this"


def test_the_largest_difference_of_weights_is_told():
    a = {"x": torch.tensor([1.0, 2.0]), "y": torch.tensor([3.0])}
    assert gpu_checks.largest_difference(a, a) == 0
    assert gpu_checks.largest_difference(a, {**a, "y": torch.tensor([3.5])}) == 0.5
