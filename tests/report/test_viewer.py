"""The report's viewer in a browser: scrolling, heat map, window, and that nothing is loaded."""

import dataclasses
import json
import re
import time

import numpy as np
import pytest
from report_samples import sample_look, sample_report, sample_strips, scan_picture
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from slivit.config import Target
from slivit.data.cache import Prepared
from slivit.explain.figures import draw_explanation
from slivit.explain.heatmaps import ViewSaliency
from slivit.explain.strips import make_strips
from slivit.report.html import TEMPLATES, Case, write_html
from slivit.report.worst_errors import draw_scan

SHOWN = """
const box = arguments[0], canvas = box.querySelector('canvas');
const at = (x, y) => [...canvas.getContext('2d').getImageData(x, y, 1, 1).data.slice(0, 3)];
return {slice: box.querySelector('.slice').valueAsNumber, right: at(30, 24)[0],
        column: [0, 24, 47].map(y => at(1, y)),
        spoken: box.querySelector('.slice').ariaValueText, wide: canvas.width};
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of a worst error that is not explained and of a scan that is, eight slices each."""
    folder = tmp_path_factory.mktemp("viewer")
    report = sample_report(folder, Target("binary", ("Drusen",)), [], "A report", plots=False)
    worst, explained = report.worst[0], report.explanations[0]
    report = dataclasses.replace(
        report, worst=(dataclasses.replace(worst, strips=sample_strips(explained=False)),),
        explanations=(dataclasses.replace(explained, strips=sample_strips()),))
    write_html(report, folder / "report.html")
    return folder / "report.html"


@pytest.fixture
def open_viewer(browser, page):
    """Return a function that opens the page and gives the viewer of a section, in view."""
    def call(section="explanations", width=1280, touch=False):
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": touch})
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": touch})
        browser.get(page.as_uri())
        box = browser.find_element(By.CSS_SELECTOR, f"section[aria-labelledby={section}] .viewer")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
        WebDriverWait(browser, 10, 0.05).until(
            lambda _: browser.execute_script(SHOWN, box)["wide"] == 32)
        return box
    yield call
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


def shown(browser, box):
    """Return the slice that is shown, by the slider, and by the grey at its right side."""
    seen = browser.execute_script(SHOWN, box)
    place = seen["slice"] if seen["slice"] < 5 else seen["slice"] - 5
    assert seen["right"] == 20 + 20 * place
    return seen["slice"]


def set_slider(browser, box, name, value):
    """Move a slider as a hand does."""
    browser.execute_script("arguments[0].value = arguments[1]; arguments[0].dispatchEvent("
                           "new Event('input'))", box.find_element(By.CLASS_NAME, name), value)


