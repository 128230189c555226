"""Which type of number the backbone multiplies in: float32, or one of half the size."""

import contextlib
from collections.abc import Mapping

import torch

from slivit.config import PRECISIONS
from slivit.utils.errors import UserError

AMPERE = (8, 0)  # compute capability from which NVIDIA's GPUs multiply bfloat16


def choose_precision(amp: str, device: torch.device, trained_in: str = "bfloat16"
                     ) -> torch.dtype:
    """Return the type of number for `--amp`.

    `auto` is `trained_in` where the device multiplies it in hardware, else float32. Training may
    take bfloat16, which has the range of float32; a trained model gives the numbers it is known by
    only in the type in which it was trained.

    Args:
        amp: `auto`, or one of config.PRECISIONS.
        device: where the model runs.
        trained_in: of a trained model, by name.

    Raises:
        UserError: float16 on a CPU.
    """
    if amp == "fp16" and device.type != "cuda":
        raise UserError("--amp fp16 needs a GPU; use auto, bf16 or off")
    name = PRECISIONS.get(amp, trained_in)
    if amp == "auto" and not (has_bfloat16(device) if name == "bfloat16" else
                              device.type == "cuda"):
        name = "float32"
    return getattr(torch, name)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 in hardware, as torch reports it.

    GPUs do from compute capability 8.0 on, CPUs with AMX or AVX512-BF16. Elsewhere it is emulated,
    which takes longer than float32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= AMPERE
    return any(_cpu_has().get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def _cpu_has() -> Mapping[str, object]:
    """Return which of bfloat16's instructions the CPU has."""
    if hasattr(torch.cpu, "get_capabilities"):  # of newer versions of torch
        return torch.cpu.get_capabilities()
    return {"amx_bf16": torch.cpu._is_amx_tile_supported(),
            "avx512_bf16": torch.cpu._is_avx512_bf16_supported()}


def precision_name(dtype: torch.dtype) -> str:
    """Return `float32`, `bfloat16` or `float16`."""
    return str(dtype).removeprefix("torch.")


def multiplying_in(dtype: torch.dtype, device: torch.device) -> contextlib.AbstractContextManager:
    """Return a context in which matrices and convolutions are multiplied in a type of number.

    Sums that need more digits (norms, losses) stay in float32, as torch.autocast decides
    (Micikevicius et al. 2018, section 3).
    """
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)
