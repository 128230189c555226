"""Speed on a GPU: steps of the paper's configuration, and how well bb_train.py keeps it busy."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from benchmarks.gpu_rows import FAILED, Bench, Row
from benchmarks.speed_steps import MEAN, STD, make_way, steps_of
from slivit.config import PRECISIONS, Augmentation, FitOptions, Preprocess
from slivit.data.batch import Batch
from slivit.data.datasets import scan_training_set
from slivit.data.meta_csv import read_meta
from slivit.data.targets import resolve_task
from slivit.models.slivit import ImageClassifier
from slivit.training.losses import Objective
from slivit.training.optim import parameter_groups
from slivit.training.progress import Progress
from slivit.training.train_step import Loop, Phase, compute_gradient, start_phase, update_weights
from slivit.utils.runtime import choose_workers, set_kernels
from slivit.utils.session import Session

VOLUMES = 4  # in a step, as finetune.py takes by default; one with --quick
TYPES = {"float32": torch.float32, "TF32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Setting:
    """How a step is computed.

    Attributes:
        way: a network of speed_steps.WAYS.
        numbers: of TYPES.
        compiled: by torch.compile.
        channels_last: the weights too; the input always is.
        deterministic: kernels, see runtime.set_kernels.
        search: have cuDNN look for its fastest kernels.
    """

    way: str = "slivit"
    numbers: str = "float32"
    compiled: bool = False
    channels_last: bool = False
    deterministic: bool = False
    search: bool = False

    def __str__(self) -> str:
        more = [word for word, there in (
            ("--compile", self.compiled), ("weights channels_last", self.channels_last),
            ("--deterministic", self.deterministic), ("cudnn.benchmark", self.search)) if there]
        return ", ".join([self.way, self.numbers, *more])


def settings(bench: Bench) -> list[Setting]:
    """Return what is measured: each kind of numbers, each way, and what may be switched on."""
    if bench.quick:
        return [Setting(), Setting(numbers="bf16", channels_last=True)]
    ours = [Setting(numbers=numbers) for numbers in TYPES]
    others = [Setting(way, "bf16") for way in ("slivit, 4 slices at a time", "tiled picture",
                                               "3D ResNet-18")]
    more = [Setting(numbers="bf16", channels_last=True)]
    others += [Setting(way, "TF32") for way in ("tiled picture", "3D ResNet-18")]
    more += [Setting(numbers="bf16", search=True), Setting(numbers="bf16", compiled=True),
             Setting(numbers="bf16", compiled=True, channels_last=True)]
    return ours + others + more


@contextlib.contextmanager
def kernels(setting: Setting, device: torch.device) -> Iterator[None]:
    """Compute as the setting says within this block, then as torch does by itself."""
    set_kernels(device, [torch.float32 if setting.numbers == "float32" else torch.bfloat16],
                setting.deterministic)
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, setting.search
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
        set_kernels(device, [torch.float32])


def make_steps(setting: Setting, bench: Bench) -> dict[str, Callable[[], None]]:
    """Return a training step and an inference step on made-up volumes, on the device."""
    size, n_slices, volumes, backbone = (32, 4, 1, "convnext_zepto_rms") if bench.quick else (
        256, 28, VOLUMES, "convnext_tiny")
    model = make_way(setting.way, size, n_slices, backbone).to(bench.device)
    model.precision = TYPES[setting.numbers]
    if setting.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if setting.compiled:
        model.compile()
    return steps_of(model, size, n_slices, volumes, bench.device)


def steps(bench: Bench) -> list[Row]:
    """Measure every setting alone: milliseconds (median) and peak memory of each kind of step."""
    rows = []
    for setting in settings(bench):
        try:
            with kernels(setting, bench.device):
                for what, step in make_steps(setting, bench).items():
                    if bench.on_gpu:
                        torch.cuda.empty_cache()
                        torch.cuda.reset_peak_memory_stats(bench.device)
                    seconds = statistics.median(_timed(step, bench) for _ in range(bench.repeats))
                    rows.append(Row(what, str(setting), round(1000 * seconds, 2), "ms"))
                    if bench.on_gpu:
                        peak = torch.cuda.max_memory_allocated(bench.device) / 1e6
                        rows.append(Row(f"{what}: peak memory", str(setting), round(peak), "MB"))
        except torch.OutOfMemoryError:  # on a small GPU no failure
            rows.append(Row("training step, inference", str(setting), "out of memory"))
        except Exception as error:  # of one setting; the others are measured
            rows.append(Row("training step, inference", str(setting), FAILED + repr(error)[:300]))
    return rows


def deterministic(bench: Bench) -> list[Row]:
    """Measure what deterministic kernels cost, in turn with the others: A, B, A, B, ..."""
    rows = []
    for numbers in ("bf16",) if bench.quick else ("TF32", "bf16"):
        pair = [Setting(numbers=numbers, deterministic=which) for which in (False, True)]
        made = [make_steps(setting, bench) for setting in pair]
        for what in made[0]:
            taken: list[list[float]] = [[], []]
            for _ in range(bench.repeats):
                for k, setting in enumerate(pair):
                    with kernels(setting, bench.device):
                        taken[k].append(_timed(made[k][what], bench))
            plain, exact = map(statistics.median, taken)
            rows.append(Row(f"{what}: cost of --deterministic", str(pair[0]),
                            round(100 * (exact / plain - 1), 1), "%"))
    return rows


def _timed(step: Callable[[], None], bench: Bench) -> float:
    """Return the seconds of a step, once its first run has compiled and chosen what it needs."""
    if not getattr(step, "is_warm", False):
        for _ in range(1 if bench.quick else 3):
            step()
        step.is_warm = True
    _wait(bench)
    start = time.perf_counter()
    step()
    _wait(bench)
    return time.perf_counter() - start


def _wait(bench: Bench) -> None:
    if bench.on_gpu:
        torch.cuda.synchronize(bench.device)


def loading(bench: Bench) -> list[Row]:
    """Train on JPEG images as bb_train.py does: images per second, and the time spent waiting.

    Waiting is what an epoch takes longer than the same steps on one batch that is there already.
    The first epoch also starts the loading processes.
    """
    backbone, size, b_size = ("convnext_zepto_rms", 32, 8) if bench.quick else (
        "convnext_tiny", 224, 32)
    n_workers = 1 if bench.quick else choose_workers(None, bench.device)
    scans, target = resolve_task(read_meta(bench.images(), 2, ["label"]), "binary")
    preprocess = Preprocess(size, "full", MEAN, STD)
    torch.manual_seed(0)
    model = ImageClassifier(backbone, 1, preprocess).to(bench.device).train()
    run = Session(bench.device, n_workers, quiet=True)
    images = len(scans.rows("train"))
    rows = []
    for amp in ("bf16",) if bench.quick else ("bf16", "off"):
        data = scan_training_set(scans, preprocess, Augmentation("h", 1.0), run, b_size, 0)
        options, model.precision = FitOptions(2, b_size, 0, 0, 0), getattr(torch, PRECISIONS[amp])
        loop = start_phase(model, None, Phase(1, 2, parameter_groups(model, 1e-5, 0.0), data),
                           Objective(target), options, run)
        with kernels(Setting(numbers="bf16" if amp == "bf16" else "float32"), bench.device):
            first, second = (_epoch(loop, data.batches(epoch, 0), bench) for epoch in (1, 2))
            one = next(iter(data.batches(1, 0)))
            computing = _epoch(loop, [one] * data.count, bench)
        data.close()
        name = f"--amp {amp}, {backbone}, {size} pixels, {n_workers} loading processes"
        rows += [Row("bb_train.py: an epoch, the first", name, round(images / first, 1),
                     "images/s"),
                 Row("bb_train.py: an epoch, a later one", name, round(images / second, 1),
                     "images/s"),
                 Row("bb_train.py: waiting for data", name,
                     round(100 * max(0.0, 1 - computing / second), 1), "%")]
    return rows


def _epoch(loop: Loop, batches: Iterable[Batch], bench: Bench) -> float:
    """Train on these batches; return the seconds."""
    progress = Progress()
    _wait(bench)
    start = time.perf_counter()
    for batch in batches:
        compute_gradient(loop, [batch], progress)
        update_weights(loop)
    _wait(bench)
    return time.perf_counter() - start
