"""What a model gave on validation, as tensors beside the weights in its checkpoint.

Files of format 1 have it in their header, to seven digits, and safetensors limits headers to 100
MB.
"""

from collections.abc import Mapping

import numpy as np
import torch

from slivit.checkpoints.header import TENSOR_FORMAT, Header, Validation
from slivit.config import Target

NAMES = {"validation.logits": "logits", "validation.labels": "labels"}  # tensor: field


def to_tensors(validation: Validation) -> dict[str, torch.Tensor]:
    """Return the tensors that a checkpoint has of it: float32 (n, K) each, NaN where unknown."""
    return {name: torch.from_numpy(np.ascontiguousarray(getattr(validation, field), np.float32))
            for name, field in NAMES.items()}


def output_faults(header: Header, tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return what is wrong with those tensors of a file that NAMES lists, in words."""
    if header.format != TENSOR_FORMAT:
        return [f"{name}: unknown in a file of format {header.format}" for name in tensors]
    bad = [f"{name}: missing" for name in NAMES if name not in tensors]
    if header.validation is not None:
        bad.append("validation: found in the header too, expected only the tensors")
    count = len(header.target.labels)
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            bad.append(f"{name}: found {tensor.dtype}, expected torch.float32")
        if tensor.ndim != 2 or tensor.shape[1] != count or not len(tensor):
            bad.append(f"{name}: found {tuple(tensor.shape)}, expected a row of {count} numbers "
                       "for each scan, at least one")
    if not bad and len({len(tensor) for tensor in tensors.values()}) > 1:
        rows = " and ".join(f"{len(tensors[name])} rows of {field}"
                            for name, field in NAMES.items())
        bad.append(f"validation: {rows}, expected the same number of each")
    return bad or _number_faults(from_tensors(tensors), header.target)


def _number_faults(validation: Validation, target: Target) -> list[str]:
    """Return which numbers cannot be logits and labels, in words."""
    logits, labels = validation.logits, validation.labels
    bad = []
    if infinite := int((~np.isfinite(logits)).sum()):
        bad.append(f"validation.logits: {infinite} of {logits.size} values are NaN or infinite")
    known = labels[~np.isnan(labels)]
    if target.task == "regression":
        fits, expected = np.isfinite(known), "finite numbers"
    else:
        fits, expected = np.isin(known, (0, 1)), "0 and 1"
    if not fits.all():
        bad.append(f"validation.labels: {int((~fits).sum())} of {labels.size} values are not "
                   f"{expected}, or NaN where unknown")
    return bad


def from_tensors(tensors: Mapping[str, torch.Tensor]) -> Validation:
    """Return what a model gave on validation, of tensors without faults."""
    return Validation(**{field: tensors[name].numpy() for name, field in NAMES.items()})


def from_header(header: Header) -> Validation | None:
    """Return what the header of a file of format 1 has of it; None if there is nothing."""
    if header.validation is None:
        return None
    return Validation(*(np.array(values, dtype=np.float32)
                        for values in (header.validation.logits, header.validation.labels)))
