"""Volumes per second from disk or memory to the model's input, against the straightforward way.

    python -m benchmarks.loading

The straightforward way takes each slice to a picture, resizes it to 256, makes it a float tensor,
expands it to three channels, and concatenates the slices of the volume. Both ways run in turn in
one process on the same made-up scans (A, B, A, B, ...); the table shows medians and their ratio.

`loaded`: what is ready to be sent to the device (ours: uint8, one channel; theirs: float, three).
`as input`: what the backbone takes, on the CPU: normalised floats, three channels, channels last.

Below it, how long a run of a large cohort takes until all headers are known: read in threads, which
share Python's lock, or in processes (first start), or remembered (second start).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # before the imports, which take seconds
    from slivit.utils.startup import begin_process

    begin_process()

import numpy as np
import pydicom
import torch
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from torchvision import transforms

from benchmarks.starts import image_rows, series_rows
from slivit.cli import types
from slivit.config import Preprocess
from slivit.data.batch import model_slices
from slivit.data.cache import cached
from slivit.data.datasets import Collate, Item, prepare
from slivit.data.readers.base import natural_key
from slivit.data.scan_table import ArraySource, FileSource, ScanTable
from slivit.data.transforms import to_input
from slivit.utils.runtime import usable_cpus

SIZE = 256
MEAN = STD = (0.5, 0.5, 0.5)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's options."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=types.positive_int, default=9, metavar="N",
                        help="times each way runs (default %(default)s)")
    parser.add_argument("--threads", type=types.positive_int, default=usable_cpus(), metavar="N",
                        help="of torch (default: the cores there are)")
    parser.add_argument("--series", type=types.natural, default=2000, metavar="N",
                        help="DICOM series whose headers are read (default %(default)s)")
    parser.add_argument("--images", type=types.natural, default=100_000, metavar="N",
                        help="pictures whose headers are read (default %(default)s)")
    parser.add_argument("--starts", type=types.positive_int, default=3, metavar="N",
                        help="times that headers are read in each way (default %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Make the scans, time every pair, print the table."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    nodule = rng.integers(0, 256, (28, 28, 28), dtype=np.uint8)
    memory = source_of(ArraySource((nodule[None],), 3))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        oct_scans = source_of(FileSource((write_tiffs(folder / "oct", rng),), 3))
        ct_scans = source_of(FileSource((write_dicom(folder / "ct", rng),), 3))
        files = sorted((folder / "oct").iterdir(), key=lambda file: natural_key(file.name))

        def pictures() -> list[np.ndarray]:
            return [np.asarray(Image.open(file)) for file in files]

        identity = ct_scans.read.identity(0)
        ct_way = how(28, "-1000,1000")

        def from_cache() -> object:
            path = ct_scans.read.paths[0]
            return cached(folder / "cache", path, identity, ct_way,
                          lambda: prepare(ct_scans, 0, ct_way))

        from_cache()
        rows = [
            ("28x28x28 in memory", "loaded", lambda: straight(nodule),
             lambda: prepare(memory, 0, how(28, "full"))),
            ("28x28x28 in memory", "as input", lambda: straight(nodule, normalise=True),
             lambda: as_input(memory, how(28, "full"))),
            ("60 TIFF, all taken", "loaded", lambda: straight(pictures()),
             lambda: prepare(oct_scans, 0, how(60, "full"))),
            ("60 TIFF, all, percentiles", "loaded", lambda: straight(pictures()),
             lambda: prepare(oct_scans, 0, how(60, "percentile"))),
            ("60 TIFF, 28 taken, percentiles", "loaded", lambda: straight(pictures()),
             lambda: prepare(oct_scans, 0, how(28, "percentile"))),
            ("60 TIFF, 28 taken", "loaded", lambda: straight(pictures()),
             lambda: prepare(oct_scans, 0, how(28, "full"))),
            ("60 TIFF, 28 taken", "as input", lambda: straight(pictures(), normalise=True),
             lambda: as_input(oct_scans, how(28, "full"))),
            ("60 DICOM, cached against not", "loaded", lambda: prepare(ct_scans, 0, ct_way),
             from_cache),
        ]
        print(f"{args.threads} threads, medians of {args.repeats}\n")
        print(f"{'scan':32s}{'until':10s}{'straightforward':>16s}{'slivit':>12s}{'ratio':>8s}")
        for what, until, slow, fast in rows:
            a, b = in_turn(slow, fast, args.repeats)
            print(f"{what:32s}{until:10s}{1 / a:12.1f} /s {1 / b:9.1f} /s {a / b:7.1f}")
        starts = series_rows(folder, folder / "ct", args.series, args.starts) if args.series else []
        starts += image_rows(folder, args.images, args.starts) if args.images else []
        print("\nseconds until the headers are known")
        for what, seconds in starts:
            print(f"{what:60s}{seconds:8.2f}")


def straight(slices: list[np.ndarray], normalise: bool = False) -> torch.Tensor:
    """Return the slices (H, W) side by side, float32 (3, N * 256, 256), one after the other."""
    steps = [transforms.ToPILImage(), transforms.Resize((SIZE, SIZE)), transforms.ToTensor()]
    one = transforms.Compose(steps)
    joined = torch.cat([one(piece).expand(3, -1, -1) for piece in slices], dim=1)
    return transforms.Normalize(MEAN, STD)(joined) if normalise else joined


def how(n_slices: int, window: str) -> Preprocess:
    """Return the pre-processing under test."""
    return Preprocess(SIZE, window, MEAN, STD, n_slices)


def as_input(scans: ScanTable, preprocess: Preprocess) -> torch.Tensor:
    """Return a volume as the backbone takes it, float32 (N, 3, 256, 256)."""
    item = Item(prepare(scans, 0, preprocess), torch.zeros(1), None)
    return to_input(model_slices(Collate(preprocess)([item]), preprocess), MEAN, STD)


def source_of(read: ArraySource | FileSource) -> ScanTable:
    """Return a table of one scan."""
    return ScanTable("one", 3, ("0",), np.array(["train"]), np.zeros((1, 1), np.float32), ("a",),
                     None, read)


def write_tiffs(folder: Path, rng: np.random.Generator) -> Path:
    """Write an OCT volume as 60 TIFF slices of 496 x 512."""
    folder.mkdir()
    for k in range(60):
        Image.fromarray(rng.integers(0, 256, (496, 512), dtype=np.uint8)).save(folder / f"{k}.tif")
    return folder


def write_dicom(folder: Path, rng: np.random.Generator) -> Path:
    """Write a CT as 60 uncompressed DICOM slices of 512 x 512."""
    folder.mkdir()
    series = generate_uid()
    for k in range(60):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one = FileDataset(str(folder / f"{k}.dcm"), {}, file_meta=meta, preamble=bytes(128))
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        one.SeriesInstanceUID, one.Modality = series, "CT"
        one.Rows = one.Columns = 512
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation, one.SamplesPerPixel = 15, 1, 1
        one.PhotometricInterpretation = "MONOCHROME2"
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        one.ImageOrientationPatient, one.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.5 * k]
        one.PixelSpacing = [0.7, 0.7]
        one.PixelData = rng.integers(0, 2000, (512, 512), dtype=np.int16).tobytes()
        pydicom.dcmwrite(folder / f"{k}.dcm", one)
    return folder


def in_turn(a: Callable, b: Callable, repeats: int) -> tuple[float, float]:
    """Return the median seconds of two ways that run in turn, after one run of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for way, kept in zip((a, b), times, strict=True):
            start = time.perf_counter()
            way()
            if turn:
                kept.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


if __name__ == "__main__":
    main()
