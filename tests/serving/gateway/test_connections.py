"""A gateway's limits on what comes in, against raw sockets of a real process: bounded in size, time and
number.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import httpx
import psutil
import pytest

from serving.gateway import connections
from serving.triton import launch
from tests.serving import attacks

ROOT = Path(__file__).resolve().parents[3]
LIMITS = {
    "max_head_bytes": 8192,
    "max_body_bytes": 65536,
    "max_bodies_bytes": 262_144,
    "max_connections": 40,
    "head_timeout_s": 1.0,
    "body_timeout_s": 1.0,
}


@contextlib.contextmanager
def serving(folder, **settings):
    """A gateway's address and process; it has no release, and says so at once."""
    (port,) = launch.free_ports(1)
    settings = {
        "manifest": str(folder / "none.json"),
        "state": str(folder / "state"),
        "port": port,
        **settings,
    }
    (folder / "gateway.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.gateway", str(folder / "gateway.json")],
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                httpx.get(f"{address}/healthz", timeout=2)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield address, process.pid
        log = (folder / "log").read_text()
        assert "Traceback" not in log, log[-2000:]
    finally:
        process.terminate()  # one that drains ends at the second signal
        process.wait(20)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """With small limits."""
    with serving(tmp_path_factory.mktemp("gateway"), **LIMITS) as started:
        yield started


def opened(address):
    return socket.create_connection(("127.0.0.1", httpx.URL(address).port), timeout=10)


def answered(one):
    """All that comes until the other side closes; what it resets is empty."""
    parts = []
    try:
        while part := one.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def ended(address, *pieces):
    """What a connection is told that sends these pieces and then waits, and after how many seconds."""
    began_s = time.monotonic()
    with opened(address) as one:
        try:
            for piece in pieces:
                one.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return answered(one), time.monotonic() - began_s


def says(answer, status, code):
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:300]
    assert json.loads(body)["error"]["code"] == code


CROWD = 400
ASK = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n"
SEARCH = attacks.HEAD


@pytest.mark.parametrize(
    "pieces",
    [
        (ASK, b"x-a: " + b"y" * 9000),
        (ASK, b"x-a: b\r\n" * 101 + b"\r\n"),
        (ASK, b"x-a: " + b"y" * 8200 + b"\r\n\r\n"),
        (b"GET /" + b"a" * 9000,),
    ],
    ids=["a value without end", "many", "one large", "a path without end"],
)
def test_a_head_over_the_limit_is_431_at_once(gateway, pieces):
    """One that waits for the rest first would be 408, by the time for a head."""
    answer, _ = ended(gateway[0], *pieces)
    says(answer, 431, "too_large")


