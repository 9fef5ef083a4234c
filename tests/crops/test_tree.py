"""The tree of the tests follows the packages, and the examples in docstrings hold."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("crops", "serving")
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text()
]


def test_every_test_file_is_named_after_the_module_that_it_tests():
    """`test_MODULE.py`, or `test_MODULE_WHAT.py` where a module has several; a package counts as a module."""
    files = sorted((ROOT / "tests/crops").rglob("test_*.py"))
    assert files
    strays = []
    for path in files:
        room = ROOT / "crops" / path.parent.relative_to(ROOT / "tests/crops")
        modules = {each.stem for each in room.iterdir() if each.suffix == ".py" or each.is_dir()}
        words = path.stem.split("_")[1:]
        if not any("_".join(words[:n]) in modules for n in range(1, len(words) + 1)) and path != Path(
            __file__
        ):
            strays.append(str(path.relative_to(ROOT)))
    assert not strays, f"no such module: {strays}"


@pytest.mark.parametrize("module", EXAMPLES)
def test_the_examples_in_docstrings_hold(module):
    counts = doctest.testmod(importlib.import_module(module))
    assert counts.attempted
    assert not counts.failed
