"""A table of scans in a few lines: how many there are of each split, and what is known of them."""

import numpy as np

from slivit.data.scan_table import SPLITS, ScanTable

MOST_SHOWN, LONGEST_HEAD = 6, 20  # labels, letters of a name


def summarise(scans: ScanTable) -> str:
    """Return a small table: of each split its scans, patients, and positives or mean of labels.

    Of many labels only their number is given.
    """
    few = len(scans.label_names) <= MOST_SHOWN
    heads = ["split", "scans", *["patients"] * (scans.patients is not None),
             *[name if len(name) < LONGEST_HEAD else f"{name[:LONGEST_HEAD]}…"
               for name in scans.label_names if few]]
    binary = [bool(np.isin(column[~np.isnan(column)], (0, 1)).all()) for column in scans.labels.T]
    rows = []
    for split in filter(lambda split: len(scans.rows(split)), SPLITS):
        picked = scans.rows(split)
        cells = [split, str(len(picked))]
        if scans.patients is not None:
            cells.append(str(len({scans.patients[row] for row in picked})))
        for column, is_binary in zip(scans.labels[picked].T, binary, strict=True) if few else ():
            known = column[~np.isnan(column)]
            value = f"{int(known.sum())} of" if is_binary else f"mean {known.mean():.4g} of" \
                if len(known) else "0 of"
            cells.append(f"{value} {len(known)}")
        rows.append(cells)
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = ["  " + "  ".join(cell.ljust(width) if not k else cell.rjust(width)
                              for k, (cell, width) in enumerate(zip(line, widths, strict=True)))
             for line in (heads, *rows)]
    what = "images" if scans.ndim == 2 else "volumes"
    more = "" if few else f", {len(scans.label_names)} labels"
    return "\n".join([f"{scans.name}: {len(scans)} {what}{more}", *lines])
