"""The report: what stands in it, that nothing of it is taken for markup, and how it looks."""

import dataclasses
import html
import re

import pandas as pd
import pytest
from PIL import Image
from report_samples import sample_report, sample_strips, scan_picture

from slivit.config import Target
from slivit.report.html import Case, write_html, write_markdown

NASTY = '<script>alert(1)</script> & "quoted" \'single\' | pipe ' + "長い名前" * 30
ORGANS = ("liver", "kidney right", "kidney left", "femur right", "femur left", "bladder", "heart",
          "lung right", "lung left", "spleen", "pancreas")
FINDINGS = tuple(f"finding {k}" for k in range(14))
SITES = ["Amsterdam", "Haifa", "San Diego"]
LOOK = """
const page = document.documentElement, wide = page.clientWidth;
const boxed = e => e.closest('.scroll') && !e.matches('.scroll');
const texts = [...document.querySelectorAll('body *')].filter(e => [...e.childNodes].some(
    n => n.nodeType === 3 && n.textContent.trim()) && e.getClientRects().length);
const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
const known = {};
const light = colors => known[colors] ??= (() => {  // WCAG's relative luminance of paint on paint
    canvas.clearRect(0, 0, 1, 1);
    for (const c of colors) { canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)].map(v => v / 255).map(
        v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce(
        (sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
})();
const contrast = e => {
    const under = [], color = getComputedStyle(e).color;
    for (let p = e; p; p = p.parentElement) under.unshift(getComputedStyle(p).backgroundColor);
    const a = light([...under, color]), b = light(under);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
};
const named = e => e.tagName + ': ' + e.textContent.slice(0, 40);
return {
    page: [page.scrollWidth, wide],
    outside: [...document.querySelectorAll('body *')].filter(e => !boxed(e)).filter(
        e => { const r = e.getBoundingClientRect();
               return r.width && (r.right > wide + 0.5 || r.left < -0.5); }).map(named),
    cut: [...document.querySelectorAll('body *')].filter(e => !e.matches('.scroll, .bar, .bar *')
        && getComputedStyle(e).display !== 'inline'
        && e.scrollWidth > e.clientWidth + 1).map(named),
    broken: [...document.images].filter(i => !i.complete || !i.naturalWidth || !i.alt).length,
    images: document.images.length,
    loaded: performance.getEntriesByType('resource').map(e => e.name.slice(0, 40)),
    small: texts.filter(e => parseFloat(getComputedStyle(e).fontSize) < 12).map(named),
    pale: texts.filter(e => contrast(e) < 4.5).map(e => named(e) + ' ' + contrast(e)),
    texts: texts.length,
};
"""


@pytest.fixture
def nasty(tmp_path):
    """A report whose every text that a user gives tries to be markup."""
    report = sample_report(tmp_path, Target("multilabel", (NASTY, "b")), [NASTY, "A"], NASTY,
                           column=NASTY, plots=False)
    picture = tmp_path / 'a "b" <c>.png'
    Image.new("L", (80, 40)).save(picture)
    pairs = ((NASTY, NASTY),)
    return dataclasses.replace(
        report, about=pairs, cohort=pd.DataFrame({NASTY: [NASTY, "z"], "n": [1, 2.5]}),
        plots=(picture,), explanations=(Case(NASTY, pairs, picture, sample_strips()),),
        worst=(Case(NASTY, pairs, picture),),
        model_card=pairs, provenance=pairs, notes=(NASTY,))


def visible(path) -> str:
    """Return the text of a page, without its tags."""
    page = re.sub(r"(?s)<(style|script)\b.*?</\1>", "", path.read_text(encoding="utf-8"))
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_the_page_says_it_all_and_needs_nothing_else(tmp_path):
    report = sample_report(tmp_path, Target("multilabel", ("Drusen", "Fluid")), SITES, "A report")
    write_html(report, tmp_path / "report.html")
    scores = report.metrics["labels"]["Drusen"]
    text, page = visible(tmp_path / "report.html"), (tmp_path / "report.html").read_text()
    low, high = scores["roc_auc_ci"]
    for expected in (
            f"{scores['roc_auc']:.3f} ({low:.3f} to {high:.3f})",
            "{:.3f} to {:.3f}".format(*scores["roc_auc_delong_ci"]), f"{scores['prevalence']:.3f}",
            "youden", "A: runs/imagenet/slivit.safetensors", "< 0.001", "Drusen, by site", "Haifa",
            "volume_000_OD: Drusen missed", report.provenance[1][1], report.notes[0],
            "311 (51 %)", "Intended use"):
        assert expected in text
    assert page.count("<img src=\"data:image/") == len(report.plots) + 5 + 2
    assert not re.findall(r"(?:src|href|url|@import)[=( ]*[\"']?(?!data:|#)[\w/.]+:", page)
    assert "<script" not in page  # since no scan has strips
    sections = set(re.findall(r'<h2 id="(\w+)">', page)) - {"notes"}
    assert sections == set(re.findall(r'<a href="#(\w+)">', page))
    assert len(sections) == 9


