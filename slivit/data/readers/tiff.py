"""Multi-page TIFF files, by tifffile."""

import logging
import struct
from pathlib import Path

import numpy as np
import tifffile

from slivit.data.readers.base import (
    Header,
    Pick,
    ReadError,
    Volume,
    check_values,
    codec_threads,
    grey_if_equal,
    picked,
    reason,
)

TIFF_SUFFIXES = (".tif", ".tiff")
NEEDED = {259: "Compression", 262: "PhotometricInterpretation"}  # tags that every TIFF has
PACKED = (5, 7)  # LZW and JPEG, without a checksum, but whose data do not end with zeros
ZEROS = bytes(4)


def read_tiff_volume(path: Path, pick: Pick | None = None) -> Volume:
    """Read a multi-page TIFF; its pages are the slices.

    Raises:
        ReadError: missing, damaged, of one page, or of pages that differ in size.
    """
    return _with_pages(path, lambda pages: Volume(
        check_values(read_pages(pages, path, pick), path), _tiff_spacing(pages)))


def tiff_volume_header(path: Path) -> Header:
    """Return the header of a multi-page TIFF.

    Raises:
        ReadError: see `read_tiff_volume`.
    """
    def look(pages: tifffile.TiffFile) -> Header:
        series, page = pages.series[0], pages.pages[0]
        count = int(np.prod(series.shape)) // int(np.prod(page.shape))
        colour = (3,) if page.samplesperpixel >= 3 or page.photometric == 3 else ()
        return Header("tiff", (count, page.imagelength, page.imagewidth, *colour),
                      "uint8" if page.bitspersample == 1 else str(series.dtype),
                      _tiff_spacing(pages))

    return _with_pages(path, look)


def silence() -> None:
    """Keep tifffile and Pillow from logging: what they say, messages say here."""
    for name in ("tifffile", "PIL"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _with_pages(path: Path, look: callable) -> object:
    silence()
    try:
        with tifffile.TiffFile(path) as pages:
            if len(pages.series) != 1:
                raise ReadError(f"{path}: its pages differ in size or kind ({len(pages.series)} "
                                "series), expected one size per volume")
            _check_whole(pages, path)
            series = pages.series[0]
            if np.prod(series.shape) == np.prod(pages.pages[0].shape):
                raise ReadError(f"{path}: has one page, expected a page for every slice (or give "
                                "the folder of the slices)")
            return look(pages)
    except FileNotFoundError:
        raise ReadError(f"{path}: does not exist") from None
    except ReadError:
        raise
    except Exception as error:  # tifffile and its codecs raise a dozen kinds for a damaged file
        raise ReadError(f"{path}: cannot be read as a TIFF ({reason(error, path)})") from None


def _check_whole(pages: tifffile.TiffFile, path: Path) -> None:
    """Refuse a file that ends before its pages do, or whose list of pages leads beyond its end.

    And one of which tags are missing, or the last packed pixels end with zeros: a part was lost.
    """
    page = pages.pages[0]
    if missing := [name for tag, name in NEEDED.items() if tag not in page.tags]:
        raise ReadError(f"{path}: its header is damaged: it does not contain {', '.join(missing)}")
    ends = [start + count for page in pages.pages for start, count
            in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if page.compression in PACKED and ends:
        pages.filehandle.seek(max(0, max(ends) - len(ZEROS)))
        if pages.filehandle.read(len(ZEROS)) == ZEROS:
            raise ReadError(f"{path}: its last pixels end with zeros: it was not copied whole")
    ends += [one.dataoffset + one.nbytes for one in pages.series if one.dataoffset is not None]
    last, layout, file = pages.pages[-1], pages.tiff, pages.filehandle
    file.seek(last.offset)
    tags, = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    file.seek(last.offset + layout.tagnosize + tags * layout.tagsize)
    ends += struct.unpack(layout.offsetformat, file.read(layout.offsetsize))
    size = path.stat().st_size
    if max(ends) > size:
        raise ReadError(f"{path}: is truncated: {size} bytes, expected {max(ends)} or more")


def read_pages(pages: tifffile.TiffFile, path: Path, pick: Pick | None) -> np.ndarray:
    """Return pages as (N, H, W) or (N, H, W, 3)."""
    page, series = pages.pages[0], pages.series[0]
    count = int(np.prod(series.shape)) // int(np.prod(page.shape))
    wanted = picked(count, pick)
    if len(pages.pages) == count:
        values = pages.asarray(key=list(wanted), maxworkers=codec_threads()).reshape(
            len(wanted), *page.shape)
    else:  # ImageJ stores the rest of a stack behind its first page
        values = series.asarray(maxworkers=codec_threads()).reshape(count, *page.shape)[wanted]
    if page.planarconfig == 2 and page.samplesperpixel > 1:
        values = np.moveaxis(values, 1, -1)
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        colours = (np.asarray(page.colormap) >> 8).astype(np.uint8)
        return grey_if_equal(np.moveaxis(colours[:, values], 0, -1))
    if values.dtype == bool:
        values = values.astype(np.uint8) * 255
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        values = ~values if values.dtype.kind in "ui" else -values
    if values.ndim == 4:
        values = values[..., 0] if values.shape[-1] < 3 else grey_if_equal(values[..., :3])
    if values.dtype.kind not in "uif":
        raise ReadError(f"{path}: contains {values.dtype}, expected numbers")
    return values


def _tiff_spacing(pages: tifffile.TiffFile) -> tuple[float, float, float] | None:
    """Return what ImageJ wrote of the voxel size, where its unit is one of length."""
    about = pages.imagej_metadata or {}
    scale = {"mm": 1.0, "millimeter": 1.0, "micron": 1e-3, "um": 1e-3, "\\u00B5m": 1e-3,
             "µm": 1e-3, "cm": 10.0}.get(about.get("unit"))
    tags = pages.pages[0].tags
    if scale is None or "spacing" not in about or "XResolution" not in tags:
        return None
    sides = [tags[name].value for name in ("YResolution", "XResolution")]
    if any(not numerator for numerator, _ in sides):
        return None
    return (abs(about["spacing"]) * scale, *(scale * low / high for high, low in sides))