def test_a_head_at_the_limit_is_taken(gateway):
    answer, _ = ended(gateway[0], ASK + b"x-a: " + b"y" * 8000 + b"\r\nconnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "pieces", [(SEARCH[:-2],), (SEARCH + b"content-length: 10\r\n\r\n{",)], ids=["head", "body"]
)
def test_what_does_not_come_in_time_is_408(gateway, pieces):
    answer, took_s = ended(gateway[0], *pieces)
    says(answer, 408, "timeout")
    assert took_s > 0.9


@pytest.mark.parametrize("first", [b"", b"\r\n", ASK + b"\r\n"], ids=["nothing", "a line", "a request"])
def test_a_connection_that_only_trickles_is_closed(gateway, first):
    """Blank lines between requests are allowed, and would keep it open for ever."""
    with opened(gateway[0]) as one:
        one.sendall(first)
        began_s = time.monotonic()
        try:
            while time.monotonic() - began_s < 30:
                one.sendall(b"\r\n")
                time.sleep(0.1)
            pytest.fail("still open")
        except (BrokenPipeError, ConnectionResetError):
            pass


def test_trailers_are_of_the_head(gateway):
    chunked = SEARCH + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    answer, _ = ended(gateway[0], chunked, b"x-a: b\r\n" * 200)
    assert answer.startswith((b"HTTP/1.1 4", b"")), "refused or cut"


def test_a_body_of_nothing_but_frame_or_values_is_cut(gateway):
    small = b"".join(b"1;" + b"e" * 60 + b"\r\n \r\n" for _ in range(12_000))
    answer, _ = ended(gateway[0], SEARCH + b"transfer-encoding: chunked\r\n\r\n", small)
    assert not answer or answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 408")), answer[:100]
    values = b"[" + b",".join([b"{}"] * 20_000) + b"]"
    answer = httpx.post(
        f"{gateway[0]}/v1/events", content=values, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    keys = {f"k{n}": n for n in range(3000)}
    answer = httpx.post(f"{gateway[0]}/v1/search", json=keys)
    assert answer.status_code == 400
    assert "k0: Extra inputs" in answer.json()["error"]["message"]


def test_bodies_together_have_a_limit_and_leave_it_again(gateway):
    address = gateway[0]
    held = [opened(address) for _ in range(8)]
    for one in held:
        one.sendall(SEARCH + b"content-length: 60000\r\n\r\n{" + b" " * 50_000)
    answers = [answered(one) for one in held]
    refused = [a for a in answers if a.startswith(b"HTTP/1.1 429")]
    assert 1 <= len(refused) < 8, "262,144 bytes hold five of 50,000"
    assert b"retry-after: 1" in refused[0].lower()
    for _ in range(10):  # the budget is free again
        assert httpx.post(f"{address}/v1/search", content=b" " * 60_000).status_code == 400


def test_a_new_connection_gets_the_place_of_the_one_that_owes_for_longest(gateway):
    address = gateway[0]
    idle = [opened(address) for _ in range(60)]
    assert httpx.get(f"{address}/healthz", timeout=5).status_code == 200
    gone = [not answered(one) for one in idle[:10]]
    assert all(gone), "the first were closed"
    for one in idle:
        one.close()


def test_a_gateway_that_drains_answers_and_closes_each_connection(tmp_path):
    """Else the next request on it would meet the end of the drain: a failed search without a fault."""
    with serving(tmp_path, drain_s=300.0) as (address, pid), opened(address) as kept:
        kept.sendall(ASK + b"\r\n")
        before = b""
        while not before.endswith(b'{"status":"alive"}'):
            before += kept.recv(65536)
        assert before.startswith(b"HTTP/1.1 200")
        assert b"connection: close" not in before.lower()
        os.kill(pid, signal.SIGTERM)
        while "shutting down" not in httpx.get(f"{address}/readyz").text:
            time.sleep(0.05)
        kept.sendall(ASK + b"\r\n")
        after = answered(kept)
        assert after.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in after.lower()


def test_more_than_sixteen_requests_behind_one_are_refused(gateway):
    """What is read at once is taken apart at once, and holds up everybody else meanwhile."""
    ask = ASK + b"\r\n"
    answer, _ = ended(gateway[0], ask * 16)
    assert answer.count(b"HTTP/1.1 200") == 16
    for many in (99, 4000):
        answer, _ = ended(gateway[0], ask * many)
        assert answer.count(b"HTTP/1.1 200") <= 17


def test_who_reads_no_answer_is_cut(gateway):
    address, pid = gateway
    ask = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n"
    held = []
    for _ in range(30):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", httpx.URL(address).port))
        one.sendall(ask * 16)
        held.append(one)
    deadline = time.monotonic() + 10
    while len(psutil.Process(pid).net_connections()) > 10 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(psutil.Process(pid).net_connections()) <= 10
    for one in held:
        one.close()


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """With room for more connections than an attack opens within one turn of the loop."""
    with serving(tmp_path_factory.mktemp("crowded"), **{**LIMITS, "max_connections": CROWD}) as started:
        yield started


@pytest.mark.parametrize(
    "name",
    [
        n
        if n in {"header bomb: endless headers", "idle sockets"}
        else pytest.param(n, marks=pytest.mark.slow)
        for n in attacks.ATTACKS
    ],
)
def test_under_attack_memory_and_files_are_bounded_and_others_are_answered(crowded, name):
    address, pid = crowded
    process = psutil.Process(pid)
    before_mb = process.memory_info().rss / 1e6
    with attacks.attacker(address, name):
        took, answers = asyncio.run(attacks.searching(address, 3.5, 10))
        files = process.num_fds()
    after_mb = process.memory_info().rss / 1e6
    assert answers == {503: len(took)}, "every search is answered, here for want of a release"
    assert after_mb - before_mb < 60
    assert files < CROWD + 60
    print(f"{name}: slowest {1000 * took[-1]:.0f} ms, {before_mb:.0f} -> {after_mb:.0f} MB, {files} files")


def test_who_waited_while_the_gateway_stood_still_is_not_late():
    """0.1 s were left when it stood still for 10 s: 0.1 s are left behind it, and then it is late."""
    clock, ended = SimpleNamespace(now_s=0.0), []
    loop = SimpleNamespace(time=lambda: clock.now_s, call_later=lambda *_: None, call_soon=lambda *_: None)
    one = Mock(loop=loop, end=lambda *_: ended.append(clock.now_s))
    among = connections.Connections(SimpleNamespace(max_connections=10))
    among.admit(one)
    among.owes(one, 0.6)
    clock.now_s = 10.5
    among._look(loop, 0.5)
    assert not ended
    clock.now_s = 11.0
    among._look(loop, 11.0)
    assert ended == [11.0]
