"""Seconds and memory of SLIViT, against other ways to read the same volume.

    python -m benchmarks.speed                      # every part
    python -m benchmarks.speed --parts growth       # one of steps, frozen, recipes, ...
    python -m benchmarks.speed --quick              # tiny sizes, to see that it runs

steps: a training step (forward, backward, AdamW) and inference of the paper's configuration
(convnext_tiny, 28 slices of 256 pixels, integrator of default sizes), as it is and with
`--slices_per_step 4`, the original's tiled picture with the same weights, and torchvision's 3D
ResNet-18. Times are taken in turn in one
process (A, B, C, A, B, C, ...), medians. Peak memory is the resident set's high-water mark of a
fresh process that makes the model and takes two steps, less what it held before the first.

frozen: an epoch on 200 nodules with stored features and end to end, and the features themselves.

recipes: the demonstration's two trainings, and those of the paper's sizes (the scripts' defaults,
at 32 pixels and from random weights), each once: minutes until validation scores what both reach.

growth: seconds and peak memory of prediction as volumes, and slices per volume, double.

profile: where the time of the backbone goes, and its rate beside that of matrix multiplication.

waiting: steps by how threads wait for each other, alone and beside a busy process, each setting in
a process of its own, in turn. The machine must be quiet.

Each part writes results/speed_PART.csv.
"""

import argparse
import platform
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import pandas as pd
import torch

from benchmarks.speed_growth import growth
from benchmarks.speed_profile import profile
from benchmarks.speed_recipes import frozen, recipes
from benchmarks.speed_steps import steps
from benchmarks.speed_waiting import waiting
from slivit.cli import types
from slivit.utils.errors import UserError, run_script
from slivit.utils.files import atomic_write
from slivit.utils.runtime import usable_cpus

PARTS = {"steps": steps, "frozen": frozen, "recipes": recipes, "growth": growth,
         "profile": profile, "waiting": waiting}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's options."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=types.names, default=list(PARTS), metavar="A,B",
                        help=f"what to measure, of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--repeats", type=types.positive_int, default=5, metavar="N",
                        help="times each way runs (default %(default)s)")
    parser.add_argument("--threads", type=types.positive_int, default=usable_cpus(), metavar="N",
                        help="of torch (default: the cores there are)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--results", type=types.path, default=Path("benchmarks/results"),
                        metavar="DIR", help="where tables are written (default %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Measure each part, print its table, write it."""
    args = build_parser().parse_args(argv)
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown:
        raise UserError(f"--parts {', '.join(unknown)}: expected some of {', '.join(PARTS)}")
    torch.set_num_threads(args.threads)
    args.results.mkdir(parents=True, exist_ok=True)
    machine = {"processor": processor(), "threads": args.threads, "torch": torch.__version__}
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    for part in args.parts:
        table = pd.DataFrame(PARTS[part](args.quick, args.repeats, args.threads))
        print(f"\n{part}\n{table.to_string(index=False)}", flush=True)
        with atomic_write(args.results / f"speed_{part}.csv") as path:
            table.assign(**machine).to_csv(path, index=False)


def processor() -> str:
    """Return the processor's name, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    run_script(main)
