"""Seconds and memory of a training step and of inference, of SLIViT and of other ways."""

import dataclasses
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torchvision.models.video import r3d_18

from benchmarks.memory import peak_memory
from slivit.config import IntegratorConfig, Preprocess
from slivit.data.transforms import to_input
from slivit.models.depthwise import DepthwiseConv
from slivit.models.slivit import SLIViT
from slivit.utils.precision import has_bfloat16, multiplying_in

MEAN = STD = (0.5, 0.5, 0.5)
WAYS = ("slivit", "slivit, 4 slices at a time", "tiled picture, fast convolutions",
        "tiled picture", "3D ResNet-18")
HALF = ", bfloat16"  # ends the name of a way whose backbone multiplies in it
CPU = torch.device("cpu")


class Dense(nn.Module):
    """A 3D network over the whole volume: slices -> logits (B, 1), multiplied in `precision`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.precision = network, torch.float32

    def forward(self, slices: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the logits of volumes whose slices are all real; see SLIViT."""
        slices = to_input(slices, MEAN, STD)  # (B * S, 3, H, W)
        with multiplying_in(self.precision, slices.device):
            return self.network(
                slices.unflatten(0, mask.shape).transpose(1, 2).contiguous()).float()


def ways() -> tuple[str, ...]:
    """Return what is measured here: WAYS, and SLIViT in bfloat16 where the CPU is made for it."""
    return WAYS + (tuple(way + HALF for way in WAYS[:2]) if has_bfloat16(CPU) else ())


def make_way(way: str, size: int, n_slices: int, backbone: str) -> nn.Module:
    """Return one of WAYS for volumes of `n_slices` slices of `size` pixels a side.

    All but the last have the same weights. In the tiled picture, the original SLIViT's, a token is
    made of something else; with `fast convolutions` that is all that differs, without, the
    depthwise convolutions are PyTorch's own too.
    """
    way = way.removesuffix(HALF)
    torch.manual_seed(0)
    if way == "3D ResNet-18":
        return Dense(r3d_18(num_classes=1))
    preprocess = Preprocess(size, "full", MEAN, STD, n_slices)
    config = IntegratorConfig()
    if way.startswith("tiled picture"):
        config = dataclasses.replace(config, token="channels_width")
    model = SLIViT(backbone, 1, preprocess, config)
    if way == "slivit, 4 slices at a time":
        model.slices_per_step = 4
    if way == "tiled picture":
        for module in model.modules():
            if isinstance(module, DepthwiseConv):
                module.__class__ = nn.Conv2d
    return model


def make_steps(way: str, size: int, n_slices: int, backbone: str
               ) -> dict[str, Callable[[], None]]:
    """Return a training step and an inference step of a way, on a made-up volume.

    A way's name may end in HALF.
    """
    model = make_way(way, size, n_slices, backbone)
    model.precision = torch.bfloat16 if way.endswith(HALF) else torch.float32
    return steps_of(model, size, n_slices)


def steps_of(model: nn.Module, size: int, n_slices: int, volumes: int = 1,
             device: torch.device = CPU) -> dict[str, Callable[[], None]]:
    """Return a training step and an inference step of a model on `device`, on made-up volumes."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    slices = torch.randint(0, 256, (volumes * n_slices, 1, size, size), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0)).to(device)
    mask = torch.ones(volumes, n_slices, dtype=torch.bool, device=device)
    truth = torch.ones(volumes, 1, device=device)

    def train() -> None:
        model.train()
        loss = nn.functional.binary_cross_entropy_with_logits(model(slices, mask), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def infer() -> None:
        model.eval()
        with torch.inference_mode():
            model(slices, mask)

    return {"training step": train, "inference": infer}


def steps(quick: bool, repeats: int, threads: int) -> list[dict]:
    """Measure every way; rows of what, way, seconds, ratio to SLIViT, repeats, peak MB."""
    size, n_slices, backbone = (32, 4, "convnext_zepto_rms") if quick else (256, 28,
                                                                            "convnext_tiny")
    made = {way: make_steps(way, size, n_slices, backbone) for way in ways()}
    rows = []
    for what in ("training step", "inference"):
        taken = {way: [] for way in made}
        for k in range(repeats + 1):  # the first is to warm up
            for way in made:
                start = time.perf_counter()
                made[way][what]()
                if k:
                    taken[way].append(time.perf_counter() - start)
        ours = statistics.median(taken["slivit"])
        for way in made:
            seconds = statistics.median(taken[way])
            rows.append({"what": what, "way": way, "seconds": round(seconds, 3),
                         "ratio": round(seconds / ours, 2), "repeats": repeats,
                         "peak_mb": round(peak_memory(twice, threads, way, size, n_slices,
                                                      backbone, what))})
    return rows


def twice(way: str, size: int, n_slices: int, backbone: str, what: str) -> Callable[[], None]:
    """Return what peak_memory runs: the step two times."""
    step = make_steps(way, size, n_slices, backbone)[what]

    def run() -> None:
        step()
        step()

    return run
