"""What a trained model makes of scans before it predicts: a vector a volume, or one a slice."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from slivit.checkpoints.trained import Trained
from slivit.data.batch import Batch, model_inputs
from slivit.data.datasets import ScanDataset, make_loader
from slivit.data.samplers import interleave
from slivit.data.scan_table import ScanTable
from slivit.models.slivit import SLIViT, require_slice_tokens
from slivit.prediction import check_finite, predict
from slivit.utils.errors import UserError
from slivit.utils.files import atomic_write, check_replaceable
from slivit.utils.session import Session

SUFFIX = ".npz"


def embed_scans(trained: Trained, scans: ScanTable, rows: np.ndarray, run: Session, b_size: int,
                what: str | None = None) -> np.ndarray:
    """Return one vector a scan, float32 (n, D), in order; every process embeds its share.

    That from which the last layer makes the logits: of a volume the normalised class token, of an
    image the pooled and normalised feature map.

    Args:
        trained: its own pre-processing is applied.
        scans, rows: what to embed.
        run: where it runs.
        b_size: scans at a time.
        what: named by the progress bar; None for no bar.

    Raises:
        RunError: vectors that are not finite, naming the scans.
    """
    model = trained.model.eval()
    share = run.world.shard(rows)
    shown = what is not None and run.world.is_main and not run.quiet

    def embed_share() -> np.ndarray:
        if not len(share):
            return np.empty((0, model.embed_dim), np.float32)
        loader = make_loader(ScanDataset(scans, share, model.preprocess), b_size, run.n_workers,
                             run.device)
        return predict(_forward(trained), loader, run.device, f"embed {what}" if shown else None,
                       len(loader))[0]

    vectors = interleave(run.world.gather_work(embed_share))
    check_finite(vectors[None], [scans.ids[row] for row in rows], trained.path)
    return vectors


@torch.no_grad()
def embed_slices(trained: Trained, scans: ScanTable, rows: np.ndarray, run: Session, b_size: int
                 ) -> list[np.ndarray]:
    """Return of each volume the features of the slices that the model saw, float32 (n, D).

    The backbone's own, of which tokens are made; slices in order, one view after the other. The
    arguments are those of embed_scans.

    Raises:
        UserError: it is a model of images, or its tokens are not slices.
        RunError: features that are not finite, naming the scans.
    """
    model = trained.model.eval()
    if not isinstance(model, SLIViT):
        raise UserError(f"{trained.path}: is a model of images, which have no slices")
    require_slice_tokens(model, "features of single slices")
    loader = make_loader(ScanDataset(scans, rows, model.preprocess), b_size, run.n_workers,
                         run.device)
    found = []
    for batch in loader:
        slices, mask = model_inputs(batch.to(run.device), model.preprocess)
        features = model.slice_features(slices, mask).cpu().numpy()
        found += [one[seen] for one, seen in zip(features, mask.cpu().numpy(), strict=True)]
    for row, features in zip(rows, found, strict=True):
        check_finite(features.reshape(1, 1, -1), [scans.ids[row]], trained.path)
    return found


def _forward(trained: Trained) -> Callable[[Batch], torch.Tensor]:
    return lambda batch: trained.model.embed(*model_inputs(batch, trained.model.preprocess))


def check_features_file(path: Path, out_dir: Path, overwrite: bool, inputs: Iterable[Path]
                        ) -> None:
    """Refuse a place where the vectors of scans cannot be written.

    Args:
        path: of the file.
        out_dir: of the run, which makes it.
        overwrite: whether one that is there may be replaced.
        inputs: files that the run reads, which must not be.

    Raises:
        UserError: another suffix, no such folder, or a file that must stay.
    """
    if path.suffix.lower() != SUFFIX:
        raise UserError(f"--features {path}: expected a name that ends with {SUFFIX}")
    if not path.parent.is_dir() and path.parent.resolve() != out_dir.resolve():
        raise UserError(f"--features {path}: there is no folder {path.parent}; make it first")
    check_replaceable(path, "--features")
    if path.exists() and not overwrite:
        raise UserError(f"--features {path}: exists already; name another file, or give "
                        "--overwrite")
    if path.exists() and any(one.exists() and one.samefile(path) for one in inputs):
        raise UserError(f"--features {path}: is read by this run; name another file")


def save_features(path: Path, vectors: np.ndarray, scans: ScanTable, rows: np.ndarray) -> None:
    """Write vectors with what they are of, as `.npz`.

    `features` float32 (n, D), `ids`, `patients` and `split` text (n,), patients empty where
    unknown, `labels` float32 (n, K), NaN where unknown, and `label_names` text (K,).

    Raises:
        NotWritten: the system refused.
    """
    patients = scans.patients or ("",) * len(scans)
    content = {"features": vectors, "ids": np.array([scans.ids[row] for row in rows], dtype=str),
               "patients": np.array([patients[row] for row in rows], dtype=str),
               "split": scans.split[rows].astype(str), "labels": scans.labels[rows],
               "label_names": np.array(scans.label_names, dtype=str)}
    with atomic_write(path) as part:
        np.savez_compressed(part, **content)
