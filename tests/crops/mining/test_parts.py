"""Where a log is cut: by hand, and for any counts of searches."""

from collections import Counter

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crops.engines import session
from crops.mining import parts


def cut(house, queries, number):
    table = house.put(pa.table({"query": pa.array(queries, pa.string())}), "searches")
    return [row["query"] for row in house.fetch(parts.cuts(table, parts=number).order_by("part"))]


def test_cuts_by_hand(house):
    """Six searches in three parts of two: a a | b c | d e, so the parts begin with b and d."""
    assert cut(house, ["d", "a", "c", "a", "e", "b"], 3) == ["b", "d"]


def test_a_head_query_is_never_in_two_parts(house):
    """Eight of ten searches are for b: it ends in the last part, and the parts between stay away."""
    assert cut(house, ["a", *["b"] * 8, "c"], 4) == ["b"]


def test_part_of_a_query_by_hand(house):
    table = house.put(pa.table({"query": ["a", "b", "bb", "d", "z", "Z"]}), "queries")
    found = house.fetch(table.select("query", part=parts.part_of(table["query"], ["b", "d"])))
    assert {row["query"]: row["part"] for row in found} == {"a": 0, "b": 1, "bb": 1, "d": 2, "z": 2, "Z": 0}


def test_every_user_is_in_one_of_the_parts(house):
    """A hash of either sign: 200 users fall into 0 to 2, all three used, the same user into the same part
    twice.
    """
    users = [f"u{i}" for i in range(200)] * 2
    table = house.put(pa.table({"user_id": users}), "users")
    found = house.fetch(table.select("user_id", part=parts.part_of_user(table.user_id, 3)).distinct())
    assert len(found) == 200
    assert {row["part"] for row in found} == {0, 1, 2}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text("abñ漢 ", min_size=1, max_size=3), min_size=1, max_size=40), st.integers(1, 6))
def test_no_part_is_larger_than_its_share_and_one_query(tmp_path, queries, number):
    """Every query in one part, ascending, and a part at most its share of the searches and the query that
    crosses its end.
    """
    with session.opened("duckdb", scratch=tmp_path, threads=1) as house:
        cuts = cut(house, queries, number)
    assert cuts == sorted(set(cuts), key=str.encode)
    assert len(cuts) < number
    sizes = Counter(sum(query.encode() >= c.encode() for c in cuts) for query in queries)
    assert max(sizes.values()) <= len(queries) / number + max(Counter(queries).values())
