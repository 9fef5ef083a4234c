"""The README's picture of a report: `.venv/bin/python docs/picture.py runs/quickstart/report.html`."""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

PICTURE = Path(__file__).parent / "images" / "report.png"
WIDTH = 1000  # CSS pixels
SCALE = 1.15  # sharper than one pixel a point on dense screens, and still a small file


def take(browser: Browser, report: Path) -> bytes:
    """The page at `report` down to its first chart (verdict and recall), as a PNG."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 600}, device_scale_factor=SCALE)
    page.goto(report.resolve().as_uri())
    chart = page.locator("svg").first.bounding_box()
    assert chart is not None
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": chart["y"] + chart["height"] + 16}
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip))).convert("RGB")
    page.close()
    small = io.BytesIO()
    picture.save(small, "png", optimize=True)
    return small.getvalue()


def main() -> None:
    """Writes docs/images/report.png."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        PICTURE.write_bytes(take(browser, Path(sys.argv[1])))
        browser.close()


if __name__ == "__main__":
    main()
