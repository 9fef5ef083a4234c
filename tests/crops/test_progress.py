"""Bars become lines where somebody follows the log, and nothing where nobody does."""

import io
import sys

from crops import progress
from pipelines import local


def seen(monkeypatch, **environment):
    monkeypatch.delenv(progress.LINES_EVERY_S, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert list(progress.bar(range(3), desc="distil", unit="batch")) == [0, 1, 2]
    return sys.stderr.getvalue()


def test_a_log_that_is_followed_has_a_line_per_state(monkeypatch):
    lines = seen(monkeypatch, **{progress.LINES_EVERY_S: "0"}).splitlines()
    assert lines[0].startswith("distil: 0 of 3")
    assert lines[-1].startswith("distil: 3 of 3")
    assert all(line.startswith("distil: ") for line in lines)


def test_a_log_that_nobody_follows_has_nothing(monkeypatch):
    assert seen(monkeypatch) == ""


def test_the_tasks_of_a_run_on_this_machine_are_followed(monkeypatch):
    monkeypatch.delenv(progress.LINES_EVERY_S, raising=False)
    with local._environment():
        assert progress.LINES_EVERY_S in local.os.environ
    assert progress.LINES_EVERY_S not in local.os.environ
