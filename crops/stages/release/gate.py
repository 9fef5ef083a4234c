"""Evaluation, export and index to a verdict."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crops import gate
from crops.config.gate import GateConfig
from crops.errors import InputError
from crops.evaluation import metrics as evaluation
from crops.evaluation import trial
from crops.release import layout
from crops.retriever.systems import BASE, BASELINE, CHALLENGER, CHAMPION, FIRST, cut
from crops.stages.base import StageReport
from crops.tables import artifacts

DRAWS = 1_000
BOTH = "mean of recall@20 and recall@100"
Values = dict[tuple[str, str], dict[str, float]]  # (set, system) -> query -> recall


def run(
    metrics: Path,
    out: Path,
    cfg: GateConfig,
    *,
    export: Path,
    index: Path,
    challenger: str = CHALLENGER,
    champion: str | None = None,
) -> StageReport:
    """Writes verdict.json. `champion`: a system of the evaluation; None: `champion` where it was measured,
    else `first`.
    """
    values, both = _values(metrics)
    chains = _chains(metrics / "per_query.parquet")
    systems = {system for _set, system in values}
    facts, built = (
        artifacts.read_json(export / "export.json"),
        artifacts.read_json(index / layout.INDEX_FACTS),
    )
    # What is asked about is what would be released: vectors that were cut were measured as a system.
    asked = short if (short := cut(challenger, built.get("width"))) in systems else challenger
    against = champion or (CHAMPION if CHAMPION in systems else first(metrics))
    for system in (asked, against):
        if system not in systems:
            raise InputError(
                metrics / "per_query.parquet",
                f"holds no system {system!r}; systems: {', '.join(sorted(systems))}",
            )

    def difference(name: str, of: Values, other: str = against) -> gate.Difference | None:
        ours, theirs = of.get((name, asked), {}), of.get((name, other), {})
        queries = sorted(ours.keys() & theirs.keys())
        if not queries:
            return None
        pair = [np.array([side[q] for q in queries]) for side in (ours, theirs)]
        together = trial.chained(queries, chains)
        comparison = evaluation.compare(pair[0], pair[1], draws=DRAWS, seed=0, clusters=together)
        interval = comparison["difference"], comparison["low"], comparison["high"]
        return gate.Difference(name, *interval, len(queries), len(np.unique(together)))

    def gained(other: str) -> gate.Difference | None:
        return gate.widened(difference("qr_raw", both, other), spread=cfg.training_spread)

    few = cfg.min_queries
    recall = values.get(("qr_raw", asked), {})
    required = [
        gate.gain(gained(against), "qr_raw", min_queries=few, of=BOTH),
        gate.bound(
            "recall@100 on qr_raw",
            float(np.mean(list(recall.values()))) if recall else None,
            least=cfg.min_recall,
        ),
        gate.bound(
            "index recall against exact search", built.get("recall_against_exact"), least=cfg.min_index_recall
        ),
        gate.bound("median time of one query, ms", facts.get("encode_ms"), most=cfg.max_encode_ms),
    ]
    if against != BASE:  # a champion may be worse than what its training started from
        required.insert(1, gate.gain(gained(BASE), "qr_raw", min_queries=few, of=BOTH, than=BASE))
    guards = [
        gate.no_loss(
            difference(name, values),
            name,
            max_loss=cfg.max_loss,
            min_queries=few,
            non_inferior=cfg.non_inferior,
        )
        for name in ("qr", "qr_tail", "ct")
    ]
    verdict = gate.decide(required, guards)
    with artifacts.replacing(out) as folder:
        artifacts.write_json(
            folder / "verdict.json", {**asdict(verdict), "challenger": asked, "champion": against}
        )
    passed = sum(bool(c.passed) for c in verdict.checks)
    return StageReport(
        numbers={"checks": len(verdict.checks), "checks_passed": passed},
        notes=(f"verdict: {verdict.verdict}",),
    )


def first(metrics: Path) -> str:
    """The better of the untouched base and `clicks` on ungated QR, on clicks where there is none: what a
    challenger is held against without a champion. Of two that are equal the one that was trained.
    """
    both = _values(metrics)[1]
    for name in ("qr_raw", "ct"):
        recalls = {system: list(both[name, system].values()) for system in FIRST if both.get((name, system))}
        if recalls:
            return max(reversed(FIRST), key=lambda s: float(np.mean(recalls[s])) if s in recalls else -1.0)
    return BASELINE


def _values(metrics: Path) -> tuple[Values, Values]:
    """Recall@100, and its mean with recall@20."""
    # One number a query for the gain: what a ranker gets (100) and what stands where people look (20).
    # Recall@100 alone is near its ceiling, and one paired test on the mean needs far fewer queries.
    # Guardrails stay on recall@100.
    at_20, at_100 = (_per_query(metrics / "per_query.parquet", f"recall_at_{k}") for k in (20, 100))
    both = {key: {q: (x + at_20[key][q]) / 2 for q, x in recalls.items()} for key, recalls in at_100.items()}
    return at_100, both


def _chains(path: Path) -> dict[str, int]:
    """query -> number of its chain, of the queries that are in one; an evaluation may know none."""
    if "chain" not in pq.read_schema(path).names:
        return {}
    rows = pq.read_table(path, columns=["query", "chain"])
    pairs = zip(rows["query"].to_pylist(), rows["chain"].to_pylist(), strict=True)
    return {query: chain for query, chain in pairs if chain is not None}


def _per_query(path: Path, column: str) -> Values:
    try:
        rows = pq.read_table(path, columns=["set", "system", "query", column])
    except FileNotFoundError as error:
        raise InputError(path, "no such file; expected a folder that `crops evaluate` wrote") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(path, f"not a readable Parquet file ({str(error).splitlines()[0]})") from error
    out: Values = {}
    for name, system, query, value in zip(*(rows[c].to_pylist() for c in rows.column_names), strict=True):
        out.setdefault((name, system), {})[query] = value
    return out
