"""The README's pictures, taken by the tests' browser after `make run`: `make pictures`.

    .venv/bin/python docs/pictures.py runs/quickstart

report.png is the page of the run, console.png what `crops serve` shows of its releases, dashboards.png the
dashboards of monitoring/ as tests/monitoring/look.py draws them from a real Prometheus (without Grafana).
"""

import contextlib
import io
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import Browser, FloatRect, Locator, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs/images"
REPORT, CONSOLE, DASHBOARDS = "report.png", "console.png", "dashboards.png"
WIDTH = 1000  # CSS pixels
SCALE = 1.15  # sharper than one pixel a point on dense screens, and still a small file
MOST_BYTES = 200_000
MARGIN = 10
BOARD = "How do the arms compare?"
QUERY = "sourdough bread recipe"
READY_S = 300.0


def report(browser: Browser, path: Path) -> bytes:
    """The page of a run down to its first chart: verdict and recall."""
    with _opened(browser, path.resolve().as_uri()) as page:
        return _shot(page, page.locator("svg").first)


def console(browser: Browser, url: str, query: str = QUERY) -> bytes:
    """What champion and challenger answer, down to the fifth result."""
    with _opened(browser, f"{url}/?q={query}") as page:
        return _shot(page, page.locator("#arms li:nth-of-type(5)").first)


def dashboards(browser: Browser, path: Path) -> bytes:
    """Two rows of panels of the dashboard that compares the arms."""
    with _opened(browser, path.resolve().as_uri()) as page:
        title = page.locator("h2", has_text=BOARD)
        panels = page.locator("section", has_text="Click-through rate").last.locator("figure")
        return _shot(page, panels.nth(5), begins=title)


@contextlib.contextmanager
def _opened(browser: Browser, url: str) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": WIDTH, "height": 600}, device_scale_factor=SCALE)
    page.goto(url)
    yield page
    page.close()


def _shot(page: Page, ends: Locator, begins: Locator | None = None) -> bytes:
    """The page's full width from the element `begins`, or its top, down to `ends`, as PNG; of 256 colours
    where all of them would make it too large (see _png).
    """
    top = 0.0 if begins is None else _box(begins)["y"] - MARGIN
    box = _box(ends)
    clip = {"x": 0, "y": top, "width": WIDTH, "height": box["y"] + box["height"] + MARGIN - top}
    return _png(Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip))).convert("RGB"))


def _png(picture: Image.Image) -> bytes:
    """The colours that are kept are those farthest apart: by frequency two systems of a chart became one."""
    few = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    for made in (picture, few):
        small = io.BytesIO()
        made.save(small, "png", optimize=True)
        if small.tell() < MOST_BYTES:
            break
    return small.getvalue()


def _box(element: Locator) -> FloatRect:
    element.wait_for()
    box = element.bounding_box()
    assert box is not None, f"{element} is not to be seen"
    return box


@contextlib.contextmanager
def _served(run: Path, folder: Path) -> Iterator[str]:
    """The address of `crops serve` with the releases of a run; its log is in `folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "crops", "serve", "--port", str(port), "--state", str(folder / "state")]
    command += ["--registry", f"sqlite:///{run.resolve()}/registry/mlflow.db"]
    challenger = (json.loads((run / "report.json").read_text())["release"] or {}).get("uri")
    command += ["--challenger", challenger] if challenger else []
    with (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        end = time.monotonic() + READY_S
        while time.monotonic() < end and server.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                    break
            time.sleep(0.5)
        else:
            raise RuntimeError(f"crops serve does not answer: {(folder / 'serve.log').read_text()[-2000:]}")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


def main(run: Path) -> None:
    """Writes docs/images from what `crops run --out RUN` left."""
    sys.path.insert(0, str(ROOT))
    from tests.monitoring import look

    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as driver:
        folder = Path(scratch)
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        look.page(folder / "dashboards.html")
        made = {
            REPORT: report(browser, run / "report.html"),
            DASHBOARDS: dashboards(browser, folder / "dashboards.html"),
        }
        with _served(run, folder) as url:
            made[CONSOLE] = console(browser, url)
        browser.close()
    for name, picture in made.items():
        (IMAGES / name).write_bytes(picture)
        print(f"{IMAGES / name}: {len(picture) / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
