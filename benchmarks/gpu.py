"""What a GPU can break, and how fast it is; for a machine that has one.

    make gpu                                        # or: python -m benchmarks.gpu
    python -m benchmarks.gpu --parts steps,loading  # some of it
    python -m benchmarks.gpu --quick --gpu_id cpu   # tiny sizes, to see that the parts run

scripts: bb_train.py, and finetune.py with each --amp, --slices_per_step, --freeze_backbone and
--compile, on the embedded nodules, from random weights.

resume: a training that is killed and resumed, against one that is not, with --deterministic (the
same bits) and without (how far apart they end).

memory: a batch that is too large ends with the one message that says what to lower.

processes: two processes of torchrun against one, where there are two GPUs.

devices: evaluate.py and slivit.load on the GPU against the CPU, in float32.

steps: a training step and inference of the paper's configuration (convnext_tiny, four volumes of 28
slices of 256 pixels), and peak memory: in float32, TF32 and bfloat16, compiled or not, against the
original's tiled picture and a 3D ResNet-18. deterministic: what --deterministic costs.

loading: images per second of bb_train.py on JPEG files, and how long it waits for them.

Writes results/gpu.csv. A check that fails is a row that says so; the exit code is 1 then.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import pandas as pd
import torch

from benchmarks import gpu_checks, gpu_speed
from benchmarks.gpu_rows import FAILED, Bench, Row
from benchmarks.speed import processor
from slivit.cli import types
from slivit.utils.errors import RunError, UserError, run_script
from slivit.utils.files import atomic_write
from slivit.utils.log import setup_logging
from slivit.utils.runtime import choose_device

PARTS = {"scripts": gpu_checks.scripts, "resume": gpu_checks.resume, "memory": gpu_checks.memory,
         "processes": gpu_checks.processes, "devices": gpu_checks.devices,
         "steps": gpu_speed.steps, "deterministic": gpu_speed.deterministic,
         "loading": gpu_speed.loading}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's options."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=types.names, default=list(PARTS), metavar="A,B",
                        help=f"what to run, of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--gpu_id", type=types.gpu, metavar="N",
                        help="which GPU (default 0); cpu only with --quick")
    parser.add_argument("--repeats", type=types.positive_int, default=10, metavar="N",
                        help="times each step runs (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--results", type=types.path, default=Path("benchmarks/results"),
                        metavar="DIR", help="where the table is written (default %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run each part, print its rows, write the table."""
    args = build_parser().parse_args(argv)
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown:
        raise UserError(f"--parts {', '.join(unknown)}: expected some of {', '.join(PARTS)}")
    setup_logging()
    device = wanted_device(args.gpu_id, args.quick)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    machine = {"device": name, "torch": torch.__version__}
    rows: list[Row] = []
    args.results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(device, Path(folder), args.quick, args.repeats)
        for part in args.parts:
            print(f"\n{part}", flush=True)
            made = run_part(part, bench)
            for row in made:
                print(f"  {row.what:50s} {row.setting:55s} {row.value} {row.unit}", flush=True)
            rows += made
    with atomic_write(args.results / "gpu.csv") as path:
        pd.DataFrame([vars(row) for row in rows]).assign(**machine).to_csv(path, index=False)
    failed = [f"{row.what} {row.setting}".strip() for row in rows if row.failed]
    if failed:
        raise RunError(f"{len(failed)} of {len(rows)} rows of {args.results / 'gpu.csv'} say that "
                       f"a check failed: {'; '.join(failed)}")


def wanted_device(gpu_id: str | None, quick: bool) -> torch.device:
    """Return the GPU to run on; a CPU only where that is asked for, at tiny sizes.

    Raises:
        UserError: there is no GPU.
    """
    if gpu_id == "cpu" and not quick:
        raise UserError("--gpu_id cpu: is for --quick only; on a CPU the whole would take hours")
    if gpu_id is None and not torch.cuda.device_count():
        raise UserError("make gpu needs an NVIDIA GPU that PyTorch can use; found none. Run it on "
                        "a machine that has one (nvidia-smi lists it), or add --quick --gpu_id cpu "
                        "to see that its parts run")
    return choose_device(gpu_id)


def run_part(part: str, bench: Bench) -> list[Row]:
    """Return a part's rows; if it fails as a whole, the one that says so."""
    try:
        return PARTS[part](bench)
    except Exception as error:  # whatever it is, the other parts are run
        return [Row(part, "", FAILED + f"{type(error).__name__}: {error}"[:500])]


if __name__ == "__main__":
    run_script(main)
