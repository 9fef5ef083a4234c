"""Searchers of the simulated world in front of a gateway: they type, click what is relevant to them, watch,
and rephrase.

    locust -f tests/load/locustfile.py --host http://127.0.0.1:8080 --headless --run-time 60s --users 50
    LOAD_SHAPE=ramp locust ...                    from 1 user to LOAD_USERS (100) in LOAD_SECONDS (120)
    LOAD_RATE=2 locust ...                        every user starts two searches a second, however long
                                                  answers take
    locust ... EncoderUser                        gRPC to Triton alone: LOAD_TRITON=host:port
                                                  LOAD_MODEL=query_encoder-...

Exit code 1 where the SLO does not hold: LOAD_P99_MS (200) on searches, LOAD_ERRORS (0.001) of all requests.
LOAD_WORLD names the folder that `crops world` wrote (queries as often as people asked them, and what is
relevant).
"""

import os
import random
import sys
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
from locust import FastHttpUser, LoadTestShape, User, constant_throughput, events, task

K = 10
LONG_S, SHORT_S = 40.0, 4.0
P99_MS, ERRORS = float(os.environ.get("LOAD_P99_MS", "200")), float(os.environ.get("LOAD_ERRORS", "0.001"))


@cache
def world() -> tuple[list[str], dict[str, set[str]], dict[str, list[str]]]:
    """Queries as asked, query -> relevant videos, video -> queries that it answers (another one is a
    rephrasing).
    """
    folder = Path(os.environ.get("LOAD_WORLD", "runs/quickstart-logs"))
    asked = [
        q
        for path in sorted(folder.glob("searches/**/*.parquet"))
        for q in pq.read_table(path, columns=["query"], partitioning=None)["query"].to_pylist()
    ]
    relevant: dict[str, set[str]] = {}
    answers: dict[str, list[str]] = {}
    for path in folder.glob("truth/relevance/*.parquet"):
        for row in pq.read_table(path).to_pylist():
            if row["grade"] >= 2:
                relevant.setdefault(row["query"], set()).add(row["video_id"])
                answers.setdefault(row["video_id"], []).append(row["query"])
    return asked, relevant, answers


class Searcher(FastHttpUser):
    """One person: a search, perhaps a click and a look, perhaps the same wish in other words."""

    wait_time = constant_throughput(float(os.environ.get("LOAD_RATE", "1")))

    def on_start(self) -> None:
        self.name = f"load-{random.getrandbits(48):x}"

    @task
    def look_for_something(self) -> None:
        asked, relevant, answers = world()
        query = random.choice(asked)
        found = self.search(query)
        good = [
            r["video_id"]
            for r in found.get("results", [])
            if r["video_id"] in relevant.get(query.casefold(), ())
        ]
        if good:
            self.watch(found["search_id"], good[0], LONG_S)
        elif found.get("results") and random.random() < 0.2:
            self.watch(found["search_id"], found["results"][0]["video_id"], SHORT_S)
        if not good and random.random() < 0.5:
            wanted = sorted(relevant.get(query.casefold(), ()))
            self.search(random.choice(answers[random.choice(wanted)]) if wanted else random.choice(asked))

    def search(self, query: str) -> dict:
        body = {"query": query, "user_id": self.name, "k": K}
        with self.client.post("/v1/search", json=body, catch_response=True, name="search") as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
                return {}
            return answer.json()

    def watch(self, search_id: str, video_id: str, play_s: float) -> None:
        one = {"search_id": search_id, "video_id": video_id, "ts": datetime.now(UTC).isoformat()}
        sent = [{**one, "type": "click"}, {**one, "type": "play", "play_s": play_s}]
        with self.client.post("/v1/events", json=sent, catch_response=True, name="events") as answer:
            if answer.status_code != 202:
                answer.failure(f"status {answer.status_code}")


class EncoderUser(User):
    """gRPC to Triton directly: what the encoder holds without a gateway before it. Not started unless it is
    named.
    """

    weight = 0 if "LOAD_TRITON" not in os.environ else 1
    wait_time = constant_throughput(float(os.environ.get("LOAD_RATE", "10")))

    def on_start(self) -> None:
        import grpc.experimental.gevent

        grpc.experimental.gevent.init_gevent()  # before the first channel, else gevent stands still in gRPC
        import tritonclient.grpc as triton

        self.triton = triton
        self.channel = triton.InferenceServerClient(os.environ["LOAD_TRITON"])
        self.model = os.environ["LOAD_MODEL"]

    def on_stop(self) -> None:
        self.channel.close()

    @task
    def encode(self) -> None:
        import time

        import numpy as np

        given = self.triton.InferInput("text", [1, 1], "BYTES")
        given.set_data_from_numpy(np.array([[random.choice(world()[0]).encode()]], dtype=object))
        started_s, error, size = time.perf_counter(), None, 0
        try:
            size = self.channel.infer(self.model, [given]).as_numpy("vector").nbytes
        except Exception as failed:
            error = failed
        took_ms = (time.perf_counter() - started_s) * 1000
        events.request.fire(
            request_type="gRPC", name="encode", response_time=took_ms, response_length=size, exception=error
        )


if os.environ.get("LOAD_SHAPE") == "ramp":

    class Ramp(LoadTestShape):
        """From one user to LOAD_USERS in a line, then over."""

        def tick(self) -> tuple[int, float] | None:
            users, seconds = (
                int(os.environ.get("LOAD_USERS", "100")),
                float(os.environ.get("LOAD_SECONDS", "120")),
            )
            run_s = self.get_run_time()
            return None if run_s > seconds else (max(1, round(users * run_s / seconds)), 10.0)


@events.quitting.add_listener
def verdict(environment, **_more) -> None:
    """By the SLO, as the exit code; no request at all is no success."""
    stats = environment.stats
    p99 = max(
        (stats.get(name, kind).get_response_time_percentile(0.99) or 0.0)
        for name, kind in (("search", "POST"), ("encode", "gRPC"))
    )
    ratio = stats.total.fail_ratio
    good = stats.total.num_requests > 0 and p99 <= P99_MS and ratio <= ERRORS
    found = f"p99 {p99:.0f} ms (at most {P99_MS:.0f}), errors {ratio:.4f} (at most {ERRORS})"
    print(f"SLO {'holds' if good else 'does not hold'}: {found}")
    environment.process_exit_code = 0 if good else 1


@events.quit.add_listener
def leave(exit_code: int, **_more) -> None:
    """gRPC's threads under gevent sometimes do not end by themselves; everything has been printed by now."""
    if "LOAD_TRITON" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
