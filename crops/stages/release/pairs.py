"""What a document was learnt from: the training pairs of queries that several people typed, each with its
source. A release carries them, and the report shows them.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from crops import perspectives
from crops.tables import artifacts, records


def common(documents: Path, min_users: int) -> list[str]:
    """The queries of the training days that at least `min_users` people typed, most searched first: rarer
    ones are private, and what goes to many hands holds none of them.
    """
    queries = artifacts.read(documents, records.QUERIES)
    shared = queries.filter(
        pc.and_(pc.equal(queries["split"], "train"), pc.greater_equal(queries["users"], min_users))
    )
    names: list[str] = shared.sort_by([("searches", "descending"), ("query", "ascending")])[
        "query"
    ].to_pylist()
    return names


def of(
    names: Sequence[str],
    documents: Path,
    samples: Path,
    *,
    most: int | None = None,
    doc_ids: Collection[str] | None = None,
) -> pa.Table:
    """(query, doc_id, perspective, label, support, later_query) of the pairs of `names`, those of the first
    names first.

    documents, samples  what augment and label wrote
    most     pairs kept: those of the most searched queries, because that is what people ask about
    doc_ids  only the pairs of these documents
    """
    wanted: dict[str, Collection[str]] = {"perspective": perspectives.names(positive=True), "query": names}
    wanted |= {} if doc_ids is None else {"doc_id": doc_ids}
    kept = artifacts.read(samples, records.ORIGINS, **wanted)
    return _sourced(_ordered(kept, names).slice(0, most), names, documents, samples)


def _ordered(pairs: pa.Table, queries: Sequence[str]) -> pa.Table:
    ranks = {query: n for n, query in enumerate(queries)}
    rank = pa.array([ranks[q] for q in pairs["query"].to_pylist()], pa.int64())
    ordered = pairs.append_column("rank", rank).sort_by(
        [(c, "ascending") for c in ("rank", "query", "doc_id", "perspective")]
    )
    return ordered.drop_columns("rank")


def _sourced(pairs: pa.Table, names: Sequence[str], documents: Path, samples: Path) -> pa.Table:
    """`pairs` with what each was learnt from, null where nothing says so: the label of its sample, how often
    the log has it, and of `names` the later query through which it came most often.
    """
    asked, docs = ({*pairs[column].to_pylist()} for column in ("query", "doc_id"))
    graded = _rows_of(samples, records.SAMPLES, query=asked, doc_id=docs)
    labels = {(r["query"], r["doc_id"]): r["label"] for r in graded}
    support: Counter[tuple[str, str, str]] = Counter()
    through: dict[tuple[str, str, str], tuple[int, str]] = {}
    shared = frozenset(names)
    for row in _rows_of(documents, records.CANDIDATES, query=asked, video_id=docs):
        key, later = (row["query"], row["video_id"], row["perspective"]), row["later_query"]
        support[key] += row["support"]
        if later in shared:
            through[key] = max(through.get(key, (0, "")), (row["support"], later))
    keys = [tuple(row.values()) for row in pairs.select(["query", "doc_id", "perspective"]).to_pylist()]
    more = {
        "label": pa.array([labels.get(key[:2]) for key in keys], pa.int8()),
        "support": pa.array([support.get(key) for key in keys], pa.int64()),
        "later_query": pa.array([through.get(key, (0, None))[1] for key in keys], pa.string()),
    }
    for name, column in more.items():
        pairs = pairs.append_column(name, column)
    return pairs


def _rows_of(folder: Path, table: records.Table, **columns: Collection[str]) -> list[dict[str, Any]]:
    """The table's rows with these values; none where the stage before did not write it."""
    if not (folder / table.name).is_dir():
        return []
    return artifacts.read(folder, table, **columns).to_pylist()
