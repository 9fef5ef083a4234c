"""The Kafka sink before librdkafka's own mock cluster: delivered is acknowledged, once; without a broker
nothing is.
"""

import asyncio
import uuid

import pytest
from confluent_kafka import Producer

from serving.events import kafka, log
from serving.events.compact import read_all
from serving.events.records import Interaction, Result, Search

# The mock cluster counts a group's members by their sessions: with the default of 45 s the second reader
# would wait as long.
QUICK = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}


def search(n):
    found = (Result(video_id="v", position=0, score=0.5),)
    return Search(search_id=f"s{n}", user_id="u", ts_us=n, query="q", arm=None, release="r", results=found)


@pytest.fixture
def cluster():
    """A producer that holds a mock cluster of three brokers for as long as it lives; its address comes from
    its metadata.
    """
    holder = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 3})
    brokers = holder.list_topics(timeout=10).brokers.values()
    yield ",".join(f"{b.host}:{b.port}" for b in brokers)
    del holder


def test_what_was_appended_is_in_the_topic_once_and_becomes_segments(cluster, tmp_path):
    topic = f"events-{uuid.uuid4().hex[:6]}"
    events = [search(n) for n in range(50)]
    events += [
        Interaction(search_id=f"s{n}", video_id="v", type="click", play_s=None, ts_us=1) for n in range(50)
    ]

    async def work():
        sink = kafka.KafkaLog(cluster, topic, timeout_s=10)
        await asyncio.gather(*(sink.append([event]) for event in events))
        assert sink.lag_s() == 0.0
        await sink.close()
        with pytest.raises(log.EventLogError, match="closed"):
            await sink.append([events[0]])

    asyncio.run(work())
    segments = log.SegmentLog(tmp_path, replica="kafka")
    assert kafka.drain(cluster, topic, "compactor", segments, idle_s=3, settings=QUICK) == 100
    assert kafka.drain(cluster, topic, "compactor", segments, idle_s=2, settings=QUICK) == 0, (
        "what was copied is not copied again"
    )
    segments.stop()
    key = lambda r: (r.search_id, isinstance(r, Interaction))  # noqa: E731
    assert sorted(read_all(tmp_path), key=key) == sorted(events, key=key)


def test_without_a_broker_nothing_is_acknowledged():
    async def work():
        sink = kafka.KafkaLog("127.0.0.1:1", "events", timeout_s=1.0, settings={"log_level": 0})
        with pytest.raises(log.EventLogError, match="Kafka did not take it"):
            await sink.append([search(1)])
        await sink.close()

    asyncio.run(work())
