"""`last.pt`: where a training stands, so that it can continue as if it had never stopped."""

from pathlib import Path
from typing import Annotated

import torch
from torch import nn

from slivit.checkpoints import checkpoint
from slivit.checkpoints.patient_key import check_key
from slivit.checkpoints.tensor_files import Unreadable, check_tensors, load_torch, numbers_in
from slivit.training.progress import Plan, Progress, is_of
from slivit.utils.distributed import ProcessGroup
from slivit.utils.errors import UserError, first_line
from slivit.utils.files import atomic_write
from slivit.utils.records import Misfit, from_values, rule
from slivit.utils.session import Session

AGAIN = "start again with --overwrite"
PARTS = {"model": True, "ema": False, "optimizer": True, "scaler": False}  # name: always there


def save_state(path: Path, progress: Progress, parts: dict[str, object],
               world: ProcessGroup) -> None:
    """Write `last.pt`, whole or not at all.

    Args:
        path: the file.
        progress: where the training stands.
        parts: name -> what has a state_dict (model, optimizer, ...), or None.
        world: the processes; the state of every one's random numbers is kept.

    Raises:
        RunError: it cannot be written.
    """
    rng = world.all_gather(random_state())
    if not world.is_main:
        return
    content = {name: part.state_dict() for name, part in parts.items() if part is not None}
    with atomic_write(path) as file:
        torch.save({**content, "progress": vars(progress), "rng": rng}, file)


def load_state(path: Path, device: torch.device) -> tuple[Progress, dict]:
    """Return what `last.pt` holds: where the training stood, and the states of its parts.

    Raises:
        UserError: damaged anywhere, of another version, or with numbers that are not finite.
    """
    try:
        content = load_torch(path, device, sums=True)
        if not isinstance(content, dict):
            raise Misfit([f"found a {type(content).__name__}, expected the state of a training"])
        stands = content.pop("progress", None)
        progress = from_values(Annotated[Progress, rule(Progress.faults)], stands)
        if gone := [name for name in vars(progress) if name not in stands]:
            raise Misfit([f"progress: {', '.join(gone)}: missing"])
        if faults := _faults(content):
            raise Misfit(faults)
        numbers = list(numbers_in({name: content[name] for name in PARTS if name in content}))
    except (Unreadable, Misfit, RecursionError) as error:
        raise _cannot_resume(path, error) from None
    check_tensors(path, numbers, f"It cannot be resumed from; {AGAIN}")
    return progress, content


def _faults(content: dict) -> list[str]:
    """Return what is wrong with the states of the parts, in words."""
    bad = [f"{name}: missing" for name, needed in PARTS.items() if needed and name not in content]
    bad += [f"{name}: found a {type(content[name]).__name__}, expected its state"
            for name in PARTS if name in content and not isinstance(content[name], dict)]
    optimizer = content.get("optimizer")
    if isinstance(optimizer, dict) and not (isinstance(optimizer.get("state"), dict)
                                            and isinstance(optimizer.get("param_groups"), list)):
        bad.append("optimizer: found no state and param_groups")
    bad += [f"{name}: unknown, written by a newer version" for name in content
            if name not in (*PARTS, "rng")]
    rng = content.get("rng")
    good = isinstance(rng, list) and rng and all(
        isinstance(states, list) and states and all(
            torch.is_tensor(one) and one.dtype == torch.uint8 for one in states)
        for states in rng)
    return bad if good else [*bad, "rng: expected the states of the random number generators"]


def find_state(out_dir: Path, model: nn.Module, best: Path, run: Session, plan: Plan
               ) -> tuple[Progress, dict] | None:
    """Return what a run continues from, None where it starts; nothing is written yet.

    Args:
        out_dir: of the run.
        model: whose tensors last.pt has to hold.
        best: the checkpoint of the best epoch so far, which the run measures in the end.
        run: says whether to go on.
        plan: what the run is going to do.

    Raises:
        UserError: last.pt is damaged, of another model or of another training, or `best` is missing
            or damaged.
    """
    last = out_dir / "last.pt"
    if not run.resume:
        return None
    if not last.exists():
        _check_begins(out_dir, best)
        return None
    progress, content = load_state(last, run.device)
    own = {name: _kind(tensor) for name, tensor in model.state_dict().items()}
    if own != {name: _kind(tensor) for name, tensor in content["model"].items()}:
        raise _cannot_resume(last, ValueError("it belongs to another model"))
    card = None
    if progress.log:
        try:
            card = checkpoint.read(best)[0]
        except UserError as error:
            raise UserError(f"--resume: the checkpoint of the best epoch so far cannot be read: "
                            f"{error}. Restore it, or start again with --overwrite") from None
    if faults := plan.faults(progress, card.score if card else ()):
        raise _cannot_resume(last, Misfit(f"progress: {fault}" for fault in faults))
    if faults := _step_faults(content, plan.done(progress)):
        raise _cannot_resume(last, Misfit(faults))
    if card and not is_of(card, progress):
        raise UserError(f"--resume: {best} is not the checkpoint that this run kept: it states "
                        f"epoch {card.epoch}, validation loss {card.score.get('val_loss')}, but "
                        f"{last} states epoch {progress.kept['epoch']}, "
                        f"{progress.kept['val_loss']}. Restore the run's own, or start again with "
                        "--overwrite")
    if card:
        check_key(out_dir, card.data)
    return progress, content


