"""The contact sheet: a picture of many scans, one row of slices each."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from slivit.utils.files import atomic_write

CELL = 96     # pixels a slice
TEXT = 260    # width of the text beside the slices
GAP = 4
LETTERS = 40  # of a line of text
GREY, RED = (90, 90, 90), (190, 30, 30)


@dataclass(frozen=True)
class Row:
    """A scan on the sheet: uint8 slices (n, H, W[, 3]), lines of text, whether it stands out."""

    slices: np.ndarray
    lines: tuple[str, ...]
    marked: bool = False


def draw_sheet(rows: list[Row], path: Path) -> None:
    """Write a PNG with a row per scan; the single slices of images stand beside their text.

    Slices keep their proportions.
    """
    widest = max((len(row.slices) for row in rows), default=1)
    across = 4 if widest == 1 else 1  # images: four to a line
    width = across * (TEXT + widest * (CELL + GAP))
    sheet = Image.new("RGB", (width, max(1, -(-len(rows) // across)) * (CELL + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    bold, plain = ImageFont.load_default(15), ImageFont.load_default(12)
    for i, row in enumerate(rows):
        left = i % across * (TEXT + widest * (CELL + GAP))
        top = i // across * (CELL + GAP)
        for k, line in enumerate(row.lines):
            draw.text((left + 6, top + 4 + 21 * k), _short(line), font=plain if k else bold,
                      fill=RED if row.marked and k == len(row.lines) - 1 else
                      GREY if k else "black")
        for k, one in enumerate(row.slices):
            x = left + TEXT + k * (CELL + GAP)
            draw.rectangle((x, top, x + CELL - 1, top + CELL - 1), fill=(225, 225, 225))
            place_slice(sheet, one, x, top, CELL)
    with atomic_write(path) as part:
        sheet.save(part)


def place_slice(sheet: Image.Image, one: np.ndarray, x: int, y: int, cell: int) -> None:
    """Paste a slice, uint8 (H, W[, 3]), into the middle of a square of `cell` pixels at x, y."""
    picture = Image.fromarray(one)
    picture.thumbnail((cell, cell))
    if max(picture.size) < cell:
        scale = cell / max(picture.size)
        picture = picture.resize([max(1, round(side * scale)) for side in picture.size],
                                 Image.Resampling.NEAREST)
    sheet.paste(picture, (x + (cell - picture.width) // 2, y + (cell - picture.height) // 2))


def _short(line: str) -> str:
    return line if len(line) <= LETTERS else f"{line[:LETTERS - 1]}…"
