"""Look at every scan of a table before training on it.

    python -m slivit.check --meta_csv volumes.csv
    python -m slivit.check --dataset nodulemnist3d --out_dir runs/check_nodules
    python -m slivit.check --meta_csv unlabelled.csv --unlabelled

Writes data_report.csv (a row per scan) and contact_sheet.png (a row of slices per volume). The exit
code is 2 if something must be corrected before training: scans that cannot be read, or patients
who are in two splits. Scans of the same content in two splits give a warning.
"""

import argparse
import dataclasses
import hashlib
import textwrap
from itertools import chain
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import numpy as np
import pandas as pd

from slivit.cli import arguments, types
from slivit.cli.records import data_options
from slivit.data.header_check import default_window, describe, of_other_kind
from slivit.data.load import guess_ndim, load_scans
from slivit.data.meta_csv import read_meta
from slivit.data.named_sets import known_sets
from slivit.data.parallel import in_threads
from slivit.data.ratio import SPLIT_RATIO, parse_ratio
from slivit.data.readers import Header, ReadError, readable_kinds
from slivit.data.scan_table import FileSource, ScanTable
from slivit.data.splits import Splitting, in_several
from slivit.data.summary import summarise
from slivit.data.transforms import pick_slices, to_uint8, window_range
from slivit.report.contact_sheet import Row, draw_sheet
from slivit.utils.cells import write_table
from slivit.utils.errors import UserError, listing, run_script
from slivit.utils.log import LOG, counted, setup_logging
from slivit.utils.output_dir import check_out_dir, open_out_dir

WIDTH = 100     # letters of a line of the kinds that can be read
SHEET_SLICES = 8   # of a volume, on the contact sheet