def _step_faults(content: dict, done: int) -> list[str]:
    """Return whether an optimizer has taken other steps than those that are done, in words.

    With a scaler it may have taken fewer: those without a finite gradient are skipped.
    """
    states = content["optimizer"]["state"].values()
    taken = {float(state["step"]) for state in states
             if isinstance(state, dict) and "step" in state} or {0.0}
    fewer = content.get("scaler") is not None and max(taken) <= done
    return [] if taken == {float(done)} or fewer else [
        f"optimizer: has taken {max(taken):g} steps, expected {done}"]


def _check_begins(out_dir: Path, best: Path) -> None:
    """Refuse to start again where a run has come further than its first epoch.

    Raises:
        UserError: last.pt has been removed since.
    """
    log = out_dir / "log.csv"
    epochs = log.read_bytes().count(b"\n") - 1 if log.is_file() else 0
    if epochs > 1 or (out_dir / "metrics.json").exists() or (out_dir / "predictions.csv").exists():
        raise UserError(f"--resume: {out_dir / 'last.pt'}, from which the run would continue, is "
                        f"missing. {best.name} can be evaluated with evaluate.py; to train "
                        "again, name another --out_dir, or add --overwrite instead of --resume")


def _kind(value: object) -> tuple | None:
    """Return shape and type of a tensor; None of anything else."""
    return (tuple(value.shape), value.dtype) if torch.is_tensor(value) else None


def restore(path: Path, content: dict, parts: dict[str, nn.Module | object | None],
            world: ProcessGroup) -> None:
    """Put states back into model, optimizer and random numbers.

    Raises:
        UserError: a part is missing or does not fit.
    """
    try:
        for name, part in parts.items():
            if part is not None and name not in content:
                raise ValueError(f"{name}: missing")
            if isinstance(part, torch.optim.Optimizer):
                _load_optimizer(part, content[name])
            elif part is not None:
                part.load_state_dict(content[name])
        if world.size == len(content["rng"]):
            set_random_state(content["rng"][world.rank])
    except Exception as error:  # load_state_dict raises several kinds
        raise _cannot_resume(path, error) from None


def _load_optimizer(optimizer: torch.optim.Optimizer, content: dict) -> None:
    """Put an optimizer's state back, of which load_state_dict takes any shape and kind.

    Raises:
        ValueError: what does not fit: a moment, or a setting that is not the run's own.
    """
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    numbers = [group["params"] for group in optimizer.state_dict()["param_groups"]]
    if [group.get("params") for group in content["param_groups"]] != numbers:
        raise ValueError("optimizer: its parameters are not those of this model")
    if content["state"] and (sorted(content["state"]) != list(range(len(parameters)))):
        raise ValueError(f"optimizer: states of {len(content['state'])} parameters, expected "
                         f"{len(parameters)}")
    for number, state in content["state"].items():
        shape = tuple(parameters[number].shape)
        wanted = {"step": (), "exp_avg": shape, "exp_avg_sq": shape}
        shapes = {name: tuple(value.shape) if torch.is_tensor(value) else type(value).__name__
                  for name, value in state.items()}
        if shapes != wanted:
            raise ValueError(f"optimizer: state {number}: found {shapes}, expected {wanted}")
        if not state["step"] >= 1 or not (state["exp_avg_sq"] >= 0).all():
            raise ValueError(f"optimizer: state {number}: step {float(state['step']):g}, expected "
                             "1 or more" if not state["step"] >= 1 else
                             f"optimizer: state {number}: exp_avg_sq below 0")
    own = [{key: value for key, value in group.items() if key not in ("params", "lr")}
           for group in optimizer.param_groups]  # lr is set at every step
    optimizer.load_state_dict(content)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        for key, value in settings.items():
            if group.get(key) != value:
                raise ValueError(f"optimizer: {key}: found {group.get(key)!r:.50}, expected "
                                 f"{value}")


def _cannot_resume(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: cannot be resumed from ({first_line(error)[:500]}); {AGAIN}")


def random_state() -> list[torch.Tensor]:
    """Return the state of torch's random numbers, of the CPU and of a GPU in use."""
    cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *cuda]


def set_random_state(states: list[torch.Tensor]) -> None:
    """Go on from what random_state has returned."""
    torch.set_rng_state(states[0].cpu())
    if len(states) > 1 and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(states[1].cpu())
