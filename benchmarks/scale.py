"""Seconds, memory and files of cohorts of 100,000 images and 20,000 volumes.

    python -m benchmarks.scale            # about six minutes, 11 GB of disk
    python -m benchmarks.scale --quick    # tiny cohorts, to see that it runs

The scans are made up: JPEG images of 64 pixels a side, and volumes of 28 x 128 x 128 in
`--cache_dir`, with 14 labels and about three scans a patient. They are removed at the end.

start: seconds until all headers are known, and from there to the end of the first training step, of
bb_train.py and finetune.py with a tiny network (convnext_zepto_rms) and two loading processes. At
the second start the headers are remembered.

memory: of these processes, looked at four times a second: resident (what `ps` and `top` show; pages
that processes share count in each), the proportional share (such pages are divided among them), and
pages of its own. Linux alone tells it.

epoch: a fifth of an epoch with a whole validation and test, and what is beside the steps of a whole
one, each part on its own.

report: from made-up logits to report.html, by the code of evaluate.py.

size: files that a training, or an evaluation, leaves.

The last column has the CPU seconds of the main process, which hardly depend on what else runs on
the machine. Writes results/scale.csv.
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

from benchmarks.scale_report import bookkeeping, report
from benchmarks.scale_runs import Row, image_runs, torch_memory, volume_runs
from benchmarks.speed import processor
from slivit.cli import types
from slivit.utils.errors import run_script
from slivit.utils.files import atomic_write
from slivit.utils.runtime import usable_cpus


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's options."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=types.positive_int, metavar="N",
                        help="images (default 100000)")
    parser.add_argument("--volumes", type=types.natural, metavar="N",
                        help="volumes; 0 for none (default 20000)")
    parser.add_argument("--quick", action="store_true", help="tiny cohorts, to see that it runs")
    parser.add_argument("--scratch", type=types.path, metavar="DIR",
                        help="where the cohorts are made (default: the system's temporary folder)")
    parser.add_argument("--results", type=types.path, default=Path("benchmarks/results"),
                        metavar="DIR", help="where the table is written (default %(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Make the cohorts, measure, print the table, write it."""
    args = build_parser().parse_args(argv)
    images = args.images or (240 if args.quick else 100_000)
    volumes = (30 if args.quick else 20_000) if args.volumes is None else args.volumes
    machine = {"processor": processor(), "threads": usable_cpus(), "torch": torch.__version__}
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    args.results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.scratch) as name:
        table = pd.DataFrame(measure(Path(name), images, volumes))
        with atomic_write(args.results / "scale.csv") as path:
            table.round(3).assign(**machine).to_csv(path, index=False)


def measure(folder: Path, images: int, volumes: int) -> list[Row]:
    """Return a row for each number, which is printed as soon as it is known.

    Args:
        folder: gets the cohorts.
        images, volumes: how many scans they have.
    """
    rows = [torch_memory()]
    _print(rows)
    steps = [lambda: image_runs(folder, images),
             lambda: bookkeeping(folder / "images/meta.csv", folder)]
    steps += [lambda count=count: report(folder / "images/meta.csv", count, folder)
              for count in (images // 10, images)]
    if volumes:
        steps.append(lambda: volume_runs(folder, volumes))
    for step in steps:
        found = step()
        _print(found)
        rows += found
    return rows


def _print(rows: list[Row]) -> None:
    for row in rows:
        value, cpu = ("-" if row[key] is None else f"{row[key]:,.2f}" for key in ("value", "cpu"))
        print(f"{row['part']:8s}{row['what']:84s}{value:>10s} {row['unit']:3s}{cpu:>8s}",
              flush=True)


if __name__ == "__main__":
    run_script(main)
