"""What the parts of benchmarks.gpu share: where they run, and the rows they give."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.speed_growth import write_volumes

FAILED = "failed: "


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        what: is measured or checked.
        setting: with which flags, numbers or kernels.
        value: a number, or words; those of a check that failed begin with FAILED.
        unit: of the number.
    """

    what: str
    setting: str
    value: float | str
    unit: str = ""

    @property
    def failed(self) -> bool:
        """Whether it is of a check that failed."""
        return str(self.value).startswith(FAILED)


@dataclass(frozen=True)
class Bench:
    """Where the parts run.

    Attributes:
        device: a GPU, or a CPU to see that the parts run.
        folder: for what they write.
        quick: tiny sizes.
        repeats: times each step is measured.
    """

    device: torch.device
    folder: Path
    quick: bool
    repeats: int

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    @property
    def gpu_id(self) -> str:
        """What the scripts take as --gpu_id."""
        return str(self.device.index) if self.on_gpu else "cpu"

    def images(self) -> Path:
        """Return a table of made-up JPEG images, 24 or 2,400, three quarters of them to train."""
        count, sides = (24, (40, 36)) if self.quick else (2400, (512, 496))
        table = self.folder / "images" / "images.csv"
        if not table.exists():
            table.parent.mkdir(parents=True)
            rng = np.random.default_rng(0)
            names = [f"{k}.jpg" for k in range(count)]
            for name in names:
                coarse = Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8))
                coarse.resize(sides).save(table.parent / name)
            pd.DataFrame({"F_Name": names, "Path": names, "label": np.arange(count) // 8 % 2,
                          "Split": np.resize(["train"] * 6 + ["val", "test"], count)}
                         ).to_csv(table, index=False)
        return table

    def volumes(self) -> Path:
        """Return a table of 24 tiny made-up volumes."""
        folder = self.folder / "volumes"
        return write_volumes(folder, 24, 4)
