"""Made-up scans in true file formats, and the smallest options that still run everything."""

import argparse
import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

import bb_train
import evaluate
from slivit.config import FitOptions, IntegratorConfig, Preprocess
from slivit.data.batch import model_inputs
from slivit.data.scan_table import ArraySource, FileSource, ScanTable
from slivit.models.slivit import SLIViT

ROOT = Path(__file__).resolve().parents[2]
HALF = (0.5, 0.5, 0.5)
BACKBONE = "convnext_zepto_rms"
TINY_VIT = IntegratorConfig(dim=16, depth=1, heads=2, head_dim=8, mlp_dim=32)
RUN_2D = ["--backbone", BACKBONE, "--weights", "none", "--img_size", "32", "--b_size", "8",
          "--lr", "1e-3", "--gpu_id", "cpu", "--n_cpu", "0"]
VIT = ["--n_slices", "4", "--vit_dim", "16", "--vit_depth", "1", "--vit_heads", "2",
       "--vit_head_dim", "8", "--vit_mlp_dim", "32"]
RUN_3D = [*RUN_2D, *VIT]
IMAGE_KINDS = (("L", ".png"), ("RGB", ".jpg"), ("I;16", ".png"), ("P", ".png"), ("1", ".bmp"),
               ("RGBA", ".png"), ("I;16", ".tif"), ("F", ".tiff"), ("L", ".bmp"))


class Boom:
    """A pickle that would run a command."""

    def __reduce__(self):
        return os.system, ("echo this must not run",)


def preprocess(n_slices: int = 0, **changes) -> Preprocess:
    """Return how tiny scans become input."""
    return Preprocess(**{"img_size": 32, "window": "full", "mean": HALF, "std": HALF,
                         "n_slices": n_slices, **changes})


def fit_options(**changes) -> FitOptions:
    """Return options of the training loop for tiny problems."""
    return FitOptions(**{"n_epochs": 1, "b_size": 2, "warmup_epochs": 0, "patience": 0, "seed": 0,
                         **changes})


def tiny_slivit(n_slices: int = 4, n_outputs: int = 2, img_size: int = 32,
                views: tuple[str, ...] = ("acquisition",), **changes) -> SLIViT:
    """Return a small SLIViT in evaluation mode, always of the same weights."""
    torch.manual_seed(0)
    return SLIViT(BACKBONE, n_outputs, preprocess(n_slices, img_size=img_size, views=views),
                  dataclasses.replace(TINY_VIT, **changes)).eval()


