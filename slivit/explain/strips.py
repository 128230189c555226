"""The slices of a scan, and their heat maps, as strips of pictures that a page can hold.

A strip is a column of slices in one picture. Slices are JPEG, or PNG where that is smaller (small
scans, outlines); heat maps are PNG with a palette, ready to be laid over a slice.
"""

import base64
import io
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from PIL import Image

from slivit.explain.figures import COLOURS, FADED, proportion, top_slices, top_weight, view_name
from slivit.explain.heatmaps import ViewSaliency, enlarge

TALLEST = 8192          # pixels of a strip; some browsers show no taller picture
BLOCK = 16              # pixels: JPEG mixes neighbours within such squares
QUALITIES = range(85, 0, -5)  # of JPEG: the first that is small enough, else the last
SLICE_BYTES = 0.14      # a pixel, at most: noise is packed harder
HEAT_PIXELS = 4         # a side of a cell of Grad-CAM: between cells the browser interpolates


@dataclass(frozen=True)
class ViewStrips:
    """The slices of one view that the model saw.

    Attributes:
        name: of the view in words; empty for `acquisition`.
        numbers: from 1, which slices of the view they are.
        count: how many slices the view has in the scan.
        ratio: width by height of a slice as it is to be shown.
        width, height: of a slice in pixels.
        pitch: rows from one slice of a strip to the next.
        per_strip: slices in a strip, fewer in the last.
        slices: data URIs of the strips.
        heat_width, heat_height: of a slice's heat map in pixels; 0 where there is none.
        heats: data URIs of the strips of heat maps, weight x Grad-CAM; empty where there are none.
        weights, rollout: of the slices, see saliency.Saliency; empty where there are none.
    """

    name: str
    numbers: tuple[int, ...]
    count: int
    ratio: float
    width: int
    height: int
    pitch: int
    per_strip: int
    slices: tuple[str, ...]
    heat_width: int
    heat_height: int
    heats: tuple[str, ...]
    weights: tuple[float, ...]
    rollout: tuple[float, ...]


@dataclass(frozen=True)
class ScanStrips:
    """The slices of a scan, view by view; `start` is the first to be shown, counted over all."""

    views: tuple[ViewStrips, ...]
    start: int


def make_strips(looks: list[ViewSaliency]) -> ScanStrips:
    """Return the slices of a scan as strips, with heat maps and weights where they are known.

    The scan is opened at its top slice; without weights, in the middle of the first view.
    """
    top = top_weight(looks)
    views = tuple(_view_strips(look, top) for look in looks)
    start = len(looks[0].numbers) // 2
    if looks[0].relevance is not None:
        look, i = top_slices(looks)[0]
        before = looks[:[one is look for one in looks].index(True)]
        start = sum(len(one.numbers) for one in before) + i
    return ScanStrips(views, start)


def smaller_uri(picture: Image.Image, most: float, png: bytes | None = None) -> str:
    """Return a picture as a data URI: of PNG and JPEG the smaller one.

    Args:
        picture: grey or RGB.
        most: bytes a pixel that the JPEG should not exceed.
        png: the picture's PNG, where there is one already.
    """
    png = png or _encoded(picture, "PNG")
    for quality in QUALITIES:
        jpeg = _encoded(picture, "JPEG", quality=quality, optimize=True)
        if len(jpeg) <= most * picture.width * picture.height:
            break
    return _uri("jpeg", jpeg) if len(jpeg) < len(png) else _uri("png", png)


def _view_strips(look: ViewSaliency, top: float) -> ViewStrips:
    count, _, height, width = look.slices.shape
    pitch = -(-height // BLOCK) * BLOCK
    padded = np.pad(look.slices, ((0, 0), (0, 0), (0, pitch - height), (0, 0)), mode="edge")
    per_strip = min(count, max(1, TALLEST // pitch))
    parts = [slice(i, i + per_strip) for i in range(0, count, per_strip)]
    heats, (heat_height, heat_width) = (), (0, 0)
    if look.cams is not None:
        heat_height, heat_width = (HEAT_PIXELS * cells for cells in look.cams.shape[1:])
        heats = tuple(_heat_uri(_heat(look, part, top, (heat_height, heat_width)))
                      for part in parts)
    return ViewStrips(
        "" if look.view == "acquisition" else view_name(look.view),
        tuple((look.numbers + 1).tolist()), look.shape[0], round(proportion(look), 4), width,
        height, pitch, per_strip,
        tuple(smaller_uri(_column(padded[part].transpose(0, 2, 3, 1)), SLICE_BYTES)
              for part in parts),
        heat_width, heat_height, heats, _rounded(look.relevance), _rounded(look.rollout))


def _heat(look: ViewSaliency, part: slice, top: float, size: tuple[int, int]) -> np.ndarray:
    """Return the heat (n, *size) of some slices, 0 to 1, as in the picture of the scan."""
    share = 1.0 if look.relevance is None else (look.relevance[part] / top)[:, None, None]
    return share * enlarge(look.cams[part], size, look.cell)


def _heat_uri(heat: np.ndarray) -> str:
    """Return heat (n, H, W) as a strip in colour, the more transparent the weaker."""
    picture = Image.fromarray(np.round(255 * heat.reshape(-1, heat.shape[2])).astype(np.uint8))
    levels = np.arange(256) / 255
    picture.putpalette((colormaps[COLOURS](levels)[:, :3] * 255).round().astype(np.uint8).tobytes())
    alpha = (255 * np.clip(levels / FADED, 0, 1)).round().astype(np.uint8).tobytes()
    return _uri("png", _encoded(picture, "PNG", transparency=alpha))


def _column(slices: np.ndarray) -> Image.Image:
    """Return slices (n, h, w, 1 or 3) one below the other."""
    pixels = slices.reshape(-1, *slices.shape[2:])
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _rounded(weights: np.ndarray | None) -> tuple[float, ...]:
    return () if weights is None else tuple(np.round(weights, 5).tolist())
