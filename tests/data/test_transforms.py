"""From grey values of any type to the backbone's input."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import array_scans

from slivit.config import Augmentation, Preprocess
from slivit.data.batch import model_slices
from slivit.data.datasets import Collate, Item, ScanDataset, make_loader, prepare
from slivit.data.transforms import (
    augment,
    draw_transform,
    pick_slices,
    resize,
    to_input,
    to_uint8,
    window_range,
)
from slivit.data.window import parse_window
from slivit.utils.errors import UserError

RNG = np.random.default_rng(0)


def windowed(scan, window):
    """Map a scan to bytes as it is before a run."""
    return to_uint8(scan, *window_range(scan, window))


def moved(slices, seed, augmentation):
    """Augment slices at random."""
    return augment(slices, draw_transform(np.random.default_rng(seed), augmentation))


def stretch(values, low, high):
    """Map low..high to 0..255 by the definition."""
    scaled = (np.asarray(values, dtype=np.float64) - low) / (high - low)
    return np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_percentile_window_of_unsigned_scans(dtype):
    """101 values 0..100: the 2nd percentile is 2, the 98th is 98."""
    scan = RNG.permutation(101).astype(dtype).reshape(1, 101) * dtype(2)
    assert (windowed(scan, "percentile") == stretch(scan, 4, 196)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_percentile_window_of_signed_scans(dtype):
    scan = (RNG.permutation(101) - 50).astype(dtype).reshape(1, 101)
    assert (windowed(scan, "percentile") == stretch(scan, -48, 48)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_table_equals_the_formula_on_every_value(dtype):
    scan = RNG.integers(0, np.iinfo(dtype).max, (3, 40, 40), endpoint=True).astype(dtype)
    low, high = np.percentile(scan, [2, 98], method="lower")
    mapped, expected = windowed(scan, "percentile"), stretch(scan, low, high)
    # float32 may round a half the other way
    assert np.abs(mapped.astype(int) - expected).max() <= 1
    assert (mapped == expected).mean() > 0.999
    assert (mapped.min(), mapped.max()) == (0, 255)


def test_full_window_is_that_of_the_type_and_a_fixed_one_clips():
    scan = np.array([[0, 100, 255]], dtype=np.uint8)
    assert windowed(scan, "full").tolist() == [[0, 100, 255]]
    assert windowed(scan.astype(np.uint16) * 257, "full").tolist() == [[0, 100, 255]]
    hounsfield = np.array([[-2000, -1000, -300, 400, 3000]], dtype=np.int16)
    assert windowed(hounsfield, "-1000,400").tolist() == [[0, 0, 128, 255, 255]]


@pytest.mark.parametrize("scan", [
    np.array([[-30000, 0, 30000]], dtype=np.int16),
    np.array([[-100, 0, 100]], dtype=np.int8),
    np.array([[-40000, 0, 40000]], dtype=np.float16),
])
def test_range_wider_than_the_type_does_not_overflow(scan):
    assert windowed(scan, "full").tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("window", ["percentile", "full"])
def test_constant_scan_becomes_zero(window):
    assert not windowed(np.full((2, 3, 3), 7.5, np.float32), window).any()
    assert not windowed(np.full((2, 3, 3), 900, np.uint16), "percentile").any()


def test_own_range_where_percentiles_are_equal():
    scan = np.zeros((10, 20), np.uint8)
    scan[0, 0] = 4
    assert windowed(scan, "percentile")[0, :2].tolist() == [255, 0]


@pytest.mark.parametrize("text", ["wide", "5", "10,1", "1,2,3", "nan,5", "0,1e-300",
                                  "-1e308,1e308", "0,inf"])
def test_bad_windows_are_refused(text):
    with pytest.raises(UserError, match="expected percentile, full, or LOW,HIGH"):
        parse_window(text)


@pytest.mark.parametrize(("shape", "expected"), [
    ((3, 1, 20, 31), (3, 1, 32, 32)), ((3, 3, 64, 50), (3, 3, 32, 32)),
    ((1, 1, 1, 1), (1, 1, 32, 32)), ((2, 1, 32, 32), (2, 1, 32, 32)),
])
def test_resize_keeps_slices_and_grey_value(shape, expected):
    resized = resize(torch.full(shape, 77, dtype=torch.uint8), 32)
    assert tuple(resized.shape) == expected
    assert resized.dtype == torch.uint8
    assert (resized == 77).all()


def test_resize_averages_where_it_shrinks():
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(1, 1, 64, 32)
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
    result = moved(one.repeat(5, 1, 1, 1), 4, Augmentation("hv"))
    assert (result == result[:1]).all()
    assert not torch.equal(result[:1], one)


def test_augmentation_depends_on_its_generator_alone():
    slices = torch.from_numpy(RNG.integers(0, 255, (3, 1, 32, 32), dtype=np.uint8))
    torch.manual_seed(1)
    first = moved(slices, 7, Augmentation())
    torch.manual_seed(2)
    assert torch.equal(first, moved(slices, 7, Augmentation()))
    assert not torch.equal(first, moved(slices, 8, Augmentation()))


def test_flips_happen_only_along_the_axes_asked_for():
    half = torch.zeros(2, 1, 32, 32, dtype=torch.uint8)
    half[0, :, :, :16] = 200  # left half of the first slice
    seen = set()
    for seed in range(12):
        result = moved(half, seed, Augmentation("z")).float()
        assert result[..., :16].sum() > result[..., 16:].sum()
        seen.add(bool(result[0].sum() > result[1].sum()))
    assert seen == {True, False}


def test_without_jitter_pixels_are_only_mirrored():
    slices = torch.from_numpy(RNG.integers(0, 255, (3, 1, 8, 8), dtype=np.uint8))
    result = moved(slices, 0, Augmentation("hvz", jitter=0))
    assert torch.equal(result.flatten().sort().values, slices.flatten().sort().values)
    assert torch.equal(moved(slices, 0, Augmentation("", 0)), slices)


def test_input_is_standardised_per_channel():
    grey = torch.full((2, 1, 4, 4), 51, dtype=torch.uint8)  # 0.2 of 255
    result = to_input(grey, (0.2, 0.1, 0.0), (1.0, 0.1, 0.2))
    assert result.shape == (2, 3, 4, 4)
    assert torch.allclose(result[0, :, 0, 0], torch.tensor([0.0, 1.0, 1.0]), atol=1e-6)


def test_one_slice_alone_is_the_middle_one():
    assert pick_slices(9, 1, "uniform").tolist() == [4]


GREYS = np.random.default_rng(1).integers(0, 256, (5, 17, 23))
GREYS[:, :9] //= 3
TYPES = ["u1", "<u2", "<i2", "<i4", "<u4", "<f4", "<f8", ">u2", ">i2", ">i4", ">f4", "f2"]


@pytest.mark.parametrize("window", ["percentile", "30,200"])
@pytest.mark.parametrize("dtype", TYPES)
def test_the_same_values_of_any_type_become_the_same_bytes(dtype, window):
    assert window_range(GREYS.astype(dtype), window) == window_range(GREYS, window)
    expected = windowed(GREYS, window)
    assert (windowed(GREYS.astype(dtype), window) == expected).all()
    assert (windowed(GREYS.astype(dtype)[:, ::-1, ::2], window)
            == windowed(GREYS[:, ::-1, ::2], window)).all()
    assert expected.dtype == np.uint8


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_full_window_of_16_bits_in_either_byte_order(dtype):
    assert window_range(GREYS.astype(dtype), "full") == (0, 65535)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<f4", "i1"])
def test_negative_values_keep_their_order(dtype):
    scan = GREYS.astype("i2") // 2 - 100
    assert (windowed(scan.astype(dtype), "percentile") == windowed(GREYS // 2, "percentile")).all()
    assert window_range(scan.astype(dtype), "full") == (scan.min(), scan.max())


@pytest.mark.parametrize("size", [1, 2, 3, 50, 51, 99, 101, 12345, 70001])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32])
def test_percentiles_are_numpy_s_lower_ones(size, dtype):
    rng = np.random.default_rng(size)
    scan = rng.normal(90, 25, size).clip(0, 255).astype(dtype).reshape(1, 1, size)
    low, high = np.percentile(scan, [2, 98], method="lower")
    if low == high:
        low, high = scan.min(), scan.max()
    assert window_range(scan, "percentile") == (low, high)


@pytest.mark.parametrize("shape", [(40, 50), (20, 90), (9, 7), (33, 31), (64, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_slices_resized_together_equal_those_resized_alone(shape, channels):
    for count in range(10):
        slices = torch.from_numpy(RNG.integers(0, 256, (count, channels, *shape), dtype=np.uint8))
        together = resize(slices, 32)
        assert together.shape == (count, channels, 32, 32)
        for one, expected in zip(slices, together, strict=True):
            alone = F.interpolate(one[None], (32, 32), mode="bilinear", antialias=True)
            assert torch.equal(expected[None], alone)


def test_slices_shrink_before_and_grow_after_they_are_sent():
    """Both give what a resize in one go gives; the larger ones are sent small."""
    volumes = {"small": (3, 20, 24), "large": (3, 50, 70), "flat": (3, 9, 90)}
    options = Preprocess(32, "full", (0.5,) * 3, (0.5,) * 3, 3)
    for name, shape in volumes.items():
        volume = RNG.integers(1, 256, shape, dtype=np.uint8)
        scans = array_scans(volume[None], [0])
        sent = prepare(scans, 0, options).slices
        assert sent.shape[2:] == ((32, 32) if name == "large" else shape[1:])
        batch = next(iter(make_loader(ScanDataset(scans, np.array([0]), options), 1, 0,
                                      torch.device("cpu"))))
        assert torch.equal(model_slices(batch, options),
                           resize(torch.from_numpy(volume)[:, None], 32))


def test_scans_of_several_sizes_and_colours_fit_one_batch():
    options = Preprocess(32, "full", (0.5,) * 3, (0.5,) * 3, 4)
    volumes = [RNG.integers(1, 256, shape, dtype=np.uint8)
               for shape in ((3, 20, 24), (5, 40, 50, 3), (2, 20, 24))]
    items = [Item(prepare(array_scans(volume[None], [0], ndim=3), 0, options), torch.zeros(1), None)
             for volume in volumes]
    batch = Collate(options)(items)
    assert batch.x.shape == (3, 4, 3, 32, 32)
    assert batch.mask.sum(dim=1).tolist() == [3, 4, 2]
    for item, x, mask in zip(items, batch.x, batch.mask, strict=True):
        alone = resize(torch.from_numpy(item.prepared.slices), 32)
        assert torch.equal(x[mask], alone.expand(-1, 3, -1, -1))


@pytest.mark.parametrize("window", ["full", "-500,900", "percentile"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
@pytest.mark.parametrize("sampling", ["uniform", "middle"])
def test_only_some_slices_are_read_and_all_count_for_the_window(dtype, window, sampling):
    volume = (GREYS.repeat(3, axis=0) * 3 - 300).astype(dtype)
    volume[0, 0, 0], volume[-1, 0, 0] = np.iinfo(dtype).max, np.iinfo(dtype).min
    options = Preprocess(32, window, (0.5,) * 3, (0.5,) * 3, 4, sampling)
    found = prepare(array_scans(volume[None], [0]), 0, options).slices[:, 0]
    assert (found == windowed(volume, window)[pick_slices(15, 4, sampling)]).all()
