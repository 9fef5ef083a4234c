"""Recall, nDCG, diversity and paired bootstrap: rankings and judgements in, numbers out."""

from collections.abc import Collection, Sequence

import numpy as np


def recall_per_query(ranked: np.ndarray, relevant: Sequence[set[int]], k: int) -> np.ndarray:
    """float64 [Q]: |top-k ∩ relevant| / |relevant|, also where more than k are relevant (then 1.0 cannot be
    reached).

    ranked    int [Q, D]  document ids, best first; negative ids are padding
    relevant  Q sets of document ids, none empty
    """
    if len(ranked) != len(relevant):
        raise ValueError(f"recall@{k}: {len(ranked)} rankings for {len(relevant)} queries")
    if empty := [q for q, docs in enumerate(relevant) if not docs]:
        raise ValueError(f"recall@{k}: no relevant document for queries {empty[:5]} ({len(empty)} in all)")
    if k < 1:
        raise ValueError(f"recall@{k}: k is {k}, expected >= 1")
    shares = [
        len(docs.intersection(row[:k].tolist())) / len(docs)
        for row, docs in zip(ranked, relevant, strict=True)
    ]
    return np.array(shares, dtype=np.float64)


def recall_at_k(ranked: np.ndarray, relevant: Sequence[set[int]], k: int) -> float:
    """Mean of `recall_per_query` over the queries (trec_eval's recall); a ValueError without a query.

    >>> recall_at_k(np.array([[3, 1, 2]]), [{1, 9}], 2)
    0.5
    """
    if len(relevant) == 0:
        raise ValueError(f"recall@{k}: no query")
    return float(recall_per_query(np.asarray(ranked), relevant, k).mean())


def ndcg_per_query(ranked: np.ndarray, grades: Sequence[dict[int, int]], k: int) -> np.ndarray:
    """float64 [Q]: DCG / ideal DCG with gain = grade and discount 1 / log2(rank + 1) (trec_eval's ndcg_cut).

    ranked  int [Q, D]  document ids, best first, each once; negative ids are padding
    grades  per query: document id -> grade; at least one positive grade per query
    """
    if len(ranked) != len(grades):
        raise ValueError(f"ndcg@{k}: {len(ranked)} rankings for {len(grades)} queries")
    if k < 1:
        raise ValueError(f"ndcg@{k}: k is {k}, expected >= 1")
    if empty := [q for q, graded in enumerate(grades) if not any(g > 0 for g in graded.values())]:
        raise ValueError(f"ndcg@{k}: no graded document for queries {empty[:5]} ({len(empty)} in all)")
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    out = np.empty(len(grades))
    for q, (row, graded) in enumerate(zip(ranked, grades, strict=True)):
        gains = np.array([max(0, graded.get(d, 0)) for d in row[:k].tolist()], dtype=np.float64)
        ideal = np.array(sorted((g for g in graded.values() if g > 0), reverse=True)[:k], dtype=np.float64)
        out[q] = (gains * discount[: len(gains)]).sum() / (ideal * discount[: len(ideal)]).sum()
    return out


def condensed(ranked: np.ndarray, judged: Sequence[Collection[int]]) -> np.ndarray:
    """int [Q, D]: the ranking of the judged documents alone, in their order (Sakai 2007, condensed lists);
    padded with -1.

    >>> condensed(np.array([[7, 3, 9, 1]]), [{1, 7}])
    array([[ 7,  1, -1, -1]])
    """
    out = np.full_like(ranked, -1)
    for q, (row, documents) in enumerate(zip(ranked.tolist(), judged, strict=True)):
        kept = [d for d in row if d in documents]
        out[q, : len(kept)] = kept
    return out


def ndcg_at_k(ranked: np.ndarray, grades: Sequence[dict[int, int]], k: int) -> float:
    """Mean of `ndcg_per_query` over the queries; a ValueError without a query."""
    if len(grades) == 0:
        raise ValueError(f"ndcg@{k}: no query")
    return float(ndcg_per_query(np.asarray(ranked), grades, k).mean())


def diversity_at_k(ranked: np.ndarray, vectors: np.ndarray, k: int) -> float:
    """1 - mean cosine of the distinct pairs among the top k, averaged over the queries that found at least
    two documents.

    ranked   int [Q, D]  document ids, best first; negative ids are padding
    vectors  float [D, H], unit length (a zero vector has cosine 0 to all)
    """
    if k < 2:
        raise ValueError(f"diversity@{k}: expected k >= 2")
    values = []
    for row in ranked:
        top = vectors[[d for d in row[:k].tolist() if d >= 0]]  # [n, H]
        n = len(top)
        if n >= 2:
            cosines = top @ top.T
            values.append(1.0 - (cosines.sum() - np.trace(cosines)) / (n * (n - 1)))
    if not values:
        raise ValueError(f"diversity@{k}: no query found two documents")
    return float(np.mean(values))


def bootstrap(
    values: np.ndarray, *, draws: int, seed: int, alpha: float = 0.05, clusters: np.ndarray | None = None
) -> tuple[float, float]:
    """Percentile interval of the mean of `values` [Q] over queries drawn with replacement.

    clusters  int [Q]: queries of one number say the same thing in part, and are drawn together
    """
    if len(values) == 0:
        raise ValueError("bootstrap: no query")
    names = np.arange(len(values)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    sums, sizes = np.bincount(names, weights=values), np.bincount(names)
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for start in range(0, draws, 200):  # bounded memory: 200 x Q indices at once
        rows = rng.integers(0, len(sums), (min(200, draws - start), len(sums)))
        means[start : start + len(rows)] = sums[rows].sum(axis=1) / sizes[rows].sum(axis=1)
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def compare(
    ours: np.ndarray, theirs: np.ndarray, *, draws: int, seed: int, clusters: np.ndarray | None = None
) -> dict[str, float]:
    """Paired over queries: mean difference and its bootstrap interval. Both float [Q], the same queries in
    the same order. clusters: as of `bootstrap`.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"compare: {ours.shape} against {theirs.shape}, expected the same queries")
    difference = ours - theirs
    low, high = bootstrap(difference, draws=draws, seed=seed, clusters=clusters)
    return {"difference": float(difference.mean()), "low": low, "high": high}
