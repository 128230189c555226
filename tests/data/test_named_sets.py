"""Data sets by name: the embedded ones and MedMNIST's."""

import numpy as np
import pytest
from helpers import write_medmnist
from medmnist import INFO

from slivit.data.named_sets import load_named
from slivit.data.targets import resolve_task
from slivit.utils.errors import UserError


@pytest.mark.parametrize("flag", sorted(INFO))
def test_every_medmnist_set_loads_in_its_own_format(tmp_path, flag):
    info = INFO[flag]
    ndim = 3 if flag.endswith("3d") else 2
    count = len(info["label"])
    several = info["task"] == "multi-label, binary-class"
    shape = (28,) * ndim + ((3,) if info["n_channels"] == 3 and ndim == 2 else ())
    n = 2 * count
    write_medmnist(tmp_path / f"{flag}.npz", (n, n, n), shape, 2 if several else count,
                   count if several else 1)
    if several:  # so that each label has both values
        arrays = dict(np.load(tmp_path / f"{flag}.npz"))
        arrays |= {key: np.tile(np.eye(count, dtype=np.uint8), (2, 1))
                   for key in arrays if key.endswith("labels")}
        np.savez(tmp_path / f"{flag}.npz", **arrays)
    scans, target = resolve_task(load_named(flag, ndim, tmp_path))
    assert len(set(scans.label_names)) == len(scans.label_names) == (1 if count == 2 else count)
    assert target.task == ("multilabel" if several else "binary" if count == 2 else "multiclass")
    assert (len(scans), scans.ndim) == (3 * n, ndim)
    assert scans.read(n).slices.shape == (shape if ndim == 3 else (1, *shape))
    assert scans.ids[n] == "0"


def test_class_name_is_as_good_as_the_flag(tmp_path):
    write_medmnist(tmp_path / "nodulemnist3d.npz", (4, 2, 2), (28, 28, 28))
    assert load_named("NoduleMNIST3D", 3, tmp_path).name == "nodulemnist3d"


def test_binary_set_is_named_by_class_1(tmp_path):
    write_medmnist(tmp_path / "nodulemnist3d.npz", (4, 2, 2), (28, 28, 28))
    scans = load_named("nodulemnist3d", 3, tmp_path)
    assert scans.label_names == ("malignant",)
    assert scans.labels[:, 0].tolist() == [0, 1, 0, 1, 0, 1, 0, 1]


def test_classes_become_one_hot(tmp_path):
    write_medmnist(tmp_path / "fracturemnist3d.npz", (6, 3, 3), (28, 28, 28), 3)
    scans = load_named("fracturemnist3d", 3, tmp_path)
    assert scans.labels[:4].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize(("arrays", "message"), [
    ({"train_images": np.zeros((2, 28, 28), np.uint8)}, "not a readable file in MedMNIST's layout"),
    ({f"{split}_{what}": np.zeros((2, 28, 28), np.uint8) for split in ("train", "val", "test")
      for what in ("images", "labels")}, "expected uint8 .n, D, H, W."),
    ({f"{split}_{what}": np.zeros((2, *shape), np.uint8) for split in ("train", "val", "test")
      for what, shape in (("images", (28, 0, 28)), ("labels", (1,)))}, r"of shape .2, 28, 0, 28."),
])
def test_files_in_another_layout_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "fracturemnist3d.npz", **arrays)
    with pytest.raises(UserError, match=message):
        load_named("fracturemnist3d", 3, tmp_path)


@pytest.mark.parametrize(("name", "ndim", "size", "message"), [
    ("nodulmnist3d", 3, 28, "unknown. Nearest: nodulemnist3d"),
    ("chestmnist", 3, 28, "contains images, expected volumes"),
    ("noduleshapes3d", 2, 28, "contains volumes, expected images"),
    ("organmnist3d", 3, 128, "comes in the sizes 28, 64"),
])
def test_wrong_names_are_refused(tmp_path, name, ndim, size, message):
    with pytest.raises(UserError, match=message):
        load_named(name, ndim, tmp_path, size)


def test_failed_download_is_one_message_and_leaves_nothing(tmp_path, monkeypatch):
    def no_route(url, root, filename, md5):
        (tmp_path / root / filename).write_bytes(b"half of it")
        raise OSError("no route to host")
    monkeypatch.setattr("torchvision.datasets.utils.download_url", no_route)
    with pytest.raises(UserError, match="download failed: wanted nodulemnist3d.npz from https://"):
        load_named("nodulemnist3d", 3, tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_data_root_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="--data_root .*file: cannot be created"):
        load_named("nodulemnist3d", 3, tmp_path / "file")


def test_download_arrives_whole_at_data_root(tmp_path, monkeypatch):
    def fetch(url, root, filename, md5):
        write_medmnist(tmp_path / root / filename, (4, 2, 2), (28, 28, 28))
    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    assert len(load_named("nodulemnist3d", 3, tmp_path / "root")) == 8
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["nodulemnist3d.npz"]


def test_embedded_sets_have_patients_and_no_test_slices():
    flat, solid = load_named("noduleshapes2d", 2, None), load_named("noduleshapes3d", 3, None)
    assert [len(flat.rows(split)) for split in ("train", "val", "test")] == [1872, 269, 0]
    assert [len(solid.rows(split)) for split in ("train", "val", "test")] == [1403, 206, 395]
    assert solid.label_names == ("malignant",)
    assert not flat.subjects_of("train", "val") & solid.subjects_of("test")