def scan_pixels(rng: np.random.Generator, bright: bool, shape: tuple[int, ...]) -> np.ndarray:
    """Return uint8 noise whose left half is bright, or not."""
    pixels = rng.integers(20, 90, shape, dtype=np.uint8)
    if bright:
        pixels[..., :shape[-1] // 2] += 150
    return pixels


def write_image(path: Path, pixels: np.ndarray, mode: str = "L") -> Path:
    """Write uint8 pixels (H, W) in a mode of Pillow's."""
    if mode == "I;16":
        picture = Image.fromarray(pixels.astype(np.uint16) * 200)
    elif mode == "F":
        picture = Image.fromarray(pixels.astype(np.float32) / 7)
    else:
        picture = Image.fromarray(pixels).convert(mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def write_meta(path: Path, **columns: list) -> Path:
    """Write a meta.csv of these columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def absolute_table(path: Path) -> pd.DataFrame:
    """Return a table whose paths are absolute, to be written elsewhere."""
    table = pd.read_csv(path)
    return table.assign(Path=[str(path.parent / cell) for cell in table["Path"]])


def write_image_table(folder: Path, n: int = 24) -> Path:
    """Write images of mixed modes and sizes, and their meta.csv.

    Labels A and B; patients who have no volumes.
    """
    rng = np.random.default_rng(1)
    names = []
    for i in range(n):
        mode, suffix = IMAGE_KINDS[i % len(IMAGE_KINDS)]
        names.append(f"images/{i}{suffix}")
        pixels = scan_pixels(rng, i % 2 == 1, (30 + i % 5, 36 + i % 7))
        write_image(folder / names[-1], pixels, mode)
    splits = ["train" if i % 12 < 6 else "val" if i % 12 < 9 else "test" for i in range(n)]
    return write_meta(folder / "images.csv", F_Name=[f"image {i}" for i in range(n)], Path=names,
                      A=[i % 2 for i in range(n)], B=[i // 2 % 2 for i in range(n)],
                      Split=splits, patient=[f"I{i}" for i in range(n)])


def write_volume_table(folder: Path, n: int = 24) -> Path:
    """Write volumes as folders, .npy and .npz, and their meta.csv.

    Labels: A and B (0/1, one A unknown in each split), grade (0, 1, 2) and size (a number). Three
    volumes a patient; half of the patients train, a quarter is in val and a quarter in test.
    """
    rng = np.random.default_rng(2)
    paths = []
    for i in range(n):
        volume = scan_pixels(rng, i % 2 == 1, (2 + i % 5, 24, 20 + i % 3))
        path = folder / "volumes" / f"v{i}"
        if i % 3 == 0:
            for k, pixels in enumerate(volume):
                write_image(path / f"slice{k + 8}.png", pixels)
        elif i % 3 == 1:
            path = path.with_suffix(".npy")
            np.save(path, volume.astype(np.int16) - 1000)
        else:
            path = path.with_suffix(".npz")
            np.savez_compressed(path, scan=volume)
        paths.append(path.relative_to(folder))
    splits = ["train" if i % 12 < 6 else "val" if i % 12 < 9 else "test" for i in range(n)]
    unknown = {splits.index(split) for split in ("train", "val", "test")}
    return write_meta(folder / "volumes.csv", F_Name=[f"volume {i}" for i in range(n)], Path=paths,
                      A=["" if i in unknown else i % 2 for i in range(n)],
                      B=[i // 2 % 2 for i in range(n)], grade=[i % 3 for i in range(n)],
                      size=[100 + 5.5 * (i % 2) + 0.1 * i for i in range(n)],
                      Split=splits, pid=[f"P{i // 3}" for i in range(n)])


def write_medmnist(path: Path, counts: tuple[int, int, int], shape: tuple[int, ...],
                   n_classes: int = 2, n_columns: int = 1) -> Path:
    """Write a file in MedMNIST's format, `counts` scans of `shape` in train, val and test."""
    rng = np.random.default_rng(3)
    arrays = {}
    for split, n in zip(("train", "val", "test"), counts, strict=True):
        labels = (np.arange(n * n_columns) % n_classes).reshape(n, n_columns)
        arrays[f"{split}_images"] = np.stack([scan_pixels(rng, bool(label[0]), shape)
                                              for label in labels])
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


def array_scans(volumes: np.ndarray, labels, split=None, **fields) -> ScanTable:
    """Return a table of scans in memory, named r0, r1, ..., labels L0, L1, ... by default."""
    labels = np.asarray(labels, dtype=np.float32).reshape(len(volumes), -1)
    n, count = labels.shape
    return ScanTable(**{"name": "made up", "ndim": volumes.ndim - 1,
                        "ids": tuple(f"r{i}" for i in range(n)),
                        "split": np.array(["train"] * n if split is None else split),
                        "labels": labels, "label_names": tuple(f"L{k}" for k in range(count)),
                        "patients": None, "read": ArraySource((volumes,), volumes.ndim - 1),
                        **fields})


def file_scans(*paths, ndim=3, **fields):
    """Return a table of the scans in these files or folders, labelled 0 and 1 in turn."""
    return array_scans(np.zeros((len(paths), 1, 1)), np.arange(len(paths)) % 2, ndim=ndim,
                       read=FileSource(tuple(paths), ndim), **fields)


def label_scans(labels, split=None, **fields) -> ScanTable:
    """Return a table with these labels of which nobody looks at the scans."""
    labels = np.asarray(labels, dtype=np.float32)
    return array_scans(np.zeros((len(labels), 2, 2), np.uint8), labels, split, **fields)


def features_of(model, batch):
    """Return the slice features (B, S, F) that a model makes of a batch of volumes."""
    return model.slice_features(*model_inputs(batch, model.preprocess))


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    """Return every flag a parser knows."""
    return {flag for action in parser._actions for flag in action.option_strings}


def run_evaluate(checkpoint, out, *options):
    """Run evaluate.py on the CPU; return its metrics and predictions."""
    evaluate.main(["--checkpoint", str(checkpoint), "--out_dir", str(out), "--gpu_id", "cpu",
                   *map(str, options)])
    return json.loads((out / "metrics.json").read_text()), pd.read_csv(out / "predictions.csv")


def content(folder):
    """Return every file of a folder, and of those in it, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")
            if path.is_file()}


def without_key(path):
    """Return what a checkpoint holds but for what its run's random key decides.

    That is the hashes of patients, of which only the number is left, and the mark of the key.
    """
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + size])
    card = json.loads(header["__metadata__"].pop("slivit"))
    data = card["data"] | {"patients": len(card["data"]["patients"]), "patient_key": None}
    return header, card | {"data": data}, content[8 + size:]


def same_run(a, b, weights="slivit.safetensors"):
    """Check that two runs left the same weights, log and predictions, to the last bit."""
    for name in ("predictions.csv", "metrics.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    assert without_key(a / weights) == without_key(b / weights)
    logs = [pd.read_csv(folder / "log.csv").drop(columns="seconds") for folder in (a, b)]
    assert logs[0].equals(logs[1])


def train_without_labels(table, out, *more):
    """Run bb_train.py --task ssl on a table."""
    bb_train.main(["--meta_csv", str(table), "--task", "ssl", *RUN_2D, "--quiet", "--out_dir",
                   str(out), *more])