def test_wheel_keys_and_bars_scroll_through_all_views(browser, open_viewer):
    box = open_viewer()
    canvas, track = (box.find_element(By.CSS_SELECTOR, name) for name in ("canvas", ".track"))
    assert shown(browser, box) == 7  # the slice of the largest weight
    wheel = ScrollOrigin.from_element(canvas)
    for delta, expected in ((-100, 6), (-100, 5), (-100, 4), (100, 5), (30, 5), (30, 6)):
        ActionChains(browser).scroll_from_origin(wheel, 0, delta).perform()
        assert shown(browser, box) == expected
    canvas.click()  # the keys go to the slider
    for key, expected in ((Keys.ARROW_LEFT, 5), (Keys.HOME, 0), (Keys.ARROW_UP, 1), (Keys.END, 7)):
        ActionChains(browser).send_keys(key).perform()
        assert shown(browser, box) == expected
    eighth = round(track.size["width"] / 8)
    ActionChains(browser).move_to_element_with_offset(track, eighth // 2, 0).click().perform()
    assert shown(browser, box) == 4
    ActionChains(browser).click_and_hold().move_by_offset(-eighth, 0).release().perform()
    assert shown(browser, box) == 3
    assert browser.execute_script(SHOWN, box)["spoken"] == "Axial slice 7 of 10, weight 0.267"


def test_past_the_last_slice_the_page_scrolls_on(browser, open_viewer):
    box = open_viewer()
    wheel = ScrollOrigin.from_element(box.find_element(By.TAG_NAME, "canvas"))
    before = browser.execute_script("return scrollY")
    ActionChains(browser).scroll_from_origin(wheel, 0, -100).scroll_from_origin(
        wheel, 0, 100).scroll_from_origin(wheel, 0, 100).perform()
    assert browser.execute_script("return scrollY") == before  # still the same movement
    time.sleep(0.5)
    ActionChains(browser).scroll_from_origin(wheel, 0, 100).perform()
    WebDriverWait(browser, 5, 0.05).until(
        lambda _: browser.execute_script("return scrollY") > before)


def test_a_movement_that_scrolls_the_page_does_not_stop_at_a_viewer(browser, open_viewer):
    box = open_viewer()
    allowed = browser.execute_script("""
        const wheel = (place, delta) => { const event = new WheelEvent(
            'wheel', {...delta, bubbles: true, cancelable: true});
            return place.dispatchEvent(event); };
        return [wheel(document.body, {deltaX: 100}), wheel(arguments[0], {deltaY: -100}),
                wheel(document.body, {deltaY: -100}), wheel(arguments[0], {deltaY: -100})];""",
                                     box.find_element(By.TAG_NAME, "canvas"))
    assert allowed == [True, False, True, True]  # sideways is no movement of the page
    assert shown(browser, box) == 6


def test_a_swipe_scrolls_on_a_phone(browser, open_viewer):
    box = open_viewer("worst", 390, touch=True)
    assert shown(browser, box) == 2  # the middle of the first view
    place = browser.execute_script("""const b = arguments[0].getBoundingClientRect();
                                      return [b.x + b.width / 2, b.y + b.height / 2, b.width]""",
                                   box.find_element(By.TAG_NAME, "canvas"))
    def touch(kind, moved=None):
        points = [] if moved is None else [{"x": place[0] + moved, "y": place[1]}]
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {
            "type": kind, "touchPoints": points})
    touch("touchStart", 0)
    for moved in (20, place[2] / 4, place[2] * 0.4):
        touch("touchMove", moved)
    touch("touchEnd")
    assert shown(browser, box) == 5
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390


def test_the_heat_map_lies_over_the_slice(browser, open_viewer):
    box = open_viewer()
    def left():
        top, middle, bottom = browser.execute_script(SHOWN, box)["column"]
        assert top == middle == bottom  # no heat of the slices before and after
        return middle
    over = left()
    assert max(over) - min(over) > 50
    set_slider(browser, box, "heat", 0)
    assert left() == [60, 60, 60]
    box.find_element(By.CLASS_NAME, "heat").send_keys("h")
    assert left() == over
    set_slider(browser, box, "heat", 100)
    strong = left()
    assert strong[0] > over[0]
    box.find_element(By.CLASS_NAME, "heat").send_keys("hh")  # hidden, then as strong as it was
    assert left() == strong
    assert not open_viewer("worst").find_elements(By.CSS_SELECTOR, ".heat, .bars")


def test_a_drag_changes_window_and_level_of_grey_values(browser, open_viewer):
    box = open_viewer("worst")
    canvas = box.find_element(By.TAG_NAME, "canvas")
    def grey():
        return browser.execute_script(SHOWN, box)["right"]
    assert grey() == 60
    ActionChains(browser).click_and_hold(canvas).move_by_offset(-100, 0).release().perform()
    assert grey() == pytest.approx((60 - 50) * 255 / 155, abs=1)
    ActionChains(browser).click_and_hold(canvas).move_by_offset(0, -50).release().perform()
    assert grey() == pytest.approx((60 - 25) * 255 / 155, abs=1)
    ActionChains(browser).send_keys("r").perform()
    assert grey() == 60


