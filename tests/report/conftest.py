"""The browser in which reports are looked at."""

import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

BROWSER = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
           "--disable-background-networking", "--disable-component-update", "--disable-sync",
           "--disable-dev-shm-usage")


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    profile = tmp_path_factory.mktemp("profile")
    for argument in (*BROWSER, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    with webdriver.Chrome(options=options, service=Service(driver)) as found:
        yield found
