"""Data sets known by name: the embedded nodule shapes and every MedMNIST set."""

import hashlib
import os
import socket
from pathlib import Path

import numpy as np
import pandas as pd

from slivit.config import Augmentation
from slivit.data.scan_table import (
    DEFAULT_SIZE,
    SPLITS,
    ArraySource,
    PublishedSet,
    ScanTable,
)
from slivit.utils.errors import UserError, listing, nearest
from slivit.utils.files import scratch_dir
from slivit.utils.log import LOG

DATA_DIR = Path(__file__).resolve().parents[2] / "data"
EMBEDDED = {"noduleshapes2d": 2, "noduleshapes3d": 3}
SHAPE_LABELS = {
    "noduleshapes2d": ("spiculated", "lobulated", "irregular", "ill_defined", "subsolid",
                       "calcified", "malignant", "benign"),
    "noduleshapes3d": ("malignant",),
}
TIMEOUT = 10  # seconds without an answer, in a download
MEDMNIST_SIZES = {2: (28, 64, 128, 224), 3: (28, 64)}


def known_sets() -> dict[str, int]:
    """Return the names of all data sets, each with 2 for images or 3 for volumes."""
    from medmnist import INFO

    return EMBEDDED | {key: 3 if key.endswith("3d") else 2 for key in INFO}


def set_and_size(name: str) -> tuple[str, int | None] | None:
    """Return the set that a ScanTable of `load_named` is called by, and MedMNIST's size if told.

    None where it is called by no data set: a table.
    """
    flag, _, size = name.partition("_")
    ndim = known_sets().get(flag)
    if ndim is None or size not in ("", *map(str, MEDMNIST_SIZES[ndim])):
        return None
    return flag, int(size) if size else None


def load_named(name: str, ndim: int, data_root: Path, size: int = 28) -> ScanTable:
    """Load an embedded or a MedMNIST data set.

    Args:
        name: `noduleshapes2d`, `noduleshapes3d`, a MedMNIST flag (`nodulemnist3d`) or its class
            name (`NoduleMNIST3D`), in any case.
        ndim: 2 or 3; a set of the other kind is refused.
        data_root: folder of the MedMNIST `.npz` files; downloaded to if one is not there.
        size: MedMNIST's side in pixels (28, 64; 2D also 128, 224).

    Returns:
        Scans of uint8 images (H, W[, 3]) or volumes (N, H, W).

    Raises:
        UserError: unknown name, wrong kind, failed download, or a file not in MedMNIST's layout.
    """
    flag = name.lower()
    kinds = known_sets()
    if flag not in kinds:
        raise UserError(f"--dataset {name}: unknown. Nearest: {nearest(name, list(kinds))}. "
                        f"Available: {', '.join(kinds)}")
    if kinds[flag] != ndim:
        raise UserError(f"--dataset {name}: contains "
                        f"{'volumes' if kinds[flag] == 3 else 'images'}, expected "
                        f"{'volumes' if ndim == 3 else 'images'}")
    if flag in EMBEDDED:
        return _load_embedded(flag)
    if size not in MEDMNIST_SIZES[ndim]:
        raise UserError(f"--medmnist_size {size}: {flag} comes in the sizes "
                        f"{', '.join(map(str, MEDMNIST_SIZES[ndim]))}")
    return _load_medmnist(flag, ndim, data_root, size)


def _load_embedded(flag: str) -> ScanTable:
    blocks, labels, counts = _read_npz(DATA_DIR / f"{flag}.npz", EMBEDDED[flag],
                                       len(SHAPE_LABELS[flag]), 2)
    table = pd.read_csv(DATA_DIR / f"{flag}.csv", dtype={"patient": str, "nodule": str})
    split = np.repeat(SPLITS, counts)
    return ScanTable(name=flag, ndim=EMBEDDED[flag], ids=tuple(table["nodule"]), split=split,
                     labels=labels, label_names=SHAPE_LABELS[flag],
                     patients=tuple(table["patient"]), read=ArraySource(blocks, EMBEDDED[flag]),
                     window="full", img_size=32,
                     augmentation=Augmentation(flips="hvz", jitter=0.0),
                     task="binary" if EMBEDDED[flag] == 3 else "multilabel",
                     columns={name: tuple(table[name].astype(str)) for name in table.columns})


