"""Which type of number the backbone multiplies in, by device and option."""

import pytest
import torch

from slivit.utils import precision
from slivit.utils.errors import UserError
from slivit.utils.precision import choose_precision, has_bfloat16, multiplying_in

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(("has", "expected"), [
    ({"amx_bf16": True}, True), ({"avx512_bf16": True, "amx_bf16": False}, True),
    ({"avx512_f": True}, False), ({}, False)])
def test_a_cpu_has_bfloat16_by_its_instructions(monkeypatch, has, expected):
    monkeypatch.setattr(precision, "_cpu_has", lambda: has)
    assert has_bfloat16(CPU) is expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True),
                                                      ((9, 0), True)])
def test_a_gpu_has_bfloat16_from_compute_capability_8_on(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bfloat16(GPU) is expected


def test_torch_says_what_this_cpu_has():
    known = precision._cpu_has()
    assert {"amx_bf16", "avx512_bf16"} <= known.keys() or known["architecture"] != "x86_64"


@pytest.mark.parametrize(("amp", "trained_in", "device", "hardware", "expected"), [
    ("auto", "bfloat16", CPU, True, torch.bfloat16),
    ("auto", "bfloat16", CPU, False, torch.float32),
    ("auto", "float32", GPU, True, torch.float32),
    ("auto", "float16", CPU, True, torch.float32),
    ("auto", "float16", GPU, True, torch.float16),
    ("off", "bfloat16", GPU, True, torch.float32),
    ("bf16", "float32", CPU, False, torch.bfloat16),
    ("fp16", "float32", GPU, True, torch.float16)])
def test_the_type_of_number_of_an_option(monkeypatch, amp, trained_in, device, hardware, expected):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: hardware)
    assert choose_precision(amp, device, trained_in) == expected


def test_float16_needs_a_gpu():
    with pytest.raises(UserError, match="--amp fp16 needs a GPU; use auto, bf16 or off"):
        choose_precision("fp16", CPU)


def test_only_products_take_half_the_digits():
    numbers = torch.full((1, 3), 1 / 3)
    with multiplying_in(torch.bfloat16, CPU):
        product = numbers @ numbers.T
        norm = torch.nn.functional.layer_norm(numbers, (3,))
    assert product.dtype == torch.bfloat16
    assert norm.dtype == torch.float32
    with multiplying_in(torch.float32, CPU):
        assert (numbers @ numbers.T).dtype == torch.float32
