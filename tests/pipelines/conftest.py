"""What the tests of the pipelines share."""

import inspect
from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True)
def callers_without_their_source(monkeypatch):
    """KFP learns the name of who calls it from a stack with source lines, five times a task: that is half a
    minute for a pipeline in a process that has loaded ten thousand modules, as that of many tests has.
    """
    stack = SimpleNamespace(stack=lambda: inspect.stack(context=0))
    monkeypatch.setattr("kfp.dsl.pipeline_task.inspect", stack)
