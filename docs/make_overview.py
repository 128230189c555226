"""Draw docs/overview.png: how SLIViT reads a volume, with a real nodule of the embedded set.

    python docs/make_overview.py
"""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

HERE = Path(__file__).resolve().parent
SHOWN = (10, 12, 14, 16, 18)
INK, BACKBONE, TOKEN, INTEGRATOR = "#22313f", "#dbe9f6", "#fde8cf", "#dff0d8"


def box(axes, x: float, y: float, width: float, height: float, text: str, colour: str) -> None:
    """Draw a rounded box with centred text; (x, y) is its lower left corner."""
    axes.add_patch(FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0.02,rounding_size=0.1", facecolor=colour,
        edgecolor=INK, linewidth=1.0))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9, color=INK)


def arrow(axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw an arrow."""
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.0})


def main() -> None:
    """Draw and write the figure."""
    with np.load(HERE.parent / "data" / "noduleshapes3d.npz") as npz:
        volumes = npz["train_images"][npz["train_labels"][:, 0] == 1]
    spread = np.abs(volumes.astype(float).sum(axis=(1, 2, 3)) / 255 - 3000)
    volume = volumes[spread.argmin()]  # a malignant nodule of about 3 cm3
    figure = Figure(figsize=(9.2, 4.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(xlim=(0, 11.6), ylim=(-0.3, 5.4), aspect="equal")
    axes.axis("off")
    for k, index in enumerate(SHOWN):
        y = 4.2 - k
        axes.imshow(volume[index], cmap="gray", extent=(0.6, 1.5, y, y + 0.9), vmin=0, vmax=255)
        axes.text(0.5, y + 0.45, f"slice {index}", ha="right", va="center", fontsize=7, color=INK)
        arrow(axes, (1.55, y + 0.45), (2.35, y + 0.45))
        arrow(axes, (4.5, y + 0.45), (5.2, y + 0.45))
        box(axes, 5.25, y + 0.2, 1.3, 0.5, "token", TOKEN)
        arrow(axes, (6.65, y + 0.45), (7.4, y + 0.45))
    box(axes, 2.4, 0.2, 2.05, 4.9, "ConvNeXt\nbackbone\n\nsees each\nslice on its own\n\n"
        "pre-trained on\n2D scans by\nbb_train.py", BACKBONE)
    box(axes, 7.45, 0.2, 2.05, 4.9, "ViT\nintegrator\n\nclass token,\nslice positions,\n"
        "padding masked\n\nfine-tuned by\nfinetune.py", INTEGRATOR)
    arrow(axes, (9.6, 2.65), (10.2, 2.65))
    axes.text(10.3, 2.65, "malignant?\none prediction\nper volume", va="center", fontsize=9,
              color=INK)
    figure.savefig(HERE / "overview.png", dpi=130)


if __name__ == "__main__":
    main()
