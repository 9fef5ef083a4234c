"""Events count once per (search, video, kind), and of shown videos alone: in a process, in a real Redis."""

import asyncio
import random

import pytest

from crops.config.rollout import RolloutConfig
from crops.experiment import rollout
from crops.experiment.rollout import Measurements
from serving.shown import InProcess, InRedis
from tests.serving.redis_server import redis_server


def script(seed):
    """Searches with what they showed, then events: repeated, invented, of unknown searches."""
    rng = random.Random(seed)
    searches = {f"s{n}": [f"v{v}" for v in rng.sample(range(9), rng.randrange(6))] for n in range(8)}
    events = [
        (
            f"s{rng.randrange(10)}",
            rng.choice(["click", "long play"]),
            {f"v{rng.randrange(9)}" for _ in range(3)},
        )
        for _ in range(120)
    ]
    return searches, events


async def counted(states, searches, events):
    """By the states in turn: as many counts as events."""
    for n, (search, videos) in enumerate(searches.items()):
        await states[n % len(states)].add(search, videos)
    return [await states[n % len(states)].count(*event) for n, event in enumerate(events)]


def by_hand(searches, events):
    seen, out = set(), []
    for search, kind, videos in events:
        new = {(search, kind, v) for v in videos if v in searches.get(search, ())} - seen
        seen |= new
        out.append(len(new))
    return out


def test_each_once_and_of_what_was_shown():
    for seed in range(50):
        given = script(seed)
        assert asyncio.run(counted([InProcess(within_s=60)], *given)) == by_hand(*given)


@pytest.mark.redis
def test_replicas_that_share_a_redis_count_as_one(tmp_path):
    import redis.asyncio

    async def replicas(url, seed):
        clients = [redis.asyncio.from_url(url) for _ in range(3)]
        await clients[0].flushall()
        found = await counted([InRedis(c, within_s=60, secret=b"s") for c in clients], *script(seed))
        keys = await clients[0].keys("*")
        assert all(0 < left <= 60_000 for left in [await clients[0].pttl(key) for key in keys])
        assert not any(b"s0" in key for key in keys)
        for client in clients:
            await client.aclose()
        return found

    with redis_server(tmp_path) as url:
        for seed in range(5):
            assert asyncio.run(replicas(url, seed)) == by_hand(*script(seed))


def test_memory_is_bounded_in_number_and_time():
    now = [0.0]

    async def work():
        state = InProcess(within_s=10, capacity=2, clock=lambda: now[0])
        for search in "abc":
            await state.add(search, ["v"])
        assert [await state.count(search, "click", ["v"]) for search in "abc"] == [0, 1, 1]
        now[0] = 11.0
        assert await state.count("c", "long play", ["v"]) == 0
        await state.add("d", ["v"])
        assert list(state._held) == ["d"]

    asyncio.run(work())


def flooded(rng, rate, treatment_rate, flood):
    """Clicks and impressions of both arms, 1,000 searches of 10 results each, and an arm whose one search is
    replayed 51,000 times: as the gateway counts them.
    """

    async def work():
        state, clicks = InProcess(within_s=60), {"control": 0, "treatment": 0}
        for arm, share in (("control", rate), ("treatment", treatment_rate)):
            for n in range(1000):
                shown = [f"v{v}" for v in range(10)]
                await state.add(f"{arm}{n}", shown)
                clicked = [v for v in shown if rng.random() < share]
                clicks[arm] += await state.count(f"{arm}{n}", "click", clicked)
        for _ in range(51_000):
            clicks[flood] += await state.count(f"{flood}0", "click", ["v0", "never shown"])
        return clicks

    return asyncio.run(work())


@pytest.mark.parametrize("flood", ["control", "treatment"])
def test_flooding_an_arm_moves_no_verdict(flood):
    plan = RolloutConfig()
    (ctr,) = (g for g in plan.guardrails if g.name == "ctr")
    events = {"ctr": {"control": 1e4, "treatment": 1e4}}
    for seed, (share, broken) in enumerate(((0.1, False), (0.05, True))):
        clicks = flooded(random.Random(seed), 0.1, share, flood)
        answered, reason = rollout._check(plan, ctr, Measurements(values={"ctr": clicks}, events=events))
        assert answered
        assert (reason is not None) == broken, (flood, share, clicks, reason)


def test_a_rate_above_one_is_not_known():
    plan = RolloutConfig()
    (ctr,) = (g for g in plan.guardrails if g.name == "ctr")
    events = {"ctr": {"control": 1e4, "treatment": 1e4}}
    for clicks in ({"control": 5.1e4, "treatment": 1e3}, {"control": 1e3, "treatment": 1.1e4}):
        assert rollout._check(plan, ctr, Measurements(values={"ctr": clicks}, events=events)) == (False, None)
