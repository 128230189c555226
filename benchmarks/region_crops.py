"""Crops of a T1 scan of a brain, with the regions of its atlas that each holds, as NIfTI files.

The scan is Colin Holmes's (`ch2.nii.gz`: 27 scans of one man, averaged), the atlas AAL
(Tzourio-Mazoyer et al. 2002); both are read from the folder of Debian's package mricron-data. Crops
of the left hemisphere are the pool to learn from. Those of the right one are for the test; they
are mirrored, so that they look as if they were of the left one. All are the same for every seed of
training.
"""

import dataclasses
import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from benchmarks.nodules import Nodules
from slivit.data.readers import read_volume
from slivit.utils.errors import UserError
from slivit.utils.files import atomic_write, write_json
from slivit.utils.runtime import derive_seed

TEMPLATES = Path("/usr/share/mricron/templates")
SCAN, BRAIN, ATLAS, NAMES = "ch2.nii.gz", "ch2bet.nii.gz", "aal.nii.gz", "aal.nii.txt"
REGIONS = ("hippocampus", "thalamus", "caudate", "insula", "calcarine", "precentral", "lingual",
           "putamen")
PARTS = {"pool": 1, "test": -1}  # factor of mm to the right, where a crop's place is on the left
TABLE, SCANS, SETTINGS = "meta.csv", "scans.npy", "settings.json"
TRIES = 10_000


@dataclass(frozen=True)
class Crops:
    """How crops are drawn.

    Attributes:
        n_pool, n_test: how many of the left and of the right hemisphere.
        seed: of all that is random in them.
        shape: voxels from left to right, from back to front, and from the feet to the head.
        spacing: mm between them.
        degrees: the largest angle of rotation, about a random axis.
        margin: mm that the centres of all voxels keep from the midline: one voxel of the scan, so
            that no grey value is made of voxels of both hemispheres.
        brain: the least share of voxels that are brain (not 0 in the scan without skull).
        gain: factors of the grey values, from and to.
        noise: standard deviation, in grey values of 0 to 255.
        voxels: of a region, from which on a crop is said to hold it.
    """

    n_pool: int = 2000
    n_test: int = 400
    seed: int = 0
    shape: tuple[int, int, int] = (48, 48, 24)
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.5)
    degrees: float = 15.0
    margin: float = 1.0
    brain: float = 0.5
    gain: tuple[float, float] = (0.8, 1.2)
    noise: float = 10.0
    voxels: int = 150


CROPS = Crops()


@dataclass(frozen=True)
class Templates:
    """A scan and its atlas, on one grid.

    Attributes:
        scan: (X, Y, Z) float32 grey values of 0 to 255.
        brain: (X, Y, Z) bool.
        regions: (X, Y, Z) uint8: 1 for the first of REGIONS, in either hemisphere; 0 for none.
        affine: (4, 4) from voxel numbers to mm to the right, to the front and to the head; the
            midline is at 0 mm.
        box: (2, 3) mm, the ends of the brain along each axis.
    """

    scan: np.ndarray
    brain: np.ndarray
    regions: np.ndarray
    affine: np.ndarray
    box: np.ndarray


def read_templates(folder: Path) -> Templates:
    """Read the scan, the scan without skull, and the atlas with its names.

    Raises:
        UserError: one is missing; their grids differ; a region is not in the atlas.
    """
    missing = [name for name in (SCAN, BRAIN, ATLAS, NAMES) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: expected a T1 scan of a brain and its atlas, found no "
                        f"{', '.join(missing)}; they come with Debian's package mricron-data: "
                        "`apt-get install mricron-data`, or name their folder with --templates")
    images = [nib.load(folder / name) for name in (SCAN, BRAIN, ATLAS)]
    first = images[0]
    if any(one.shape != first.shape or not np.allclose(one.affine, first.affine)
           for one in images[1:]):
        raise UserError(f"{folder}: expected {SCAN}, {BRAIN} and {ATLAS} on one grid, found shapes "
                        f"{', '.join(str(one.shape) for one in images)}, or affines that differ")
    scan, brain, atlas = (np.asanyarray(one.dataobj) for one in images)
    regions = np.zeros(int(atlas.max()) + 1, np.uint8)
    for number, region in _numbers(folder / NAMES).items():
        regions[number] = region
    voxels = np.argwhere(brain > 0)
    ends = np.stack([voxels.min(axis=0), voxels.max(axis=0)]) @ first.affine[:3, :3].T
    return Templates(scan.astype(np.float32), brain > 0, regions[atlas.astype(int)], first.affine,
                     np.sort(ends + first.affine[:3, 3], axis=0))


def _numbers(path: Path) -> dict[int, int]:
    """Return the atlas's numbers of REGIONS, left or right, with their places in it, from 1."""
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    number_of = {words[1].lower(): int(words[0]) for words in lines if len(words) > 1}
    wanted = {f"{region}_{side}": k + 1 for k, region in enumerate(REGIONS) for side in "lr"}
    missing = sorted(set(wanted) - set(number_of))
    if missing:
        raise UserError(f"{path}: expected lines of number and name, such as `37 Hippocampus_L`; "
                        f"found none of {', '.join(missing)}")
    return {number_of[name]: k for name, k in wanted.items()}


