"""The check at the start of a run: every scan's header, none of its pixels."""

import contextlib
import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable

import numpy as np

from slivit.data import header_memory
from slivit.data.parallel import in_processes
from slivit.data.readers import Header, ReadError, scan_ndim
from slivit.data.scan_table import FileSource, ScanTable
from slivit.utils.errors import UserError, listing
from slivit.utils.log import LOG, counted

CT_WINDOW = "-1000,1000"  # Hounsfield units, air to dense bone
THICK = 3.0  # times the pixel, from which other views than the acquisition's are coarse


def check_headers(scans: ScanTable, rows: np.ndarray | None = None,
                  views: tuple[str, ...] = (), n_cpu: int | None = None) -> ScanTable:
    """Read the header of every scan, say what was found, and return the scans with their window.

    The default window follows from the files: `-1000,1000` (Hounsfield units) where all are CT in
    DICOM, `full` where all are videos, else `percentile`, which also suits OCT: how bright it is
    depends on gain and on how clear the eye is. Scans in memory keep theirs; the blank ones among
    them are named.

    Args:
        scans: the table.
        rows: rows to look at; default all.
        views: that are going to be cut; coarse ones are warned of.
        n_cpu: processes that read headers; None for one on every core.

    Raises:
        UserError: listing every scan that is missing or cannot be read.
    """
    rows = np.arange(len(scans)) if rows is None else rows
    if not isinstance(scans.read, FileSource):
        _warn_of_blank(scans, rows)
        return scans
    answers = read_headers(scans, rows, n_cpu)
    errors = [answer for answer in answers if isinstance(answer, ReadError)]
    if errors:
        bad = [row for row, answer in zip(rows, answers, strict=True)
               if isinstance(answer, ReadError)]
        raise missing_or_unreadable(errors, len(rows), remark=of_other_kind(scans, bad))
    for line in describe(answers):
        LOG.info("  %s", line)
    odd = [(scans.ids[row], note) for row, header in zip(rows, answers, strict=True)
           for note in header.notes]
    if odd:
        LOG.warning("warning: %d scans look unusual: %s", len(odd), "; ".join(
            f"{name}: {note}" for name, note in odd[:5]) + "; ..." * (len(odd) > 5))
    coarse = [header for header in answers if header.spacing and header.spacing[0]
              > THICK * min(header.spacing[1:])]
    if coarse and set(views) - {"acquisition", "0"}:
        LOG.warning("warning: in %d of %d scans the slices are more than %g times as far apart as "
                    "the pixels; views across them are coarse", len(coarse), len(answers), THICK)
    return dataclasses.replace(scans, window=default_window(answers))


def default_window(headers: Iterable[Header]) -> str:
    """Return the window that suits files of these kinds; see check_headers."""
    kinds = {"ct" if header.modality == "CT" else header.kind for header in headers}
    return {frozenset({"ct"}): CT_WINDOW, frozenset({"video"}): "full"}.get(frozenset(kinds),
                                                                           "percentile")


def describe(headers: list[Header]) -> list[str]:
    """Return a line each on kinds, sizes and spacing."""
    if not headers:
        return []
    kinds = Counter(f"{header.modality or ''} {header.kind}".strip() for header in headers)
    lines = ["files: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())]
    volumes = [header.shape for header in headers if header.kind != "memory"
               and len(header.shape) - (header.shape[-1] == 3) == 3]
    if volumes:
        lines.append(f"slices: {_range([shape[0] for shape in volumes])}")
    first = 1 if volumes else 0
    lines.append(f"height: {_range([header.shape[first] for header in headers])}, "
                 f"width: {_range([header.shape[first + 1] for header in headers])} pixels")
    known = [header.spacing for header in headers if header.spacing]
    if known:
        lines.append(f"spacing: {_range([s[0] for s in known])} mm between slices, "
                     f"{_range([side for s in known for side in s[1:]])} mm between pixels "
                     f"(known for {len(known)} of {len(headers)} scans)")
    return lines


def read_headers(scans: ScanTable, rows: np.ndarray, n_cpu: int | None = None
                 ) -> list[Header | ReadError]:
    """Return the header of each row, or why it cannot be read.

    Those of files that are as they were when a run of this table last saw them are remembered (see
    header_memory), the others are read.
    """
    paths = scans.read.paths
    known = header_memory.load(scans.headers)
    keys = [header_memory.key_of(paths[row]) for row in rows]
    stamps = [header_memory.stamp_of(paths[row]) for row in rows]
    seen = [known.get(key, ("", None)) for key in keys]
    answers = [header if stamp == before else None
               for stamp, (before, header) in zip(stamps, seen, strict=True)]
    new = [i for i, answer in enumerate(answers) if answer is None]
    if not new:
        return answers
    headers = in_processes(functools.partial(header_of, scans.read), rows[new], "headers", n_cpu)
    for i, answer in zip(new, headers, strict=True):
        answers[i] = answer
        if isinstance(answer, Header):
            known[keys[i]] = stamps[i], answer
    header_memory.save(scans.headers, known)
    return answers


def of_other_kind(scans: ScanTable, rows: Iterable[int]) -> str:
    """Return a remark on those of some scans that are images among volumes, or the reverse."""
    if not isinstance(scans.read, FileSource):
        return ""
    count = 0
    for row in rows:
        with contextlib.suppress(ReadError):
            count += scan_ndim(scans.read.paths[row]) != scans.ndim
    if not count:
        return ""
    here, other = ("image", "volume") if scans.ndim == 2 else ("volume", "image")
    found = counted(count, other, "is", "are")
    return (f"; {found} among them, but the table is read as one of {here}s: give images and "
            "volumes in a table each")


def missing_or_unreadable(errors: list[ReadError], total: int, what: str = "scans",
                          remark: str = "") -> UserError:
    """Return the one error that lists every scan, of so many, that could not be read."""
    windows = (" Paths with backslashes are Windows paths: write /, and the paths of this "
               "machine.") * any("\\" in str(error).partition(": ")[0] for error in errors)
    return UserError(f"{len(errors)} of {total} {what} cannot be read{remark}:\n"
                     f"{listing(errors)}\nCorrect the paths (column Path, or --volume) or the "
                     f"files.{windows}")


def header_of(source: FileSource, row: int) -> Header | ReadError:
    """Return the header of a row, or why it cannot be read."""
    try:
        return source.header(int(row))
    except ReadError as error:
        return error


def _warn_of_blank(scans: ScanTable, rows: np.ndarray) -> None:
    blank = [row for row in rows if not scans.read(row).slices.any()]
    if blank:
        LOG.warning("warning: %d of %d scans are blank (all zero) and are kept: %s", len(blank),
                    len(rows), ", ".join(f"{scans.split[row]} {scans.ids[row]}"
                                         for row in blank[:10]) + ", ..." * (len(blank) > 10))


def _range(values: list[float]) -> str:
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"
