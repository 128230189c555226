"""Trainings of large cohorts: when they get to the first step, and what memory they take."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.scale_data import PIXELS, SLICES, fill_cache, write_images, write_volumes
from slivit.data.load import DataOptions, InputOptions, load_scans, make_preprocess

ROOT = Path(__file__).resolve().parents[1]
TINY = ("--weights", "none", "--backbone", "convnext_zepto_rms", "--drop_path", "0", "--n_epochs",
        "1", "--warmup_epochs", "0", "--gpu_id", "cpu", "--n_cpu", "2", "--quiet")
IMAGES = ("--img_size", "32", "--b_size", "64")
VOLUMES = ("--img_size", str(PIXELS), "--n_slices", str(SLICES), "--b_size", "1", "--vit_dim", "16",
           "--vit_depth", "1", "--vit_heads", "2", "--vit_head_dim", "8", "--vit_mlp_dim", "32",
           "--slices_per_step", "4")  # so that the network takes little memory
STEPS, FEW = 20, 5000  # a start is stopped after so many steps; after one, of fewer scans
FILES = ("backbone.safetensors", "last.pt", "predictions.csv", "split.csv", "metrics.json",
         "report.html")
POLL = 0.25  # seconds between two looks at the memory
Marks = dict[str, tuple[float, float]]  # of each event: seconds, and CPU seconds
KEYS = {"rss": "Rss", "pss": "Pss"}  # of smaps_rollup
PRIVATE = ("Private_Clean", "Private_Dirty")
Row = dict[str, object]  # part, what, value, unit, cpu (seconds of the main process)


def image_runs(folder: Path, count: int) -> list[Row]:
    """Measure two starts of bb_train.py on so many images, and an epoch with its evaluation.

    The epoch is of a fifth of the training patients, but validation and test are whole.
    """
    table = write_images(folder / "images", count)
    what = f"{count:,} images"
    options = ["--meta_csv", str(table), *TINY, *IMAGES]
    rows = []
    for start in ("first", "second"):
        marks, _ = watched("bb_train", [*options, "--out_dir", str(folder / f"{start}_start")],
                           folder / "marks", _steps(count))
        rows += _start_rows(f"{what}, {start} start", marks)
    out = folder / "epoch"
    marks, peaks = watched("bb_train", [*options, "--train_fraction", "0.2", "--out_dir",
                                        str(out)], folder / "marks")
    rows.append(_between(marks, "headers", "end", "epoch",
                         f"{what}: a fifth of an epoch, validation, test and report"))
    return rows + _memory_rows(f"{what}, training and report", peaks) + size_rows(out, what)


def volume_runs(folder: Path, count: int) -> list[Row]:
    """Measure two starts of finetune.py on so many volumes in --cache_dir."""
    table, cache = write_volumes(folder / "volumes", count), folder / "cache"
    scans = load_scans(DataOptions(table, cache_dir=cache), 3, None)
    preprocess = make_preprocess(InputOptions(PIXELS, n_slices=SLICES), scans, (0.5,) * 3,
                                 (0.5,) * 3)
    fill_cache(scans, preprocess)
    what, rows = f"{count:,} volumes", []
    options = ["--meta_csv", str(table), *TINY, *VOLUMES, "--cache_dir", str(cache)]
    for name in ("first", "second"):
        marks, peaks = watched("finetune", [*options, "--out_dir", str(folder / f"{name}_volumes")],
                               folder / "marks", _steps(count))
        rows += _start_rows(f"{what}, {name} start", marks)
    return rows + _memory_rows(f"{what}, first steps", peaks)


def _steps(count: int) -> int:
    return STEPS if count >= FEW else 1


def torch_memory() -> Row:
    """Measure a process that has imported torch and does nothing else."""
    code = "import torch; print(1, flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    memory = memory_of(process.pid)
    process.communicate("\n")
    return make_row("memory", "a process that has only imported torch: resident",
                    memory.get("rss"), "MB")


def watched(script: str, options: list[str], marks: Path, stop_after: int = 0
            ) -> tuple[Marks, dict[str, dict[str, float]]]:
    """Run a script by scale_probe, and look at its memory now and then.

    Returns:
        When it reached each event, from its start; and the highest memory in MB, `rss`, `pss` and
        `private` of `main` and of `worker`, the loading process that had most after the first step.

    Raises:
        RuntimeError: it ended with another exit code than it should.
    """
    marks.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.scale_probe", script, str(marks), str(stop_after),
               *options]
    cache = {"XDG_CACHE_HOME": str(marks.parent / "user_cache")}
    start = time.time()
    log = marks.with_suffix(".log")
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | cache, stdout=file,
                                   stderr=subprocess.STDOUT)
        peaks: dict[str, dict[str, float]] = {"main": {}, "worker": {}}
        while process.poll() is None:
            time.sleep(POLL)
            _raise_to(peaks["main"], memory_of(process.pid))
            if "step" in read_marks(marks):
                for child in children_of(process.pid):
                    _raise_to(peaks["worker"], memory_of(child))
    if process.returncode != (143 if stop_after else 0):
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}\n"
                           f"{log.read_text(encoding='utf-8')[-2000:]}")
    return {event: (seconds - start, cpu)
            for event, (seconds, cpu) in read_marks(marks).items()}, peaks


def read_marks(path: Path) -> Marks:
    """Return the events that scale_probe has noted, each as it came first, in seconds since 1970.

    A line that is being written is left out.
    """
    found: Marks = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                event, seconds, cpu = line.split()
                found.setdefault(event, (float(seconds), float(cpu)))
    return found


def memory_of(pid: int) -> dict[str, float]:
    """Return `rss`, `pss` and `private` of a process in MB; nothing where the system does not tell.

    PSS counts a page that n processes share as an n-th; private pages are shared with none.
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    except OSError:
        return {}
    sizes = {name: int(kilobytes) * 1024 / 1e6
             for name, kilobytes in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    if not sizes:
        return {}
    return {**{key: sizes[name] for key, name in KEYS.items()},
            "private": sum(sizes[name] for name in PRIVATE)}


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and that still run."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, task.read_text(encoding="utf-8").split())
        except OSError:  # it has ended
            continue
    return found


def size_rows(folder: Path, what: str, names: Sequence[str] = FILES) -> list[Row]:
    """Return the sizes of files that a run has left."""
    return [make_row("size", f"{what}: {name}", (folder / name).stat().st_size / 1e6, "MB")
            for name in names if (folder / name).exists()]


def _raise_to(peaks: dict[str, float], memory: dict[str, float]) -> None:
    for key, value in memory.items():
        peaks[key] = max(value, peaks.get(key, 0.0))


def _start_rows(what: str, marks: Marks) -> list[Row]:
    seconds, cpu = marks["headers"]
    return [make_row("start", f"{what}: headers known after", seconds, "s", cpu),
            _between(marks, "headers", "step", "start", f"{what}: from there to the first step")]


def _between(marks: Marks, first: str, last: str, part: str, what: str) -> Row:
    seconds, cpu = (b - a for a, b in zip(marks[first], marks[last], strict=True))
    return make_row(part, what, seconds, "s", cpu)


def _memory_rows(what: str, peaks: dict[str, dict[str, float]]) -> list[Row]:
    words = {"rss": "resident", "pss": "proportional share", "private": "its own pages"}
    names = {"main": "main process", "worker": "the larger loading process"}
    return [make_row("memory", f"{what}: {names[name]}, {words[key]}", value, "MB")
            for name, sizes in peaks.items() for key, value in sizes.items()]


def make_row(part: str, what: str, value: float | None, unit: str,
             cpu: float | None = None) -> Row:
    """Return a row of the table; `cpu`: the seconds that the main process was on a processor."""
    return {"part": part, "what": what, "value": value, "unit": unit, "cpu": cpu}
