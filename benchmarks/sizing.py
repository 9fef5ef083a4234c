"""What a machine must hold: memory and searches per core of an index, texts per core of an encoder.

    python benchmarks/sizing.py [--documents 200000] [--write]

Vectors are random around 1000 centres, width 384: their recall says little about real texts (`crops index`
measures yours). Each index is loaded as a gateway does it, in a process of its own, on one core.
docs/sizing.md says what is extrapolated from it.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np
import report

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import minilm

from crops import cores
from crops.release import index
from crops.release.encoder import OnnxEncoder

WIDTH, K, QUERIES = 384, 100, 500
FACTORIES = ("Flat", "IVF1024,Flat", "IVF1024,PQ64x4fs,Refine(SQfp16)", "HNSW32")

SEARCH = """
import sys, time
from pathlib import Path
import faiss, numpy as np
from crops.release import index, layout
faiss.omp_set_num_threads(1)
path, count, width, k = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
queries = np.load(sys.argv[5])
def resident():
    return int(next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmRSS"))) / 1024
before = resident()
found = index.load(path, tuple(map(str, range(count))), checksum=layout.sha256(path), width=width)
found.search(queries[:50], k)
started_s = time.perf_counter()
rows = np.concatenate([found.search(q[None], k)[1] for q in queries])
seconds = time.perf_counter() - started_s
np.save(sys.argv[6], rows)
print(resident() - before, len(queries) / seconds)
"""


def vectors(count: int, seed: int) -> np.ndarray:
    """float32 [count, WIDTH], unit length."""
    rng, around = (
        np.random.default_rng(seed),
        np.random.default_rng(7).standard_normal((1000, WIDTH)).astype(np.float32),
    )
    found = around[rng.integers(1000, size=count)] + 0.8 * rng.standard_normal((count, WIDTH)).astype(
        np.float32
    )
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def indexes(count: int, place: Path) -> list[list[str]]:
    """A row per kind of index."""
    documents, queries = vectors(count, 1), vectors(QUERIES, 2)
    scores, _ = index.exact(documents, queries, K)
    np.save(place / "queries.npy", queries)
    rows = []
    for factory in FACTORIES:
        started_s = time.perf_counter()
        made = index.build(
            documents,
            tuple(map(str, range(count))),
            factory=factory,
            nprobe=64,
            ef_search=200,
            refine_factor=32,
        )
        built_s = time.perf_counter() - started_s
        path = place / "index.faiss"
        index.save(made, path)
        del made
        command = [
            sys.executable,
            "-c",
            SEARCH,
            str(path),
            str(count),
            str(WIDTH),
            str(K),
            str(place / "queries.npy"),
            str(place / "rows.npy"),
        ]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        memory_mib, rate = (float(x) for x in said.split())
        found = np.load(place / "rows.npy")
        got = np.einsum("qkh,qh->qk", documents[found.clip(0)], queries)
        recall = (got >= scores[:, -1:] - 1e-4).mean()
        disk_gb = path.stat().st_size / count / 1e3
        rows.append(
            [
                factory,
                f"{disk_gb:.2f}",
                f"{memory_mib * 1048576 / count / 1e3:.2f}",
                f"{rate:.0f}",
                f"{recall:.3f}",
                f"{built_s * 1e6 / count:.0f}",
            ]
        )
    return rows


def encoders(place: Path) -> list[list[str]]:
    """A row per size: queries one at a time, documents in batches, one core."""
    rows = []
    for name, layers, width in (
        ("2 layers of 192 (like the quick start's)", 2, 192),
        ("MiniLM, 6 layers of 384", 6, 384),
    ):
        encoder = OnnxEncoder(minilm.exported(place / name.split()[0], layers=layers, width=width), threads=1)
        queries = [f"subject{n} how to {n}" for n in range(400)]
        texts = list(minilm.documents(512).values())
        encoder.encode(queries[:20])
        started_s = time.perf_counter()
        for query in queries:
            encoder.encode([query])
        one_s = time.perf_counter() - started_s
        encoder.encode(texts, kind="document", batch=64)
        many_s = time.perf_counter() - started_s - one_s
        rows.append([name, f"{len(queries) / one_s:.0f}", f"{len(texts) / many_s:.0f}"])
    return rows


def main() -> None:
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--documents", type=int, default=200_000)
    given = parser.parse_args()
    faiss.omp_set_num_threads(cores.count())
    with tempfile.TemporaryDirectory() as place:
        kinds = indexes(given.documents, Path(place))
        encoded = encoders(Path(place))
    text = (
        f"# Sizing\n\n{given.documents:,} documents of {WIDTH} numbers, k {K}; GB per million documents.\n\n"
    )
    header = (
        "index",
        "GB on disk",
        "GB resident",
        "searches/s a core",
        f"recall@{K} against exact",
        "s to build a million, 2 cores",
    )
    text += report.table(header, kinds) + "\n\n"
    text += report.table(
        ("encoder, one core", "queries/s, one at a time", "documents/s, in batches"), encoded
    )
    report.out("sizing", text + "\n\n" + report.machine(["faiss-cpu", "onnxruntime"]), write=given.write)


if __name__ == "__main__":
    main()