def test_controls_have_names_and_nothing_is_loaded_or_complained_about(browser, open_viewer):
    browser.get_log("performance")
    box = open_viewer()
    names = [element.accessible_name for element in box.find_elements(
        By.CSS_SELECTOR, "canvas, input, button")]
    assert names == [
        "Slice of volume_0: Drusen, right", "Slice", "Opacity of the heat map",
        "Window, in grey values of 0 to 255", "Level, in grey values of 0 to 255", "Reset window"]
    assert box.accessible_name == "volume_0: Drusen, right"
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {event["params"]["request"]["url"][:5] for event in sent
            if event["method"] == "Network.requestWillBeSent"}
    assert urls == {"file:", "data:"}
    assert browser.get_log("browser") == []


def test_without_scripts_the_pictures_are_shown(browser, page):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page.as_uri())
        assert [box.is_displayed() for box in browser.find_elements(
            By.CSS_SELECTOR, "figure.scan img")] == [True, True]
        assert not any(box.is_displayed() for box in browser.find_elements(
            By.CSS_SELECTOR, ".viewer, .help"))
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_only_our_script_may_run(page):
    text = page.read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert re.fullmatch(r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
                        r"script-src 'sha256-[\w+/=]{44}'", policy)
    assert text.count("<script") == 3  # the viewer, and the slices of two scans


@pytest.mark.parametrize(("name", "most"), [("viewer.css", 40), ("viewer.js", 200)])
def test_the_viewer_stays_small_and_can_be_read(name, most):
    lines = (TEMPLATES / name).read_text().splitlines()
    assert len(lines) <= most
    assert max(map(len, lines)) <= 120


def test_one_slice_of_several_has_its_number_and_no_bars(browser, tmp_path):
    report = sample_report(tmp_path, Target("binary", ("a",)), [], "A report", plots=False)
    case = dataclasses.replace(report.explanations[0], strips=make_strips([sample_look(count=1)]))
    write_html(dataclasses.replace(report, explanations=(case,)), tmp_path / "report.html")
    browser.get((tmp_path / "report.html").as_uri())
    texts = [browser.find_element(By.CSS_SELECTOR, name).text for name in (
        ".where", ".legend", "section[aria-labelledby=explanations] .help")]
    assert texts[0] == "Slice 1 of 2, weight 1.000"
    assert "Bars" not in texts[1] and "Scroll" not in texts[2]


def test_ten_explained_scans_and_five_other_errors_fit_into_8_mb(tmp_path):
    slices = np.random.default_rng(0).integers(0, 96, (28, 1, 256, 256), dtype=np.uint8)
    weights = np.full(28, 1 / 28)
    looks = [ViewSaliency("acquisition", (28, 256, 256), np.arange(28), slices, (1.0, 1.0), weights,
                          weights, slices[:, 0, ::32, ::32] / 255, 0.125)]
    seen = [ViewSaliency("acquisition", (28, 256, 256), np.arange(28), slices, (1.0, 1.0))]
    draw_explanation(looks, ("noise", "the worst there is"), tmp_path / "scan.png")
    draw_scan(Prepared(slices, (28,)), tmp_path / "sheet.png")
    report = sample_report(tmp_path, Target("binary", ("a",)), [], "A report", plots=False)
    explained = Case("noise", (), tmp_path / "scan.png", make_strips(looks))
    error = Case("noise", (), tmp_path / "sheet.png", make_strips(seen))
    sizes = []
    for shown in ((), (explained,), (error,)):
        write_html(dataclasses.replace(report, worst=(), explanations=shown),
                   tmp_path / "report.html")
        sizes.append((tmp_path / "report.html").stat().st_size)
    empty, one, other = sizes
    assert 7e6 < empty + 10 * (one - empty) + 5 * (other - empty) < 8e6


def test_a_scan_that_is_shown_twice_is_on_the_page_once(tmp_path):
    strips = sample_strips()
    case = Case("scan", (), scan_picture(tmp_path / "scan.png"), strips)
    report = sample_report(tmp_path, Target("binary", ("a",)), [], "A report", plots=False)
    write_html(dataclasses.replace(report, worst=(case,), explanations=(case,)),
               tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count('data-scan="scan-1"') == 2 and page.count('id="scan-1"') == 1
