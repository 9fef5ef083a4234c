"""A test collection of others, ranked by BM25 and by a release: numbers that can be put beside published
ones.
"""

from pathlib import Path

from crops import accelerator
from crops.evaluation import beir, metrics, rank
from crops.release import index
from crops.release.encoder import OnnxEncoder
from crops.retriever.systems import BM25
from crops.stages.base import StageReport
from crops.tables import artifacts

RELEASE, DEPTH = "release", 1_000


def run(folder: Path, out: Path, *, release: Path | None = None, split: str = "test") -> StageReport:
    """Writes beir.json, qrels.trec and a run file per system. `release`: a release, or what export wrote;
    None: BM25 alone.
    """
    benchmark = beir.read(folder, split)
    depth = min(DEPTH, len(benchmark.doc_ids))
    rankings = {BM25: rank.bm25(benchmark.queries, benchmark.texts, depth)}
    if release is not None:
        encoder = OnnxEncoder(release, providers=accelerator.providers())
        documents = encoder.encode(benchmark.texts, kind="document")
        rankings[RELEASE] = index.exact(documents, encoder.encode(benchmark.queries), depth)[1]
    relevant = [{d for d, grade in graded.items() if grade > 0} for graded in benchmark.grades]
    numbers: dict[str, dict[str, float]] = {}
    for name, ranked in rankings.items():
        numbers[name] = {
            "ndcg_at_10": round(metrics.ndcg_at_k(ranked, benchmark.grades, 10), 4),
            **{f"recall_at_{k}": round(metrics.recall_at_k(ranked, relevant, k), 4) for k in (10, 100)},
        }
    counts = {"documents": len(benchmark.doc_ids), "queries": len(benchmark.queries)}
    with artifacts.replacing(out) as made:
        artifacts.write_json(made / "beir.json", {"split": split, **counts, "systems": numbers})
        with (made / "qrels.trec").open("w", encoding="utf-8") as file:
            file.writelines(beir.qrel_lines(benchmark))
        for name, ranked in rankings.items():
            with (made / f"run.{name}.trec").open("w", encoding="utf-8") as file:
                file.writelines(beir.run_lines(benchmark.query_ids, benchmark.doc_ids, ranked, name))
    flat = {f"{metric}_{name}": x for name, of in numbers.items() for metric, x in of.items()}
    return StageReport(numbers={**counts, **flat})
