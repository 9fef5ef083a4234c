"""A whole stack as `crops serve` starts it: load with a verdict, hostile requests by the OpenAPI document, SIGKILL under load."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
import schemathesis
import toy_release as toy
from hypothesis import HealthCheck, given, settings

from crops import records
from crops.io import artifacts
from serving.events.compact import read_all
from serving.events.records import Interaction

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
    artifacts.write(root / "truth", records.RELEVANCE, pa.Table.from_pylist(toy.truth(), schema=records.RELEVANCE.schema))
    return root


def locust(gateway, people, **environment):
    command = [sys.executable, "-m", "locust", "-f", str(ROOT / "tests/load/locustfile.py"), "--host", gateway, "--headless",
               "--run-time", "6s", "--users", "10", "--spawn-rate", "10", "--only-summary"]  # fmt: skip
    variables = {**os.environ, "LOAD_WORLD": str(people), "LOAD_P99_MS": "2000", **environment}
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
    """Whatever fits or breaks the OpenAPI document: an answer that the document names, never a 5xx other than 503."""
    _root, _uri, cfg, _ = stack
    schema = schemathesis.openapi.from_url(f"{cfg.gateways[0]}/openapi.json")

    operations = [found.ok() for found in schema.get_all_operations()]
    assert {o.path for o in operations} >= {"/v1/search", "/v1/events", "/v1/release", "/v1/compare", "/healthz", "/readyz"}
    modes = schemathesis.GenerationMode
    for operation in operations:
        # What takes nothing cannot be given anything wrong.
        for generation in (modes.POSITIVE, modes.NEGATIVE) if operation.method == "post" else (modes.POSITIVE,):
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


@pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_under_load_every_acknowledged_event_is_logged_once(stack, rounds):
    """SIGKILL of the gateway; it is started again by itself. What was answered with 202 stands in the log, once."""
    root, _uri, cfg, _ = stack
    address, told, stop = cfg.gateways[0], [], threading.Event()

    def person(number):
        n = 0
        with httpx.Client(base_url=address, timeout=5) as client:
            while not stop.is_set():
                n += 1
                try:
                    found = client.post("/v1/search", json={"query": f"subject{n % 6}", "user_id": f"p{number}", "k": 3})
                    if found.status_code != 200:
                        continue
                    one = found.json()
                    event = {"search_id": one["search_id"], "video_id": one["results"][0]["video_id"], "type": "like",
                             "ts": "2026-11-25T06:00:00Z"}  # fmt: skip
                    if client.post("/v1/events", json=[event]).status_code == 202:
                        told.append(one["search_id"])
                except httpx.HTTPError:
                    time.sleep(0.05)

    people = [threading.Thread(target=person, args=(n,)) for n in range(3)]
    for thread in people:
        thread.start()
    for _ in range(rounds):
        time.sleep(1.0)
        found = subprocess.run(["pgrep", "-f", f"serving.gateway {root}/state/gateway.json"], capture_output=True, text=True)
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
    likes = [r.search_id for r in read_all(root / "events") if isinstance(r, Interaction) and r.type == "like"]
    assert len(told) > 5
    assert set(told) <= set(likes)
    assert len([x for x in likes if x in set(told)]) == len(told), "each exactly once"
