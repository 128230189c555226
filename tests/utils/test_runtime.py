"""Which kernels a GPU computes with."""

import os

import pytest
import torch

from slivit.utils.runtime import set_kernels


@pytest.fixture
def kernels(monkeypatch):
    """Return torch's settings when asked; they are put back after the test."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic)
    fill = torch.utils.deterministic.fill_uninitialized_memory
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

    def now():
        return {"tf32": {matmul.allow_tf32, cudnn.allow_tf32}, "search": cudnn.benchmark,
                "deterministic": {cudnn.deterministic,
                                  torch.are_deterministic_algorithms_enabled()},
                "workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG")}

    yield now
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


GPU = torch.device("cuda", 0)


def test_kernels_are_those_that_are_asked_for(kernels):
    for precisions, tf32 in (([torch.float32, torch.bfloat16], True), ([torch.float32], False)):
        set_kernels(GPU, precisions)
        assert kernels() == {"tf32": {tf32}, "search": False, "deterministic": {False},
                             "workspace": None}
    set_kernels(GPU, [torch.float32], deterministic=True)
    assert kernels() == {"tf32": {False}, "search": False, "deterministic": {True},
                         "workspace": ":4096:8"}
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    set_kernels(GPU, [torch.bfloat16])  # another run in the same process
    assert kernels()["deterministic"] == {False}
    torch.use_deterministic_algorithms(True)  # a user's own choice, stricter
    set_kernels(GPU, [torch.bfloat16], deterministic=None)
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


def test_on_a_cpu_nothing_changes(kernels):
    before = kernels()
    set_kernels(torch.device("cpu"), [torch.bfloat16], deterministic=True)
    assert kernels() == before


@pytest.mark.parametrize(("flags", "precision", "deterministic"), [
    (["--amp", "off"], torch.float32, False), (["--amp", "bf16"], torch.bfloat16, False),
    (["--amp", "off", "--deterministic"], torch.float32, True)])
def test_scripts_say_which(monkeypatch, tmp_path, flags, precision, deterministic):
    import finetune
    asked = []

    def stop(device, precisions, deterministic):
        asked.append((precisions, deterministic))
        raise SystemExit

    monkeypatch.setattr("slivit.utils.session.set_kernels", stop)
    with pytest.raises(SystemExit):
        finetune.main([*flags, "--gpu_id", "cpu", "--out_dir", str(tmp_path / "out")])
    assert asked == [([precision], deterministic)]
