"""Writers of MetaImage and NRRD files: by SimpleITK, and by hand for what it does not write."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from nibabel's coordinates to ITK's, and back
VALUES = np.random.default_rng(3).integers(-900, 900, (7, 6, 5)).astype(np.int16)
MET = {"int8": "MET_CHAR", "uint8": "MET_UCHAR", "int16": "MET_SHORT", "uint16": "MET_USHORT",
       "int32": "MET_INT", "uint32": "MET_UINT", "int64": "MET_LONG_LONG",
       "float32": "MET_FLOAT", "float64": "MET_DOUBLE"}


def itk_image(values: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """Return an image of voxels (x, y, z[, 3]) with nibabel's affine."""
    image = sitk.GetImageFromArray(values.transpose(2, 1, 0, *range(3, values.ndim)),
                                   isVector=values.ndim > 3)
    matrix = (LPS @ affine)[:3]
    steps = np.linalg.norm(matrix[:, :3], axis=0)
    image.SetSpacing(steps.tolist())
    image.SetDirection((matrix[:, :3] / steps).ravel().tolist())
    image.SetOrigin(matrix[:, 3].tolist())
    return image


def write_itk(path: Path, values: np.ndarray, affine: np.ndarray, packed: bool = False) -> Path:
    """Write such an image by SimpleITK; the suffix decides the format."""
    sitk.WriteImage(itk_image(values, affine), str(path), useCompression=packed)
    return path


def write_metaimage(path: Path, values: np.ndarray = VALUES, data: str = "LOCAL",
                    packed: bool = False, content: bytes | None = None, **fields: object) -> Path:
    """Write a MetaImage of voxels (x, y, z) by hand; a field that is None is left out.

    Args:
        path: of the header.
        values: voxels.
        data: name of the file of the voxels.
        packed: by zlib.
        content: of the file of the voxels, in place of them.
        fields: of the header, that replace or follow the usual ones.
    """
    content = values.tobytes(order="F") if content is None else content
    content = zlib.compress(content) if packed else content
    fields = {"ObjectType": "Image", "NDims": values.ndim, "CompressedData": packed,
              "DimSize": " ".join(map(str, values.shape)),
              "ElementType": MET[values.dtype.name], **fields, "ElementDataFile": data}
    text = "".join(f"{name} = {value}\n" for name, value in fields.items() if value is not None)
    return _write(path, text, data if data != "LOCAL" else None, content)


def write_nrrd(path: Path, values: np.ndarray = VALUES, data: str | None = None,
               packed: bool = False, content: bytes | None = None, **fields: object) -> Path:
    """Write a NRRD of voxels (x, y, z) by hand; as write_metaimage, `space_origin: space origin`.

    Args:
        path, values, packed, content, fields: as there; packed by gzip.
        data: name of the file of the voxels; None for that of the header.
    """
    content = values.tobytes(order="F") if content is None else content
    content = gzip.compress(content) if packed else content
    fields = {"type": values.dtype.name, "dimension": values.ndim,
              "sizes": " ".join(map(str, values.shape)), "endian": "little",
              "encoding": "gzip" if packed else "raw", "data_file": data, **fields}
    text = "".join(f"{name.replace('_', ' ')}: {value}\n" for name, value in fields.items()
                   if value is not None)
    return _write(path, f"NRRD0004\n# as written by hand\n{text}\n", data, content)


def _write(path: Path, text: str, data: str | None, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(errors="surrogateescape") + (b"" if data else content))
    if data and (path.parent / data).parent.is_dir() and Path(data).name == data:
        (path.parent / data).write_bytes(content)
    return path