def _load_medmnist(flag: str, ndim: int, data_root: Path, size: int) -> ScanTable:
    from medmnist import INFO

    info = INFO[flag]
    suffix = "" if size == 28 else f"_{size}"
    path = data_root / f"{flag}{suffix}.npz"
    if not os.path.lexists(path):
        _download(info["python_class"], path, size, info[f"url{suffix}"])
    elif path.is_file() and _md5(path) != info[f"MD5{suffix}"]:
        LOG.warning("warning: %s is not the published file (its MD5 differs); using it as it is",
                    path)
    names = [info["label"][str(k)].replace(",", " /") for k in range(len(info["label"]))]
    several = info["task"] == "multi-label, binary-class"
    blocks, labels, counts = _read_npz(path, ndim, len(names) if several else 1,
                                       2 if several else len(names))
    if several:
        task = "multilabel"
    elif len(names) == 2:
        task, names = "binary", names[1:]
    else:
        task = "multiclass"
        labels = np.eye(len(names), dtype=np.float32)[labels[:, 0].astype(int)]
    ids = tuple(str(i) for n in counts for i in range(n))  # the index in the split's arrays
    split = np.repeat(SPLITS, counts)
    return ScanTable(name=flag + suffix, ndim=ndim, ids=ids, split=split, labels=labels,
                     label_names=tuple(names), patients=None, read=ArraySource(blocks, ndim),
                     task=task, window="full", img_size=DEFAULT_SIZE[ndim],
                     published=PublishedSet(info["task"], split, tuple(names)))


def _read_npz(path: Path, ndim: int, columns: int, values: int
              ) -> tuple[tuple[np.ndarray, ...], np.ndarray, list[int]]:
    """Read MedMNIST's layout: uint8 images of three splits, float32 labels (n, K), the counts.

    Args:
        path: of the file.
        ndim: 2 for images, 3 for volumes.
        columns: K.
        values: labels are whole numbers from 0 to below it.

    Raises:
        UserError: one message with all that is wrong with the arrays.
    """
    if not path.is_file():
        what = "is not a file" if os.path.lexists(path) else "no such file"
        raise UserError(f"{path}: {what}; data/README.md describes how to build it")
    try:
        with np.load(path, allow_pickle=False) as npz:
            blocks = tuple(npz[f"{split}_images"] for split in SPLITS)
            parts = [npz[f"{split}_labels"] for split in SPLITS]
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a damaged file
        raise UserError(f"{path}: is not a readable file in MedMNIST's layout ({error}). "
                        "Remove it to have it downloaded again, or replace it with an intact "
                        "one") from None
    parts = [part[:, None] if part.ndim == 1 else part for part in parts]
    bad = []
    for split, images, labels in zip(SPLITS, blocks, parts, strict=True):
        shaped = images.ndim == ndim + 1 or (images.ndim == ndim + 2 and images.shape[-1] == 3)
        if images.dtype != np.uint8 or not shaped or 0 in images.shape[1:]:
            bad.append(f"{split} has {images.dtype} images of shape {images.shape}")
        wrong = _wrong_labels(labels, images.shape[:1], columns, values)
        bad += [f"{split} has {wrong}"] * bool(wrong)
    if bad:
        raise UserError(f"{path}: is not in the layout of this set:\n{listing(bad)}\nexpected "
                        f"uint8 (n, {'D, ' if ndim == 3 else ''}H, W) and labels (n, {columns}) of "
                        f"0..{values - 1}. Remove it to have it downloaded again, or replace it "
                        "with an intact one")
    return blocks, np.concatenate(parts).astype(np.float32), [len(block) for block in blocks]


def _wrong_labels(labels: np.ndarray, count: tuple[int, ...], columns: int, values: int) -> str:
    """Return what is wrong with the labels of a split, empty where nothing is."""
    if labels.shape != (*count, columns):
        return f"labels of shape {labels.shape}, expected {(*count, columns)}"
    if labels.dtype.kind not in "buif":
        return f"labels of type {labels.dtype}, expected numbers"
    odd = labels[~np.isin(labels, np.arange(values))]  # NaN is not in it either
    if odd.size:
        shown = ", ".join(f"{value:g}" for value in np.unique(odd)[:5].astype(float))
        return f"{odd.size} labels outside 0..{values - 1}, such as {shown}"
    return ""


def _download(class_name: str, path: Path, size: int, url: str) -> None:
    """Download a MedMNIST file through its package, whole or not at all."""
    import medmnist

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--data_root {path.parent}: cannot be created "
                        f"({error.strerror})") from None
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"--data_root {path.parent}: contains no {path.name}, and a download "
                        "cannot be written to it")
    LOG.info("downloading %s to %s", url, path)
    patience = socket.getdefaulttimeout()
    with scratch_dir(path.parent) as folder:
        socket.setdefaulttimeout(TIMEOUT)
        try:
            getattr(medmnist, class_name)(split="test", download=True, root=str(folder), size=size)
        except RuntimeError:  # the package's one kind of failure, whatever its cause
            raise UserError(f"download failed: wanted {path.name} from {url}. Fetch that file on a "
                            f"machine with network access and put it at {path} (or name its folder "
                            "with --data_root)") from None
        finally:
            socket.setdefaulttimeout(patience)
        os.replace(folder / path.name, path)


def _md5(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
