"""The picture of an explanation: weights of the slices, and the top slices with their Grad-CAM."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from slivit.explain.heatmaps import ViewSaliency, enlarge
from slivit.utils.files import atomic_write

TOP = 3            # slices shown
WIDTH = 9.0        # inches, as are the next two: heights of the titles, with and without the plot
ABOVE, TITLES = 3.3, 0.75
COLOURS = "inferno"
OPAQUE = 0.75      # of the strongest colour over the scan
FADED = 0.6        # share of the strongest Grad-CAM from which the colour is that opaque
SQUEEZED = 3.0     # at most so much longer one side of a slice is drawn
LETTERS = 90       # of a line of the title
BARS, LINE = "#e07b39", "#1f5f99"


def draw_explanation(looks: Sequence[ViewSaliency], titles: tuple[str, str], path: Path) -> None:
    """Write a PNG of what a model looked at in one scan.

    Args:
        looks: of each view.
        titles: which scan it is, and what was predicted.
        path: of the picture.
    """
    volume = looks[0].relevance is not None
    shown = top_slices(looks) if volume else [(looks[0], 0)]
    tallest = max(1 / proportion(look) for look, _ in shown)
    pictures = 2 * (0.35 + 2.6 * tallest) if volume else 0.2 + 4.0 * tallest  # inches
    heights = ABOVE if volume else TITLES, pictures
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.06)
    above, below = figure.subfigures(2, 1, height_ratios=heights)
    for line, size, weight, down in ((titles[0], 13, "bold", 0.12), (titles[1], 10.5, None, 0.42)):
        above.text(0.012, 1 - down / heights[0], _short(line), fontsize=size, fontweight=weight,
                   va="top")
    if volume:
        _draw_weights(above, looks, shown)
        _draw_slices(below, shown, top_weight(looks))
    else:
        _draw_image(below, looks[0])
    with atomic_write(path) as part:
        figure.savefig(part, dpi=120)


def top_slices(looks: Sequence[ViewSaliency]) -> list[tuple[ViewSaliency, int]]:
    """Return the slices of the largest relevance, of all views, each by its view and place.

    Among equals (where nothing speaks for the output all are 0) those of the largest rollout.
    """
    def rank(one: tuple[ViewSaliency, int]) -> tuple[float, float]:
        look, i = one
        return -look.relevance[i], 0.0 if look.rollout is None else -look.rollout[i]

    ordered = [(look, i) for look in looks for i in range(len(look.numbers))]
    ordered.sort(key=rank)
    return ordered[:TOP]


def proportion(look: ViewSaliency) -> float:
    """Return width by height of a slice as it is drawn."""
    return float(np.clip(look.sides[1] / look.sides[0], 1 / SQUEEZED, SQUEEZED))


def top_weight(looks: Sequence[ViewSaliency]) -> float:
    """Return the largest relevance of a slice, by which heat is scaled; 1 where all are 0."""
    return max((look.relevance.max() for look in looks if look.relevance is not None),
               default=0) or 1.0


def _draw_weights(figure: SubFigure, looks: Sequence[ViewSaliency],
                  shown: list[tuple[ViewSaliency, int]]) -> None:
    """Draw the weights over the slices, a panel for each view."""
    figure.suptitle(" ", fontsize=31)  # room for the titles
    panels = figure.subplots(1, len(looks), sharey=True, squeeze=False)[0]
    total = sum(len(look.numbers) for look in looks)
    for axes, look in zip(panels, looks, strict=True):
        numbers = look.numbers + 1
        width = 0.8 * (np.diff(numbers).min() if len(numbers) > 1 else 1)
        attends = look.rollout is not None
        axes.bar(numbers, look.relevance, width, color=BARS,
                 label=f"gradient × {'attention' if attends else 'features'}")
        if attends:
            axes.plot(numbers, look.rollout, color=LINE, marker=".", linewidth=1.4,
                      label="attention rollout")
        axes.axhline(1 / total, color="grey", linestyle=":", linewidth=1, label="all slices equal")
        for rank, (other, i) in enumerate(shown, start=1):
            if other is look:
                height = max(look.relevance[i], look.rollout[i] if attends else 0)
                axes.annotate(str(rank), (numbers[i], height), (0, 4), ha="center",
                              textcoords="offset points", fontweight="bold", fontsize=9)
        what = "slice" if look.view == "acquisition" else f"{view_name(look.view)} slice"
        axes.set_xlabel(f"{what} (1 to {look.shape[0]})")
        axes.set_xlim(1 - width, look.shape[0] + width)
        ticks = MaxNLocator(8 if len(looks) == 1 else 4, integer=True).tick_values(0, look.shape[0])
        axes.set_xticks([1, *(tick for tick in ticks if 1 < tick <= look.shape[0])])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
        axes.margins(y=0.15)
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("weight (sum 1)")
    order = {text: line for line, text in zip(*panels[0].get_legend_handles_labels(), strict=True)}
    names = sorted(order, reverse=True, key=lambda text: (text.startswith("grad"), text))
    figure.legend([order[name] for name in names], names, loc="outside lower center", ncols=3,
                  frameon=False, fontsize=9)


def _draw_slices(figure: SubFigure, shown: list[tuple[ViewSaliency, int]], most: float) -> None:
    """Draw the top slices, below each its heat: Grad-CAM times its share of the top weight."""
    grid = figure.subplots(2, TOP, squeeze=False)
    for axes in grid.ravel():
        axes.axis("off")
    for rank, (look, i) in enumerate(shown, start=1):
        where = "" if look.view == "acquisition" else f"{view_name(look.view)} "
        grid[0, rank - 1].set_title(
            f"{rank}: {where}slice {look.numbers[i] + 1}, weight {look.relevance[i]:.2f}",
            fontsize=10)
        _draw_pair(grid[:, rank - 1], look, i, look.relevance[i] / most)
    _colour_bar(figure, list(grid[1]), "weight × Grad-CAM\n(fraction of\nthe maximum)")


def _draw_image(figure: SubFigure, look: ViewSaliency) -> None:
    pair = figure.subplots(1, 2)
    for axes in pair:
        axes.axis("off")
    _draw_pair(pair, look, 0, 1.0)
    _colour_bar(figure, list(pair), "Grad-CAM\n(fraction of\nthe maximum)")


def _draw_pair(pair: np.ndarray, look: ViewSaliency, i: int, share: float) -> None:
    """Draw a slice on the one axes, and with `share` of its Grad-CAM on the other."""
    pixels = look.slices[i].transpose(1, 2, 0)
    pixels = pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels
    width = proportion(look)
    cam = share * enlarge(look.cams[i:i + 1], pixels.shape[:2], look.cell)[0]
    colours = colormaps[COLOURS](cam)
    colours[..., 3] = OPAQUE * np.clip(cam / FADED, 0, 1)
    for axes in pair:
        axes.imshow(pixels, extent=(0, width, 1, 0), interpolation="bilinear")
    pair[1].imshow(colours, extent=(0, width, 1, 0), interpolation="bilinear")
    if cam.max() < 0.01:
        pair[1].text(0.5, 0.03, "0 throughout", transform=pair[1].transAxes, ha="center",
                     fontsize=8, color="white", bbox={"facecolor": "black", "alpha": 0.6})


def _colour_bar(figure: SubFigure, beside: list[Axes], label: str) -> None:
    bar = figure.colorbar(ScalarMappable(cmap=COLOURS), ax=beside, pad=0.02)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=8)


def view_name(view: str) -> str:
    """Return a view in words."""
    return f"axis {view}" if view.isdigit() else view


def _short(line: str) -> str:
    """Return a line of the title, cut where too long, `$` not taken for a formula."""
    line = " ".join(line.split())
    return (line if len(line) <= LETTERS else f"{line[:LETTERS - 1]}…").replace("$", r"\$")
