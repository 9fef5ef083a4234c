"""TREC Session: a made-up file that holds every trap of the format, and the real one where it is there."""

import datetime
import os
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from crops.adapters import trec_session
from crops.errors import InputError
from crops.tables import records

UTC = datetime.UTC


@pytest.fixture(scope="module")
def made_up(request) -> trec_session.Converted:
    return trec_session.convert((request.config.rootpath / "tests/data/trec_session.xml").read_bytes())


def test_searches_get_days_from_their_session_and_the_closing_query_is_one(made_up):
    """Session 1 starts at hour 1; 100 s later its second search; currentquery is the third. Session 30 lies
    on the next day, and a closing query without a time is none.
    """
    rows = {r["search_id"]: r for r in made_up.searches.to_pylist()}
    assert list(rows) == ["1:1", "1:2", "1:3", "2:1", "30:1"]
    assert rows["1:1"]["ts"] == datetime.datetime(2013, 1, 1, 1, 0, 10, 500_000, UTC)
    assert rows["1:3"]["ts"] == datetime.datetime(2013, 1, 1, 1, 2, 30, 250_000, UTC)
    assert rows["30:1"]["date"] == "2013-01-02"
    assert {r["user_id"] for r in rows.values()} == {"session:1", "session:2", "session:30"}
    assert (rows["1:1"]["query"], rows["1:3"]["query"]) == ("cheap Bikes", "used bicycles")


def test_positions_are_the_order_and_ranks_only_name_clicks(made_up):
    """Ranks 11 to 14: positions 0 and 1; the page that stands twice keeps its first place, the one without an
    id none. doc-b is clicked twice: 12.5 s and an unknown end make 12.5 s. doc-a has only an unknown end:
    null, not 0.
    """
    rows = made_up.results.filter(pc.equal(made_up.results["search_id"], "1:1")).to_pylist()
    assert [(r["video_id"], r["position"], r["clicked"], r["play_s"]) for r in rows] == [
        ("doc-a", 0, True, None),
        ("doc-b", 1, True, 12.5),
    ]
    assert {r["stage"] for r in made_up.results.to_pylist()} == {"exposed"}
    assert made_up.results.num_rows == 3
    assert not made_up.results.to_pylist()[2]["clicked"]


def test_texts_are_decoded_twice_and_the_longest_snippet_stays(made_up):
    rows = {r["video_id"]: r for r in made_up.videos.to_pylist()}
    assert set(rows) == {"doc-a", "doc-b"}
    assert rows["doc-b"]["caption"] == "CHEAP Bikes"
    assert rows["doc-b"]["cover_text"] == "Bikes & more"
    assert (rows["doc-a"]["caption"], rows["doc-a"]["cover_text"]) == (
        "Home",
        "a longer snippet of the same page",
    )


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (r"Home\/current \"issue\"", 'Home/current "issue"'),
        ("caf&eacute; &raquo; &nbsp; x", "café » x"),
        ("\\r \\tCHEAP\\n now", "CHEAP now"),
        ("a\u00a0 b\n c", "a b c"),
        (None, ""),
    ],
)
def test_clean(raw, clean):
    assert trec_session.clean(raw) == clean


def test_weak_truth_is_what_other_sessions_clicked(made_up):
    """Session 2 asks `used bicycles`: relevant to it is what session 1 clicked for the topic. Session 1
    learns nothing from itself, session 2 clicked nothing. Its closing query is the same text, so the pair
    stands once.
    """
    assert made_up.relevance.to_pylist() == [
        {"query": "used bicycles", "video_id": v, "grade": records.RELEVANT_GRADE} for v in ("doc-a", "doc-b")
    ]


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"<html></html>", "root element is <html>"),
        (b"user_id,query\n1,a\n", "not XML"),
        (b'<sessiontrack2013><session num="x"/></sessiontrack2013>', "'x'"),
        (
            b'<sessiontrack2013><session num="1"><interaction num="1"><query>a</query></interaction>'
            b"</session></sessiontrack2013>",
            "starttime",
        ),
    ],
)
def test_another_file_is_one_line_that_names_it(raw, problem):
    with pytest.raises(InputError, match=problem) as error:
        trec_session.convert(raw, "some.xml")
    assert str(error.value).startswith("some.xml: ")


