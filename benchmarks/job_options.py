"""The options that the benchmarks of trainings share."""

import argparse
from pathlib import Path

from benchmarks.jobs import FEW, Benchmark, Job
from slivit.cli import types
from slivit.utils.errors import UserError


def build_parser(benchmark: Benchmark, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of the options that all these benchmarks have."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    methods = list(benchmark.methods)
    parser.add_argument("--methods", type=types.names, default=methods, metavar="A,B",
                        help=f"of {', '.join(methods)} (default: all)")
    parser.add_argument("--folds", type=numbers, default=list(range(benchmark.n_folds)),
                        metavar="A,B", help=f"of 0 to {benchmark.n_folds - 1} (default: all)")
    parser.add_argument("--seeds", type=numbers, default=[0], metavar="A,B",
                        help="(default 0); where nothing is random, and for the widest network, "
                             "seed 0 alone")
    parser.add_argument("--workers", type=types.positive_int, default=2, metavar="N",
                        help="trainings at a time (default %(default)s)")
    parser.add_argument("--summary", action="store_true",
                        help="train nothing, and summarise what --methods, --folds and --seeds "
                             "name; without it the summary is of all that is finished")
    parser.add_argument("--resume", action="store_true",
                        help="leave finished trainings as they are; done without it, too")
    parser.add_argument("--results", type=types.path, default=Path("benchmarks/results"),
                        metavar="DIR", help="(default %(default)s)")
    parser.add_argument("--scratch", type=types.path, default=Path("runs/benchmarks"),
                        metavar="DIR",
                        help="for the trainings' own files and logs (default %(default)s)")
    parser.add_argument("--quick", action="store_true",
                        help=f"{FEW} scans, one epoch, fold 0 alone; everything goes to "
                             "SCRATCH/quick")
    parser.add_argument("--job", type=Job.of_code, help=argparse.SUPPRESS)  # in this process
    return parser


def numbers(text: str) -> list[int]:
    """Return the numbers of a comma-separated list, each once."""
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: expected numbers such as 0,1,2") from None


def check(args: argparse.Namespace, benchmark: Benchmark) -> None:
    """Refuse methods, folds and seeds that are none, and settle where things go.

    Raises:
        UserError: one of them is none.
    """
    methods, n_folds = benchmark.methods, benchmark.n_folds
    unknown = [name for name in args.methods if name not in methods]
    if unknown or not set(args.folds) <= set(range(n_folds)) or min(args.seeds) < 0:
        raise UserError(f"--methods {', '.join(methods)}; --folds 0 to {n_folds - 1}; "
                        "--seeds 0 or more; found "
                        f"{', '.join(unknown) or f'folds {args.folds}, seeds {args.seeds}'}")
    if args.quick:
        args.folds = [0]
        if not args.job:
            args.scratch = args.scratch / "quick"
            args.results = args.scratch / "results"
    args.results, args.scratch = args.results.absolute(), args.scratch.absolute()
