"""The three scripts on a GPU: that each way to run them ends well, and gives what it should."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

import slivit
from benchmarks.gpu_rows import FAILED, Bench, Row
from slivit.config import PRECISIONS

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 200  # seconds that a script may take
CLOSE = 1e-4   # largest difference of predictions in float32 between devices
BACKBONE = ["--backbone", "convnext_atto"]
SMALL_BACKBONE = ["--backbone", "convnext_zepto_rms"]
SMALL = ["--n_slices", "4", "--vit_dim", "16", "--vit_depth", "1", "--vit_heads", "2",
         "--vit_head_dim", "8", "--vit_mlp_dim", "32"]
TOO_LARGE = ["--backbone", "convnext_tiny", "--img_size", "1024", "--b_size", "64"]


@dataclass(frozen=True)
class Ended:
    """How a script ended: its exit code, seconds, and what it printed on stderr."""

    code: int
    seconds: float
    errors: str

    def value(self) -> float | str:
        """Return the seconds, or why it failed."""
        last = (self.errors.strip().splitlines() or ["without a message"])[-1]
        return FAILED + f"exit code {self.code}, {last}" if self.code else round(self.seconds, 1)


def launch(words: list[str], kill_at: Path | None = None) -> Ended:
    """Run a script, such as `finetune.py`, with its flags, in a process of its own.

    Args:
        words: the script's name and its flags; before these, modules of Python that run it.
        kill_at: kill it as soon as this file is there.
    """
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, text=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while kill_at is not None and not kill_at.exists() and process.poll() is None:
            time.sleep(0.05)
            if time.monotonic() - start > LONGEST:
                break
        if kill_at is not None:
            process.kill()
        _, errors = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return Ended(1, LONGEST, f"it took more than {LONGEST} seconds")
    return Ended(process.returncode, time.monotonic() - start, errors)


def pretraining(bench: Bench) -> list[str]:
    """Return the command of a short bb_train.py."""
    flags = (["--meta_csv", str(bench.images()), *SMALL_BACKBONE, "--img_size", "32"]
             if bench.quick else [*BACKBONE, "--img_size", "64", "--train_fraction", "0.2"])
    return ["bb_train.py", *flags, "--weights", "none", "--n_epochs", "2", "--quiet"]


def training(bench: Bench, epochs: int = 2) -> list[str]:
    """Return the command of a short finetune.py, from the backbone of `scripts` if it is there."""
    flags = ["--meta_csv", str(bench.volumes()), *SMALL, "--img_size", "32"] if bench.quick else [
        "--train_fraction", "0.1", "--img_size", "64"]
    backbone = bench.folder / "bb_train" / "backbone.safetensors"
    start = (["--bb_path", str(backbone)] if backbone.exists() else
             ["--weights", "none", *(SMALL_BACKBONE if bench.quick else BACKBONE)])
    return ["finetune.py", *flags, *start, "--n_epochs", str(epochs), "--patience", "0", "--quiet"]


def scripts(bench: Bench) -> list[Row]:
    """Run bb_train.py, and finetune.py in each of its ways."""
    device = ["--gpu_id", bench.gpu_id]
    ended = launch([*pretraining(bench), *device, "--out_dir", str(bench.folder / "bb_train")])
    rows = [Row("bb_train.py", "", ended.value(), "s")]
    ways = [["--amp", mode] for mode in ("auto", *PRECISIONS) if bench.on_gpu or mode != "fp16"]
    ways += [["--slices_per_step", "8"], ["--freeze_backbone", "--unfreeze_after", "1"]]
    if bench.on_gpu:  # each number of slices is compiled anew, up to PyTorch's limit
        ways.append(["--compile", "--n_epochs", "1", "--train_fraction", "0.02"])
    for way in ways:
        out = bench.folder / "_".join(way).replace("--", "")
        ended = launch([*training(bench), *way, *device, "--out_dir", str(out)])
        rows.append(Row("finetune.py", " ".join(way), ended.value(), "s"))
    return rows


def resume(bench: Bench) -> list[Row]:
    """Kill a training after an epoch, resume it, and compare it with one that was not killed."""
    rows = []
    for flags in (["--deterministic"], []):
        name = "deterministic" if flags else "as it comes"
        whole, killed = (bench.folder / f"resume, {name}, {what}" for what in ("whole", "killed"))
        command = [*training(bench, 3), *flags, "--gpu_id", bench.gpu_id, "--out_dir"]
        runs = [launch([*command, str(whole)])]
        cut = launch([*command, str(killed)], kill_at=killed / "last.pt")
        runs.append(launch([*command, str(killed), "--resume"]))
        bad = next((ended for ended in runs if ended.code), None)
        if bad:
            value = bad.value()
        elif cut.code >= 0:
            value = FAILED + "the training had ended before it was killed"
        else:
            value = largest_difference(*(load_file(out / "slivit.safetensors")
                                         for out in (whole, killed)))
            if flags and value:
                value = FAILED + f"weights differ by up to {value:.3g}"
        rows.append(Row("resume after a kill: difference of weights", name, value))
    return rows


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Return the largest difference between tensors of the same names."""
    return max(float((tensor.double() - b[name].double()).abs().nan_to_num().max())
               for name, tensor in a.items())