@pytest.fixture(scope="module")
def real(request) -> trec_session.Converted:
    beside = request.config.rootpath.parent / "shared/data/trec-session-2013/sessiontrack2013.xml"
    path = Path(os.environ.get("CROPS_TREC_FILE") or beside)
    if not path.is_file():
        pytest.skip("sessiontrack2013.xml is not here: download it from NIST and name it in CROPS_TREC_FILE")
    return trec_session.convert(path.read_bytes(), str(path))


@pytest.mark.trec
def test_the_real_file_holds_what_is_known_of_it(real):
    """133 sessions, 401 searches and 87 closing queries, 4,449 results of 2,739 pages."""
    searches = real.searches.to_pandas()
    closing = searches["search_id"].isin(real.results["search_id"].to_pylist())
    assert searches["user_id"].nunique() == 133
    assert len(searches) == 401 + 87
    assert closing.sum() == 401 - 2, "two searches have no results"
    assert (real.results.num_rows, real.videos.num_rows) == (4_449, 2_739)


@pytest.mark.trec
def test_the_real_files_gaps(real):
    """355 gaps between neighbouring searches of a session, the closing query among them: median 72 s, 58 %
    within 90 s.
    """
    searches = real.searches.to_pandas().sort_values(["user_id", "ts"])
    gaps = searches.groupby("user_id")["ts"].diff().dt.total_seconds().dropna()
    assert len(gaps) == 355
    assert round(gaps.median()) == 72
    assert round(float((gaps <= 90).mean()), 2) == 0.58


@pytest.mark.trec
def test_the_real_files_clicks(real, request):
    """586 clicks: read from the XML by another way, they fall on the clicked results of the tables."""
    import re

    path = Path(
        os.environ.get("CROPS_TREC_FILE")
        or request.config.rootpath.parent / "shared/data/trec-session-2013/sessiontrack2013.xml"
    )
    text = path.read_text(encoding="utf-8")
    assert len(re.findall(r"<click ", text)) == 586
    clicked = set()
    for session in re.findall(r'<session num="(\d+)"(.*?)</session>', text, re.DOTALL):
        for number, body in re.findall(r'<interaction num="(\d+)"(.*?)</interaction>', session[1], re.DOTALL):
            ids = dict(
                re.findall(
                    r'<result rank="(\d+)">.*?<clueweb12id>\s*(\S+?)\s*</clueweb12id>', body, re.DOTALL
                )
            )
            ranks = re.findall(r"<click .*?<rank>\s*(\d+)\s*</rank>", body, re.DOTALL)
            clicked |= {(f"{session[0]}:{number}", ids[rank]) for rank in ranks}
    rows = real.results.filter(real.results["clicked"]).to_pylist()
    assert {(r["search_id"], r["video_id"]) for r in rows} == clicked
    assert len(rows) == 558


@pytest.mark.trec
def test_the_real_file_keeps_every_promise_of_the_tables(real):
    for table, rows in (
        (records.SEARCHES, real.searches),
        (records.RESULTS, real.results),
        (records.VIDEOS, real.videos),
    ):
        assert rows.group_by([*table.key]).aggregate([]).num_rows == rows.num_rows
        for field in table.schema:
            assert field.nullable or rows[field.name].null_count == 0, (table.name, field.name)
    texts = " ".join(real.videos["caption"].to_pylist() + real.videos["cover_text"].to_pylist())
    assert not [escape for escape in (r"\/", r"\"", r"\r ", r"\t") if escape in texts]
    assert not np.isnan(real.results["play_s"].drop_null().to_numpy()).any()
