"""The regions of a brain, with a made-up brain and atlas: crops, folds, summary, a quick job."""

import dataclasses
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from benchmarks import (
    jobs,
    nodules,
    region_crops,
    region_methods,
    region_summary,
    regions,
    regions_search,
    results,
)
from benchmarks.jobs import Done, Job
from benchmarks.region_crops import REGIONS, Crops
from slivit.data.datasets import prepare
from slivit.data.readers import read_volume, volume_header
from slivit.utils.errors import UserError
from slivit.utils.files import write_json

SHAPE = (121, 120, 60)  # voxels of 1 mm: 60 on each side of the midline
FEW = Crops(n_pool=20, n_test=5, noise=0)


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    """A brain whose grey value is its distance from the midline, with cubes for regions."""
    folder = tmp_path_factory.mktemp("templates")
    affine = np.eye(4)
    affine[:3, 3] = -60, -60, -20
    x = np.abs(np.arange(121) - 60)[:, None, None]
    scan = np.broadcast_to(x, SHAPE).astype(np.uint8)
    atlas, lines = np.zeros(SHAPE, np.uint8), []
    for k, name in enumerate(REGIONS):
        for side, first in (("L", 50 - 6 * (k % 6)), ("R", 66 + 6 * (k % 6))):
            number = len(lines) + 1
            lines.append(f"{number} {name.title()}_{side} {2000 + number}")
            front, low = 13 * k + 6, (7 * k) % 30 + 10
            atlas[first:first + 5, front:front + 10, low:low + 10] = number
    for name, values in ((region_crops.SCAN, scan), (region_crops.BRAIN, scan + 1),
                         (region_crops.ATLAS, atlas)):
        nib.save(nib.Nifti1Image(values, affine), folder / name)
    (folder / region_crops.NAMES).write_text("\n".join([*lines, "99 Vermis_3 9110"]))
    return folder


@pytest.fixture(scope="module")
def made(templates, tmp_path_factory):
    """A folder of crops."""
    folder = tmp_path_factory.mktemp("crops")
    region_crops.make(folder, region_crops.read_templates(templates), FEW)
    return folder


@pytest.mark.parametrize("mirror", [1, -1])
def test_crops_keep_to_their_side_and_have_the_stated_size(templates, mirror):
    brain = region_crops.read_templates(templates)
    for seed in range(8):
        place = region_crops.draw_place(brain, FEW, mirror, np.random.default_rng(seed))
        assert (place[0] * mirror).max() <= -1
        steps = [np.linalg.norm(place[(slice(None), *one)] - place[:, 0, 0, 0])
                 for one in np.eye(3, dtype=int)]
        assert steps == pytest.approx([1, 1, 1.5])


def test_a_mirrored_crop_is_that_of_the_other_side(templates):
    brain = region_crops.read_templates(templates)
    left, right = (region_crops.draw_place(brain, FEW, mirror, np.random.default_rng(3))
                   for mirror in (1, -1))
    assert np.allclose(left * np.reshape([-1, 1, 1], (3, 1, 1, 1)), right)
    values, voxels = region_crops.take(brain, left)
    mirrored, others = region_crops.take(brain, right)
    assert np.allclose(values, -left[0], atol=1e-3)  # mm from the midline, between voxels too
    assert np.allclose(values, mirrored, atol=1e-3)
    assert (voxels == others).all()


def test_voxels_of_a_region_are_counted_in_the_crop(templates):
    brain = region_crops.read_templates(templates)
    crops = dataclasses.replace(FEW, shape=(40, 40, 20), degrees=0)
    place = region_crops.draw_place(brain, crops, 1, np.random.default_rng(0))
    _, voxels = region_crops.take(brain, place)
    near = np.rint(place - brain.affine[:3, 3].reshape(3, 1, 1, 1)).astype(int)
    expected = [(brain.regions[tuple(near)] == k + 1).sum() for k in range(8)]
    assert voxels.tolist() == expected and voxels.sum() > 0


