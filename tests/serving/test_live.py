"""A whole stack as `crops serve` starts it: load with a verdict, hostile requests by the OpenAPI document,
SIGKILL under load.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import httpx
import psutil
import pyarrow as pa
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from crops.tables import artifacts, records
from serving.events.compact import read_all
from serving.events.records import Interaction
from tests.crops.stages import toy_release as toy

pytestmark = pytest.mark.triton
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A world of the toy catalogue, as the load file reads one."""
    root = tmp_path_factory.mktemp("people")
    (root / "searches/date=2026-01-01").mkdir(parents=True)
    queries = [f"subject{t}" for t in range(toy.TOPICS)] + ["nobody knows this"]
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"query": queries}), root / "searches/date=2026-01-01/part-0.parquet")
    artifacts.write(
        root / "truth", records.RELEVANCE, pa.Table.from_pylist(toy.truth(), schema=records.RELEVANCE.schema)
    )
    return root


def locust(gateway, people, **environment):
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        str(ROOT / "tests/load/locustfile.py"),
        "--host",
        gateway,
        "--headless",
        "--run-time",
        "12s",
        "--users",
        "10",
        "--spawn-rate",
        "10",
        "--only-summary",
    ]
    variables = {**os.environ, "LOAD_WORLD": str(people), "LOAD_P99_MS": "10000", **environment}
    return subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_people_search_click_watch_and_the_slo_decides_the_exit_code(stack, people):
    root, _uri, cfg, _ = stack
    before = sum(isinstance(r, Interaction) for r in read_all(root / "events"))
    done = locust(cfg.gateways[0], people)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SLO holds" in done.stdout
    found = [r for r in read_all(root / "events") if isinstance(r, Interaction)][before:]
    assert {r.type for r in found} == {"click", "play"}
    failed = locust(cfg.gateways[0], people, LOAD_P99_MS="0.001")
    assert failed.returncode == 1
    assert "SLO does not hold" in failed.stdout


def test_triton_alone_under_load(stack, people):
    _root, _uri, cfg, triton = stack
    model = httpx.get(f"{cfg.gateways[0]}/v1/release").json()["arms"]["control"]["model"]
    done = locust(cfg.gateways[0], people, LOAD_TRITON=triton, LOAD_MODEL=model)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gRPC" in done.stdout + done.stderr


def test_hostile_requests_by_the_document_never_break_it(stack):
    """Whatever fits or breaks the OpenAPI document: an answer that the document names, never a 5xx other than
    503.
    """
    _root, _uri, cfg, _ = stack
    schema = schemathesis.openapi.from_url(f"{cfg.gateways[0]}/openapi.json")

    operations = [found.ok() for found in schema.get_all_operations()]
    assert {o.path for o in operations} >= {
        "/v1/search",
        "/v1/events",
        "/v1/release",
        "/v1/compare",
        "/healthz",
        "/readyz",
    }
    modes = schemathesis.GenerationMode
    for operation in operations:
        # What takes nothing cannot be given anything wrong.
        for generation in (
            (modes.POSITIVE, modes.NEGATIVE) if operation.method == "post" else (modes.POSITIVE,)
        ):
            _attack(operation.as_strategy(generation_mode=generation))
    assert httpx.get(f"{cfg.gateways[0]}/healthz").status_code == 200


def _attack(cases):
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(cases)
    def attack(case):
        answer = case.call()
        assert answer.status_code < 500 or answer.status_code == 503, (answer.status_code, answer.text)
        if answer.status_code >= 400:
            assert set(answer.json()) == {"error"}, answer.text

    attack()


GONE = (
    httpx.RemoteProtocolError,
    httpx.WriteError,
    httpx.ReadError,
)  # it closes on what is no HTTP, or too large


