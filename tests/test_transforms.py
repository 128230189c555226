"""From grey values of any type to the backbone's input."""

import numpy as np
import pytest
import torch

from slivit.config import Augmentation
from slivit.errors import UserError
from slivit.transforms import (
    augment,
    parse_window,
    pick_slices,
    resize,
    to_input,
    window_to_uint8,
)

RNG = np.random.default_rng(0)


def stretch(values, low, high):
    """Map low..high to 0..255 by the definition."""
    scaled = (np.asarray(values, dtype=np.float64) - low) / (high - low)
    return np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_percentile_window_of_unsigned_scans(dtype):
    """101 values 0..100: the 2nd percentile is 2, the 98th is 98."""
    scan = RNG.permutation(101).astype(dtype).reshape(1, 101) * dtype(2)
    assert (window_to_uint8(scan, "percentile") == stretch(scan, 4, 196)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_percentile_window_of_signed_scans(dtype):
    scan = (RNG.permutation(101) - 50).astype(dtype).reshape(1, 101)
    assert (window_to_uint8(scan, "percentile") == stretch(scan, -48, 48)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_table_equals_the_formula_on_every_value(dtype):
    scan = RNG.integers(0, np.iinfo(dtype).max, (3, 40, 40), endpoint=True).astype(dtype)
    low, high = np.percentile(scan, [2, 98], method="lower")
    mapped, expected = window_to_uint8(scan, "percentile"), stretch(scan, low, high)
    # float32 may round a half the other way
    assert np.abs(mapped.astype(int) - expected).max() <= 1
    assert (mapped == expected).mean() > 0.999
    assert (mapped.min(), mapped.max()) == (0, 255)


def test_full_window_and_fixed_window():
    scan = np.array([[0, 100, 255]], dtype=np.uint8)
    assert window_to_uint8(scan, "full").tolist() == [[0, 100, 255]]
    assert window_to_uint8(scan.astype(np.uint16) * 257, "full").tolist() == [[0, 100, 255]]
    hounsfield = np.array([[-2000, -1000, -300, 400, 3000]], dtype=np.int16)
    assert window_to_uint8(hounsfield, "-1000,400").tolist() == [[0, 0, 128, 255, 255]]


@pytest.mark.parametrize("scan", [
    np.array([[-30000, 0, 30000]], dtype=np.int16),
    np.array([[-100, 0, 100]], dtype=np.int8),
    np.array([[-40000, 0, 40000]], dtype=np.float16),
])
def test_range_wider_than_the_type_does_not_overflow(scan):
    assert window_to_uint8(scan, "full").tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("window", ["percentile", "full"])
def test_constant_scan_becomes_zero(window):
    assert not window_to_uint8(np.full((2, 3, 3), 7.5, np.float32), window).any()
    assert not window_to_uint8(np.full((2, 3, 3), 900, np.uint16), "percentile").any()


def test_own_range_where_percentiles_are_equal():
    scan = np.zeros((10, 20), np.uint8)
    scan[0, 0] = 4
    assert window_to_uint8(scan, "percentile")[0, :2].tolist() == [255, 0]


@pytest.mark.parametrize("text", ["wide", "5", "10,1", "1,2,3", "nan,5"])
def test_bad_windows_are_refused(text):
    with pytest.raises(UserError, match="expected percentile, full, or LOW,HIGH"):
        parse_window(text)


@pytest.mark.parametrize(("shape", "expected"), [
    ((3, 20, 31), (3, 1, 32, 32)), ((3, 64, 50, 3), (3, 3, 32, 32)), ((1, 1, 1), (1, 1, 32, 32)),
    ((2, 32, 32), (2, 1, 32, 32)),
])
def test_resize_keeps_slices_and_grey_value(shape, expected):
    resized = resize(np.full(shape, 77, np.uint8), 32)
    assert tuple(resized.shape) == expected
    assert resized.dtype == torch.uint8
    assert (resized == 77).all()


def test_resize_averages_where_it_shrinks():
    stripes = np.tile(np.array([0, 255], np.uint8), (1, 64, 32))
    inner = resize(stripes, 32)[..., 1:-1].float()
    assert inner.min() > 100
    assert inner.max() < 155


def test_uniform_slices_run_from_the_first_to_the_last():
    assert pick_slices(10, 4, "uniform").tolist() == [0, 3, 6, 9]
    assert pick_slices(100, 28, "uniform").tolist() == sorted(set(pick_slices(100, 28, "uniform")))


def test_middle_slices_are_the_central_ones():
    assert pick_slices(10, 4, "middle").tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize("sampling", ["uniform", "middle"])
def test_all_slices_are_taken_where_they_are_few(sampling):
    assert pick_slices(3, 4, sampling).tolist() == [0, 1, 2]


def test_augmentation_is_the_same_for_all_slices_of_a_scan():
    one = torch.from_numpy(RNG.integers(0, 255, (1, 1, 32, 32), dtype=np.uint8))
    moved = augment(one.repeat(5, 1, 1, 1), np.random.default_rng(4), Augmentation("hv"))
    assert (moved == moved[:1]).all()
    assert not torch.equal(moved[:1], one)


def test_augmentation_depends_on_its_generator_alone():
    slices = torch.from_numpy(RNG.integers(0, 255, (3, 1, 32, 32), dtype=np.uint8))
    torch.manual_seed(1)
    first = augment(slices, np.random.default_rng(7), Augmentation())
    torch.manual_seed(2)
    assert torch.equal(first, augment(slices, np.random.default_rng(7), Augmentation()))
    assert not torch.equal(first, augment(slices, np.random.default_rng(8), Augmentation()))


def test_flips_happen_only_along_the_axes_asked_for():
    half = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    half[0, :, :, :16] = 200  # left half of the first slice
    seen = set()
    for seed in range(12):
        moved = augment(half, np.random.default_rng(seed), Augmentation("z")).float()
        assert moved[..., :16].sum() > moved[..., 16:].sum()
        seen.add(bool(moved[0].sum() > moved[1].sum()))
    assert seen == {True, False}


def test_without_jitter_pixels_are_only_mirrored():
    slices = torch.from_numpy(RNG.integers(0, 255, (3, 1, 8, 8), dtype=np.uint8))
    moved = augment(slices, np.random.default_rng(0), Augmentation("hvz", jitter=0))
    assert torch.equal(moved.flatten().sort().values, slices.flatten().sort().values)
    assert torch.equal(augment(slices, np.random.default_rng(0), Augmentation("", 0)), slices)


def test_input_is_standardised_per_channel():
    grey = torch.full((2, 1, 4, 4), 51, dtype=torch.uint8)  # 0.2 of 255
    result = to_input(grey, (0.2, 0.1, 0.0), (1.0, 0.1, 0.2))
    assert result.shape == (2, 3, 4, 4)
    assert torch.allclose(result[0, :, 0, 0], torch.tensor([0.0, 1.0, 1.0]), atol=1e-6)


def test_one_slice_alone_is_the_middle_one():
    assert pick_slices(9, 1, "uniform").tolist() == [4]
