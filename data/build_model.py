"""Make models/noduleshapes.safetensors, the demo's SLIViT in half precision, and its card.

    python data/build_model.py     # about six minutes on two CPU cores

Trains as `make demo` does, by the recommended recipes with seed 0. The same machine and versions
give the same bytes.
"""

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":  # the packages of the repository are one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from slivit.utils.startup import begin_process

    begin_process()  # before the imports, which take seconds

import torch

from demo.__main__ import train
from slivit.checkpoints import checkpoint
from slivit.checkpoints.header import CheckpointHeader, Validation
from slivit.checkpoints.patient_key import hash_patient
from slivit.cli import types
from slivit.cli.evaluate import SHIPPED
from slivit.data.batch import model_inputs
from slivit.data.datasets import ScanDataset, make_loader
from slivit.data.named_sets import DATA_DIR, load_named
from slivit.data.scan_table import ScanTable
from slivit.models.slivit import SLIViT
from slivit.prediction import predict
from slivit.training.calibration import temperature_of
from slivit.utils.errors import run_script
from slivit.utils.files import check_replaceable
from slivit.utils.output_dir import check_writable
from slivit.utils.runtime import choose_device

NAME = "noduleshapes3d"
BACKBONE_DATA = f"slices of {NAME} and noduleshapes2d, patients of train and val"
USE = ("Learning and testing only. It has seen radiologists' outlines of lung nodules "
       "(LIDC-IDRI), never a grey value of a CT scan, and its labels are opinions, not pathology: "
       "it is of no use on CT, and not a medical device. Its backbone knows shapes, nothing of "
       "tissue.")
CPU = torch.device("cpu")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this command's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False)
    parser.add_argument("--out", type=types.path, default=SHIPPED, metavar="FILE",
                        help="where the model goes (default %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Train, round, and write the file."""
    args = build_parser().parse_args(argv)
    check_replaceable(args.out, "--out")
    check_writable(args.out.parent, "--out")
    with tempfile.TemporaryDirectory() as folder:
        card, model = checkpoint.load(train(Path(folder), ["--seed", "0", "--gpu_id", "cpu",
                                                           "--amp", "off"]))
    write(args.out, card, model, load_named(NAME, 3, DATA_DIR))
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


def write(path: Path, card: CheckpointHeader, model: SLIViT, scans: ScanTable) -> None:
    """Write a model of the embedded volumes in half precision, with what that predicts on val.

    Args:
        path: of the file.
        card, model: as trained on the same volumes as a table; the model is rounded in place.
        scans: the volumes.
    """
    for tensor in model.state_dict().values():
        if tensor.ndim > 1:
            tensor.copy_(tensor.half())
    choose_device("cpu")
    rows = scans.rows("val")
    loader = make_loader(ScanDataset(scans, rows, model.preprocess), 16, 0, CPU)
    validation = Validation(*predict(
        lambda batch: model(*model_inputs(batch, model.preprocess)), loader, CPU))
    patients = sorted({hash_patient(one, None) for one in scans.patients_of("train", "val")})
    data = checkpoint.data_facts(scans, scans.fingerprint(), None, 0) | {"patients": patients}
    card = dataclasses.replace(
        card, data=data, training={**card.training, "backbone_data": BACKBONE_DATA},
        temperature=temperature_of(validation, card.target), intended_use=USE)
    checkpoint.save(path, model, card, validation, half=True)


if __name__ == "__main__":
    run_script(main)