def offsets(crops: Crops) -> np.ndarray:
    """Return the places of a crop's voxels about its centre, (3, X, Y, Z) mm."""
    axes = [(np.arange(count) - (count - 1) / 2) * step
            for count, step in zip(crops.shape, crops.spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def draw_place(templates: Templates, crops: Crops, mirror: int, rng: np.random.Generator
               ) -> np.ndarray:
    """Draw where a crop's voxels are, (3, X, Y, Z) mm to the right, to the front and to the head.

    The centre is uniform over all places where the rotated crop is within the scan, keeps the
    margin from the midline, and has enough brain; it is drawn on the left.

    Args:
        templates: the brain.
        crops: how to draw.
        mirror: 1, or -1 to reflect every place to the right.
        rng: what is random.

    Raises:
        UserError: there seems to be no such place.
    """
    inverse = np.linalg.inv(templates.affine)
    low, high = templates.box.copy()
    low[0], high[0] = -np.abs(templates.box[:, 0]).max(), 0  # on the left
    grid = offsets(crops).reshape(3, -1)
    for _ in range(TRIES):
        centre, axis = rng.uniform(low, high), rng.normal(size=3)
        angle = np.deg2rad(rng.uniform(0, crops.degrees))
        turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()
        reach = np.abs(turn) @ -grid[:, 0]  # from the centre to the farthest corner, each axis
        if centre[0] + reach[0] > -crops.margin:
            continue
        place = (turn @ grid + centre[:, None]) * [[mirror], [1], [1]]
        voxels = inverse[:3, :3] @ place + inverse[:3, 3:]
        if (voxels.min(axis=1) < 0).any() or (
                voxels.max(axis=1) > np.subtract(templates.scan.shape, 1)).any():
            continue
        if templates.brain[tuple(np.rint(voxels).astype(int))].mean() >= crops.brain:
            return place.reshape(3, *crops.shape)
    raise UserError(f"no place for a crop of {' x '.join(map(str, crops.shape))} voxels in "
                    f"{TRIES:,} tries: expected a brain that is larger")


def take(templates: Templates, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return grey values (X, Y, Z) float32 and the count of each region's voxels (8,) at places.

    Grey values are interpolated linearly; of the atlas, a voxel has what is nearest.
    """
    inverse = np.linalg.inv(templates.affine)
    voxels = np.einsum("ij,j...->i...", inverse[:3, :3], place) + inverse[:3, 3].reshape(3, 1, 1, 1)
    values = map_coordinates(templates.scan, voxels, order=1, mode="nearest")
    regions = templates.regions[tuple(np.rint(voxels).astype(int))]
    return values, np.bincount(regions.ravel(), minlength=len(REGIONS) + 1)[1:]


def make(folder: Path, templates: Templates, crops: Crops) -> None:
    """Write the crops as NIfTI, their table, and all of them as one array, as they are read.

    The table has a row per crop: F_Name, Path, hemisphere, gain, place of the centre in mm, a
    0/1 column per region, and a column of its voxels.
    """
    (folder / "nifti").mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).unlink(missing_ok=True)
    rows, scans = [], []
    for part, count in (("pool", crops.n_pool), ("test", crops.n_test)):
        for number in range(count):
            rng = np.random.default_rng(derive_seed(crops.seed, PARTS[part], number))
            place = draw_place(templates, crops, PARTS[part], rng)
            values, voxels = take(templates, place)
            gain = rng.uniform(*crops.gain)
            values = gain * values + rng.normal(0, crops.noise, values.shape)
            name = f"{part}_{number:04d}"
            path = folder / "nifti" / f"{name}.nii.gz"
            write_nifti(path, np.rint(values.clip(0, 255)).astype(np.uint8), crops.spacing)
            scans.append(read_volume(path).slices)
            rows.append({"F_Name": name, "Path": f"nifti/{path.name}",
                         "hemisphere": "left" if part == "pool" else "right",
                         "gain": round(gain, 3),
                         **dict(zip("xyz", place.mean(axis=(1, 2, 3)).round(1), strict=True)),
                         **dict(zip(REGIONS, (voxels >= crops.voxels).astype(int), strict=True)),
                         **{f"{region}_voxels": n
                            for region, n in zip(REGIONS, voxels, strict=True)}})
    with atomic_write(folder / SCANS) as part:
        np.save(part, np.stack(scans))
    with atomic_write(folder / TABLE) as part:
        pd.DataFrame(rows).to_csv(part, index=False)
    write_json(folder / SETTINGS, dataclasses.asdict(crops))  # last: it says that all is there


def write_nifti(path: Path, values: np.ndarray, spacing: tuple[float, float, float]) -> None:
    """Write a crop (X, Y, Z) as a scan of its own, its centre at 0 mm; same voxels, same bytes."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(count - 1) / 2 * step
                     for count, step in zip(values.shape, spacing, strict=True)]
    image = nib.Nifti1Image(values, affine)
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    with atomic_write(path) as part:
        part.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def is_made(folder: Path, crops: Crops) -> bool:
    """Return whether these very crops are in a folder."""
    path = folder / SETTINGS
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")) == json.loads(
        json.dumps(dataclasses.asdict(crops)))


def load(folder: Path) -> Nodules:
    """Return the crops in a folder: their table, and slices (n, S, H, W) uint8, not yet read."""
    table = pd.read_csv(folder / TABLE)
    paths = [str((folder / path).absolute()) for path in table["Path"]]
    table = table.rename(columns={"F_Name": "nodule"}).assign(path=paths)
    return Nodules(table, np.load(folder / SCANS, mmap_mode="r"))
