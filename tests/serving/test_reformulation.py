"""Another query within the window, whichever store keeps the last search: one test body, in process and a
real Redis.
"""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time

import pytest

from serving.reformulation import InProcess, InRedis

WINDOW_S = 90.0


@contextlib.contextmanager
def redis_server(folder):
    path = shutil.which("redis-server")
    if path is None:
        pytest.skip("not run: redis-server is not installed (tests/install_system_parts)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [path, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                break
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def told(make):
    """Each line: user, arm, query, seconds; and the arm whose search it reformulates."""

    async def work():
        state = make()
        script = [
            ("a", "control", "bread", 1000.0, None),
            ("a", "control", "sourdough", 1010.0, "control"),
            ("a", "control", "sourdough", 1020.0, None),  # the same query again
            ("b", "treatment", "rye", 1020.0, None),
            ("a", "treatment", "rye", 1025.0, "control"),  # counts for the arm of the search before
            ("b", "treatment", "spelt", 1020.0 + WINDOW_S, "treatment"),  # both ends included
            ("a", "none", "cake", 1025.0 + WINDOW_S + 0.1, None),
            ("a", "none", "pie", 1025.0 + WINDOW_S + 0.1, None),  # at the same instant: not later
        ]
        for user, arm, query, now_s, expected in script:
            assert await state.seen(user, arm, query, now_s) == expected, (user, query)

    asyncio.run(work())


def test_in_process():
    told(lambda: InProcess(window_s=WINDOW_S))


@pytest.mark.redis
def test_in_redis_the_same_and_nothing_of_the_user_is_stored(tmp_path):
    import redis

    with redis_server(tmp_path) as url:
        told(lambda: InRedis(redis.asyncio.from_url(url), window_s=WINDOW_S, secret=b"s"))
        client = redis.Redis.from_url(url)
        keys = client.keys("*")
        assert len(keys) == 2
        for key in keys:
            assert key.startswith(b"crops:last:")
            assert 0 < client.pttl(key) <= WINDOW_S * 1000
            assert not any(word in client.get(key) for word in (b"pie", b"spelt"))


def test_in_bounded_memory_the_longest_silent_is_forgotten():
    async def work():
        state = InProcess(window_s=WINDOW_S, capacity=2)
        for n, user in enumerate("abc"):
            await state.seen(user, "none", "q", 1000.0 + n)
        assert await state.seen("a", "none", "other", 1010.0) is None
        assert await state.seen("c", "none", "other", 1010.0) == "none"

    asyncio.run(work())
