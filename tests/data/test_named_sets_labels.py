"""Labels of a MedMNIST file that are not as MedMNIST has them."""

import numpy as np
import pytest
from helpers import write_medmnist

from slivit.data.named_sets import load_named
from slivit.utils.errors import UserError


def rewrite(folder, **arrays):
    """Write a file of 3 classes in which some arrays are others."""
    path = write_medmnist(folder / "fracturemnist3d.npz", (6, 3, 3), (28, 28, 28), 3)
    np.savez(path, **{**np.load(path), **arrays})


@pytest.mark.parametrize(("labels", "message"), [
    (np.zeros((6, 1, 1), np.uint8), "train has labels of shape (6, 1, 1), expected (6, 1)"),
    (np.zeros((5, 1), np.uint8), "train has labels of shape (5, 1), expected (6, 1)"),
    (np.zeros((6, 2), np.uint8), "train has labels of shape (6, 2), expected (6, 1)"),
    (np.uint8(1), "train has labels of shape (), expected (6, 1)"),
    (np.full((6, 1), np.nan), "train has 6 labels outside 0..2, such as nan"),
    (np.full((6, 1), 0.5), "train has 6 labels outside 0..2, such as 0.5"),
    (np.full((6, 1), -1), "train has 6 labels outside 0..2, such as -1"),
    (np.full((6, 1), 2**60), "train has 6 labels outside 0..2, such as 1.15292e+18"),
    (np.full((6, 1), "1"), "train has labels of type <U1, expected numbers"),
    (np.full((6, 1), 1j), "train has labels of type complex128, expected numbers"),
])
def test_labels_are_refused_with_what_was_found(tmp_path, labels, message):
    rewrite(tmp_path, train_labels=labels)
    with pytest.raises(UserError, match="is not in the layout of this set") as error:
        load_named("fracturemnist3d", 3, tmp_path)
    assert message in str(error.value)
    assert "labels (n, 1) of 0..2. Remove it" in str(error.value)


def test_faults_of_all_splits_are_in_one_message(tmp_path):
    rewrite(tmp_path, train_labels=np.full((6, 1), 7), val_labels=np.zeros((3, 1, 1)),
            test_images=np.zeros((3, 28, 28, 28)))
    with pytest.raises(UserError) as error:
        load_named("fracturemnist3d", 3, tmp_path)
    for text in ("train has 6 labels", "val has labels of shape (3, 1, 1)",
                 "test has float64 images of shape (3, 28, 28, 28)"):
        assert text in str(error.value)


def test_labels_of_one_dimension_are_read(tmp_path):
    rewrite(tmp_path, **{f"{split}_labels": np.arange(n) % 3
                         for split, n in (("train", 6), ("val", 3), ("test", 3))})
    assert load_named("fracturemnist3d", 3, tmp_path).labels.sum() == 12


@pytest.mark.parametrize("kept", [0, 4, 500])
def test_files_cut_off_are_one_message_that_says_what_to_do(tmp_path, kept):
    path = write_medmnist(tmp_path / "fracturemnist3d.npz", (6, 3, 3), (28, 28, 28), 3)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="(?s)is not a readable file in MedMNIST's layout.*Remove "
                                        "it to have it downloaded again"):
        load_named("fracturemnist3d", 3, tmp_path)


def test_files_of_another_kind_flipped_bytes_and_folders_are_one_message(tmp_path):
    path = tmp_path / "fracturemnist3d.npz"
    path.write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(UserError, match="is not a readable file in MedMNIST's layout"):
        load_named("fracturemnist3d", 3, tmp_path)
    write_medmnist(path, (6, 3, 3), (28, 28, 28), 3)
    content = bytearray(path.read_bytes())
    content[len(content) // 3:len(content) // 3 + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a readable file in MedMNIST's layout"):
        load_named("fracturemnist3d", 3, tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="fracturemnist3d.npz: is not a file"):
        load_named("fracturemnist3d", 3, tmp_path)
