"""How the tests of the converters in data/ run them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from slivit.data.meta_csv import read_meta
from slivit.utils.errors import UserError

DATA = Path(__file__).resolve().parents[2] / "data"
NAMES = ("make_kermany_meta", "make_echonet_meta", "make_folder_meta", "export_medmnist_nifti")
GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)


def run(main, *options):
    """Run a script in this process."""
    main([str(option) for option in options])


def refused(main, *options):
    """Return the one message with which a script refuses its input."""
    with pytest.raises(UserError) as error:
        run(main, *options)
    return str(error.value)


def read(path, ndim):
    """Return the table as the training scripts read it; every scan it names is there."""
    scans = read_meta(path, ndim)
    cells = pd.read_csv(path, dtype=str)["Path"]
    assert all((path.parent / cell).exists() for cell in cells)
    return scans


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
