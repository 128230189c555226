"""MINC volumes, by nibabel: MINC1 and, where h5py is installed, MINC2."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.externals.netcdf import netcdf_file
from nibabel.minc1 import Minc1File
from nibabel.minc2 import Minc2File

from slivit.data.readers.base import (
    UNPACKED,
    Header,
    Pick,
    ReadError,
    Volume,
    check_size,
    reason,
)
from slivit.data.readers.nibabel_images import (
    Layout,
    check_layout,
    grid_of,
    header_of,
    silence,
    volume_of,
)
from slivit.data.readers.voxel_grid import Grid

SUFFIXES = (".mnc",)
MINC1, MINC2 = (b"CDF\1", b"CDF\2"), b"\x89HDF"  # first bytes
PADDING = 3  # bytes, at most, after the last variable
IMAGE = "minc-2.0/image/0"
LINKS = ("minc-2.0", "minc-2.0/dimensions", "minc-2.0/image", IMAGE, f"{IMAGE}/image",
         f"{IMAGE}/image-max", f"{IMAGE}/image-min")
Look = Callable[[Minc1File, Layout, tuple[str, ...]], Any]  # also given notes on the file


class MappedFile(netcdf_file):
    """A netCDF file whose arrays stay valid once it is closed."""

    def __init__(self, path: Path) -> None:
        """Open a file; its arrays are maps of it, so that voxels are not read."""
        super().__init__(str(path), "r", mmap=True)

    def close(self) -> None:
        """Close the file; the map of it is closed with the last array."""
        if "fp" in self.__dict__:
            self.fp.close()

    __del__ = close


def header(path: Path) -> Header:
    """Return the header of a MINC file.

    Raises:
        ReadError: missing, not MINC, truncated, MINC2 without h5py, of other than three
            dimensions, of one slice.
    """
    return _look(path, lambda _, layout, notes: header_of("minc", layout, notes))


def read(path: Path, pick: Pick | None = None) -> Volume:
    """Read a MINC file; its slices come as those of NIfTI do (see nifti.read).

    Values are scaled to the range that the file states of each slice (image-min, image-max).

    Raises:
        ReadError: see `header`; or with NaN in it.
    """
    layout, values = _look(path, lambda minc, layout, _: (layout, _values(minc)))
    return volume_of(layout, values, path, pick)


def grid(path: Path, _: Header) -> Grid:
    """Return the grid of a file."""
    return grid_of(_look(path, lambda minc, layout, notes: layout))


def _look(path: Path, look: Look) -> Any:
    """Return what is found in an open file, given how it stores its voxels."""
    if not path.exists():
        raise ReadError(f"{path}: does not exist")
    silence()
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic in MINC1:
            return _look_at_minc1(path, look)
        if magic == MINC2:
            return _look_at_minc2(path, look)
    except ReadError:
        raise
    except Exception as error:  # nibabel and h5py raise several kinds for a damaged file
        raise ReadError(f"{path}: is truncated or damaged, or not MINC ({reason(error, path)})"
                        ) from None
    raise ReadError(f"{path}: is not a MINC file: expected it to begin with CDF (MINC1) or HDF "
                    "(MINC2)")


def _look_at_minc1(path: Path, look: Look) -> Any:
    with MappedFile(path) as file:
        more = path.stat().st_size - _end(file, path)
        notes = (f"{more} bytes follow its last variable",) if more > PADDING else ()
        names = file.variables["image"].dimensions
        minc = Minc1File(file)
        return look(minc, _layout(minc, names, path), notes)


def _look_at_minc2(path: Path, look: Look) -> Any:
    try:
        import h5py
    except ImportError:
        raise ReadError(f"{path}: is a MINC2 file, which needs the package h5py: install it (pip "
                        "install h5py), or convert the file to NIfTI (mnc2nii)") from None
    with warnings.catch_warnings(), h5py.File(path, "r") as file:
        warnings.simplefilter("ignore")  # nibabel's, of attributes that matter to nothing here
        _check_links(file, h5py.HardLink, path)
        image = file[f"{IMAGE}/image"]
        _check_stored(image, path)
        names = image.attrs["dimorder"].decode().split(",")[:image.ndim]
        minc = Minc2File(file)
        return look(minc, _layout(minc, names, path), ())


def _layout(minc: Minc1File, names: tuple[str, ...] | list[str], path: Path) -> Layout:
    """Return how the voxels are stored: along three axes in space, and those of other names."""
    shape = dict(zip(names, map(int, minc.get_data_shape()), strict=True))
    space = [name for name in names if name.endswith("space")]
    if len(space) != 3:
        raise ReadError(f"{path}: has the dimensions {', '.join(names) or 'none'}, expected "
                        "zspace, yspace and xspace in some order")
    others = [shape[name] for name in names if name not in space]
    with np.errstate(all="ignore"):  # of numbers that are refused
        affine = minc.get_affine()
    layout = Layout((*(shape[name] for name in space), *others), minc.get_data_dtype(), affine)
    check_layout(layout, path)
    return layout


def _values(minc: Minc1File) -> np.ndarray:
    with np.errstate(all="ignore"):  # infinite values are refused
        return minc.get_scaled_data()


def _end(file: MappedFile, path: Path) -> int:
    """Return the number of bytes up to the end of the last variable.

    Raises:
        ReadError: variables overlap, which they cannot.
    """
    places = []
    for variable in file.variables.values():
        data = whole = variable.data
        while isinstance(whole.base, np.ndarray):
            whole = whole.base  # the map of the file
        if data.size and not variable.isrec:
            begin = data.ctypes.data - whole.ctypes.data
            places.append((begin, begin + data.nbytes))
    places.sort()
    if any(begin < end for (_, end), (begin, _) in zip(places, places[1:], strict=False)):
        raise ReadError(f"{path}: its header is damaged: its variables overlap")
    return max((end for _, end in places), default=0)


def _check_links(file: Any, hard: type, path: Path) -> None:
    """Refuse an HDF5 file parts of which are, or may be, in other files."""
    names = [*LINKS, *(f"{LINKS[1]}/{name}" for name in file[LINKS[1]])]
    for name in names:
        if not isinstance(file.get(name, getlink=True), hard):
            raise ReadError(f"{path}: does not itself contain {name}, expected a whole MINC2 file")


def _check_stored(image: Any, path: Path) -> None:
    """Refuse an HDF5 array that is larger than its file, not all there, or in other files."""
    check_size(image.shape, image.dtype, UNPACKED * path.stat().st_size, path)
    if image.is_virtual or image.external:
        raise ReadError(f"{path}: does not itself contain its voxels, expected a whole MINC2 file")
    if image.chunks:
        wanted = math.prod(-(-side // chunk) for side, chunk
                           in zip(image.shape, image.chunks, strict=True))
        there = image.id.get_num_chunks()
    else:
        wanted, there = image.nbytes, image.id.get_storage_size()
    if there < wanted:
        raise ReadError(f"{path}: is truncated: contains {there} of the {wanted} "
                        f"{'chunks' if image.chunks else 'bytes'} of its voxels")
