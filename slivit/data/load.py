"""The scans that a script reads, and how they become input."""

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slivit.config import Preprocess
from slivit.data.header_memory import memory_file
from slivit.data.meta_csv import read_meta
from slivit.data.named_sets import EMBEDDED, known_sets, load_named
from slivit.data.ratio import SPLIT_RATIO, parse_ratio
from slivit.data.readers import ReadError, scan_ndim
from slivit.data.scan_table import DEFAULT_SIZE, FileSource, ScanTable
from slivit.data.splits import Splitting
from slivit.data.window import parse_window
from slivit.utils.errors import UserError
from slivit.utils.output_dir import check_writable

GUESS_ROWS = 20    # looked at to tell images from volumes


@dataclass(frozen=True)
class DataOptions:
    """Which scans a script reads; the options of the command line, each None where not given.

    Attributes:
        meta_csv: a table of scans; or
        dataset: the name of a set. Without either the embedded set of the right kind.
        data_root: where MedMNIST's files are.
        medmnist_size: side of MedMNIST's pictures.
        pid_col: patient column of the table.
        split_ratio: of a table without splits.
        cache_dir: where prepared scans, or their features, are kept.
        keeps_features: whether the cache is for features, which scans in memory have too.
        unlabelled: whether labels are not read, and rows of the table need no split
            (splits.fill_in).
    """

    meta_csv: Path | None = None
    dataset: str | None = None
    data_root: Path = Path("data/medmnist")
    medmnist_size: int | None = None
    pid_col: str | None = None
    split_ratio: str | None = None
    cache_dir: Path | None = None
    keeps_features: bool = False
    unlabelled: bool = False


@dataclass(frozen=True)
class InputOptions:
    """How scans become input; None where that follows from the data (see config.Preprocess)."""

    img_size: int | None = None
    window: str | None = None
    n_slices: int = 0
    slice_sampling: str = "uniform"
    views: tuple[str, ...] = ("acquisition",)
    channels: str = "repeat"


def load_scans(options: DataOptions, ndim: int | None, pathologies: list[str] | None,
               ratio: str | None = None, seed: int = 0, labels_needed: bool = True,
               zero_one: bool = False) -> ScanTable:
    """Load the scans that the options name.

    Args:
        options: which.
        ndim: 2 for images, 3 for volumes, None for what the scans are (guess_ndim).
        pathologies: label columns; None for all.
        ratio: of the split of a table that has none; None for SPLIT_RATIO.
        seed: of that split.
        labels_needed, zero_one: as in meta_csv.read_meta.

    Raises:
        UserError: contradictory options, or whatever is wrong with the data.
    """
    if options.meta_csv is not None and options.dataset is not None:
        raise UserError("--meta_csv and --dataset cannot be combined; give only one of them")
    if options.cache_dir is not None:
        check_writable(options.cache_dir, "--cache_dir")
    if options.meta_csv is not None:
        if options.medmnist_size is not None:
            raise UserError("--medmnist_size applies to --dataset, not to --meta_csv")
        splitting = Splitting(parse_ratio(ratio or SPLIT_RATIO), seed,
                              may_be_empty=options.unlabelled)
        scans = read_meta(options.meta_csv, ndim or 3,
                          [] if options.unlabelled else pathologies, options.pid_col, splitting,
                          labels_needed, zero_one)
        if ndim is None:
            ndim = guess_ndim(scans.read.paths)
            scans = dataclasses.replace(scans, ndim=ndim, img_size=DEFAULT_SIZE[ndim],
                                        read=FileSource(scans.read.paths, ndim))
        return dataclasses.replace(scans, cache_dir=options.cache_dir, headers=memory_file(
            options.meta_csv, ndim, options.cache_dir))
    for flag in ("pid_col", "split_ratio"):
        if getattr(options, flag) is not None:
            raise UserError(f"--{flag} applies to --meta_csv; a --dataset has its own split")
    if options.cache_dir is not None and not options.keeps_features:
        raise UserError("--cache_dir needs --meta_csv or --freeze_backbone; the scans of "
                        "a --dataset are in memory")
    name = options.dataset
    if name is None:
        name = next(key for key, value in EMBEDDED.items() if value == (ndim or 2))
    if name.lower() in EMBEDDED and options.medmnist_size is not None:
        raise UserError(f"--medmnist_size applies to MedMNIST sets, not to {name}")
    ndim = ndim or known_sets().get(name.lower(), 2)
    scans = load_named(name, ndim, options.data_root, options.medmnist_size or 28)
    if options.unlabelled:
        return scans.with_labels((), scans.labels[:, :0])
    return scans.select_labels(pathologies) if pathologies else scans


def guess_ndim(paths: Sequence[Path]) -> int:
    """Return 2 where more of the first files are images than volumes, else 3."""
    dimensions = []
    for path in paths[:GUESS_ROWS]:
        with contextlib.suppress(ReadError):
            dimensions.append(scan_ndim(path))
    return 2 if dimensions.count(2) > dimensions.count(3) else 3


def make_preprocess(options: InputOptions, scans: ScanTable, mean: tuple[float, ...],
                    std: tuple[float, ...]) -> Preprocess:
    """Resolve the input options against what suits the data set.

    Raises:
        UserError: a window that is none, or slices too small for a ConvNeXt's strides.
    """
    if options.img_size is not None and options.img_size < 32:
        raise UserError(f"--img_size {options.img_size}: a ConvNeXt needs at least 32 pixels per "
                        "side")
    return Preprocess(img_size=options.img_size or scans.img_size,
                      window=parse_window(options.window or scans.window), mean=tuple(mean),
                      std=tuple(std), n_slices=options.n_slices,
                      slice_sampling=options.slice_sampling, views=options.views,
                      channels=options.channels)
