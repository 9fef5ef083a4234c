"""What a page must hold in a real Chromium, asked of its DOM by looked_at.js and by axe-core. No test in
here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="not run: no axe-core here")

ASKED = Path(__file__).with_suffix(".js").read_text(encoding="utf-8").rstrip()
# Every rule that axe-core has on by itself (WCAG 2.2 A and AA, its best practices), and the size of targets.
RULES = {"rules": {"target-size": {"enabled": True}}}
# 1280 CSS pixels at 400 % (WCAG 1.4.10), a phone, a desk.
WIDTHS = {"zoomed": 320, "phone": 390, "desk": 1280}
# axe-core takes seconds for a long page: once as narrow as it gets, once in the other colours.
BY_AXE = {("zoomed", "light"), ("desk", "dark")}


def faults(
    browser: Browser, url: str, folder: Path, prepare: Callable[[Page], object] = lambda page: None
) -> list[str]:
    """Everything that is wrong with the page at `url`, in words; its screenshots go into `folder`.

    prepare(page): brings it into the state that is looked at
    """
    found: list[str] = []
    for name, width in WIDTHS.items():
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            _listen(page, found)
            page.goto(url)
            prepare(page)
            page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
            found += [f"{name}, {scheme}: contrast {one}" for one in _asked(page, "contrast")]
            if (name, scheme) in BY_AXE:
                found += [f"{name}, {scheme}: axe {one}" for one in _by_axe(page)]
            page.screenshot(path=str(folder / f"{name}-{scheme}.png"), full_page=True)
            if scheme == "light":
                if (real := page.evaluate("document.documentElement.scrollWidth")) > width:
                    widest = _asked(page, "widest", width)
                    found.append(f"{name}: scrolls sideways, {real} of {width} px: {widest}")
                found += [f"{name}: nameless or wrong: {one}" for one in _asked(page, "nameless")]
                found += [f"{name}: {one}" for one in _by_keyboard(page)]
            page.close()
    return list(dict.fromkeys(found))


def _asked(page: Page, name: str, value: object = None) -> Any:
    return page.evaluate(f"value => {ASKED[ASKED.index('({') :]}.{name}(value)", value)


def _listen(page: Page, found: list[str]) -> None:
    page.on("pageerror", lambda error: found.append(f"script: {error}"))
    page.on("console", lambda said: found.append(f"console: {said.text}") if said.type == "error" else None)
    page.on("requestfailed", lambda asked: found.append(f"not loaded: {asked.url}"))


def _by_axe(page: Page) -> list[str]:
    """What axe-core finds wrong: the rule, and where."""
    answer = axe.Axe().run(page, options=RULES).response
    assert answer["passes"], "axe-core has looked at nothing"
    return [
        f"{rule['id']} ({rule['help']}): {node['html'][:120]} {node['failureSummary'].splitlines()[1:2]}"
        for rule in answer["violations"]
        for node in rule["nodes"][:4]
    ]


def _by_keyboard(page: Page) -> list[str]:
    """What Tab does not reach, or reaches without showing it."""
    wanted, seen, wrong = _asked(page, "mark"), set(), []
    page.evaluate("document.activeElement.blur()")
    for _ in range(3 * len(wanted) + 20):
        if len(seen) == len(wanted):
            break
        page.keyboard.press("Tab")
        mark, shown = _asked(page, "focused")
        if mark is not None and mark not in seen:
            seen.add(mark)
            if not shown:
                wrong.append(f"no mark of the focus on {wanted[int(mark)]}")
    return wrong + [f"not reached by Tab: {one}" for n, one in enumerate(wanted) if str(n) not in seen]
