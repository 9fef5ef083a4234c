"""What has one definition is spelled out nowhere else in the code that is shipped."""

import ast
from pathlib import Path

import numpy as np
import pytest

from crops import arms
from crops.long_play import LONG_PLAY_S, is_long

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("crops", "serving", "pipelines", "components", "monitoring")


def literals() -> dict[object, set[str]]:
    """Value of a constant in the code -> the files in which it stands."""
    places: dict[object, set[str]] = {}
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 200
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant):
                places.setdefault(node.value, set()).add(str(path.relative_to(ROOT)))
    return places


@pytest.mark.parametrize("value", arms.ARMS)
def test_an_arm_is_spelled_once(value):
    assert literals()[value] == {"crops/arms.py"}


def test_the_length_of_a_long_play_stands_once():
    assert literals()[LONG_PLAY_S] == {"crops/long_play.py"}


def test_a_long_play_is_the_same_for_numbers_and_arrays():
    """18 s are enough, the whole of a shorter video too; nothing played is never long."""
    plays = [(18.0, 60.0), (17.9, 60.0), (5.0, 5.0), (4.9, 5.0), (18.0, np.nan), (np.nan, 5.0), (0.0, 0.0)]
    expected = [True, False, True, False, True, False, False]
    assert [bool(is_long(*play)) for play in plays] == expected
    assert is_long(*np.array(plays).T).tolist() == expected
