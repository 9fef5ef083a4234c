"""Memory and seconds of the stages between mining and training, by the number of pairs.

    python benchmarks/learning.py [--pairs 3000000] [--write]

Pairs and texts are made up, and θ is a stand-in that costs next to nothing, so that what is measured is how
the tables go through `crops score`, `crops discriminate` and `crops label`. Each stage is a process of its
own; its memory is the most that was resident.
"""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import numpy as np
import report

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

from crops.config.discriminate import DiscriminateConfig
from crops.config.label import LabelConfig
from crops.discriminator import chance, joined
from crops.stages.learn import discriminate, label, score
from crops.stages.learn import theta as thetas
from crops.tables import artifacts, records

STAGES = ("score", "discriminate", "label")
SHARES = {"click": 10, "reformulation": 15, "feed": 30, "exposed": 15, "ranked": 15, "filtered": 15}  # %
PAIRS_PER_QUERY, PAIRS_PER_DOCUMENT = 30, 60
FACTS = {"auc": 0.9, "ece": 0.05, "prior": 0.3, "judged": {}}


class Judge(joined.Discriminator):
    """θ by the length of the texts."""

    def read(self, queries, texts, clicked, *, progress=lambda _count: None):
        """See Discriminator.read."""
        progress(len(queries))
        theta = np.array([(len(q) * 7 + len(t) * 3) % 101 / 101 for q, t in zip(queries, texts, strict=True)])
        return theta, np.array([0.5 if clicked.get(q) else np.nan for q in queries])


def judge(_folder: Path) -> Judge:
    """What stands for `thetas.load`."""
    of = chance.Chance((1.0, 1.0, 1.0, 1.0, 1.0), -2.0, 0.2, (-3.0, 3.0), (0.0, 1.0), 0.5)
    return Judge(None, lambda texts, _kind: np.zeros((len(texts), 8)), 1.0, chance={"feed": of})


def made(folder: Path, pairs: int) -> None:
    """Candidates, documents and test pairs as `augment` writes them."""
    upto, case = 0, ""
    for name, share in SHARES.items():
        upto += share
        case += f" WHEN hash(i, 1) % 100 < {upto} THEN '{name}'"
    queries, documents = max(1, pairs // PAIRS_PER_QUERY), max(1, pairs // PAIRS_PER_DOCUMENT)
    mined = f"""SELECT 'subject ' || (hash(i, 2) % {queries}) || ' how to' AS query,
        'video' || (hash(i, 3) % {documents}) AS video_id, CASE{case} END AS perspective
        FROM range({pairs}) t(i)"""
    rows = f"""SELECT query, video_id, perspective,
        CASE WHEN perspective = 'reformulation' THEN 'other words of ' || query END AS later_query,
        TIMESTAMPTZ '2026-01-01 00:00:00+00' AS first_ts, count(*)::BIGINT AS support
        FROM ({mined}) GROUP BY ALL ORDER BY 1, 2, 3, 4"""
    texts = f"""SELECT 'video' || i AS doc_id, 'Caption of video ' || i || ', which shows how to do it; '
        || repeat('words ', 12) AS text FROM range({documents}) t(i) ORDER BY 1"""
    pair = f"""SELECT 'subject ' || i || ' how to' AS query, 'video' || (i % {documents}) AS video_id,
        'later' AS later_query FROM range({{}}) t(i) ORDER BY 1, 2, 3"""
    with duckdb.connect() as base:
        base.execute(f"SET TimeZone = 'UTC'; SET temp_directory = '{folder}.spill'")
        for table, sql in (
            (records.CANDIDATES, rows),
            (records.DOCUMENTS, texts),
            (records.TEST_QR, pair.format(max(1, queries // 20))),
            (records.VALID_QR, pair.format(max(1, queries // 50))),
        ):
            (folder / table.name).mkdir(parents=True)
            base.execute(f"COPY ({sql}) TO '{folder / table.name / 'part-0.parquet'}' (COMPRESSION zstd)")
    (folder / "theta").mkdir()
    artifacts.write_json(folder / "theta" / thetas.FACTS, FACTS)


def run(stage: str, folder: Path) -> None:
    """One stage in this process; prints seconds and MiB at its peak, and what it held before."""
    thetas.load = judge
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started_s = time.perf_counter()
    theta, scores, scored = folder / "theta", folder / "scores", folder / "scored"
    if stage == "score":
        score.run(theta, folder, scores)
    elif stage == "discriminate":
        discriminate.run(folder, scored, DiscriminateConfig(base="small"), theta=theta, scores=[scores])
    else:
        label.run(scored, folder / "labelled", LabelConfig())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{time.perf_counter() - started_s:.1f} {peak:.0f} {before:.0f}")


def measured(stage: str, folder: Path) -> list[float]:
    """Seconds, MiB at the peak and MiB before, of a process of its own."""
    import subprocess

    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return [float(number) for number in done.stdout.split()[-3:]]


def main() -> None:
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--pairs", type=int, default=3_000_000)
    parser.add_argument("--stage", choices=STAGES)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.stage:
        return run(arguments.stage, arguments.folder)
    with tempfile.TemporaryDirectory() as place:
        folder = arguments.folder or Path(place) / "log"
        made(folder, arguments.pairs)
        rows = [[stage, *(f"{number:,.0f}" for number in measured(stage, folder))] for stage in STAGES]
    text = f"# Between mining and training\n\n{arguments.pairs:,} made-up pairs, θ a stand-in.\n\n"
    text += report.table(("stage", "s", "MiB at the peak", "of them before it began"), rows)
    report.out("learning", text + "\n\n" + report.machine(["duckdb", "pyarrow"]), write=arguments.write)
    return None


if __name__ == "__main__":
    main()
