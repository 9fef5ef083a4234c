"""How much a positive counts, by hand; lower samples are never weighed."""

import pyarrow as pa
import pytest

from crops.engines import session
from crops.retriever.weights import KINDS, Weights, weighed
from crops.tables import records
from tests.crops.mining.small_logs import at

PAIRS = pa.schema([("query", pa.string()), ("doc_id", pa.string()), ("label", pa.int8())])
EVIDENCE = pa.schema([field.with_nullable(True) for field in records.EVIDENCE.schema])
CANDIDATES = pa.schema([field.with_nullable(True) for field in records.CANDIDATES.schema])


@pytest.fixture
def house(tmp_path):
    with session.opened("duckdb", scratch=tmp_path) as opened:
        yield opened


def row(video, **values):
    return {
        "query": "q",
        "video_id": video,
        "shown": 0,
        "examined": 0.0,
        "clicked": 0,
        "watched": None,
        "last_ts": at(0),
    } | values


def weights_of(house, kinds, table, rows, schema):
    pairs = [("v1", 5), ("v2", 4), ("v3", 4), ("v4", 3)]
    given = [{"query": "q", "doc_id": d, "label": n} for d, n in pairs]
    read = house.put(pa.Table.from_pylist(rows, schema=schema), table)
    of = weighed(
        house.put(pa.Table.from_pylist(given, schema=PAIRS), "pairs"),
        Weights(kinds=kinds, half_life_days=2.0),
        dict.fromkeys(kinds, read),
        positive_min=4,
    )
    return {r["doc_id"]: pytest.approx(r["weight"], abs=1e-6) for r in house.fetch(of)}


def test_clicks_count_by_how_often_the_pair_was_looked_at(house):
    """v1: 1 click, looked at 9 times: 2 / 10. v2: 3 clicks of 1.5 looks: at most 1. v3 was never shown, v4 is
    no positive.
    """
    rows = [
        row("v1", shown=20, examined=9.0, clicked=1),
        row("v2", shown=3, examined=1.5, clicked=3),
        row("v3"),
        row("v4", shown=9, examined=9.0),
    ]
    assert weights_of(house, ("rate",), "evidence", rows, EVIDENCE) == {
        "v1": 0.2,
        "v2": 1.0,
        "v3": 1.0,
        "v4": 1.0,
    }


def test_dwell_and_age_multiply(house):
    """Half-life two days: v1 is the newest, v2 two days older and half watched, v3 four days and not played
    at all.
    """
    rows = [
        row("v1", watched=0.01, last_ts=at(0, day=4)),
        row("v2", watched=0.5, last_ts=at(0, day=2)),
        row("v3", last_ts=at(0, day=0)),
    ]
    assert weights_of(house, ("dwell", "age"), "evidence", rows, EVIDENCE) == {
        "v1": 0.1,
        "v2": 0.25,
        "v3": 0.25,
        "v4": 1.0,
    }


def test_support_is_that_of_all_positive_perspectives(house):
    def mined(video, perspective, support, later=None):
        return {
            "query": "q",
            "video_id": video,
            "perspective": perspective,
            "later_query": later,
            "first_ts": at(0),
            "support": support,
        }

    rows = [
        mined("v1", "reformulation", 1, "a"),
        mined("v1", "reformulation", 1, "b"),
        mined("v1", "exposed", 90),
        mined("v2", "click", 1),
    ]
    assert weights_of(house, ("support",), "candidates", rows, CANDIDATES) == {
        "v1": pytest.approx(2 / 3),
        "v2": 0.5,
        "v3": 1.0,
        "v4": 1.0,
    }


def test_every_kind_of_the_setting_has_a_function():
    from typing import get_args

    from crops.config.train import TrainConfig

    kinds = get_args(get_args(TrainConfig.model_fields["weigh"].annotation)[0])
    assert kinds == tuple(KINDS)


def test_soft_of_older_configs_weighs_by_theta():
    from crops.config.train import TrainConfig

    assert TrainConfig.parse({"soft": True}) == TrainConfig.parse({"weigh": ["theta"]})
    assert TrainConfig.parse({"soft": False}) == TrainConfig()
