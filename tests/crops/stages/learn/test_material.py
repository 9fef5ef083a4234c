"""What θ learns from, of logs with more of it than it reads."""

import datetime as dt
import shutil

import pandas as pd
import pyarrow as pa
import pytest

from crops import perspectives
from crops.discriminator import chance
from crops.engines import session
from crops.stages.learn import material
from crops.tables import artifacts, records
from tests.crops.stages import toy_release as toy
from tests.crops.stages.learn.toy_chain import CFG


@pytest.fixture
def house(tmp_path):
    with session.opened("duckdb", scratch=tmp_path / "scratch") as opened:
        yield opened


@pytest.fixture
def mined(chain, tmp_path):
    """Feed, reformulation and exposed pairs of 300 queries beside the toy's own."""
    folder = tmp_path / "mined"
    shutil.copytree(chain / "mined", folder)
    toy.write(folder, VALID_QR=[])  # which nothing may learn from
    rows = [
        {
            "query": f"asked {n}",
            "video_id": toy.doc((n + k) % toy.TOPICS, k),
            "perspective": name,
            "first_ts": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
            "support": 1 + (n + k) % 3,
        }
        for n in range(300)
        for k, name in enumerate(("feed", "feed", "reformulation", "exposed"))
    ]
    old = artifacts.read(folder, records.CANDIDATES)
    more = pa.Table.from_pylist(rows, schema=old.schema)
    artifacts.write(folder, records.CANDIDATES, pa.concat_tables([old, more]))
    return folder


def by_hand(folder):
    rows = artifacts.read(folder, records.CANDIDATES).to_pandas()
    rows = rows[rows["video_id"].isin(artifacts.texts(folder))]  # one of the toy is in no catalogue
    return rows.rename(columns={"video_id": "doc_id"})[["query", "doc_id", "perspective", "support"]]


def test_a_log_that_fits_is_read_whole(chain, house, mined):
    learnt = material.drawn(house, chain / "logs", mined, CFG)
    every = by_hand(mined)
    order = ["query", "doc_id", "perspective"]
    pd.testing.assert_frame_equal(
        learnt.mined[order].reset_index(drop=True), every.sort_values(order)[order].reset_index(drop=True)
    )
    for name in perspectives.names(gated=True):
        own = every[every["perspective"] == name]
        assert learnt.usual[name] == chance.marginals(chance.gathered(own)), name
    assert learnt.notes == []


def test_of_a_larger_one_some_queries_are_whole_and_counts_are_those_of_the_log(chain, house, mined):
    """Of 1,200 made pairs and the toy's own a third: its queries have all their pairs, every video the events
    of the whole log.
    """
    every = by_hand(mined)
    learnt = material.drawn(house, chain / "logs", mined, CFG, most=len(every) // 3)
    assert 0.2 < len(learnt.mined) / len(every) < 0.5
    assert "of the queries" in learnt.notes[-1]
    sizes = every.groupby("query").size()
    drawn = learnt.mined.groupby("query").size()
    assert (drawn == sizes[drawn.index]).all()
    assert set(learnt.judged["query"]) <= set(by_hand(mined)["query"])
    for name in perspectives.names(gated=True):
        whole = chance.marginals(chance.gathered(every[every["perspective"] == name]))
        usual = learnt.usual[name]
        assert (usual.videos, usual.total) == (whole.videos, whole.total)
        assert usual.queries.items() <= whole.queries.items()
        assert usual.queries.keys() == set(learnt.mined.loc[learnt.mined["perspective"] == name, "query"])


def test_another_seed_draws_other_queries(chain, tmp_path, mined):
    def of(seed):
        with session.opened("duckdb", scratch=tmp_path / f"scratch{seed}") as opened:
            cfg = CFG.model_copy(update={"seed": seed})
            return set(material.drawn(opened, chain / "logs", mined, cfg, most=400).mined["query"])

    assert of(1) != of(2)
    assert of(1) == of(1)
