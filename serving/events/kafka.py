"""Events to Kafka and back: delivered to all in-sync replicas means acknowledged. The same interface as the
segments.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from crops.errors import ConfigError
from serving.events.log import EventLogError, EventLogFull, SegmentLog
from serving.events.records import Record, encode

# acks=all and idempotence: a record is on every in-sync replica, once, in order, however often it was sent.
SAFE = {"enable.idempotence": True, "acks": "all"}
# What a file of settings may say: how to get in, never what acknowledged means.
ALLOWED = ("security.", "sasl.", "ssl.", "enable.ssl.")
NOT_LET_IN = (KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._RESOLVE)


def settings_in(path: Path | None) -> dict[str, str]:
    """How to get in, from a file of lines `name=value` in librdkafka's words (security.protocol, sasl.*,
    ssl.*); None: nothing is asked. A ConfigError names the line that says anything else; never a value, which
    may be a password.
    """
    if path is None:
        return {}
    settings = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or name.startswith("#"):
            continue
        if not equals or not name.startswith(ALLOWED):
            expected = "expected name=value with a name of security.*, sasl.*, ssl.* or enable.ssl.*"
            raise ConfigError(f"{path}:{number}: {name if equals else 'no ='}: {expected}")
        settings[name] = value
    try:
        Producer({**settings, "bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    except KafkaException as error:
        raise ConfigError(f"{path}: Kafka's client refuses it: {error.args[0].str()}") from error
    return settings


class KafkaLog:
    """One topic; the key is the search, so that a search and what followed it lie in one partition, in
    order.
    """

    def __init__(
        self, servers: str, topic: str, *, timeout_s: float = 5.0, settings: dict[str, Any] | None = None
    ) -> None:
        """timeout_s: after which a record that no broker took is given up and not acknowledged."""
        self._topic, self._timeout_s = topic, timeout_s
        own = {"bootstrap.servers": servers, "delivery.timeout.ms": int(timeout_s * 1000), "linger.ms": 2}
        self._settings = {**own, **SAFE, "error_cb": self._failed, **(settings or {})}
        self._producer, self._fatal = Producer(self._settings), False
        self._shut = ""  # why the brokers let nobody in
        self._pending: dict[int, float] = {}
        self._number, self._closing = 0, False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._poll, name="kafka-events", daemon=True)
        self._thread.start()

    async def append(self, records: Sequence[Record]) -> None:
        """See EventLog.append."""
        if self._closing:
            raise EventLogError("the event log is closed")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.gather(*[self._one(loop, record) for record in records])
        except TimeoutError as error:
            raise EventLogError(f"Kafka did not take it within {self._timeout_s:g} s{self._shut}") from error

    def _one(self, loop: asyncio.AbstractEventLoop, record: Record) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._number += 1
            number = self._number
            self._pending[number] = time.monotonic()

        def answered(_future: "asyncio.Future[None]") -> None:
            with self._lock:
                self._pending.pop(number, None)

        def delivered(error: KafkaError | None, _message: Any) -> None:
            if error is not None:
                self._failed(error)
            with contextlib.suppress(RuntimeError):  # the loop, and who waited, may be gone
                loop.call_soon_threadsafe(_settle, future, error, self._shut)

        future.add_done_callback(answered)  # taken, refused, or given up by who waited
        try:
            self._producer.produce(
                self._topic, key=record.search_id.encode(), value=encode(record), on_delivery=delivered
            )
        except BufferError:
            future.set_exception(EventLogFull("the producer's queue is full: brokers take less than arrives"))
        except KafkaException as refusal:
            self._failed(refusal.args[0])
            _settle(future, refusal.args[0], self._shut)
        return future

    async def close(self) -> None:
        """See EventLog.close."""
        await asyncio.to_thread(self.stop)

    def stop(self) -> None:
        """Waits for what is on its way."""
        self._closing = True
        self._producer.flush(self._timeout_s)
        self._thread.join()

    def lag_s(self) -> float:
        """See EventLog.lag_s."""
        with self._lock:
            return time.monotonic() - next(iter(self._pending.values())) if self._pending else 0.0

    def _failed(self, error: KafkaError) -> None:
        """A producer with a fatal error (idempotence can no longer be kept) takes nothing any more."""
        self._fatal |= error.fatal()
        if error.code() in NOT_LET_IN:
            self._shut = f": {error.str()}"

    def _poll(self) -> None:
        while not self._closing:
            with contextlib.suppress(KafkaException):
                self._producer.poll(0.05)
                if self._fatal:
                    old, self._producer, self._fatal = self._producer, Producer(self._settings), False
                    old.purge()  # what waited there is answered at once, as refused
                    old.poll(0)
                    self._fatal = False  # those answers speak of the old producer


def _settle(future: "asyncio.Future[None]", error: KafkaError | None, shut: str) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        why = shut if error.code() == KafkaError._MSG_TIMED_OUT else ""
        future.set_exception(EventLogError(f"Kafka did not take it: {error.str()}{why}"))


ASK_S = 10.0  # for one answer of a broker
JOIN_S = 60.0  # a group takes seconds to hand its partitions out
NO_TOPIC = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)


def drain(
    servers: str,
    topic: str,
    group: str,
    log: SegmentLog,
    *,
    idle_s: float = 5.0,
    join_s: float = JOIN_S,
    settings: dict[str, Any] | None = None,
) -> int:
    """Copies what the group has not seen yet into segments, for `crops compact`; returns how many records.

    An offset is committed once its records are durable: a kill between the two brings them again, and
    compaction counts a repeated event once. Ends with the last record that was there when a partition was
    given out, as users never stop, or after `idle_s` without a new one. Records of any version are copied as
    they are; a topic that nobody has written to yet holds none. EventLogError: no broker
    answers.
    """
    own = {
        "bootstrap.servers": servers,
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
    }
    shut: list[str] = []

    def failed(error: KafkaError) -> None:
        if error.code() in NOT_LET_IN:
            shut[:] = [f": {error.str()}"]

    consumer = Consumer({**own, "error_cb": failed, **(settings or {})})
    left: dict[int, int] = {}  # partition -> end of what was there and is not copied yet
    given = False

    def assigned(_consumer: Consumer, partitions: list[TopicPartition]) -> None:
        nonlocal given
        left.update(_behind(consumer, partitions))
        given |= bool(partitions)  # none yet: another member of the group has them all

    def revoked(_consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            left.pop(partition.partition, None)

    consumer.subscribe([topic], on_assign=assigned, on_revoke=revoked)
    count, began_s = 0, time.monotonic()
    last_s = began_s
    try:
        while time.monotonic() - last_s < idle_s and (left or not given):
            messages = consumer.consume(1000, timeout=0.5)
            if any((error := m.error()) is not None and error.code() in NO_TOPIC for m in messages):
                return count
            if messages:
                for partition, end in _copy(consumer, messages, log).items():
                    if end >= left.get(partition, end):
                        left.pop(partition, None)
                count, last_s = count + len(messages), time.monotonic()
            elif not consumer.assignment():
                if time.monotonic() - began_s > join_s:
                    why = "".join(shut)
                    raise EventLogError(f"{servers}: no broker gave out {topic} within {join_s:g} s{why}")
                last_s = time.monotonic()
    except KafkaException as error:
        raise EventLogError(f"{servers}: {error.args[0].str()}") from error
    finally:
        consumer.close()
    return count


def _behind(consumer: Consumer, partitions: list[TopicPartition]) -> dict[int, int]:
    """Partition -> its end, of those that hold records which the group has not seen."""
    ends = {}
    for place in consumer.committed(partitions, timeout=ASK_S):
        first, end = consumer.get_watermark_offsets(place, timeout=ASK_S)
        if max(first, place.offset) < end:  # the group's place is negative where it has none
            ends[int(place.partition)] = int(end)
    return ends


def _copy(consumer: Consumer, messages: Sequence[Any], log: SegmentLog) -> dict[int, int]:
    """Returns by partition how far it is copied now."""
    for message in messages:
        if (error := message.error()) is not None:
            raise KafkaException(error)
    if events := [value for message in messages if (value := message.value())]:  # a tombstone is none
        log.store(events).result()
    ends = {(message.topic(), message.partition()): int(message.offset()) + 1 for message in messages}
    consumer.commit(offsets=[TopicPartition(t, p, o) for (t, p), o in ends.items()], asynchronous=False)
    return {partition: end for (_topic, partition), end in ends.items()}
