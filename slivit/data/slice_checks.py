"""The checks before slices are learned from without labels: what is kept out, what is left."""

import numpy as np

from slivit.config import Augmentation, Preprocess
from slivit.data.datasets import prepare
from slivit.data.header_check import read_headers
from slivit.data.scan_table import FileSource, ScanTable
from slivit.data.slice_sets import SliceSampling, varied, whole_scans
from slivit.data.splits import UNUSED
from slivit.data.targets import check_splits
from slivit.utils.errors import UserError
from slivit.utils.log import LOG, counted


def kept_out(scans: ScanTable) -> str:
    """Return in words which scans are kept out of what is learned from.

    To be called before any are left out for another reason.
    """
    groups = np.array(scans.groups())
    rows = np.flatnonzero(np.isin(scans.split, ("val", "test")))
    text = counted(len(rows), "scan")
    if scans.patients is not None:
        text += f" of {counted(len(set(groups[rows])), 'patient')}"
    text += " in validation and test"
    if more := int((scans.split == UNUSED).sum()):
        text += f", and {counted(more, 'scan')} without a split, of the same patients or files,"
    return text


def check_rows(scans: ScanTable) -> None:
    """Refuse a table in which nothing is left to train on, or nothing to validate on.

    Raises:
        UserError: saying what there is.
    """
    if not len(scans.rows("train")):
        raise UserError(f"{scans.name}: no scan is left to learn from: {kept_out(scans)} are kept "
                        "out. Add scans of other patients, with train or nothing in the column "
                        "Split, or divide the table differently")
    check_splits(scans, ("val",))


def check_slices(scans: ScanTable, sampling: SliceSampling, augmentation: Augmentation,
                 b_size: int) -> None:
    """Refuse what gives nothing to compare, by headers alone; warn of volumes of one slice.

    Raises:
        UserError: one message on all of it.
    """
    faults = []
    train, val = scans.rows("train"), scans.rows("val")
    depth = _depths(scans, np.concatenate([train, val]))
    near = scans.ndim == 3 and sampling.reach > 0 and sampling.views > 1
    single = int((depth == 1).sum())
    if near and single == len(depth):
        faults.append(f"all {single} volumes have one slice, but the two views of a pair are of "
                      "neighbouring slices; give the slices as a table of images")
    elif near and single:
        LOG.warning("warning: %d of %d volumes %s one slice: both views of a pair are of it",
                    single, len(depth), "has" if single == 1 else "have")
    shown, what = np.minimum(depth, sampling.slices), "image" if scans.ndim == 2 else "slice"
    for name, count in (("train", shown[:len(train)].sum()), ("val", shown[len(train):].sum())):
        if count < 2:
            faults.append(f"{counted(int(count), what)} in the split {name}, expected at least 2: "
                          "the loss compares those of a batch")
    if len(train) and b_size * shown[:len(train)].min() < 2:
        faults.append(f"--b_size {b_size}: the loss compares the {what}s of a batch, and there "
                      "would be batches of one; omit --b_size, or give more")
    if sampling.views > 1 and not near and not augmentation.jitter and not (
            set(augmentation.flips) & set("hv")):
        faults.append("without --jitter and --flips the views of an image are all the same; give "
                      "--flips hv, or --jitter 1 where size is not what matters")
    if faults:
        raise UserError(f"{scans.name}: " + (faults[0] if len(faults) == 1 else
                                             f"{len(faults)} problems.\n" + "\n".join(faults)))


def _depths(scans: ScanTable, rows: np.ndarray) -> np.ndarray:
    """Return the number of slices (n,) of rows whose headers can be read."""
    if scans.ndim == 2:
        return np.ones(len(rows), dtype=int)
    headers = (read_headers(scans, rows) if isinstance(scans.read, FileSource) else
               map(scans.read.header, rows))
    return np.array([header.shape[0] for header in headers])


def check_shown(scans: ScanTable, preprocess: Preprocess, b_size: int) -> None:
    """Refuse training or validation scans that all show nothing; the first that does ends it.

    Where a scan is alone in its batch, refuse those with a single slice to compare, too.

    Raises:
        UserError: naming the scans, or saying how many they are.
    """
    whole = whole_scans(preprocess, scans.ndim)
    for split, what in (("train", "to learn from"), ("val", "of validation")):
        rows = scans.rows(split)
        counts = (len(varied(prepare(scans, int(row), whole).slices)) for row in rows)
        if b_size == 1 or len(rows) == 1:
            counts = list(counts)
            if lone := [scans.ids[row] for row, count in zip(rows, counts, strict=True)
                        if count == 1]:
                raise UserError(
                    f"{scans.name}: {counted(len(lone), 'scan')} {what}, alone in a batch, with a "
                    f"single slice that shows anything: {', '.join(lone[:5])}"
                    f"{', ...' * (len(lone) > 5)}. The loss compares the slices of a batch: "
                    + ("omit --b_size, or give more" if len(rows) > 1 else
                       f"put more scans into the split {split}"))
        if not any(counts):
            raise UserError(f"{scans.name}: all {len(rows)} scans {what} have one grey value in "
                            f"the window {preprocess.window}: they show nothing. Look at them with "
                            "python -m slivit.check --unlabelled, and give another --window")
