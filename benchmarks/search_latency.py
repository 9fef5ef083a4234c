"""Search throughput and latency of a live stack, open loop, against the same encoder and index called in one
process.

    python benchmarks/search_latency.py [--release DIR] [--seconds 8] [--write]     needs `make triton`

Requests come at random times (Poisson) at a given rate whether or not earlier ones were answered, as users
do; a closed loop would slow down with the server and hide its queue. The bound calls the release's ONNX
encoder and FAISS index in one process on the same cores. Embedding cache off: every query is new. Without
--release an encoder of MiniLM's size is made, with random weights.
"""

import asyncio
import contextlib
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import report

from crops import cores
from crops.arms import CONTROL

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from crops.release import index
from crops.release.encoder import OnnxEncoder
from crops.release.triton import repository
from serving import laptop
from serving.triton import install, launch

K = 20
HEADER = (
    "of the bound",
    "offered/s",
    "answered/s",
    "refused",
    "p50 ms",
    "p99 ms",
    "p99/p50",
    "load generator, cores",
    "answered of the bound on the other cores",
)
DOCUMENTS = 20_000


@dataclass(frozen=True, slots=True)
class Row:
    """share of the bound that was offered; answered per second; load: cores that the load generator took."""

    share: float
    answered: float
    lost: int
    p50_ms: float
    p99_ms: float
    load: float


def queries(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"subject{rng.integers(1000)} how to {rng.integers(10**9)}" for _ in range(count)]


def bound(release: Path, seconds: float) -> float:
    """Searches per second of encoder and index in one process, one after the other in batches of 8, on all
    cores.
    """
    encoder = OnnxEncoder(release, threads=cores.count())
    found = index.of_release(release)
    asked, done, started_s = queries(100_000, 1), 0, time.perf_counter()
    while time.perf_counter() - started_s < seconds:
        found.search(encoder.encode(asked[done : done + 8]), K)
        done += 8
    return done / (time.perf_counter() - started_s)


async def offered(url: str, rate: float, seconds: float, seed: int) -> tuple[list[float], int]:
    """Latencies (seconds) of what was answered with 200, and how many were not, at `rate` a second for
    `seconds`.
    """
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


def measured(
    release: Path, most: float, seconds: float, instances: repository.Instances, shares: Sequence[float]
) -> list[Row]:
    """One row per share of the bound, by a stack of its own; the load generator's CPU time is measured, not
    guessed.
    """
    rows = []
    with stack(release, instances) as url:
        for number, share in enumerate(shares):
            cpu_s, started_s = own_cpu_s(), time.perf_counter()
            took, lost = asyncio.run(offered(url, most * share, seconds, number))
            wall_s = time.perf_counter() - started_s
            p50, p99 = np.quantile(took, [0.5, 0.99]) * 1000 if took else (np.nan, np.nan)
            rows.append(Row(share, len(took) / wall_s, lost, p50, p99, (own_cpu_s() - cpu_s) / wall_s))
    return rows


@contextlib.contextmanager
def stack(release: Path, instances: repository.Instances) -> Iterator[str]:
    """The address of a whole stack that serves `release`, every query encoded."""
    (port,) = launch.free_ports(1)
    ready, stop = threading.Event(), threading.Event()
    arms = {CONTROL: laptop.release_of(release, "models:/bench/1")}
    with tempfile.TemporaryDirectory() as place:
        serving = threading.Thread(
            target=lambda: laptop.serve(
                arms,
                Path(place) / "state",
                host="127.0.0.1",
                port=port,
                events=Path(place) / "events",
                instances=instances,
                settings={"cache_queries": 0},
                say=lambda line: ready.set() if line.startswith("ready") else None,
                stop=stop.is_set,
                handle_signals=False,
            )
        )
        serving.start()
        ready.wait(120)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            stop.set()
            serving.join()


def lines(rows: Sequence[Row], most: float) -> list[list[str]]:
    """As the table prints them; the last column takes the generator's cores out of the bound."""
    held = cores.count()
    return [
        [
            f"{r.share:.1f}",
            f"{most * r.share:.0f}",
            f"{r.answered:.0f}",
            f"{r.lost}",
            f"{r.p50_ms:.1f}",
            f"{r.p99_ms:.1f}",
            f"{r.p99_ms / r.p50_ms:.1f}",
            f"{r.load:.2f}",
            f"{r.answered / (most * (held - r.load) / held):.2f}",
        ]
        for r in rows
    ]


def sweep(release: Path, most: float, seconds: float) -> str:
    """Rows over instances and batching delay, and a plot of p50 and one of p99 over what was offered."""
    from crops.report import charts

    series: dict[str, dict[str, tuple[list[float], list[float]]]] = {"p50": {}, "p99": {}}
    rows = []
    for count, delay_us in ((1, 0), (2, 0), (1, 3000), (2, 3000)):
        name = f"{count} instance{'s' if count > 1 else ''}, delay {delay_us / 1000:.0f} ms"
        found = measured(
            release, most, seconds, repository.Instances(count=count, delay_us=delay_us), (0.2, 0.4, 0.5, 0.6)
        )
        rows += [[name, *line] for line in lines(found, most)]
        for quantile, drawn in series.items():
            drawn[name] = ([most * r.share for r in found], [getattr(r, f"{quantile}_ms") for r in found])
    report.RESULTS.mkdir(exist_ok=True)
    for quantile, drawn in series.items():
        plot = charts.lines(drawn, x="searches offered per second", y=f"{quantile}, ms")
        (report.RESULTS / f"search_latency_{quantile}.svg").write_text(plot, encoding="utf-8")
    return report.table(("Triton", *HEADER), rows)


def main() -> None:
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--release", type=Path, default=None, help="a release's folder")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each rate")
    parser.add_argument(
        "--sweep", action="store_true", help="also over Triton's instances and batching delay, with a plot"
    )
    given = parser.parse_args()
    if not install.ready():
        print("not run: no Triton server; make triton")
        return
    with tempfile.TemporaryDirectory() as place:
        release = given.release or made(Path(place))
        most = bound(release, given.seconds)
        rows = measured(
            release, most, given.seconds, repository.Instances(), (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
        )
        swept = (
            f"\n\n{sweep(release, most, given.seconds)}\n\n![p50](search_latency_p50.svg) "
            "![p99](search_latency_p99.svg)"
            if given.sweep
            else ""
        )
    text = "# Serving: offered load against latency\n\n"
    text += (
        f"Bound: {most:.0f} searches/s of encoder and index in one process. Stack: gateway, "
        "Triton, event log with fsync.\n\n"
    )
    text += report.table(HEADER, lines(rows, most)) + swept
    text += "\n\n" + report.machine(["tritonclient", "fastapi", "onnxruntime", "faiss-cpu"])
    report.out("search_latency", text, write=given.write)


def made(root: Path) -> Path:
    import minilm

    return minilm.release(root, DOCUMENTS)


if __name__ == "__main__":
    main()