def test_files_are_read_as_slices_along_the_axis_of_the_body(made):
    table = pd.read_csv(made / "meta.csv")
    assert len(table) == 25 and table["hemisphere"].value_counts()["right"] == 5
    scans = np.load(made / "scans.npy")
    assert scans.shape == (25, 24, 48, 48) and scans.dtype == np.uint8
    path = made / table["Path"][22]
    header = volume_header(path)
    assert header.shape == (24, 48, 48) and header.spacing == pytest.approx((1.5, 1, 1))
    assert (read_volume(path).slices == scans[22]).all()
    middle = scans[:, 12, 24].astype(int)  # a picture has the patient's left on its right, where
    assert (middle[:, -1] > middle[:, 0] + 10).all()  # the made-up brain is brighter
    for region in REGIONS:
        assert ((table[f"{region}_voxels"] >= 150) == table[region]).all()


def test_the_same_seed_gives_the_same_bytes(made, templates, tmp_path):
    region_crops.make(tmp_path, region_crops.read_templates(templates),
                      dataclasses.replace(FEW, n_pool=2, n_test=1))
    for name in ("pool_0001", "test_0000"):
        path = f"nifti/{name}.nii.gz"
        assert (tmp_path / path).read_bytes() == (made / path).read_bytes()
    assert region_crops.is_made(made, FEW) and not region_crops.is_made(tmp_path, FEW)


def test_what_is_missing_is_named_with_the_package(templates, tmp_path):
    with pytest.raises(UserError, match=r"found no ch2.nii.gz, ch2bet.nii.gz, aal.nii.gz, "
                                        r"aal.nii.txt; .*`apt-get install mricron-data`"):
        regions.main(["--templates", str(tmp_path), "--scratch", str(tmp_path / "scratch")])
    assert not any(tmp_path.iterdir())
    for path in templates.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / region_crops.NAMES).write_text("1 Hippocampus_L 4101\n")
    with pytest.raises(UserError, match="found none of calcarine_l, .*hippocampus_r"):
        region_crops.read_templates(tmp_path)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="--sizes 8,25: expected 16 to 800"):
        regions.main(["--sizes", "8,25"])


