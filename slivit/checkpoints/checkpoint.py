"""Checkpoints: safetensors weights whose header has everything needed to rebuild the model.

What the model gave on validation are tensors beside the weights; `read` leaves them out.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from slivit.checkpoints.header import (
    FORMAT,
    TENSOR_FORMAT,
    CheckpointHeader,
    Header,
    Validation,
)
from slivit.checkpoints.tensor_files import check_file, check_tensors
from slivit.checkpoints.validation import (
    NAMES,
    from_header,
    from_tensors,
    output_faults,
    to_tensors,
)
from slivit.data.scan_table import ScanTable
from slivit.models.slivit import ImageClassifier, SLIViT
from slivit.utils.errors import RunError, UserError, listing
from slivit.utils.files import atomic_write
from slivit.utils.records import Misfit, parse, parse_object

KEY = "slivit"  # of all metadata: safetensors writes several keys in any order
MOST_LISTED = 20
NOT_FINITE = ("The training run that wrote it failed, or the file is damaged; use the weights of "
              "another run, or copy the file again")
NEWER = ("It was written by a newer version of SLIViT; update SLIViT, or use a file written by "
         "this version")
CHANGED = ("It is damaged, or was changed after it was written; use the file as finetune.py or "
           "bb_train.py wrote it")


def data_facts(scans: ScanTable, fingerprint: str, split_ratio: str | None, seed: int) -> dict:
    """Return what a run and its checkpoints remember of the data.

    Name, fingerprint, ratio and seed of the split of a table that has none; a checkpoint adds
    `subjects.subject_facts`. (Models of the original SLIViT have under `assumed` what no file
    states.)
    """
    return {"name": scans.name, "fingerprint": fingerprint, "split_ratio": split_ratio,
            "split_seed": seed}


def build(card: CheckpointHeader, drop_path: float = 0.0) -> ImageClassifier | SLIViT:
    """Create the model a card describes, with random weights."""
    outputs = len(card.target.labels)
    if card.kind == "backbone":
        return ImageClassifier(card.backbone, outputs, card.preprocess, drop_path)
    return SLIViT(card.backbone, outputs, card.preprocess, card.integrator, drop_path)


def save(path: Path, model: nn.Module, card: CheckpointHeader,
         validation: Validation | None = None, half: bool = False) -> None:
    """Write model, card and its outputs on validation, whole or not at all.

    A backbone's tensors have timm's own names, so that timm can load the file as well (with
    strict=False: it does not know the outputs on validation). Outputs of the integrator beyond the
    card's labels are left out.

    Args:
        path: of the file.
        model, card, validation: what is written.
        half: whether matrices and kernels are written as float16, which halves the file; what is
            one number a channel (biases, norms) stays float32.
    """
    module = model.backbone if card.kind == "backbone" else model
    outputs = len(card.target.labels)
    state = {key: (tensor[:outputs] if key.startswith("integrator.head.") else tensor
                   ).detach().cpu().contiguous() for key, tensor in module.state_dict().items()}
    if half:
        state = {key: tensor.half() if tensor.ndim > 1 else tensor
                 for key, tensor in state.items()}
    write(path, state, card, validation)


def write(path: Path, state: dict[str, torch.Tensor], card: CheckpointHeader,
          validation: Validation | None = None) -> None:
    """Write tensors as they are, card and outputs on validation, whole or not at all."""
    extra = {} if validation is None else to_tensors(validation)
    text = json.dumps({"format": TENSOR_FORMAT if extra else FORMAT, **dataclasses.asdict(card)},
                      allow_nan=False)
    try:
        faults = output_faults(parse(Header, text), extra)
    except Misfit as error:
        faults = error.faults
    if faults:
        raise RunError(f"{path}: was not written, because it could not be read back:\n"
                       f"{listing(faults, MOST_LISTED)}")
    with atomic_write(path) as part:
        save_file(state | extra, part, metadata={KEY: text})


def read_validation(path: Path) -> Validation | None:
    """Return the model's outputs on validation; None where a file has none.

    Raises:
        UserError: see `read`.
    """
    with _opened(path) as file:
        header = _read_header(path, file)
        tensors = _validation_tensors(path, file, header)
    return from_tensors(tensors) if tensors else from_header(header)


def read(path: Path) -> tuple[CheckpointHeader, dict[str, torch.Tensor]]:
    """Read card and weights.

    Raises:
        UserError: missing, truncated, not a checkpoint of this project, of a newer version, or with
            an impossible header, outputs on validation or numbers.
    """
    with _opened(path) as file:
        header = _read_header(path, file)
        card = CheckpointHeader(**{field.name: getattr(header, field.name)
                                   for field in dataclasses.fields(CheckpointHeader)})
        extra = _validation_tensors(path, file, header)
        state = {key: file.get_tensor(key) for key in file.keys()  # noqa: SIM118
                 if key not in extra}
    check_tensors(path, state.items(), NOT_FINITE)
    return card, state


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    """Open a checkpoint.

    Raises:
        UserError: missing or truncated.
    """
    check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: is not a complete safetensors file ({error}); expected a "
                        "slivit.safetensors or backbone.safetensors of this project") from None


def _read_header(path: Path, file: safe_open) -> Header:
    """Return what the header says, every field of it checked.

    Raises:
        UserError: one message on all that does not fit.
    """
    text = (file.metadata() or {}).get(KEY)
    foreign = (f"{path}: is a safetensors file without this project's header{{}}; expected a "
               "slivit.safetensors or backbone.safetensors written by finetune.py or bb_train.py")
    if text is None:
        raise UserError(foreign.format(""))
    try:
        version = parse_object(text).get("format")
    except Misfit as error:
        raise UserError(foreign.format(f" ({error})")) from None
    if type(version) is int and version not in (FORMAT, TENSOR_FORMAT):
        raise UserError(f"{path}: has format {version}, this version reads {FORMAT} and "
                        f"{TENSOR_FORMAT}" + f". {NEWER}" * (version > TENSOR_FORMAT))
    try:
        return parse(Header, text)
    except Misfit as error:
        raise UserError(f"{path}: its header is not valid:\n"
                        f"{listing(error.faults, MOST_LISTED)}\n"
                        f"{NEWER if error.unknown else CHANGED}") from None


def _validation_tensors(path: Path, file: safe_open, header: Header) -> dict[str, torch.Tensor]:
    """Return the tensors of a file that are outputs on validation, every number checked.

    Raises:
        UserError: one message on all that does not fit.
    """
    tensors = {name: file.get_tensor(name) for name in file.keys() if name in NAMES}  # noqa: SIM118
    if bad := output_faults(header, tensors):
        raise UserError(f"{path}: its outputs on validation are not valid:\n"
                        f"{listing(bad, MOST_LISTED)}\n{CHANGED}")
    return tensors


def load(path: Path) -> tuple[CheckpointHeader, ImageClassifier | SLIViT]:
    """Rebuild a trained model from its file alone, ready for evaluation.

    Raises:
        UserError: see `read` and `restore`.
    """
    card, state = read(path)
    return card, restore(path, card, state)


def restore(path: Path, card: CheckpointHeader, state: dict[str, torch.Tensor]
            ) -> ImageClassifier | SLIViT:
    """Return the model of a card and tensors that were read from `path`, ready for evaluation.

    No memory is taken before they are found to fit.

    Raises:
        UserError: tensors that do not fit the card.
    """
    blocks = {key.split(".")[2] for key in state if key.startswith("integrator.blocks.")}
    transformer = card.integrator is not None and card.integrator.kind == "transformer"
    if transformer and card.integrator.depth != len(blocks):
        bad = [f"integrator.depth: found {card.integrator.depth}, but the tensors of {len(blocks)} "
               "blocks"]
    else:
        with torch.device("meta"):
            model = build(card)
        module = model.backbone if card.kind == "backbone" else model
        own = module.state_dict()
        bad = _differences(state, own)
    if bad:
        raise UserError(f"{path}: tensors do not match the header:\n{listing(bad, MOST_LISTED)}\n"
                        f"{CHANGED}")
    model.to_empty(device="cpu")
    module.load_state_dict(state)
    return model.eval()


def _differences(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[str]:
    """Return a line on each tensor that is missing, unknown, or of another shape or kind."""
    bad = [f"missing: {key}" for key in own if key not in state]
    bad += [f"unknown: {key}" for key in state if key not in own]
    both = [(key, state[key], tensor) for key, tensor in own.items() if key in state]
    bad += [f"{key}: found {tuple(given.shape)}, expected {tuple(tensor.shape)}"
            for key, given, tensor in both if given.shape != tensor.shape]
    return bad + [f"{key}: found {given.dtype}, expected {tensor.dtype}" for key, given, tensor
                  in both if given.is_floating_point() != tensor.is_floating_point()]
