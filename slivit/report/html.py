"""report.html and report.md: everything an evaluation found, on one page."""

import base64
import dataclasses
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2
import pandas as pd
from PIL import Image

from slivit.explain.strips import ScanStrips, smaller_uri
from slivit.report.tables import (
    cohort_table,
    comparison_table,
    group_tables,
    headline,
    score_tables,
)
from slivit.utils.files import atomic_write

TEMPLATES = Path(__file__).parent / "templates"
PICTURE_BYTES = 0.12  # a pixel, at most, of the picture of a scan
MANY_GROUP_TABLES = 4  # more are folded on the page
PLOTS = {
    "roc": ("ROC curves", "sensitivity against 1 - specificity"),
    "pr": ("Precision-recall curves", "precision against recall"),
    "calibration": ("Calibration", "observed frequency against predicted probability"),
    "confusion": ("Confusion", "numbers of scans by true and predicted class"),
    "scatter": ("Predicted and true values", "predicted against true values"),
    "bland_altman": ("Bland-Altman", "differences against means of predicted and true values"),
}


@dataclass(frozen=True)
class Case:
    """One scan that is shown.

    Attributes:
        title: its id, and what is odd about it.
        facts: such as ("truth", "1"), ("predicted", "0.03"), ("patient", "p7").
        picture: a PNG.
        strips: slices that the page scrolls through in place of the picture, or None.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    picture: Path
    strips: ScanStrips | None = None


@dataclass(frozen=True)
class Report:
    """What a report shows; all texts are plain and are escaped on the page.

    Attributes:
        title: of the page.
        about: what was evaluated on what.
        cohort: ready to print, strings and numbers.
        metrics: the content of `metrics.json`.
        plots: PNG files.
        worst: the worst errors.
        explanations: the scans that were explained.
        model_card: facts of the checkpoint.
        provenance: hashes, versions, the command.
        notes: warnings.
    """

    title: str
    about: tuple[tuple[str, str], ...]
    cohort: pd.DataFrame
    metrics: dict
    plots: tuple[Path, ...] = ()
    worst: tuple[Case, ...] = ()
    explanations: tuple[Case, ...] = ()
    model_card: tuple[tuple[str, str], ...] = ()
    provenance: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A PNG on the page: its file, what it shows, the same in words, and its size in pixels."""

    path: Path
    caption: str
    alt: str
    width: int
    height: int


def write_html(report: Report, path: Path) -> None:
    """Write one file that holds everything: style and pictures are in it, nothing is loaded.

    The only script that may run on the page is the viewer's, and only where a scan has strips.

    Raises:
        OSError: a picture cannot be read.
    """
    environment = _environment(autoescape=True)
    environment.filters["data_uri"] = _data_uri
    environment.filters["scan_uri"] = _scan_uri
    environment.filters["sha256"] = _sha256
    _write(environment.get_template("report.html.j2"), report, path)


def write_markdown(report: Report, path: Path) -> None:
    """Write the same as GitHub-flavoured Markdown; pictures are named relative to its folder."""
    environment = markdown_environment()
    environment.filters["link"] = lambda picture: quote(
        Path(os.path.relpath(picture, path.parent)).as_posix())
    _write(environment.get_template("report.md.j2"), report, path)


def markdown_environment() -> jinja2.Environment:
    """Return what renders templates of Markdown; their filter `md` is `escape_markdown`."""
    environment = _environment(autoescape=False)
    environment.filters["md"] = escape_markdown
    return environment


def escape_markdown(text: object) -> str:
    """Return a text on one line that Markdown shows as it is, in a table too."""
    one_line = " ".join(str(text).split())
    escaped = re.sub(r"([\\`*\[\]|~$])", r"\\\1", one_line)
    escaped = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", escaped)  # within a word it means nothing
    return re.sub(r"<(?=\S)", "&lt;", escaped.replace("&", "&amp;"))


def _environment(autoescape: bool) -> jinja2.Environment:
    return jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=autoescape,
                              trim_blocks=True, lstrip_blocks=True,
                              undefined=jinja2.StrictUndefined)


def _write(template: jinja2.Template, report: Report, path: Path) -> None:
    metrics = report.metrics
    groups = metrics.get("by_group")
    scans = [case.strips for case in (*report.worst, *report.explanations) if case.strips]
    names = {key: f"scan-{k}" for k, key in enumerate(dict.fromkeys(map(id, scans)), start=1)}
    content = template.render(
        report=report,
        headline=headline(metrics),
        method=_method(metrics),
        cohort=cohort_table(report.cohort),
        scores=score_tables(metrics),
        comparison=[comparison_table(metrics["comparison"])] if metrics.get("comparison") else [],
        groups=group_tables(groups, metrics["task"]) if groups else [],
        fold_after=MANY_GROUP_TABLES,
        group_column=groups["column"] if groups else "",
        plots=[_plot(file) for file in report.plots],
        worst=_shown(report.worst, "Slices of", names),
        explanations=_shown(report.explanations, "Where the model looked:", names),
        strips={names[id(strips)]: dataclasses.asdict(strips) for strips in scans})
    with atomic_write(path) as part:
        part.write_text(re.sub(r"\n{3,}", "\n\n", content).strip() + "\n", encoding="utf-8")


def _shown(cases: tuple[Case, ...], words: str, names: dict[int, str]
           ) -> list[tuple[Case, Picture, str | None]]:
    """Return scans with their pictures and the names of their strips, None where there are none.

    A scan that is shown twice has its strips on the page once.
    """
    return [(case, _picture(case.picture, case.title, f"{words} {case.title}"),
             names.get(id(case.strips))) for case in cases]


def _method(metrics: dict) -> str:
    """Return how the intervals were made."""
    made = metrics["bootstrap"]
    unit = metrics.get("intervals_by", "row")
    groups = "patients" if unit == "patient" else "scans"
    return (f"Intervals of {100 * made['level']:g} %: percentile bootstrap, "
            f"{made['replicates']:,} resamples of {metrics['n_groups']:,} {groups}, seed "
            f"{made['seed']}. An en dash marks a value that these scans do not define.")


def _plot(path: Path) -> Picture:
    caption, words = PLOTS.get(path.stem, (path.stem.replace("_", " "), ""))
    return _picture(path, caption, f"{caption}: {words}" if words else caption)


def _picture(path: Path, caption: str, alt: str) -> Picture:
    with Image.open(path) as image:
        return Picture(path, caption, alt, *image.size)


def _sha256(script: str) -> str:
    """Return the hash by which a page's Content-Security-Policy allows a script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _scan_uri(path: Path) -> str:
    """Return the picture of a scan as a data URI, as JPEG where that is smaller."""
    with Image.open(path) as image:
        return smaller_uri(image.convert("RGB"), PICTURE_BYTES, Path(path).read_bytes())


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(Path(path).read_bytes()).decode('ascii')}"
