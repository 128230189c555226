"""Weights that a backbone starts from: timm's, or those of a file."""

import contextlib
import dataclasses
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from slivit.checkpoints import checkpoint
from slivit.checkpoints.checkpoint import CheckpointHeader
from slivit.checkpoints.convnext_formats import recognise
from slivit.checkpoints.convnext_sizes import body, shapes_of
from slivit.checkpoints.hub import TIMEOUT, local_file, title_of
from slivit.checkpoints.model_card import lineage
from slivit.checkpoints.patient_key import own_key
from slivit.checkpoints.tensor_files import (
    PICKLE,
    ZIP,
    Unreadable,
    beginning,
    check_file,
    check_tensors,
    is_safetensors,
    load_torch,
)
from slivit.checkpoints.timm_weights import find_timm_weights
from slivit.models.backbone import check_name, for_scratch, input_statistics
from slivit.utils.errors import UserError, first_line, listing
from slivit.utils.log import LOG

DEFAULT = "convnext_tiny"
PART = "backbone."  # before the names of a SLIViT's tensors that are its backbone's
AGAIN = "Copy or download it again"
ADVICE = ("Expected only tensors, in a safetensors file or as torch.save(model.state_dict()) "
          "writes them")


@dataclass(frozen=True)
class PretrainedBackbone:
    """What a backbone starts from.

    Attributes:
        backbone: timm's name.
        mean, std: per channel (0..1 scale), of the input that the weights expect.
        source: `imagenet` (timm's weights of that name), `none`, or the file.
        state: tensors in timm's names, of a file.
        n_classes: outputs of the file's classifier; 0 for none.
        trained_on: what the weights were trained on, as reports say it; None for random ones.
        card: of a file of this project, its header.
    """

    backbone: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    state: dict[str, torch.Tensor] | None = None
    n_classes: int = 0
    trained_on: str | None = None
    card: CheckpointHeader | None = None

    @property
    def patient_key(self) -> bytes | None:
        """The key of the patients' hashes in the file's header; None where it is not known."""
        mark = self.card and self.card.data.get("patient_key")
        return own_key(Path(self.source), mark) if mark else None

    def load_into(self, backbone: nn.Module) -> None:
        """Give the weights to a backbone of `create_backbone`; log what becomes of a classifier.

        Raises:
            UserError: see load_from_timm and load_into.
        """
        if self.state is None:
            if self.source == "imagenet":
                load_from_timm(backbone, self.backbone)
            return
        load_into(backbone, self.state, self.source)
        own = backbone.state_dict()
        if self.n_classes:
            wanted = len(own["head.fc.weight"]) if "head.fc.weight" in own else 0
            LOG.info("%s: %s", self.source,
                     "the classifier is kept" if wanted == self.n_classes else
                     f"its classifier of {self.n_classes} classes is not used: this task has "
                     f"{wanted}" if wanted else "the classifier is not used: SLIViT has its own")
        if "head.norm.weight" in own and "head.norm.weight" not in self.state:
            LOG.info("%s: has no norm before the classifier; that norm is newly "
                     "initialised", self.source)

    def without_tensors(self) -> "PretrainedBackbone":
        """Return what it says of itself alone: tensors that are loaded need no second place."""
        return dataclasses.replace(self, state=None)


def choose_start(source: str, name: str | None) -> PretrainedBackbone:
    """Return what `--weights` and `--backbone` name.

    Args:
        source: `imagenet` (timm's weights of the name), `none` (random weights) or a file, of the
            Hub too.
        name: timm's name; None for what the file holds, else convnext_tiny.

    Raises:
        UserError: an unknown name, or see read_start.
    """
    if source in ("imagenet", "none"):
        name = name or DEFAULT
        statistics = input_statistics(name)
        known = find_timm_weights(name) if source == "imagenet" else None
        return PretrainedBackbone(name, *statistics, source,
                                  trained_on=known.trained_on if known else None)
    return read_start(local_file(source), name)


def read_start(path: Path, name: str | None = None) -> PretrainedBackbone:
    """Read a backbone from a file, and log what it was recognised as.

    Args:
        path: a backbone.safetensors or slivit.safetensors of this project, or a file of
            convnext_formats.
        name: the only architecture to accept, with or without a tag; None for any.

    Raises:
        UserError: an unknown name; a file without a backbone, or with one of another architecture.
    """
    if name is not None:
        check_name(name)
    check_file(path, "weights")
    card = None
    if _has_card(path):
        card, state = checkpoint.read(path)
        backbone, title, trained_on = card.backbone, "backbone of this project", lineage(card)
        if (named := title_of(path)) != str(path):
            trained_on += f" ({named})"
        mean, std, n_classes = card.preprocess.mean, card.preprocess.std, len(card.target.labels)
        if card.kind == "slivit":
            title, n_classes = "a SLIViT of this project, of which the backbone is taken", 0
            state = {key.removeprefix(PART): tensor for key, tensor in state.items()
                     if key.startswith(PART)}
    else:
        one = recognise(read_tensors(path), str(path))
        backbone, state, n_classes = one.architecture, one.state, one.n_classes
        title, mean, std = one.format.title, one.format.mean, one.format.std
        trained_on = f"unknown data ({title})"
    if name is not None and (for_scratch(name) != for_scratch(backbone)
                             or body(shapes_of(name)) != body(shapes_of(backbone))):
        raise UserError(f"--backbone {name} and {path} do not match: the file contains a "
                        f"{backbone} ({title}). Omit --backbone; the architecture is then read "
                        "from the file")
    if mean is None:
        mean, std = input_statistics(name or backbone)
    LOG.info("%s: %s, %s, %s, %s", path, title, name or backbone,
             f"{n_classes} classes" if n_classes else "no classifier", _input_text(mean, std))
    return PretrainedBackbone(name or backbone, tuple(mean), tuple(std), str(path), state,
                              n_classes, trained_on, card)


