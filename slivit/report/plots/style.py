"""What all pictures share: the figure, its legend, and how it is saved."""

from pathlib import Path

import numpy as np
from cycler import cycler
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from slivit.utils.files import atomic_write

FEW_LABELS = 3  # more have their legend below the plot


def new_figure(width: float = 5.5, height: float = 5.0, rows: int = 1, columns: int = 1):
    """Return a figure and its axes: one, or an array of them."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def new_panels(count: int, across: int, width: float, height: float, top: float = 0):
    """Return a figure and `count` axes, at most `across` beside each other, `top` inches above."""
    across = min(across, count)
    down = -(-count // across)
    figure, grid = new_figure(width * across, height * down + top, down, across)
    panels = np.atleast_1d(grid).ravel()
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def tell_apart(axes, count: int) -> None:
    """Give axes colours, and of more than 20 curves dashes too, that tell `count` curves apart."""
    colours = cycler(color=colormaps["tab10" if count <= 10 else "tab20"].colors)
    axes.set_prop_cycle(cycler(linestyle=["-", "--", "-.", ":"]) * colours)


def unit_square(axes) -> None:
    """Let both axes of a plot of curves run from 0 to 1."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.grid(alpha=0.3)


def diagonal(axes) -> None:
    """Draw the line of equal x and y."""
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")


def legend(figure: Figure, axes, place: str) -> None:
    """Add the legend: in the plot, or below it where there are many curves."""
    labelled = len(axes.get_legend_handles_labels()[0])
    if labelled > FEW_LABELS:
        rows = -(-labelled // 2)
        figure.set_figheight(figure.get_figheight() + 0.2 * rows)
        figure.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8,
                      loc="outside lower center", ncols=2)
        for _ in range(3):  # each brings the layout of a tall legend nearer to what fits
            figure.draw_without_rendering()
    else:
        axes.legend(frameon=True, fontsize=8, loc=place)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a PNG, whole or not at all, and return its path."""
    with atomic_write(path) as part:
        figure.savefig(part, dpi=120)
    return path


def plain(name: str, letters: int | None = None) -> str:
    """Return a name as matplotlib shows it: a dollar sign is not a formula, a long name is cut."""
    if letters is not None and len(name) > letters:
        name = f"{name[:letters - 1]}…"
    return name.replace("$", r"\$")
