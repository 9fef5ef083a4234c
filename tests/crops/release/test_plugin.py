"""An index in another engine: rows and scores as FAISS would give them, and the engine's faults as ours."""

import sys
import types

import numpy as np
import pytest

from crops.errors import ConfigError, ServiceError
from crops.release import index, plugin

RNG = np.random.default_rng(0)
IDS = tuple(f"v{n}" for n in range(50))


def unit(count, width=8):
    vectors = RNG.normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def engine(monkeypatch):
    """A module named `engine` whose `connect` searches exactly among `vectors`, and what it was asked."""
    module = types.ModuleType("engine")
    module.vectors, module.ids, module.opened = unit(50), IDS, []

    def connect(checksum):
        module.opened.append(checksum)

        def nearest(queries, k):
            scores, rows = index.exact(module.vectors, queries, k)
            return [
                [(module.ids[r], float(s)) for r, s in zip(*one, strict=True)]
                for one in zip(rows, scores, strict=True)
            ]

        return nearest

    module.connect = connect
    monkeypatch.setitem(sys.modules, "engine", module)
    return module


def test_rows_and_scores_are_those_of_exact_search(engine):
    held = plugin.load("engine:connect", "c0ffee", IDS, width=8)
    assert engine.opened == ["c0ffee"]
    queries = unit(5)
    scores, rows = held.search(queries, 7)
    exact_scores, exact_rows = index.exact(engine.vectors, queries, 7)
    np.testing.assert_array_equal(rows, exact_rows)
    np.testing.assert_allclose(scores, exact_scores, atol=1e-6)
    assert (scores.dtype, rows.dtype) == (np.float32, np.int64)
    assert held.search(queries, 80)[1].shape == (5, 50)


def test_documents_of_another_release_are_left_out(engine):
    """Half of the engine's documents are strangers: -1 stands at the end, never between."""
    engine.ids = tuple(f"v{n}" if n % 2 else f"old{n}" for n in range(50))
    rows = plugin.load("engine:connect", "c", IDS, width=8).search(unit(3), 20)[1]
    assert ((rows % 2 == 1) | (rows == -1)).all()
    known = (rows >= 0).sum(axis=1)
    assert all((row[:n] >= 0).all() and (row[n:] == -1).all() for row, n in zip(rows, known, strict=True))


@pytest.mark.parametrize("name", ["engine:missing", "no_such_module:connect"])
def test_what_is_not_there_is_the_settings_fault(engine, name):
    with pytest.raises(ConfigError, match="index_plugin is"):
        plugin.load(name, "c", IDS, width=8)


def test_an_engine_that_fails_is_a_service_that_fails(engine):
    held = plugin.load("engine:connect", "c", IDS, width=8)
    with pytest.raises(ValueError, match=r"expected \[Q, 8\]"):
        held.search(unit(1, 4), 3)
    engine.vectors = None
    with pytest.raises(ServiceError, match="plug-in failed"):
        held.search(unit(1), 3)
    engine.connect = lambda checksum: 1 / 0
    with pytest.raises(ServiceError, match="cannot connect: division by zero"):
        plugin.load("engine:connect", "c", IDS, width=8)
