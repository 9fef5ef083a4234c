"""The Kafka sink before librdkafka's own mock cluster: delivered is acknowledged, once; without a broker
nothing is.
"""

import asyncio
import dataclasses
import json
import threading
import time
import uuid

import pytest
from click.testing import CliRunner
from confluent_kafka import KafkaError, KafkaException, Producer

from crops.cli.serve import compact as verb
from serving.events import kafka, log, segments
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


class Producing:
    """A producer that fails as it is told to."""

    def __init__(self, error=None):
        self.error, self.purged = error, False

    def produce(self, *args, **kwargs):
        if self.error is not None:
            raise KafkaException(self.error)

    def poll(self, timeout_s):
        time.sleep(min(timeout_s, 0.01))

    def purge(self):
        self.purged = True

    def flush(self, timeout_s):
        return 0


def test_every_refusal_is_told_in_time_and_a_fatal_producer_is_replaced(cluster):
    """Too large for a message; an idempotent producer that is beyond repair; one that never answers."""

    async def work():
        sink = kafka.KafkaLog(cluster, "events", timeout_s=2)
        large = dataclasses.replace(search(1), user_id="u" * 2_000_000)
        with pytest.raises(log.EventLogError, match=r"Kafka did not take it.*too large"):
            await sink.append([large])
        assert sink.lag_s() == 0.0
        dead = Producing(KafkaError(KafkaError._FATAL, "out of order sequence", fatal=True))
        sink._producer = dead
        with pytest.raises(log.EventLogError, match="out of order sequence"):
            await sink.append([search(2), search(3)])
        await asyncio.sleep(0.5)
        assert dead.purged
        await sink.append([search(4)])
        sink._producer = Producing()
        with pytest.raises(log.EventLogError, match="within 2 s"):
            await sink.append([search(5)])
        assert sink.lag_s() == 0.0
        await sink.close()

    asyncio.run(work())


def test_what_waits_at_a_fatal_producer_is_answered_at_once():
    async def work():
        sink = kafka.KafkaLog("127.0.0.1:1", "events", timeout_s=20, settings={"log_level": 0})
        waiting = asyncio.ensure_future(sink.append([search(1)]))
        await asyncio.sleep(0.3)
        assert sink.lag_s() > 0.2
        sink._failed(KafkaError(KafkaError._FATAL, "fenced", fatal=True))
        with pytest.raises(log.EventLogError, match="Kafka did not take it"):
            await asyncio.wait_for(waiting, 3)
        assert sink.lag_s() == 0.0
        sink._timeout_s = 0.1
        await sink.close()

    asyncio.run(work())


def test_users_who_never_stop_do_not_keep_it_from_its_end(cluster, tmp_path):
    """A record ten times a second, never 3 s without one: what was there at the start is copied, once."""
    topic, over, most = f"events-{uuid.uuid4().hex[:6]}", threading.Event(), 400
    producer, fed = Producer({"bootstrap.servers": cluster}), []
    for n in range(20):
        producer.produce(topic, value=json.dumps({"n": n}).encode())
    producer.flush(10)

    def users():
        while not over.wait(0.1) and len(fed) < most:
            fed.append(len(fed))
            producer.produce(topic, value=json.dumps({"n": 20 + len(fed)}).encode())
            producer.flush(10)

    thread = threading.Thread(target=users)
    thread.start()
    held = log.SegmentLog(tmp_path, replica="kafka")
    first = kafka.drain(cluster, topic, "compactor", held, idle_s=3, settings=QUICK)
    assert len(fed) < most, "it ended while they went on"
    over.set()
    thread.join()
    second = kafka.drain(cluster, topic, "compactor", held, idle_s=3, settings=QUICK)
    held.stop()
    assert first >= 20
    assert first + second == 20 + len(fed)
    copied = [
        json.loads(payload)["n"] for path in segments.listed(tmp_path) for _, payload in segments.read(path)
    ]
    assert len(copied) == len(set(copied)) == 20 + len(fed)


def test_the_verb_copies_and_compacts_into_folders_that_are_not_there_yet(cluster, tmp_path):
    """As the job of the chart calls it, with a record of a newer version among them."""
    topic = f"events-{uuid.uuid4().hex[:6]}"

    async def work():
        sink = kafka.KafkaLog(cluster, topic, timeout_s=10)
        await asyncio.gather(*(sink.append([search(n)]) for n in range(20)))
        await sink.close()

    asyncio.run(work())
    producer = Producer({"bootstrap.servers": cluster})
    producer.produce(topic, value=b'{"kind":"impression"}')
    producer.flush(10)
    arguments = [f"--events={tmp_path / 'events'}", f"--out={tmp_path / 'tables'}", f"--kafka={cluster}"]
    done = CliRunner().invoke(verb, [*arguments, f"--topic={topic}"])
    assert done.exit_code == 0, done.output
    assert "21 records from Kafka" in done.output
    assert "1 records of a newer version" in done.output
    assert json.loads((tmp_path / "tables/compact.json").read_text())["searches"] == 20


def test_without_a_broker_copying_is_an_error(tmp_path):
    segments = log.SegmentLog(tmp_path, replica="kafka")
    with pytest.raises(log.EventLogError, match="no broker gave out events"):
        kafka.drain("127.0.0.1:1", "events", "g", segments, join_s=1, settings={"log_level": 0})
    segments.stop()


def test_a_message_without_a_value_is_no_event_and_holds_nothing_up(tmp_path):
    """A tombstone, or what a tool wrote to see whether the topic is there."""

    class Message:
        def __init__(self, offset, value):
            self.offset, self.value = lambda: offset, lambda: value

        def error(self):
            return None

        def topic(self):
            return "t"

        def partition(self):
            return 0

    class Consumer:
        def commit(self, offsets, asynchronous):
            self.upto = [one.offset for one in offsets]

    consumer, segment_log = Consumer(), log.SegmentLog(tmp_path, replica="drain")
    kafka._copy(consumer, [Message(0, None), Message(1, b"")], segment_log)
    kafka._copy(consumer, [Message(2, None), Message(3, b'{"kind":"x"}')], segment_log)
    asyncio.run(segment_log.close())
    assert consumer.upto == [4]
    payloads = [payload for path in segments.listed(tmp_path) for _, payload in segments.read(path)]
    assert payloads == [b'{"kind":"x"}']
