"""What several tests of the tree share."""

import shutil

import pytest


@pytest.fixture
def chromium():
    """A real Chromium; a test that asks for it is reported as not run where there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-background-networking"])
        yield browser
        browser.close()
