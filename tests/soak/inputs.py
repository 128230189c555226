"""The tables and files that the scenarios read, written once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.support.helpers import (
    scan_pixels,
    write_image,
    write_image_table,
    write_meta,
    write_volume_table,
)
from tests.support.original_files import random_model
from tests.support.scan_files import write_dicom, write_dicom_series, write_nifti, write_video

SHAPE = (3, 24, 24)  # of a volume


def write_inputs(work: Path) -> None:
    """Write the tables, the folder of classes, and a model of the original SLIViT."""
    write_image_table(work / "images", 12)
    write_volume_table(work / "volumes", 12)
    write_format_table(work / "formats")
    rng = np.random.default_rng(4)
    for k in range(8):
        path = work / "classes" / ("healthy", "ill")[k % 2] / f"P{k}_scan.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, scan_pixels(rng, k % 2 == 1, SHAPE))
    torch.save(random_model(side=32, n_slices=3), work / "original.pth")


def write_format_table(folder: Path) -> Path:
    """Write a volume in every format, and their meta.csv with the label A."""
    rng = np.random.default_rng(5)
    writers = (_pictures(".png"), _npy, _npz, _nifti, _nifti,
               write_dicom_series, _frames, _tiff, write_video, _pictures(".jpg"), _npy,
               _pictures(".bmp"))
    names = ("png", "a.npy", "b.npz", "c.nii", "d.nii.gz", "series", "frames.dcm", "stack.tif",
             "film.avi", "jpg", "e.npy", "bmp")
    for k, (write, name) in enumerate(zip(writers, names, strict=True)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, scan_pixels(rng, k % 2 == 1, SHAPE))
    n = len(names)
    return write_meta(folder / "formats.csv", F_Name=[f"scan {k}" for k in range(n)],
                      Path=list(names), A=[k % 2 for k in range(n)],
                      Split=["train" if k < 6 else "val" if k < 9 else "test" for k in range(n)],
                      patient=[f"P{k}" for k in range(n)])


def _pictures(suffix: str) -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, volume: np.ndarray) -> None:
        for k, pixels in enumerate(volume):
            write_image(path / f"slice{k}{suffix}", pixels)

    return write


def _npy(path: Path, volume: np.ndarray) -> None:
    np.save(path, volume.astype(np.int16))


def _npz(path: Path, volume: np.ndarray) -> None:
    np.savez_compressed(path, scan=volume)


def _nifti(path: Path, volume: np.ndarray) -> None:
    write_nifti(path, volume.T.astype(np.int16), slice_axis=2)


def _frames(path: Path, volume: np.ndarray) -> None:
    write_dicom(path, volume, NumberOfFrames=len(volume))


def _tiff(path: Path, volume: np.ndarray) -> None:
    first, *others = [Image.fromarray(pixels) for pixels in volume]
    first.save(path, save_all=True, append_images=others)