def pool_of(count):
    """Made-up crops without grey values: `count` to learn from and 9 of the test."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"nodule": [f"c{k}" for k in range(count + 9)],
                          "hemisphere": ["left"] * count + ["right"] * 9,
                          **{region: (rng.random(count + 9) < 0.2).astype(int)
                             for region in REGIONS}})
    return regions.Nodules(table, np.zeros((count + 9, 1), np.uint8))


def test_fewer_crops_are_nested_and_have_both_classes_of_every_label():
    crops, before = pool_of(900), {"train": set(), "val": set()}
    for size in (25, 50, 100, 800):
        fold = regions.make_fold(crops, size, seed=1)
        for part, count in (("train", size - round(size / 8)), ("val", round(size / 8))):
            rows = set(fold.rows(part))
            assert len(rows) == count and rows >= before[part]
            before[part] = rows
            if size >= 50 or part == "train":
                assert (np.ptp(fold.truth[sorted(rows)], axis=0) == 1).all()
        assert fold.rows("test").tolist() == list(range(900, 909))
    assert set(regions.make_fold(crops, 25, 2).rows("train")) != set(
        regions.make_fold(crops, 25, 1).rows("train"))
    assert not set(regions.shuffled_pool(crops, 1)[800:]) & (before["train"] | before["val"])


def write_done(folder, method, size, seed, wrong):
    """Write a finished job of 60 crops, of which a share is ranked wrong in every label."""
    rng = np.random.default_rng(7)
    table = pd.DataFrame({"nodule": [f"c{k}" for k in range(60)]})
    for region in REGIONS:
        truth = rng.integers(0, 2, 60)
        table[f"truth_{region}"] = truth
        table[f"pred_{region}"] = np.where(np.arange(60) < 60 * wrong, 1 - truth, truth) * 0.8
    one = Done(folder / f"{method}_{size}_{seed}.csv", Job(method, 0, seed, size), "s")
    table.to_csv(one.predictions, index=False)
    write_json(one.facts, {"settings": "s", "parameters": 3, "seconds": 60})
    return one


def test_summary_compares_methods_on_the_same_draws(tmp_path):
    ours = [write_done(tmp_path, region_summary.OURS, size, seed, 0.1)
            for size in (25, 50) for seed in (0, 1)]
    others = [write_done(tmp_path, "densenet", 25, 0, 0.4),
              write_done(tmp_path, "end_to_end", 50, 1, 0.1),
              write_done(tmp_path, "supervised_slices", 50, 1, 0.3)]
    text = regions.summarise_found({"all": ours + others}, tmp_path)
    table = pd.read_csv(tmp_path / "regions.csv").set_index(["method", "volumes"])
    worse, same = table.loc[("densenet", 25)], table.loc[("end_to_end", 50)]
    assert worse["difference"] == pytest.approx(
        table.loc[(region_summary.OURS, 25), "roc_auc"] - worse["roc_auc"], abs=2e-5)
    assert worse["difference_low"] > 0 and worse["p"] < 0.002
    assert worse["p_holm"] == worse["p"]  # the only other method of its size
    assert same["difference"] == 0 and same["p"] == same["p_holm"] == 1
    other = table.loc[("supervised_slices", 50)]
    assert other["p_holm"] == pytest.approx(2 * other["p"], abs=2e-5)
    parts = pd.read_csv(tmp_path / "regions_parts.csv")
    assert parts[["method", "without"]].values.tolist() == [["supervised_slices", "end_to_end"]]
    assert parts["difference"][0] == pytest.approx(other["roc_auc"] - same["roc_auc"], abs=2e-5)
    assert worse["roc_auc"] == pytest.approx(table.loc[("densenet", 25), list(REGIONS)].mean(),
                                             abs=2e-5)
    assert (tmp_path / "regions.png").exists() and "densenet" in text
    section = results.section(tmp_path)
    assert "## On grey values" in section and "there is one person" in section
    assert "linear integrator, pre-trained without labels** | 0." in section
    assert "* of fewer seeds" in section and "What the parts add with 50 labelled" in section
    assert regions.summarise_found({}, tmp_path / "none") == "no training is finished"


def test_a_quick_job_learns_from_the_files(templates, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "FEW", 45)
    out, scratch = tmp_path / "results", tmp_path / "scratch"
    regions.main(["--job", "end_to_end:0:0:16", "--quick", "--results", str(out),
                  "--scratch", str(scratch), "--templates", str(templates)])
    one = jobs.done(regions.BENCHMARK, Job("end_to_end", 0, 0, 16), out)
    table = one.read_predictions()
    assert one.finished and len(table) == 15 and "patient" not in table
    assert table[[f"pred_{region}" for region in REGIONS]].map(np.isfinite).all(axis=None)
    assert [path.name for path in scratch.iterdir() if any(path.iterdir())] == ["regions_crops"]


def test_images_are_slices_as_finetune_sees_them(made, tmp_path):
    crops = region_crops.load(made)
    fold = regions.make_fold(crops, 16, seed=0)
    table = pd.read_csv(region_methods.write_slices(fold, tmp_path, tmp_path / "slices"))
    row = fold.rows("train", "val")[0]
    assert len(table) == 16 * 24 // region_methods.STEP == table["F_Name"].nunique()
    assert table["F_Name"][3] == f"{crops.table['nodule'][row]}_{3 * region_methods.STEP:02d}"
    assert (table.loc[3, list(REGIONS)] == crops.table.loc[row, list(REGIONS)]).all()
    scans = dataclasses.replace(nodules.as_scans(fold), window="percentile")
    seen = prepare(scans, int(row), region_methods.NATIVE).slices
    assert (np.load(table["Path"][3]) == seen[3 * region_methods.STEP, 0]).all()


def test_some_crops_are_drawn_with_their_regions(made, tmp_path):
    region_summary.draw_crops(region_crops.load(made), tmp_path / "crops.png", each=2)
    assert 5_000 < (tmp_path / "crops.png").stat().st_size < 150_000


def test_the_search_scores_crops_of_the_training_hemisphere(monkeypatch):
    crops = pool_of(900)
    monkeypatch.setattr(regions, "crops_in", lambda *_: crops)
    task = regions_search.make_task(Job("slices", 0, 1, 100), Path(), quick=False)
    tested = set(task.fold.rows("test"))
    assert len(tested) == 225 and max(tested) < 900
    assert not tested & set(task.fold.rows("train", "val"))
