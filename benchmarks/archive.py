"""Finished jobs of a benchmark in two files, instead of two for every job.

    python -m benchmarks.archive      # packs benchmarks/results; `make results` does it first

RESULTS/NAME/jobs.csv has a row per job, RESULTS/NAME/predictions.csv.gz the predictions of all of
them, as text: packed and read again they are the same to the last digit.
"""

import argparse
import functools
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import pandas as pd

from slivit.cli import types
from slivit.data.named_sets import DATA_DIR
from slivit.utils.errors import run_script
from slivit.utils.files import atomic_write

JOBS, PREDICTIONS = "jobs.csv", "predictions.csv.gz"
KEY = ["method", "job"]  # the job as its files are called: fold_F_seed_S, maybe with _n_SIZE


def main(argv: Sequence[str] | None = None) -> None:
    """Pack the finished jobs of every benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=types.path, metavar="DIR",
                        default=DATA_DIR.parent / "benchmarks/results",
                        help="(default benchmarks/results)")
    args = parser.parse_args(argv)
    for folder in sorted(path for path in args.results.iterdir() if path.is_dir()):
        print(f"{folder.name}: {pack(folder)} jobs packed")


def pack(folder: Path) -> int:
    """Put the finished jobs in a benchmark's folder into its archive; return how many there were.

    A job that is in the archive already is replaced: it was trained again.
    """
    facts = sorted(folder.glob("*/*.json"))
    done = [path for path in facts if path.with_suffix(".csv").exists()]
    if not done:
        return 0
    rows = [{"method": path.parent.name, "job": path.stem,
             **{key: json.dumps(value) for key, value in json.loads(
                 path.read_text(encoding="utf-8")).items() if key != "method"}} for path in done]
    tables = [_text(path.with_suffix(".csv")).assign(method=path.parent.name, job=path.stem)
              for path in done]
    jobs, predictions = _read(folder)
    new = pd.MultiIndex.from_frame(pd.DataFrame(rows)[KEY])
    merged = [pd.concat([_without(old, new), *parts]).sort_values(KEY, kind="stable")
              for old, parts in ((jobs, [pd.DataFrame(rows)]), (predictions, tables))]
    _write(folder / PREDICTIONS, merged[1])
    _write(folder / JOBS, merged[0])  # last: it says that they are finished
    for path in done:
        path.with_suffix(".csv").unlink()
        path.unlink()
    for method in {path.parent for path in done}:
        if not any(method.iterdir()):
            method.rmdir()
    return len(done)


def facts_of(folder: Path, method: str, job: str) -> dict | None:
    """Return what an archived job took and was made with; None where it is not there."""
    jobs = _by_key(folder, JOBS, _stamp(folder / JOBS))
    if (method, job) not in jobs:
        return None
    row = jobs[method, job].iloc[0].drop(KEY)
    return {"method": method, **{key: json.loads(value) for key, value in row.items() if value}}


def predictions_of(folder: Path, method: str, job: str) -> pd.DataFrame:
    """Return the predictions of an archived job, with numbers as numbers."""
    text = _by_key(folder, PREDICTIONS, _stamp(folder / PREDICTIONS))[method, job].drop(columns=KEY)
    return as_numbers(text.loc[:, (text != "").any()])


def as_numbers(text: pd.DataFrame) -> pd.DataFrame:
    """Return a table of text as pandas reads such a file: nodule and patient stay text."""
    content = io.StringIO(text.to_csv(index=False))
    return pd.read_csv(content, dtype={"nodule": str, "patient": str})


def _text(source: Path | io.StringIO) -> pd.DataFrame:
    return pd.read_csv(source, dtype=str, keep_default_na=False)


def _read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return jobs and predictions of an archive, empty tables where there is none."""
    tables = [_text(folder / name) if (folder / name).exists() else pd.DataFrame(columns=KEY)
              for name in (JOBS, PREDICTIONS)]
    return tables[0], tables[1]


def _without(table: pd.DataFrame, keys: pd.MultiIndex) -> pd.DataFrame:
    return table[~pd.MultiIndex.from_frame(table[KEY]).isin(keys)]


def _write(path: Path, table: pd.DataFrame) -> None:
    first = table[[*KEY, *(name for name in table if name not in KEY)]].fillna("")
    content = first.to_csv(index=False).encode("utf-8")
    with atomic_write(path) as part:  # the same content gives the same bytes
        part.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _stamp(path: Path) -> int:
    """Return when a file was written, 0 where there is none."""
    return path.stat().st_mtime_ns if path.exists() else 0


@functools.lru_cache(maxsize=16)
def _by_key(folder: Path, name: str, stamp: int) -> dict[tuple[str, str], pd.DataFrame]:
    """Return the rows of every job; `stamp` tells apart what was written since."""
    if not stamp:
        return {}
    return dict(iter(_text(folder / name).groupby(KEY, sort=False)))


if __name__ == "__main__":
    run_script(main)