def memory(bench: Bench) -> list[Row]:
    """Ask for a batch that no GPU holds: one message, which says what to lower."""
    what = "advice when memory runs out"
    if not bench.on_gpu:
        return [Row(what, "", "omitted: needs a GPU")]
    ended = launch(["finetune.py", *TOO_LARGE, "--weights", "none", "--amp", "off", "--n_epochs",
                    "1", "--quiet", "--gpu_id", bench.gpu_id,
                    "--out_dir", str(bench.folder / "too_large")])
    return [Row(what, " ".join(TOO_LARGE), advice_fault(ended) or "one message")]


def advice_fault(ended: Ended) -> str | None:
    """Return what is wrong with the message of a script for which memory was too small."""
    errors = [line for line in ended.errors.splitlines() if line.startswith("error: ")]
    if ended.code == 1 and "Traceback" not in ended.errors and len(errors) == 1 and all(
            word in errors[0] for word in ("out of memory", "--slices_per_step", "--b_size")):
        return None
    return FAILED + f"exit code {ended.code}, {ended.errors.strip()[-300:] or 'no message'}"


def processes(bench: Bench) -> list[Row]:
    """Train with two processes, each on a GPU of its own, and compare with one."""
    what = "two processes: difference of predictions"
    if torch.cuda.device_count() < 2:
        return [Row(what, "", f"omitted: found {torch.cuda.device_count()} GPUs, needs two")]
    # Without dropout, of which each process draws its own.
    command = [*training(bench), "--drop_path", "0", "--deterministic", "--amp", "off"]
    outs = [bench.folder / name for name in ("one", "two")]
    runs = [launch([*command, "--gpu_id", bench.gpu_id, "--out_dir", str(outs[0])]),
            launch(["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *command,
                    "--out_dir", str(outs[1])])]
    bad = next((ended for ended in runs if ended.code), None)
    return [Row(what, "float32", bad.value() if bad else between(*outs))]


def devices(bench: Bench) -> list[Row]:
    """Compare predictions of a model on the device with those on a CPU, in float32."""
    data = ["--meta_csv", str(bench.volumes()), "--split", "all"] if bench.quick else []
    trained = bench.folder / "devices" / "slivit.safetensors"
    if not trained.exists():
        ended = launch([*training(bench), "--gpu_id", bench.gpu_id,
                        "--out_dir", str(trained.parent)])
        if ended.code:
            return [Row("finetune.py", "", ended.value())]
    outs, rows = [], []
    for gpu_id in (bench.gpu_id, "cpu"):
        outs.append(bench.folder / f"evaluate_{len(outs)}")
        ended = launch(["evaluate.py", "--checkpoint", str(trained), *data, "--amp", "off",
                        "--gpu_id", gpu_id, "--out_dir", str(outs[-1])])
        rows.append(Row("evaluate.py", f"--gpu_id {gpu_id}", ended.value(), "s"))
        if ended.code:
            return rows
    rows.append(Row("evaluate.py: difference of predictions", "GPU and CPU", _close(
        between(*outs))))
    scan = np.random.default_rng(0).integers(0, 256, (12, 64, 64), dtype=np.uint8)
    values = [slivit.load(trained, gpu_id=gpu_id, amp="off").predict(scan).values
              for gpu_id in (bench.gpu_id, "cpu")]
    rows.append(Row("slivit.load: difference of predictions", "GPU and CPU",
                    _close(float(np.abs(values[0] - values[1]).max()))))
    return rows


def between(a: Path, b: Path) -> float:
    """Return the largest difference between the predictions that two runs have written."""
    tables = [pd.read_csv(out / "predictions.csv").filter(like="_pred") for out in (a, b)]
    return float(np.abs(tables[0].to_numpy() - tables[1].to_numpy()).max())


def _close(difference: float) -> float | str:
    if difference <= CLOSE:
        return difference
    return FAILED + f"{difference:.3g}, expected at most {CLOSE:g}"
