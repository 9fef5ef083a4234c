"""What training holds of its data, and what a batch costs, by the number of queries.

    python benchmarks/data.py [--queries 1000000] [--rows 10] [--write]

Time: batches of 64 queries from a log of so many queries and one of 10,000, drawn in turn, so that load from
elsewhere meets both alike; texts are many or few in proportion. Memory: one rank and two read the same
samples, tokenize and draw batches; PSS of each (a page that two share counts half in either) above what it
took before, as the kernel counts it (smaps_rollup), with the ranks joined by gloo. The small tokenizer; no
model takes a step.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path[:0] = [str(Path(__file__).parent.parent)]

import report

from crops.retriever import batch
from crops.tables import artifacts, records

FEW, SIZE, DRAWS = 10_000, 64, 400


def samples(queries: int, rows: int) -> batch.Pairs:
    """`rows` samples a query, half of them positives, of as many texts as queries; no text is made up."""
    chance = np.random.default_rng(0)
    text = np.sort(chance.integers(0, queries, (queries, rows), dtype=np.int32), axis=1)
    text += np.arange(rows, dtype=np.int32)  # each text once a query
    return batch.Pairs(
        queries=[*map(str, range(queries))],
        texts=[*map(str, range(queries + rows))],
        query=np.repeat(np.arange(queries, dtype=np.int32), rows),
        text=text.ravel(),
        label=np.tile(np.array([4, 3], dtype=np.int8), queries * rows // 2),
        positive_min=4,
    )


def batch_ms(queries: int, rows: int) -> list[list[str]]:
    """Rows of the table: queries, ms a batch (median of the steps of a pass), ratio, ms to shuffle a pass."""
    sizes = {"anchor_min": 4, "size": SIZE, "positives": 4, "lower": 2, "seed": 0}
    logs = {n: batch.Batches(samples(n, rows), **sizes) for n in (FEW, queries)}
    shuffles = {}
    for n, drawn in logs.items():
        begun_s = time.perf_counter()
        drawn.at(0)
        shuffles[n] = time.perf_counter() - begun_s
    times: dict[int, list[float]] = {n: [] for n in logs}
    for step in range(DRAWS):
        for n, drawn in logs.items():
            begun_s = time.perf_counter()
            drawn.at(1 + step % (drawn.per_epoch - 1))
            times[n].append(time.perf_counter() - begun_s)
    median = {n: statistics.median(own) for n, own in times.items()}
    ratio = statistics.median(b / a for a, b in zip(*times.values(), strict=True))
    share = (shuffles[queries] - median[queries]) / logs[queries].per_epoch
    return [[f"{n:,}", f"{1e3 * median[n]:.2f}", f"{1e3 * shuffles[n]:.1f}"] for n in logs] + [
        ["ratio (goal 1.1)", f"{ratio:.2f}", f"{1e3 * share:.4f} a batch of the pass"]
    ]


def tables(folder: Path, queries: int, rows: int) -> None:
    """Samples of so many queries and half as many documents, as label and augment write them."""
    chance = np.random.default_rng(0)
    documents = queries // 2
    query = np.char.add("how to make number ", np.arange(queries).astype(str))
    words = chance.integers(0, 5_000, (documents, 12)).astype(str)
    texts = [f"{n} " + " ".join(own) for n, own in enumerate(words.tolist())]
    ids = pa.array([f"v{n}" for n in range(documents)])
    place = chance.integers(0, documents - rows, queries)[:, None] + np.arange(rows)
    asked, doc_id = pa.array(np.repeat(query, rows).tolist()), ids.take(pa.array(place.ravel()))
    names = pa.array(np.tile(np.array(["click", "exposed"]), queries * rows // 2).tolist())
    label = pa.array(np.tile(np.array([4, 3], dtype=np.int8), queries * rows // 2))
    pairs = {"query": asked, "doc_id": doc_id, "perspective": names}
    artifacts.write(folder, records.DOCUMENTS, pa.table({"doc_id": ids, "text": texts}))
    artifacts.write(
        folder,
        records.SAMPLES,
        pa.table({**pairs, "label": label, "theta": pa.nulls(len(label), pa.float32())}),
    )
    artifacts.write(folder, records.ORIGINS, pa.table(pairs))
    artifacts.write(folder, records.VALID_QR, records.VALID_QR.schema.empty_table())
    numbers = {name: np.ones(queries, dtype=np.int64) for name in ("searches", "clicks", "users")}
    split = ["train"] * queries
    artifacts.write(folder, records.QUERIES, pa.table({"query": query.tolist(), "split": split, **numbers}))


RANK = """
import json, sys
from pathlib import Path
from crops.retriever import batch, encoder, ranks, systems, tokens
from crops.stages.learn import inputs
def pss():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
texts = [f"how to make number {n}" for n in range(2000)]
model = encoder.from_base("small", texts)
model.tokenize(texts)
with ranks.joined() as joined:
    before = pss()
    graded = {"click": 4, "exposed": 3}
    read = lambda: inputs.inputs_of(folder, folder, systems.SYSTEMS["crops"], graded, home=out)
    joined.from_first(lambda: read().digest)
    data = read().samples
    joined.from_first(lambda: [len(tokens.tokenized(model, *side, data.home)) for side in
        ((data.queries, "query"), (data.texts, "document"))])
    ids = tokens.tokenized(model, data.queries, "query", data.home), tokens.tokenized(
        model, data.texts, "document", data.home)
    drawn = batch.Batches(data, anchor_min=2, size=64, positives=4, lower=2, seed=0)
    for step in range(drawn.per_epoch):
        one = drawn.at(step)
        for rows, tokenized in ((one.queries, ids[0]), (one.texts, ids[1])):
            sum(int(tokenized[n].sum()) for n in rows)
    joined.from_first(lambda: None)
    taken = pss() - before
    joined.from_first(lambda: None)
    (out / f"rank-{joined.rank}.json").write_text(json.dumps(taken))
"""


def ranks_mib(folder: Path, count: int) -> float:
    """MiB that `count` ranks together hold of their data."""
    out = folder / f"ranks-{count}"
    out.mkdir()
    (folder / "rank.py").write_text(RANK)
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *start, folder / "rank.py", folder, out], check=True, env=env)
    return sum(json.loads(path.read_text()) for path in out.glob("rank-*.json"))


def main() -> None:
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--queries", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=10, help="samples a query")
    parser.add_argument("--memory-queries", type=int, default=200_000)
    given = parser.parse_args()
    parts = ["# Training data: the time of a batch and the memory of a rank\n"]
    header = (
        f"queries, {given.rows} samples each",
        f"ms a batch of {SIZE}",
        "ms of the first, which shuffles",
    )
    parts.append(report.table(header, batch_ms(given.queries, given.rows)) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        tables(Path(folder), given.memory_queries, given.rows)
        one, two = (ranks_mib(Path(folder), count) for count in (1, 2))
    rows = [["1", f"{one:.0f}", ""], ["2", f"{two:.0f}", f"{two / one:.2f} (goal 1.2)"]]
    what = f"ranks, {given.memory_queries:,} queries, {given.memory_queries * given.rows:,} samples"
    parts.append(report.table((what, "MiB of data, all ranks (PSS)", "of one rank's"), rows) + "\n")
    parts.append(report.machine(["numpy", "duckdb", "tokenizers", "torch"]))
    report.out("data", "\n".join(parts), write=given.write)


if __name__ == "__main__":
    main()
