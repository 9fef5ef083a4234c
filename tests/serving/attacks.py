"""Peers that cost more than they should, on raw sockets, and people who search meanwhile. No test in here."""

import asyncio
import collections
import contextlib
import json
import multiprocessing
import os
import random
import time
from urllib.parse import urlsplit

HEAD = b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


async def _opened(address):
    where = urlsplit(address)
    return await asyncio.open_connection(where.hostname, where.port)


async def _pouring(address, first, piece, pause_s):
    """One connection after the other that sends `first`, then `piece` again and again until it is cut; ten a
    second: a flood of new connections is for what stands before the gateway.
    """
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            _, writer = await _opened(address)
            try:
                writer.write(first)
                while piece is not None:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(pause_s)
                await asyncio.sleep(pause_s)
            finally:
                writer.transport.abort()
        await asyncio.sleep(0.1)


async def _unread(address):
    """Asks for large pages as often at once as is allowed, again and again, and takes none of the answers."""
    ask = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n"
    await _pouring(address, ask * 16, None, 2)


async def _pipelined(address):
    """Asks a hundred times at once and takes none of the answers."""
    ask = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n"
    await _pouring(address, ask * 99, None, 60)


EVENTS = b"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
# Name -> (connections, what each does).
ATTACKS = {
    "header bomb: endless headers": (8, lambda a: _pouring(a, HEAD, b"x-a: b\r\n" * 2000, 0.002)),
    "header bomb: one endless value": (8, lambda a: _pouring(a, HEAD + b"x-a: ", b"y" * 65536, 0.01)),
    "endless trailers": (
        8,
        lambda a: _pouring(
            a, HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n", b"x-a: b\r\n" * 2000, 0.002
        ),
    ),
    "idle sockets": (3000, lambda a: _pouring(a, b"", None, 60)),
    "slow heads": (1000, lambda a: _pouring(a, HEAD, b"x", 1)),
    "slow bodies": (1000, lambda a: _pouring(a, HEAD + b"content-length: 1000\r\n\r\n{", b" ", 1)),
    "large bodies that stop": (
        200,
        lambda a: _pouring(a, EVENTS + b"content-length: 1000000\r\n\r\n" + b" " * 990_000, None, 60),
    ),
    "answers that nobody reads": (50, _unread),
    "a hundred requests at once": (50, _pipelined),
    "bodies of nothing but values": (
        2,
        lambda a: _pouring(
            a, EVENTS + b"content-length: 900001\r\n\r\n[" + b",".join([b"{}"] * 300_000) + b"]", None, 0.1
        ),
    ),
}


async def _under(address, name, swings):
    count, one = ATTACKS[name]
    tasks = [asyncio.create_task(one(address)) for _ in range(count)]
    await asyncio.sleep(1)
    swings.set()
    await asyncio.gather(*tasks)


def _attack(address, name, swings):
    os.nice(19)
    asyncio.run(_under(address, name, swings))


@contextlib.contextmanager
def attacker(address, name):
    """The attack of that name within the block, by a process of its own at the lowest priority, begun:
    in one loop with those who search it would make them late itself.
    """
    spawning = multiprocessing.get_context("spawn")
    swings = spawning.Event()
    process = spawning.Process(target=_attack, args=(address, name, swings), daemon=True)
    process.start()
    try:
        assert swings.wait(60), "the attack did not begin"
        yield
    finally:
        process.kill()
        process.join()


async def searching(address, seconds, rate, seed=0):
    """Latencies in s, and how many answers of each status, 0 for none within ten seconds: open loop, each
    on a connection of its own, so that new ones must get in.
    """
    rng, took, answers, running = random.Random(seed), [], collections.Counter(), []

    async def one():
        body = {"query": f"bread {rng.getrandbits(32):x}", "user_id": f"u{rng.getrandbits(16)}", "k": 5}
        sent = json.dumps(body).encode()
        began_s = time.perf_counter()
        try:
            reader, writer = await _opened(address)
            writer.write(HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(sent), sent))
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
        except (OSError, TimeoutError):
            answer = b""
        answers[int(answer[9:12] or 0)] += 1
        took.append(time.perf_counter() - began_s)

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        running.append(asyncio.create_task(one()))
        await asyncio.sleep(1 / rate)
    await asyncio.gather(*running)
    return sorted(took), answers