@dataclasses.dataclass
class Finding:
    """What was found in one scan; see `report_table` for the columns made of it."""

    header: Header | None = None
    error: str = ""
    lowest: float = np.nan
    highest: float = np.nan
    content: str = ""
    same_as: str = ""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this program's options."""
    parser = argparse.ArgumentParser(
        prog="python -m slivit.check", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    arguments.add_data_options(parser, "images or volumes")
    arguments.add_split_options(parser)
    parser.add_argument("--ndim", type=int, choices=(2, 3),
                        help="2 for images, 3 for volumes (default: determined from the files)")
    parser.add_argument("--unlabelled", action="store_true",
                        help="read the table as bb_train.py --task ssl does: no labels, and rows "
                             "without a split train")
    parser.add_argument("--window", type=types.window, metavar="W",
                        help="grey values on the contact sheet, as in training (default: chosen "
                             "from the files)")
    parser.add_argument("--sheet_rows", type=types.count_or_none, default=100, metavar="N",
                        help="rows of the contact sheet for scans spread evenly over the table, "
                             "and as many again for scans that stand out (default %(default)s)")
    parser.add_argument("--seed", type=types.seed_number, default=0, metavar="N",
                        help="random seed for splitting a table without splits (default "
                             "%(default)s)")
    parser.add_argument("--out_dir", type=types.path, default=Path("runs/check"), metavar="DIR",
                        help="where the report is written (default %(default)s)")
    parser.add_argument("--overwrite", action="store_true",
                        help="replace an earlier report in an --out_dir that is not empty")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Options, table, headers, contents, report."""
    args = build_parser().parse_args(argv)
    setup_logging()
    check_out_dir(args.out_dir, overwrite=args.overwrite, inputs=(args.meta_csv,))
    scans = load_any(args)
    LOG.info(summarise(scans))
    for line in missing_labels(scans):
        LOG.info("  %s", line)
    LOG.info("%s", textwrap.fill(f"can be read: {readable_kinds()}", WIDTH, subsequent_indent="  "))

    findings = in_threads(lambda row: look_at_header(scans, row), range(len(scans)), "headers")
    headers = [finding.header for finding in findings if finding.header]
    window = args.window or (default_window(headers) if isinstance(scans.read, FileSource)
                             else scans.window)
    LOG.info("  grey values: %s", window)
    in_threads(lambda row: look_at_content(scans, row, findings[row]), range(len(scans)), "scans")
    mark_same(scans, findings)
    for line in describe([finding.header for finding in findings if finding.header]):
        LOG.info("  %s", line)

    with open_out_dir(args.out_dir, False, args.overwrite,
                      chain((args.meta_csv,), scans.read.files())):
        write_table(args.out_dir / "data_report.csv", report_table(scans, findings))
        rows = sheet_rows(findings, args.sheet_rows)
        draw_sheet(in_threads(lambda row: sheet_row(scans, row, findings[row], window), rows,
                              "sheet"), args.out_dir / "contact_sheet.png")
    LOG.info("written to %s: data_report.csv, contact_sheet.png (%d of %d scans)", args.out_dir,
             len(rows), len(scans))
    for line in oddities(scans, findings):
        LOG.warning("warning: %s", line)
    problems = find_problems(scans, findings)
    if problems:
        raise UserError(f"{scans.name} is not fit for training:\n" + "\n".join(problems)
                        + "\nCorrect the table or the files; data_report.csv has a row per scan.")
    LOG.info("every scan can be read%s\n%s", "" if scans.patients is None else
             ", and no patient is in two splits", args.out_dir / "contact_sheet.png")


def load_any(args: argparse.Namespace) -> ScanTable:
    """Load the table, or the named set; a patient in two splits is not an error here yet.

    With --unlabelled it is.
    """
    if args.unlabelled:
        return load_scans(dataclasses.replace(data_options(args), unlabelled=True), args.ndim,
                          None, args.split_ratio, args.seed)
    if args.meta_csv is None or args.dataset is not None:
        name = (args.dataset or "noduleshapes3d").lower()
        return load_scans(data_options(args), args.ndim or known_sets().get(name, 3),
                          args.pathologies, args.split_ratio, args.seed)
    scans = read_meta(args.meta_csv, args.ndim or 3, args.pathologies, args.pid_col,
                      Splitting(parse_ratio(args.split_ratio or SPLIT_RATIO), args.seed,
                                refuse_overlap=False))
    ndim = args.ndim or guess_ndim(scans.read.paths)
    return dataclasses.replace(scans, ndim=ndim, read=FileSource(scans.read.paths, ndim))


def look_at_header(scans: ScanTable, row: int) -> Finding:
    """Return what the header of a scan says, or why it cannot be read."""
    try:
        return Finding(scans.read.header(row))
    except ReadError as error:
        return Finding(error=str(error))


def look_at_content(scans: ScanTable, row: int, finding: Finding) -> None:
    """Decode a scan and add to its finding: the range of its values, and a hash of them."""
    if finding.error:
        return
    try:
        values = np.ascontiguousarray(scans.read(row).slices)
    except ReadError as error:
        finding.error = str(error)
        return
    finding.lowest, finding.highest = float(values.min()), float(values.max())
    digest = hashlib.blake2b(repr((values.shape, str(values.dtype))).encode(), digest_size=16)
    digest.update(values)
    finding.content = digest.hexdigest()


def mark_same(scans: ScanTable, findings: list[Finding]) -> None:
    """Note of every scan whose content came before which one it was; blank ones are all alike."""
    first: dict[str, int] = {}
    for row, finding in enumerate(findings):
        if finding.content and finding.lowest < finding.highest:
            before = first.setdefault(finding.content, row)
            finding.same_as = scans.ids[before] if before != row else ""


def report_table(scans: ScanTable, findings: list[Finding]) -> pd.DataFrame:
    """Return data_report.csv: a row per scan, in the table's order."""
    table = pd.DataFrame({"id": scans.ids, "split": scans.split})
    if scans.patients is not None:
        table["patient"] = scans.patients
    if isinstance(scans.read, FileSource):
        table["path"] = [str(path) for path in scans.read.paths]
    for name, column in zip(scans.label_names, scans.labels.T, strict=True):
        table[f"label {name}"] = column
    rows = []
    for finding in findings:
        header = finding.header or Header("", (), "")
        shape = dict(zip(("slices", "height", "width") if scans.ndim == 3 else
                         ("height", "width"), header.shape, strict=False))
        sides = dict(zip(("between_slices_mm", "pixel_height_mm", "pixel_width_mm"),
                         header.spacing or (), strict=False))
        rows.append({
            "kind": header.kind, "modality": header.modality, "slices": None, **shape,
            "colour": len(header.shape) > scans.ndim, "dtype": header.dtype,
            "between_slices_mm": None, "pixel_height_mm": None, "pixel_width_mm": None, **sides,
            "axes": header.axes, "lowest": finding.lowest, "highest": finding.highest,
            "blank": finding.lowest == finding.highest, "content": finding.content,
            "same_as": finding.same_as, "notes": "; ".join(header.notes), "error": finding.error})
    columns = pd.DataFrame(rows)
    columns["slices"] = columns["slices"].astype("Int64")
    return pd.concat([table, columns], axis=1)


def missing_labels(scans: ScanTable) -> list[str]:
    """Return a line per label that is unknown in some scans."""
    unknown = np.isnan(scans.labels).sum(axis=0)
    return [f"unknown: {name} in {count} of {len(scans)} scans"
            for name, count in zip(scans.label_names, unknown, strict=True) if count]


def oddities(scans: ScanTable, findings: list[Finding]) -> list[str]:
    """Return a line on each kind of oddity that is allowed."""
    blank = [scans.ids[row] for row, one in enumerate(findings) if one.lowest == one.highest]
    same = [f"{scans.ids[row]} is the same as {one.same_as}"
            for row, one in enumerate(findings) if one.same_as]
    notes = [f"{scans.ids[row]}: {note}" for row, one in enumerate(findings) if one.header
             for note in one.header.notes]
    contents = [one.content if one.lowest < one.highest else f"row {row}"
                for row, one in enumerate(findings)]
    shared = in_several(contents, scans.split)
    twice = [f"{scans.ids[row]} ({scans.split[row]})" for row, content in enumerate(contents)
             if content in shared]
    return [f"{counted(len(ids), 'scan', *verbs)} {what}: {', '.join(ids[:10])}"
            f"{', ...' * (len(ids) > 10)}"
            for ids, verbs, what in (
                (blank, ("is", "are"), "blank (one value throughout)"),
                (same, ("has", "have"), "the same content as an earlier scan"),
                (twice, ("has", "have"), "the same content as a scan in another split, which "
                                         "inflates the scores"),
                (notes, ("looks", "look"), "unusual"))
            if ids]


def find_problems(scans: ScanTable, findings: list[Finding]) -> list[str]:
    """Return a paragraph on each kind of thing that must be corrected before training."""
    unreadable = [one.error for one in findings if one.error]
    patients = in_several(scans.patients or (), scans.split).values()
    rows = [row for row, one in enumerate(findings) if one.error]
    kinds = ((unreadable, "scan", ("cannot", "cannot"), f"be read{of_other_kind(scans, rows)}"),
             (patients, "patient", ("is", "are"), "in several splits"))
    return [f"{counted(len(lines), who, *verbs)} {what}:\n{listing(lines)}"
            for lines, who, verbs, what in kinds if lines]


def sheet_rows(findings: list[Finding], wanted: int) -> list[int]:
    """Return the readable rows to show: spread over the table, and those that stand out."""
    readable = [row for row, one in enumerate(findings) if not one.error]
    spread = [readable[i] for i in pick_slices(len(readable), wanted, "uniform")] if wanted else []
    odd = [row for row in readable if findings[row].same_as or findings[row].header.notes
           or findings[row].lowest == findings[row].highest]
    return sorted({*spread, *odd[:wanted]})


def sheet_row(scans: ScanTable, row: int, finding: Finding, window: str) -> Row:
    """Return a scan's slices in their window, and the text beside them."""
    volume = scans.read(row)
    low, high = window_range(volume.slices, window)
    chosen = pick_slices(len(volume.slices), SHEET_SLICES, "uniform")
    known = [f"{name} {value:g}" for name, value in
             zip(scans.label_names, scans.labels[row], strict=True) if value]
    remarks = ["blank"] * (finding.lowest == finding.highest)
    remarks += [f"= {finding.same_as}"] * bool(finding.same_as)
    shape = " x ".join(map(str, finding.header.shape))
    return Row(to_uint8(volume.slices[chosen], low, high),
               (scans.ids[row], f"{scans.split[row]}, {shape}", ", ".join(known),
                ", ".join([*remarks, *finding.header.notes])), bool(remarks))


if __name__ == "__main__":
    run_script(main)