def _has_card(path: Path) -> bool:
    """Return whether a file is a checkpoint of this project."""
    with contextlib.suppress(SafetensorError, OSError), safe_open(path, framework="pt") as file:
        return checkpoint.KEY in (file.metadata() or {})
    return False


def _input_text(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    """Return what input weights expect, in words."""
    return "for input of mean {} and std {}".format(
        *(" ".join(f"{value:.3g}" for value in values) for values in (mean, std)))


def load_from_timm(backbone: nn.Module, name: str) -> None:
    """Load timm's weights of a name into the backbone, downloading them unless cached.

    What they are follows from the name's tag, and is logged: ImageNet's, DINOv3's, ...

    Raises:
        UserError: there are none for this name, or the hub cannot be reached.
    """
    weights = find_timm_weights(name)
    if weights is None:
        raise UserError(f"--weights imagenet: timm has no weights for {name}; use --weights none "
                        "or a file")
    config = timm.models.get_pretrained_cfg(name)
    hub_id, url = config.hf_hub_id, config.url
    cached = False
    if hub_id:
        from huggingface_hub import hf_hub_url, try_to_load_from_cache

        cached = any(isinstance(try_to_load_from_cache(hub_id, file), str)
                     for file in ("model.safetensors", "pytorch_model.bin"))
        url = hf_hub_url(hub_id, "model.safetensors")
    elif url:
        cached = (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).exists()
    try:
        if not cached:  # a quick look first: the hub's client tries again for a minute
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"),
                                        timeout=TIMEOUT):
                pass
        pretrained = timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, urllib.error.URLError, RuntimeError, ValueError) as error:
        reason = getattr(error, "reason", None) or first_line(error)
        raise UserError(
            f"--weights imagenet: could not get the {weights} from {url} ({reason}). "
            "Fetch that file on a machine with network access and give it as --weights FILE, or "
            "train from random weights with --weights none") from None
    load_into(backbone, pretrained.state_dict(), f"the {weights}")
    LOG.info("%s (%s), %s", weights, weights.origin, _input_text(config.mean, config.std))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a safetensors or torch file, whatever its name, without running anything.

    Returns:
        The state dict; of `{"model": ...}` or `{"state_dict": ...}`, that one.

    Raises:
        UserError: missing, truncated, of another kind, a pickle that contains more than tensors, or
            numbers that are not finite.
    """
    check_file(path)
    start = beginning(path)
    try:
        if start.startswith((ZIP, PICKLE)):
            state = load_torch(path)
        elif is_safetensors(path):
            state = load_file(path)
        else:
            kind = "is empty" if not path.stat().st_size else "cannot be read" if not start else (
                f"is not a weights file (it begins with the bytes {start[:4].hex(' ')})")
            raise UserError(f"{path}: {kind}. {ADVICE}")
    except SafetensorError as error:
        raise UserError(f"{path}: is not a complete safetensors file ({error}). {AGAIN}") from None
    except Unreadable as error:
        raise UserError(f"{path}: cannot be read as weights: {error}. "
                        + (AGAIN if error.damaged else ADVICE)) from None
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(
            isinstance(key, str) and torch.is_tensor(value) for key, value in state.items()):
        raise UserError(f"{path}: contains no state dict of tensors. {ADVICE}")
    check_tensors(path, state.items(), checkpoint.NOT_FINITE)
    return state


def load_into(backbone: nn.Module, state: dict[str, torch.Tensor], what: str) -> None:
    """Load a timm ConvNeXt state dict; a classifier of another size is not used.

    Raises:
        UserError: any other tensor is missing, unknown or of another shape, listing them.
    """
    own = backbone.state_dict()
    heads = tuple(key for key in set(own) | set(state) if key.startswith("head.fc."))
    if any(key not in state or key not in own or state[key].shape != own[key].shape
           for key in heads):
        state = {key: tensor for key, tensor in state.items() if key not in heads}
    else:
        heads = ()
    if "head.norm.weight" not in own:
        state = {key: tensor for key, tensor in state.items() if not key.startswith("head.")}
    elif "head.norm.weight" not in state:
        heads += tuple(key for key in own if key.startswith("head.norm."))
    bad = [f"missing: {key}" for key in own if key not in state and key not in heads]
    bad += [f"unknown: {key}" for key in state if key not in own]
    bad += [f"{key}: found {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
            for key in state if key in own and state[key].shape != own[key].shape]
    if bad:
        raise UserError(f"{what} does not match this backbone:\n{listing(bad, 10)}\n"
                        "Give the --backbone that the file was made with.")
    backbone.load_state_dict(state, strict=False)
