"""One definition of a reformulation: the gateway's fold, in process and in a real Redis, counts what the
readout counts.
"""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from crops.arms import ARMS, NONE
from crops.engines.duckdb import DuckDBWarehouse
from crops.experiment import sums
from crops.mining import queries, reformulation
from crops.reformulation import MOST_WAITING, Search
from crops.tables import records
from crops.text import wording
from serving.reformulation import InProcess, InRedis
from tests.crops.experiment.logs import arrow, search
from tests.serving.redis_server import redis_server

WINDOW_S = 90
BEGIN = datetime(2026, 1, 1, 23, 58, tzinfo=UTC)  # windows cross midnight
MICRO_S = 1e-6

SCRIPTS = st.lists(
    st.tuples(
        st.sampled_from("uvw"),
        st.sampled_from([None, *ARMS]),
        st.sampled_from(["bread", " #BREAD? ", "rye", "Ｒye", "红烧肉", "红烧 肉！", "??", "??!"]),
        st.sampled_from([0.0, MICRO_S, 20.0, 45.0, 90.0, 90.0 + MICRO_S]),  # seconds after the one before
    ),
    min_size=1,
    max_size=MOST_WAITING,
)


async def counted(state, script, begin_us=0):
    """What the gateway counts, by arm. script: user, arm, query, seconds since the one before."""
    at_us, counts = begin_us, Counter()
    for user, arm, query, gap_s in script:
        at_us += round(gap_s * 1e6)
        again = await state.reformulated(user, Search(at_us, arm or NONE, wording(query)))
        counts.update(one.arm for one in again)
    return counts


def read(folder, script):
    """What the readout counts of the same searches."""
    at, rows = BEGIN, []
    for n, (user, arm, query, gap_s) in enumerate(script):
        at += timedelta(seconds=gap_s)
        rows.append(search(f"s{n}", user, at, query, arm))
    house = DuckDBWarehouse(scratch=folder, threads=1)
    raw = house.put(arrow(records.SEARCHES, rows), "raw")
    spelled = house.keep(queries.spellings(raw), "spelled")
    every = house.keep(
        queries.normalised(raw, spelled).join(raw.select("search_id", "arm"), "search_id"), "every"
    )
    later = reformulation.later_searches(every, every, window_s=WINDOW_S).select(search_id="first_id")
    nothing = sums.shown(house.put(arrow(records.RESULTS, []), "results"), None)
    days = house.fetch(sums.user_days(every, nothing, later, settled_until=at))
    assert sum(row["settled"] for row in days) == len(script)
    counts = Counter()
    for row in days:
        counts[row["arm"] or NONE] += row["reformulated"]
    return +counts


def test_every_search_that_another_query_follows_counts_once():
    """a a a b within 20 s: three of four were reformulated; a a b c: all but the last."""
    for script, expected in (("aaab", 3), ("aabc", 3), ("aaaa", 0), ("abab", 3)):
        searches = [("u", None, query, 5.0) for query in script]
        assert asyncio.run(counted(InProcess(window_s=WINDOW_S), searches)) == Counter({NONE: expected})


def test_both_ends_of_the_window_and_the_arm_of_the_first_search():
    script = [
        ("u", "control", "bread", 0.0),
        ("u", "treatment", "rye", 90.0),  # the end of the window is in it
        ("u", None, "spelt", 90.0 + MICRO_S),  # one microsecond later is not
        ("u", None, "cake", 0.0),  # at the same instant: not later
    ]
    assert asyncio.run(counted(InProcess(window_s=WINDOW_S), script)) == Counter(control=1)


@settings(max_examples=25, deadline=None)
@given(script=SCRIPTS)
def test_gateway_and_readout_count_the_same(tmp_path_factory, script):
    online = asyncio.run(counted(InProcess(window_s=WINDOW_S), script))
    assert online == read(tmp_path_factory.mktemp("scratch"), script)


@pytest.mark.redis
def test_in_redis_the_same_and_nothing_of_the_user_is_stored(tmp_path):
    import redis

    with redis_server(tmp_path) as url:
        client = redis.Redis.from_url(url)

        @settings(max_examples=25, deadline=None)
        @given(script=SCRIPTS)
        def same(script):
            async def replay():
                connection = redis.asyncio.from_url(url)
                counts = await counted(InRedis(connection, window_s=WINDOW_S, secret=b"s"), script)
                await connection.aclose()
                return counts

            client.flushall()
            assert asyncio.run(replay()) == asyncio.run(counted(InProcess(window_s=WINDOW_S), script))
            keys = client.keys("*")
            assert len(keys) == len({user for user, *_ in script})
            for key in keys:
                assert key.startswith(b"crops:searches:")
                assert 0 < client.pttl(key) <= WINDOW_S * 1000 + 1000
                assert not any(word.encode() in client.get(key) for word in ("bread", "rye", "红烧肉", "??"))

        same()


@pytest.mark.redis
def test_replicas_that_search_at_the_same_time_count_nothing_twice(tmp_path):
    """40 searches of one user at one instant, from four replicas; the next one reformulates all of them."""
    import redis

    async def replicas(url):
        states = [InRedis(redis.asyncio.from_url(url), window_s=WINDOW_S, secret=b"s") for _ in range(4)]
        calls = (states[n % 4].reformulated("u", Search(1_000_000, NONE, f"query {n}")) for n in range(40))
        assert await asyncio.gather(*calls) == [()] * 40  # at one instant nothing is later
        return await states[0].reformulated("u", Search(2_000_000, NONE, "the last"))

    with redis_server(tmp_path) as url:
        assert len(asyncio.run(replicas(url))) == 40


def test_in_bounded_memory_the_longest_silent_is_forgotten():
    async def work():
        state = InProcess(window_s=WINDOW_S, capacity=2)
        for n, user in enumerate("abc"):
            await state.reformulated(user, Search(n, NONE, "q"))
        assert await state.reformulated("a", Search(10, NONE, "other")) == ()
        assert len(await state.reformulated("c", Search(10, NONE, "other"))) == 1

    asyncio.run(work())


def test_a_robot_that_repeats_itself_takes_bounded_memory():
    script = [("u", None, "bread", 0.001)] * 1000 + [("u", None, "rye", 0.001)]
    counts = asyncio.run(counted(InProcess(window_s=WINDOW_S), script))
    assert counts == Counter({NONE: MOST_WAITING})