def hostile(rng: random.Random) -> tuple[str, str, bytes, dict[str, str]]:
    """Method, path, body and headers that somebody with bad intent, or a bug, would send."""
    text = rng.choice(
        [
            "subject1",
            "\x00",
            "\ud83d\ude00" * 40,
            "'; drop table",
            "a" * 5000,
            "\u202e<script>",
            "%00%ff",
            " ",
        ]
    )
    value = rng.choice([text, None, -1, 2**63, 1e308, [], {}, [[]] * 50, True])
    search = {
        "query": rng.choice([text, text, value]),
        "user_id": rng.choice(["u", "u", value]),
        "k": rng.choice([3, 3, value]),
    }
    event = {
        "search_id": rng.choice([text, value]),
        "video_id": text,
        "type": rng.choice(["click", "buy", value]),
        "ts": value,
    }
    body = rng.choice(
        [
            *[json.dumps(search).encode()] * 4,
            json.dumps([event] * rng.choice([1, 30, 2000])).encode(),
            json.dumps(value).encode(),
            rng.randbytes(rng.choice([0, 1, 900])),
            b"[" * 20_000,
            b'{"query": NaN}',
            b'{"query": "a", "query": "b"}',
            b"x" * 1_200_000,
        ]
    )
    kind = rng.choice(
        [
            *["application/json"] * 4,
            "text/plain",
            "application/json; charset=utf-16",
            "multipart/form-data",
            "",
        ]
    )
    path = rng.choice(
        [
            "/v1/search",
            "/v1/search",
            "/v1/events",
            "/v1/compare",
            "/v1/admin/look",
            "/v1/search/../../etc/passwd",
            f"/{value}"[:200],
        ]
    )
    headers = {
        "content-type": kind,
        "x-request-id": rng.choice(["r", "y" * 3000, "a\tb"]),
        "authorization": "Bearer wrong",
    }
    return rng.choice(["POST", "POST", "POST", "GET", "PUT", "DELETE"]), path, body, headers


def test_ten_thousand_hostile_requests_end_in_no_5xx_and_leave_no_memory_behind(stack):
    root, _uri, cfg, _ = stack
    pattern = f"serving.gateway {root}/state/gateway.json"
    gateway = int(subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True).stdout.split()[0])
    resident = lambda: psutil.Process(gateway).memory_info().rss / 1e6  # noqa: E731
    answers, broken = Counter(), []

    def attacker(seed, count):
        rng = random.Random(seed)
        with httpx.Client(base_url=cfg.gateways[0], timeout=20) as client:
            for _ in range(count):
                method, path, body, headers = hostile(rng)
                try:
                    answer = client.request(
                        method, quote(path, safe="/%", errors="replace"), content=body, headers=headers
                    )
                except GONE as error:
                    answers[type(error).__name__] += 1
                    continue
                answers[answer.status_code] += 1
                if answer.status_code >= 500 and answer.status_code != 503:
                    broken.append((method, path, body[:80], answer.text[:200]))

    def attacks(first, count, total):
        threads = [threading.Thread(target=attacker, args=(first + n, count // 4)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(answers.values()) == total, "an attacker fell over"

    attacks(0, 3000, 3000)
    before = resident()
    attacks(100, 7000, 10_000)
    after = resident()
    assert not broken, broken[:3]
    assert answers[200] > 50, "some of it is what anybody may ask"
    assert after - before < 30, f"{before:.0f} -> {after:.0f} MB; {answers}"
    assert psutil.pid_exists(gateway)
    print(f"{before:.0f} -> {after:.0f} MB; {dict(answers)}")


@pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_under_load_every_acknowledged_event_is_logged_once(stack, rounds):
    """SIGKILL of the gateway; it is started again by itself. What was answered with 202 stands in the log,
    once.
    """
    root, _uri, cfg, _ = stack
    address, told, stop = cfg.gateways[0], [], threading.Event()

    def person(number):
        n = 0
        with httpx.Client(base_url=address, timeout=5) as client:
            while not stop.is_set():
                n += 1
                try:
                    found = client.post(
                        "/v1/search", json={"query": f"subject{n % 6}", "user_id": f"p{number}", "k": 3}
                    )
                    if found.status_code != 200:
                        continue
                    one = found.json()
                    event = {
                        "search_id": one["search_id"],
                        "video_id": one["results"][0]["video_id"],
                        "type": "like",
                        "ts": "2026-11-25T06:00:00Z",
                    }
                    if client.post("/v1/events", json=[event]).status_code == 202:
                        told.append(one["search_id"])
                except httpx.HTTPError:
                    time.sleep(0.05)

    people = [threading.Thread(target=person, args=(n,)) for n in range(3)]
    for thread in people:
        thread.start()
    for _ in range(rounds):
        time.sleep(1.0)
        found = subprocess.run(
            ["pgrep", "-f", f"serving.gateway {root}/state/gateway.json"], capture_output=True, text=True
        )
        os.kill(int(found.stdout.split()[0]), signal.SIGKILL)
        for _ in range(100):
            time.sleep(0.1)
            try:
                if httpx.get(f"{address}/readyz", timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                continue
    time.sleep(0.5)
    stop.set()
    for thread in people:
        thread.join()
    likes = [
        r.search_id for r in read_all(root / "events") if isinstance(r, Interaction) and r.type == "like"
    ]
    assert len(told) > 5
    assert set(told) <= set(likes)
    assert len([x for x in likes if x in set(told)]) == len(told), "each exactly once"
