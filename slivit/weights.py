"""Weights for a backbone: ImageNet's from timm, or from a file."""

import urllib.error
import urllib.request
from pathlib import Path

import timm
import torch
from torch import nn

from slivit.errors import UserError, first_line, listing

HUB_TIMEOUT = 10  # seconds


def load_weights(backbone: nn.Module, name: str, source: str) -> None:
    """Give a backbone the weights that `--weights` names.

    Args:
        backbone: of `create_backbone`.
        name: its timm name.
        source: `imagenet`, `none` (it keeps its random ones) or a file.

    Raises:
        UserError: see load_imagenet, read_state_dict and load_into.
    """
    if source == "imagenet":
        load_imagenet(backbone, name)
    elif source != "none":
        load_into(backbone, read_state_dict(Path(source)), source)


def load_imagenet(backbone: nn.Module, name: str) -> None:
    """Load timm's ImageNet weights into the backbone, downloading them unless cached.

    Raises:
        UserError: there are none for this name, or the hub cannot be reached.
    """
    config = timm.models.get_pretrained_cfg(name, allow_unregistered=False)
    if config is None or not config.has_weights:
        raise UserError(f"--weights imagenet: timm has no weights for {name}; use --weights none "
                        "or a file")
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
                                        timeout=HUB_TIMEOUT):
                pass
        pretrained = timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, urllib.error.URLError, RuntimeError, ValueError) as error:
        reason = getattr(error, "reason", None) or first_line(error)
        raise UserError(
            f"--weights imagenet: could not get the weights of {name} from {url} ({reason}). "
            "Fetch that file on a machine with a network and give it as --weights FILE, or train "
            "from random weights with --weights none") from None
    load_into(backbone, pretrained.state_dict(), f"ImageNet weights of {name}")


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read tensors from a `.safetensors` file or, with `weights_only`, a torch file.

    Raises:
        UserError: missing, truncated, of another kind, or a pickle that holds more than tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise UserError(f"{path}: is not a whole safetensors file ({error})") from None
    except Exception as error:  # torch.load raises many kinds for a file that is not its own
        raise UserError(f"{path}: cannot be read as weights ({first_line(error)}). "
                        "Only files of plain tensors are read, never pickled code") from None
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(torch.is_tensor(t) for t in state.values()):
        raise UserError(f"{path}: holds no state dict of tensors")
    return state


def load_into(backbone: nn.Module, state: dict[str, torch.Tensor], what: str) -> None:
    """Load a timm ConvNeXt state dict; a classifier of another size is left out.

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
        heads += ("head.norm.weight", "head.norm.bias")
    bad = [f"missing: {key}" for key in own if key not in state and key not in heads]
    bad += [f"unknown: {key}" for key in state if key not in own]
    bad += [f"{key}: found {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
            for key in state if key in own and state[key].shape != own[key].shape]
    if bad:
        raise UserError(f"{what} does not fit this backbone:\n{listing(bad, 10)}\n"
                        "Give the --backbone that the file was made with.")
    backbone.load_state_dict(state, strict=False)
