"""What mining costs, in scans of the same Parquet, and what time and memory it takes at several times the
rows.

    python benchmarks/mining.py [--rows 5000000] [--searches 100000] [--times 4] [--write]
    python benchmarks/mining.py --searches 500000 --times 10 --memory-gb 3.3 --write    # 50 M results, 50 M
                                                                                        feed views

Task A: searches with the ids of their clicked videos as a list; for every search the clicks of the same
user's NEXT search where its text differs and it came within 90 s, by a window function. P1 is what CroPS
mines: EVERY later search within 90 s, by a bucketed join. A scan reads all columns. All in one process, in
turn, medians; a ratio holds on a noisy machine, a time does not.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import ibis
import ibis.expr.types as ir

sys.path[:0] = [str(Path(__file__).parent.parent)]

import report
import synthetic_log

from crops.mining import reformulation

WINDOW_S = 90
PROTOTYPE = "6.4"  # scans that a prototype took for task A at 5 M rows


def flat_log(path: Path, rows: int) -> None:
    """`rows` searches of skewed users in sessions, with clicks as a list, ordered by time, as in the
    prototype.
    """
    with duckdb.connect() as base:
        sessions = synthetic_log.sessions(0, rows, max(10, rows // 10), max(10, rows // 250))
        base.execute(f"""
            COPY (SELECT (s * 4 + j) AS search_id, u AS user_id, ts,
                'topic ' || topic || ' wording ' || variant AS query,
                         '2026-01-01' AS date, list_filter(range(3), lambda k: hash(s, j,
                             k) % 3 = 0) AS clicks
                  FROM ({sessions}) ORDER BY ts, search_id)
            TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 250000)""")


def scan(log: ir.Table) -> ir.Table:
    """Every column of every row is read and used."""
    return log.agg(
        rows=log.count(),
        last=log.ts.max(),
        ids=log.search_id.sum(),
        users=log.user_id.sum(),
        chars=log["query"].length().sum(),
        clicks=log.clicks.length().sum(),
        day=log.date.max(),
    )


def task_a(log: ir.Table) -> ir.Table:
    """The next search of the user, other text, within 90 s: pairs and clicked videos."""
    window = ibis.window(group_by="user_id", order_by=["ts", "search_id"])
    paired = log.mutate(
        later_ts=log.ts.lead().over(window),
        later=log["query"].lead().over(window),
        found=log.clicks.lead().over(window),
    )
    near = (paired.later_ts > paired.ts) & (paired.later_ts <= paired.ts + ibis.interval(seconds=WINDOW_S))
    kept = paired.filter(near & (paired.later != paired["query"]))
    return kept.agg(pairs=kept.count(), videos=kept.found.length().sum())


def p1(log: ir.Table) -> ir.Table:
    """CroPS's reformulations over the same rows."""
    touched = log.select("search_id", video_id=log.clicks.unnest())
    found = reformulation.reformulations(log.drop("clicks"), touched, window_s=WINDOW_S)
    return found.agg(videos=found.count(), ids=found.video_id.sum())


def in_turn(tasks: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median wall seconds per task; all tasks once per round, so that a slow moment hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats + 1):
        for name, task in tasks.items():
            started_s = time.perf_counter()
            task()
            times[name].append(time.perf_counter() - started_s)
    return {name: statistics.median(found[1:]) for name, found in times.items()}  # the first round warms up


def scans(folder: Path, rows: int, repeats: int) -> list[list[str]]:
    """Rows of the table: task, seconds, rows per second, scans."""
    flat_log(folder / "log.parquet", rows)
    base = ibis.duckdb.connect()
    base.raw_sql("SET TimeZone = 'UTC'")
    log = base.read_parquet(folder / "log.parquet")
    named = {
        "scan": scan(log),
        "task A (next search, window)": task_a(log),
        "P1 (every later search, bucketed join)": p1(log),
    }
    found = in_turn(
        {name: (lambda expr=expr: base.to_pyarrow(expr)) for name, expr in named.items()}, repeats
    )
    return [
        [name, f"{s:.2f}", f"{rows / s / 1e6:.2f}", f"{s / found['scan']:.1f}"] for name, s in found.items()
    ]


AUGMENT = """
import sys, time
from pathlib import Path
from crops.config.augment import AugmentConfig
from crops.stages.logs import augment
started_s = time.perf_counter()
augment.run(Path(sys.argv[1]), Path(sys.argv[2]), AugmentConfig(memory_gb=float(sys.argv[3]), examples=0))
seconds = time.perf_counter() - started_s
# Not getrusage: its peak starts at that of the process that started this one.
peak_kib = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, int(peak_kib) / 1024)
"""


def whole(folder: Path, searches: int, *, most: int, memory_gb: float) -> list[list[str]]:
    """`crops augment` at 1x and `most` times the rows, each in a process of its own."""
    rows, first = [], (0.0, 0.0)
    for times in (1, most):
        logs = folder / f"logs-{times}"
        synthetic_log.generate(logs, searches=searches * times)
        command = [sys.executable, "-c", AUGMENT, str(logs), str(folder / f"out-{times}"), str(memory_gb)]
        root = Path(__file__).resolve().parents[1]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        seconds, peak_mib = (float(x) for x in done.stdout.split()[-2:])
        first = first if first[0] else (seconds, peak_mib)
        count = (
            f"{searches * times:,} searches, {searches * times * 10:,} results, "
            f"{searches * times * 10:,} views"
        )
        linear = seconds / first[0] / times
        rows.append(
            [count, f"{seconds:.1f}", f"{linear:.2f}", f"{peak_mib:,.0f}", f"{peak_mib / first[1]:.2f}"]
        )
    return rows


if __name__ == "__main__":
    parser = report.arguments(__doc__ or "")
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="searches of the flat log for task A and P1"
    )
    parser.add_argument(
        "--searches", type=int, default=50_000, help="searches of the log for the whole of augment, at 1x"
    )
    parser.add_argument("--times", type=int, default=4, help="the larger log, in times of the smaller")
    parser.add_argument("--memory-gb", type=float, default=1.0, help="memory_gb of augment")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        counted = scans(folder, arguments.rows, arguments.repeats)
        text = "\n".join(
            [
                "# Mining\n",
                report.machine(["duckdb", "ibis-framework"]) + "\n",
                f"{arguments.rows:,} searches against scanning the same Parquet (prototype, task A at "
                f"5 M: {PROTOTYPE}).\n",
                report.table(["task", "seconds", "M rows/s", "scans"], counted),
                f"\nThe whole of `crops augment` with `memory_gb: {arguments.memory_gb}`, each log in "
                "a process of its own.\n",
                report.table(
                    ["log", "seconds", "of linear", "peak MiB", "x memory"],
                    whole(folder, arguments.searches, most=arguments.times, memory_gb=arguments.memory_gb),
                ),
            ]
        )
    report.out("mining", text, write=arguments.write)
