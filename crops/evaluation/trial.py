"""All that is measured of one ranking, and of several side by side."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from crops.evaluation import metrics
from crops.evaluation.sets import SLICED, SLICES, VOCABULARY, Grades, Relevant, named, scripts_of
from crops.tables import records

DIVERSITY_QUERIES = 500  # a mean over them is known to about 0.01


@dataclass(frozen=True, slots=True)
class Scores:
    """What one system reached."""

    recalls: dict[str, dict[str, tuple[float, float]]]  # set -> query -> recall at 20 and at 100
    ndcg: dict[str, float]  # query -> nDCG at 4, of the queries with a graded document
    never_exposed: float | None
    diversity: float | None
    clicked: dict[str, float]


@dataclass(frozen=True)
class Trial:
    """What all systems are measured by; documents are rows of the catalogue.

    grades    None if there are none; `complete`: what is not graded is irrelevant, otherwise unknown
    exposed   what the training days showed for a query
    chains    of the queries that say the same thing in part, see `sets.chains`
    bags      float [D, 128], see `rank.bags`
    """

    sets: Mapping[str, Relevant | None]
    grades: Grades | None
    complete: bool
    exposed: Relevant
    bags: np.ndarray
    seed: int
    chains: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def queries(self) -> list[str]:
        """All queries of all sets, sorted."""
        return sorted({q for relevant in self.sets.values() if relevant for q in relevant})

    @cached_property
    def row(self) -> dict[str, int]:
        """The row of each query in a ranking."""
        return {q: n for n, q in enumerate(self.queries)}

    @cached_property
    def counted(self) -> dict[tuple[str, int], list[str]]:
        """(query, row of the catalogue) -> the sets in which the document is relevant to it."""
        sets_of: dict[tuple[str, int], list[str]] = {}
        for name in named(self.sets):
            for query, docs in (self.sets.get(name) or {}).items():
                for doc in docs:
                    sets_of.setdefault((query, doc), []).append(name)
        return sets_of

    def tops(self, system: str, ranked: np.ndarray, ids: Sequence[str]) -> pa.Table:
        """What stands in `ranked`, as the table `tops`.

        ranked int [Q, K]: rows of the catalogue, whose ids are `ids`, for each of `queries`; -1 is padding
        """
        rows = [
            (system, query, rank, ids[doc], self.counted.get((query, doc), []))
            for query, of_one in zip(self.queries, ranked.tolist(), strict=True)
            for rank, doc in enumerate(of_one, start=1)
            if doc >= 0
        ]
        schema = records.TOPS.schema
        columns = [*zip(*rows, strict=True)] or [()] * len(schema)
        return pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)

    def scores(self, ranked: np.ndarray) -> Scores:
        """ranked int [Q, K]: rows of the catalogue for each of `queries`, best first; -1 is padding."""
        some = np.random.default_rng(self.seed).permutation(len(ranked))[:DIVERSITY_QUERIES]
        return Scores(
            {name: self._recalls(relevant, ranked) for name, relevant in self.sets.items() if relevant},
            self._ndcg(ranked),
            self._never_exposed(ranked),
            # Without a second document of any query there is no diversity to speak of.
            round(metrics.diversity_at_k(ranked[some], self.bags, 10), 4)
            if (ranked[some, 1:2] >= 0).any()
            else None,
            clicked_found(self.sets["ct"] or {}, self.grades, ranked, self.row, complete=self.complete),
        )

    def _recalls(self, relevant: Relevant, ranked: np.ndarray) -> dict[str, tuple[float, float]]:
        rows, sets = ranked[[self.row[q] for q in relevant]], list(relevant.values())
        columns = (metrics.recall_per_query(rows, sets, k).tolist() for k in (20, 100))
        return dict(zip(relevant, zip(*columns, strict=True), strict=True))

    def _ndcg(self, ranked: np.ndarray) -> dict[str, float]:
        grades = self.grades or {}
        names = [q for q in self.queries if any(g > 0 for g in grades.get(q, {}).values())]
        if not names:
            return {}
        rows = ranked[[self.row[q] for q in names]]
        if not self.complete:  # what nobody judged is unknown, not irrelevant
            rows = metrics.condensed(rows, [grades[q] for q in names])
        values = metrics.ndcg_per_query(rows, [grades[q] for q in names], 4)
        return dict(zip(names, values.tolist(), strict=True))

    def _never_exposed(self, ranked: np.ndarray) -> float | None:
        """The filter bubble: of the relevant documents never shown for the query in the training days, the
        share in the top 100.
        """
        truth = self.sets.get("truth") or {}
        hidden = {q: left for q, docs in truth.items() if (left := docs - self.exposed.get(q, set()))}
        if not hidden:
            return None
        hits = [len(docs.intersection(ranked[self.row[q]][:100].tolist())) for q, docs in hidden.items()]
        return round(sum(hits) / sum(map(len, hidden.values())), 4)


def clicked_found(
    clicked: Relevant, grades: Grades | None, ranked: np.ndarray, row: Mapping[str, int], *, complete: bool
) -> dict[str, float]:
    """CT counts every click as right. Share of its pairs in the top 100: of those that truth calls relevant,
    and of the rest.

    If grades are a sample, only the judged pairs count.
    """
    hits: dict[str, list[bool]] = {}
    for query in clicked.keys() & (grades or {}).keys():
        of_query, top = (grades or {})[query], set(ranked[row[query]][:100].tolist())
        for doc in clicked[query] if complete else clicked[query] & of_query.keys():
            kind = "relevant" if of_query.get(doc, 0) >= records.RELEVANT_GRADE else "not relevant"
            hits.setdefault(kind, []).append(doc in top)
    return {kind: round(float(np.mean(of_kind)), 4) for kind, of_kind in sorted(hits.items(), reverse=True)}


def summary(
    scores: Mapping[str, Scores],
    sets: Mapping[str, Relevant | None],
    *,
    ours: Sequence[str],
    draws: int,
    seed: int,
    chains: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """metrics.json: means by set and system, intervals of recall@100, and of each of `ours` minus each
    other.
    """

    def mean(name: str, column: int) -> dict[str, float] | None:
        if not sets.get(name):
            return None
        return {
            system: round(float(np.mean([values[column] for values in s.recalls[name].values()])), 4)
            for system, s in scores.items()
        }

    main = named(sets)
    sides = {name: (*VOCABULARY, *scripts_of(sets, name)) for name in SLICED}
    kinds = [kind for kind in ("relevant", "not relevant") if any(kind in s.clicked for s in scores.values())]
    return {
        "recall_at_100": {name: mean(name, 1) for name in main},
        "recall_at_20": {name: mean(name, 0) for name in main},
        "ndcg_at_4": {
            system: round(float(np.mean(list(s.ndcg.values()))), 4) if s.ndcg else None
            for system, s in scores.items()
        },
        "ndcg_intervals": _intervals(
            {system: {q: (x, x) for q, x in s.ndcg.items()} for system, s in scores.items() if s.ndcg},
            ours,
            draws,
            seed,
            chains or {},
        ),
        "intervals": {
            name: _intervals(
                {system: s.recalls[name] for system, s in scores.items()}, ours, draws, seed, chains or {}
            )
            for name in (*main, *(f"{name}_{side}" for name in SLICED for side in sides[name]))
            if sets.get(name)
        },
        "slices": {name: mean(f"qr_{name}", 1) for name in SLICES},
        "vocabulary": {
            name: {side: difference for side in VOCABULARY if (difference := mean(f"{name}_{side}", 1))}
            for name in SLICED
        },
        "scripts": {
            name: {side: mean(f"{name}_{side}", 1) for side in scripts_of(sets, name)} for name in SLICED
        },
        "counts": {name: None if relevant is None else len(relevant) for name, relevant in sets.items()},
        "never_exposed_found": {system: s.never_exposed for system, s in scores.items()},
        "diversity_at_10": {system: s.diversity for system, s in scores.items()},
        "ct_by_grade": {kind: {n: s.clicked[kind] for n, s in scores.items()} for kind in kinds},
    }


def _intervals(
    recalls: Mapping[str, Mapping[str, tuple[float, float]]],
    ours: Sequence[str],
    draws: int,
    seed: int,
    chains: Mapping[str, int],
) -> dict[str, Any]:
    """Of the second number: an interval per system, and of each of `ours` minus each other system, paired
    over queries; nothing where all queries are one, or one chain: that says nothing of how much they differ.
    """
    values = {system: np.array([at_100 for _, at_100 in rows.values()]) for system, rows in recalls.items()}
    bootstrap = {"draws": draws, "seed": seed}
    together = {system: chained(rows, chains) for system, rows in recalls.items()}
    if any(len(set(names.tolist())) < 2 for names in together.values()):
        return {}
    out: dict[str, Any] = {
        system: [round(x, 4) for x in metrics.bootstrap(v, clusters=together[system], **bootstrap)]
        for system, v in values.items()
    }
    for name in (name for name in ours if name in values):
        gaps = {
            system: metrics.compare(values[name], v, clusters=together[name], **bootstrap)
            for system, v in values.items()
            if system != name
        }
        out[f"{name}_minus"] = {
            system: {k: round(x, 4) for k, x in gap.items()} for system, gap in gaps.items()
        }
    return out


def chained(queries: Iterable[str], chains: Mapping[str, int]) -> np.ndarray:
    """int64 [Q]: the number of each query's chain; a query without one is alone."""
    alone = max(chains.values(), default=-1) + 1  # of the queries of a file some numbers may be missing
    return np.array([chains.get(q, alone + n) for n, q in enumerate(queries)], dtype=np.int64)


def per_query(scores: Mapping[str, Scores], chains: Mapping[str, int] | None = None) -> pa.Table:
    """per_query.parquet: (set, system, query, recall_at_20, recall_at_100, ndcg_at_4, chain), the last null
    for a query that is alone.
    """
    chain_of = chains or {}
    rows: Sequence[tuple] = [
        (name, system, query, at_20, at_100, s.ndcg.get(query), chain_of.get(query))
        for system, s in sorted(scores.items())
        for name, values in sorted(s.recalls.items())
        for query, (at_20, at_100) in values.items()
    ]
    kinds = [pa.string()] * 3 + [pa.float64()] * 3 + [pa.int64()]
    names = ("set", "system", "query", "recall_at_20", "recall_at_100", "ndcg_at_4", "chain")
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    return pa.table(dict(zip(names, zip(*rows, strict=True), strict=True)), schema=schema)
