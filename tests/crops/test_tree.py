"""The tree of the tests follows the packages, the examples in docstrings hold, locals are nouns."""

import ast
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("crops", "serving")
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text()
]
FOLDERS = ("crops", "serving", "pipelines", "components", "monitoring")
# As many rows as the log makes them: stages have them in the engine, or a piece at a time (tables.pieces).
LOG_SIZED = {
    "SEARCHES",
    "RESULTS",
    "FEED",
    "CANDIDATES",
    "EVIDENCE",
    "SCORES",
    "SCORED",
    "SAMPLES",
    "ORIGINS",
    "DROPPED",
}
NO_NOUNS = {"found", "known", "about", "how", "said"}


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


def test_no_local_or_argument_is_named_by_how_its_value_came_about():
    """Fields are free: tables, pages and callers know them by their names."""
    strays = []
    for folder in FOLDERS:
        files = sorted((ROOT / folder).rglob("*.py"))
        assert files, folder
        for path in files:
            names = [each for each in names_of(ast.parse(path.read_text())) if each[1] in NO_NOUNS]
            strays += [f"{path.relative_to(ROOT)}:{line} {name}" for line, name in names]
    assert not strays, f"say what the value is: {', '.join(strays)}"


def test_no_stage_reads_a_table_of_the_logs_size_whole():
    """`artifacts.read` without values to look for is for tables as large as the catalogue or smaller."""
    files = sorted((ROOT / "crops/stages").rglob("*.py"))
    assert files
    whole = []
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="artifacts"), attr="read"),
                    args=[_, ast.Attribute(value=ast.Name(id="records"), attr=table), *_],
                    keywords=[],
                ) if table in LOG_SIZED:
                    whole.append(f"{path.relative_to(ROOT)}:{node.lineno} {table}")
    assert not whole


def names_of(module: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, name) of all that is bound in it, the fields of its classes apart."""
    classes = [node for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    fields = {name for each in classes for line in each.body for name in ast.iter_child_nodes(line)}
    for node in ast.walk(module):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) if node not in fields:
                yield node.lineno, name
            case (
                ast.arg(arg=name)
                | ast.ExceptHandler(name=name)
                | ast.alias(asname=name)
                | ast.MatchAs(name=name)
                | ast.MatchStar(name=name)
                | ast.MatchMapping(rest=name)
            ) if name:
                yield node.lineno, name
