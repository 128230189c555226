"""The steps of training: batches in, gradients, one step of the optimizer."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from slivit.config import FitOptions
from slivit.data.batch import Batch
from slivit.data.datasets import TrainingSet
from slivit.training.losses import Objective, check_finite
from slivit.training.mixup import mix
from slivit.training.optim import lr_factor
from slivit.training.progress import Progress
from slivit.training.resume import random_state, set_random_state
from slivit.utils.runtime import derive_seed
from slivit.utils.session import Session
from slivit.utils.signals import Stopped

SAVE_SECONDS = 600  # between two writings of last.pt within an epoch


@dataclass(frozen=True)
class Phase:
    """Epochs `first` to `last` in which the parameters of `groups` are trained on `data`.

    Attributes:
        part: which submodule of the model runs on what `data` gives; empty for the whole model.
        solve: instead of steps, gives the part its weights at once; returns the summed training
            loss and the number of known labels. Its phase is one epoch.
    """

    first: int
    last: int
    groups: list[dict]
    data: TrainingSet
    part: str = ""
    solve: Callable[[], tuple[float, int]] | None = None


@dataclass
class Loop:
    """What every step needs.

    `module` is what runs: the phase's part of the model, wrapped where there are several processes.
    """

    phase: Phase
    model: nn.Module
    module: nn.Module
    ema: nn.Module | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    objective: Objective
    options: FitOptions
    run: Session

    def parts(self) -> dict[str, object]:
        """Return what has a state to be saved, by name."""
        return {"model": self.model, "ema": self.ema, "optimizer": self.optimizer,
                "scaler": self.scaler}


def start_phase(model: nn.Module, ema: nn.Module | None, phase: Phase, objective: Objective,
                options: FitOptions, run: Session) -> Loop:
    """Freeze what a phase does not train, and make its optimizer.

    Each group's `lr` is the peak of its learning rate.
    """
    trained = {id(p) for group in phase.groups for p in group["params"]}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in trained)
    optimizer = torch.optim.AdamW([{**group, "peak": group["lr"]} for group in phase.groups])
    scaled = run.precision == torch.float16
    module = model.get_submodule(phase.part)
    if run.world.size > 1:
        devices = [run.device.index] if run.device.type == "cuda" else None
        module = DistributedDataParallel(module, devices, broadcast_buffers=False)
    return Loop(phase, model, module, ema, optimizer,
                torch.amp.GradScaler("cuda") if scaled else None, objective, options, run)


@dataclass(frozen=True)
class BeforeStep:
    """What the first half of a step changes before the optimizer does: to be put back."""

    model: nn.Module
    buffers: list[torch.Tensor]
    random: list[torch.Tensor]

    @classmethod
    def of(cls, model: nn.Module) -> "BeforeStep":
        """Note BatchNorm's averages, and the state of the random numbers."""
        return cls(model, [buffer.clone() for buffer in model.buffers()], random_state())

    def put_back(self) -> None:
        """Have it as if the step had not begun."""
        for buffer, before in zip(self.model.buffers(), self.buffers, strict=True):
            buffer.copy_(before)
        set_random_state(self.random)


def train_epoch(loop: Loop, progress: Progress, save: Callable[[], None]) -> None:
    """Train the steps of an epoch that are not done yet; `save` now and then.

    To be called with signals deferred. One that comes while a batch is loaded, or its gradient is
    computed, stops at once, and the step has not been; one that comes while the weights are
    changed waits until they are.

    Raises:
        RunError: the loss is not finite.
        Stopped: a signal came; model, random numbers and `progress` are those of whole steps.
    """
    options, run, data = loop.options, loop.run, loop.phase.data
    if loop.phase.solve is not None:
        with run.stop.allowed(run.world):
            progress.loss_sum, progress.seen = loop.phase.solve()
        return
    steps = -(-data.count // options.accumulate)
    if progress.step >= steps:
        return
    if progress.step == 0:
        rank = [run.world.rank] if run.world.rank else []
        torch.manual_seed(derive_seed(options.seed, progress.epoch, *rank))
    loop.module.train()
    groups = _grouped(data.batches(progress.epoch, progress.step * options.accumulate),
                      options.accumulate)
    bar = tqdm(groups, total=steps, initial=progress.step, leave=False,
               desc=f"epoch {progress.epoch}/{options.n_epochs}",
               disable=run.quiet or not run.world.is_main or None)
    saved, stream = time.monotonic(), iter(bar)
    while progress.step < steps:
        before = BeforeStep.of(loop.model)
        try:
            with run.stop.allowed(run.world):
                summed, count = compute_gradient(loop, next(stream), progress)
        except Stopped:
            before.put_back()
            raise
        set_rates(loop, progress, steps)
        update_weights(loop)
        progress.step += 1
        progress.loss_sum += summed
        progress.seen += count
        bar.set_postfix(loss=f"{progress.loss_sum / max(1, progress.seen):.4f}", refresh=False)
        if run.world.size > 1:
            run.stop.check(run.world)
        elif time.monotonic() - saved > SAVE_SECONDS:
            save()
            saved = time.monotonic()
    bar.close()


def set_rates(loop: Loop, progress: Progress, steps: int) -> None:
    """Set every group's learning rate for the step that `progress` names, of `steps` an epoch."""
    phase = loop.phase
    done = (progress.epoch - phase.first) * steps + progress.step
    total = (phase.last - phase.first + 1) * steps
    warmup = int(loop.options.warmup_epochs * steps)
    for part in loop.optimizer.param_groups:
        part["lr"] = part["peak"] * lr_factor(done, warmup, total)


def _grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    group = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def compute_gradient(loop: Loop, group: list[Batch], progress: Progress) -> tuple[float, int]:
    """Compute the gradient of a step; return the summed loss and what it is divided by.

    With labels, it is the gradient of the mean over all known ones of the group of batches,
    whichever batch and whichever process they are in.

    Raises:
        RunError: the loss is not finite.
    """
    world, options, objective = loop.run.world, loop.options, loop.objective
    count = int(world.all_reduce_sum(sum(objective.count(batch) for batch in group)))
    loop.optimizer.zero_grad(set_to_none=True)
    summed = 0.0
    for i, batch in enumerate(group):
        seed = derive_seed(options.seed, progress.epoch, progress.step, i)
        batch = mix(batch.to(loop.run.device), options.mixup, seed)
        later = world.size > 1 and i < len(group) - 1
        with loop.module.no_sync() if later else contextlib.nullcontext():
            loss = objective.loss_sum(loop.module(*loop.phase.data.inputs(batch)), batch)
            summed += float(loss.detach())
            mean = loss / max(1, count) * world.size  # the processes' gradients are averaged
            (mean if loop.scaler is None else loop.scaler.scale(mean)).backward()
    summed = world.all_reduce_sum(summed)
    check_finite(summed, f"training loss became {summed} in epoch {progress.epoch}, step "
                         f"{progress.step + 1}")
    return summed, count


def update_weights(loop: Loop) -> None:
    """Clip the gradient, take the optimizer's step, and update the moving average."""
    if loop.scaler is not None:
        loop.scaler.unscale_(loop.optimizer)
    nn.utils.clip_grad_norm_(loop.model.parameters(), loop.options.clip_grad)
    if loop.scaler is None:
        loop.optimizer.step()
    else:
        loop.scaler.step(loop.optimizer)
        loop.scaler.update()
    loop.objective.after_step(loop.model)
    if loop.ema is not None:
        loop.ema.update_parameters(loop.model)
