"""`make run` with a stand-in for `crops` that writes down how it was called."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CROPS = """#!/bin/bash
echo "$@" >> "$CALLS"
[ $1 = world ] || exit 0
mkdir -p $3
printf '{\\n  "scale": "%s",\\n  "seed": %s,\\n}\\n' $5 $7 > $3/world.json
"""


@pytest.fixture
def verbs(tmp_path):
    """Runs it with these variables; which verbs were called."""
    program = tmp_path / "venv/bin/crops"
    program.parent.mkdir(parents=True)
    program.write_text(CROPS)
    program.chmod(0o755)
    (tmp_path / "venv/.ready").touch()

    def run(**variables):
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        given = {"VENV": tmp_path / "venv", "OUT": tmp_path / "runs/first"} | variables
        words = [f"{name}={value}" for name, value in given.items()]
        environment = os.environ | {"CALLS": str(calls)}
        subprocess.run(["make", "run", *words], cwd=ROOT, env=environment, check=True, capture_output=True)
        return [line.split()[0] for line in calls.read_text().splitlines()]

    return run


def test_a_run_that_was_interrupted_goes_on_with_the_world_it_began_with(verbs):
    """A new one of the same seed has other times of change, and nothing of the cache would be of it."""
    assert verbs() == ["world", "run"]
    assert verbs() == ["run"]


def test_another_seed_or_scale_is_another_world(verbs):
    verbs()
    assert verbs(SEED=1) == ["world", "run"]
    assert verbs(SEED=11) == ["world", "run"], "1 is not 11"
    assert verbs(SEED=1) == ["world", "run"]
    assert verbs(SEED=1, SCALE="tiny") == ["world", "run"]
