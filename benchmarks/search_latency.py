"""Search throughput and latency of a live stack, open loop, against the same encoder and index called in one process.

    python benchmarks/search_latency.py [--release DIR] [--seconds 8] [--write]     needs `make triton`

Requests come at random times (Poisson) at a given rate whether or not earlier ones were answered, as users do; a closed loop
would slow down with the server and hide its queue. The bound calls the release's ONNX encoder and FAISS index in one process on
the same cores. Embedding cache off: every query is new. Without --release a toy release is made.
"""

import asyncio
import os
import resource
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
import report

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / part) for part in ("tests/crops/stages", "tests/serving")]

from crops import index
from crops.retriever.onnx_encoder import OnnxEncoder
from serving import laptop
from serving.triton import install

K = 20


def queries(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"subject{rng.integers(1000)} how to {rng.integers(10**9)}" for _ in range(count)]


def bound(release: Path, seconds: float) -> float:
    """Searches per second of encoder and index in one process, one after the other in batches of 8, on all cores."""
    encoder = OnnxEncoder(release, threads=os.cpu_count() or 1)
    ids = tuple(pq.read_table(release / "doc_ids.parquet")["doc_id"].to_pylist())
    found = index.load(release / "index.faiss", ids, checksum=index.sha256(release / "index.faiss"), width=encoder.width)
    asked, done, started_s = queries(100_000, 1), 0, time.perf_counter()
    while time.perf_counter() - started_s < seconds:
        found.search(encoder.encode(asked[done : done + 8]), K)
        done += 8
    return done / (time.perf_counter() - started_s)


async def offered(url: str, rate: float, seconds: float, seed: int) -> tuple[list[float], int]:
    """Latencies (seconds) of what was answered with 200, and how many were not, at `rate` a second for `seconds`."""
    rng, took, lost = np.random.default_rng(seed), list[float](), 0
    asked = queries(int(rate * seconds * 2) + 10, seed)

    async def one(client: httpx.AsyncClient, query: str) -> None:
        nonlocal lost
        started_s = time.perf_counter()
        try:
            answer = await client.post("/v1/search", json={"query": query, "user_id": query, "k": K})
        except httpx.HTTPError:
            lost += 1
            return
        if answer.status_code == 200:
            took.append(time.perf_counter() - started_s)
        else:
            lost += 1

    limits = httpx.Limits(max_connections=400, max_keepalive_connections=400)
    async with httpx.AsyncClient(base_url=url, timeout=10, limits=limits) as client:
        tasks, end_s, due_s = [], time.perf_counter() + seconds, time.perf_counter()
        for query in asked:
            due_s += rng.exponential(1 / rate)
            if due_s > end_s:
                break
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            tasks.append(asyncio.create_task(one(client, query)))
        await asyncio.gather(*tasks)
    return took, lost


def own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--release", type=Path, default=None, help="a release's folder")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each rate")
    given = parser.parse_args()
    if not install.ready():
        print("not run: no Triton server; make triton")
        return
    with tempfile.TemporaryDirectory() as place:
        release = given.release or _toy(Path(place))
        most = bound(release, given.seconds)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        ready, stop = threading.Event(), threading.Event()
        arms = {"control": laptop.release_of(release, "models:/bench/1")}
        stack = threading.Thread(target=lambda: laptop.serve(
            arms, Path(place) / "state", host="127.0.0.1", port=port, events=Path(place) / "events",
            settings={"cache_queries": 0}, say=lambda line: ready.set() if line.startswith("ready") else None,
            stop=stop.is_set, handle_signals=False,
        ))  # fmt: skip
        stack.start()
        ready.wait(120)
        rows = []
        for number, share in enumerate((0.1, 0.2, 0.3, 0.4, 0.5, 0.7)):
            cpu_s, started_s = own_cpu_s(), time.perf_counter()
            took, lost = asyncio.run(offered(f"http://127.0.0.1:{port}", most * share, given.seconds, number))
            wall_s = time.perf_counter() - started_s
            p50, p99 = np.quantile(took, [0.5, 0.99]) * 1000 if took else (np.nan, np.nan)
            load = (own_cpu_s() - cpu_s) / wall_s
            numbers = (f"{share:.1f}", f"{most * share:.0f}", f"{len(took) / wall_s:.0f}", f"{lost}", f"{p50:.1f}", f"{p99:.1f}")
            rows.append([*numbers, f"{p99 / p50:.1f}", f"{load:.2f}"])
        stop.set()
        stack.join()
    header = ("of the bound", "offered/s", "answered/s", "refused", "p50 ms", "p99 ms", "p99/p50", "load generator, cores")
    text = "# Serving: offered load against latency\n\n"
    text += f"Bound: {most:.0f} searches/s of encoder and index in one process. Stack: gateway, Triton, event log with fsync.\n\n"
    text += report.table(header, rows) + "\n\n" + report.machine(["tritonclient", "fastapi", "onnxruntime", "faiss-cpu"])
    report.out("search_latency", text, write=given.write)


def _toy(root: Path) -> Path:
    import releases

    return Path(releases.build(root, 1)[0].files)


if __name__ == "__main__":
    main()