def test_undefined_scores_are_dashes_and_empty_sections_are_left_out(tmp_path):
    report = sample_report(tmp_path, Target("binary", ("a",)), [], "A report", point=False,
                           plots=False)
    scores = report.metrics["labels"]["a"]
    scores |= dict.fromkeys(["roc_auc", "roc_auc_ci", "roc_auc_delong_ci", "brier_ci"])
    del report.metrics["comparison"]
    write_html(dataclasses.replace(report, worst=(), explanations=(), model_card=(), notes=(),
                                   cohort=pd.DataFrame()), tmp_path / "report.html")
    text = visible(tmp_path / "report.html")
    assert f"{scores['n_pos']} of {scores['n']} – – {scores['pr_auc']:.3f} (" in text
    for absent in ("Cohort", "Comparison", "By ", "Curves", "Worst", "looked", "Model card",
                   "operating point", "Notes", "None", " nan"):
        assert absent not in text


@pytest.mark.parametrize(("target", "groups", "point", "expected"), [
    (Target("multilabel", FINDINGS), [f"site {k}" for k in range(20)], True,
     ["finding 13, by site", "site 19", "mean of 14 labels"]),
    (Target("multiclass", ORGANS), SITES, False,
     ["Cohen's kappa 0.770 (0.730 to 0.810)", "Confusion matrix: rows true, columns predicted"]),
    (Target("regression", ("thickness", "volume")), SITES, False,
     ["Spearman", "Lower limit", "−11.200 (−11.800 to −10.600)", "thickness, by site"]),
])
def test_every_task_makes_a_page_and_a_supplement(tmp_path, target, groups, point, expected):
    report = sample_report(tmp_path, target, groups, "A report", point, plots=False)
    write_html(report, tmp_path / "report.html")
    write_markdown(report, tmp_path / "report.md")
    supplement = (tmp_path / "report.md").read_text()
    for words in expected:
        assert words in visible(tmp_path / "report.html")
        assert words in supplement.replace(" | ", " ")


def test_no_text_is_taken_for_markup(tmp_path, nasty):
    write_html(nasty, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<script") == 2 and "<script>alert" not in page
    assert visible(tmp_path / "report.html").count(" ".join(NASTY.split())) > 12
    assert not re.findall(r'="[^"<>]*[<>]', page.replace("default-src", ""))  # no quote ends early


def test_markdown_tables_keep_their_columns_and_name_pictures_nearby(tmp_path, nasty):
    (tmp_path / "paper").mkdir()
    write_markdown(nasty, tmp_path / "paper" / "report.md")
    text = (tmp_path / "paper" / "report.md").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "(../a%20%22b%22%20%3Cc%3E.png)" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 8
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


@pytest.mark.parametrize("kind", ["nasty", "multiclass"])
def test_the_page_fits_every_screen_and_can_be_read(tmp_path, request, browser, kind):
    if kind == "nasty":
        report = request.getfixturevalue("nasty")
    else:
        report = sample_report(tmp_path, Target("multiclass", ORGANS), SITES, "A report",
                               plots=False)
        report = dataclasses.replace(report, plots=(
            scan_picture(tmp_path / "roc.png", 660, 600),
            scan_picture(tmp_path / "calibration.png", 1200, 670)))
    write_html(report, tmp_path / "report.html")
    browser.get((tmp_path / "report.html").as_uri())
    assert browser.title == " ".join(report.title.split())
    for width, height, scheme in ((390, 844, "light"), (360, 780, "dark"), (1280, 900, "light"),
                                  (1280, 900, "dark")):
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": scheme}]})
        seen = browser.execute_script(LOOK)
        assert seen["page"][0] <= seen["page"][1] <= width
        assert seen["images"] == len(report.plots) + len(report.worst) + len(report.explanations)
        assert seen["texts"] > 60
        assert {key: seen[key] for key in ("outside", "cut", "small", "pale")} == {
            "outside": [], "cut": [], "small": [], "pale": []}
        assert seen["broken"] == 0
        assert [name for name in seen["loaded"] if not name.startswith("data:")] == []
    assert browser.get_log("browser") == []
