"""The document index in Milvus, behind the same `search` as crops.release.index: for catalogues that one
machine's memory cannot hold.

A collection per release, named by its checksum; an alias per arm, swapped last. Rows are numbers, as in
FAISS: `ids[row]` is the document. Needs the extra `milvus`; a path that ends in .db is milvus-lite in this
process, anything else a server's address.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from crops.errors import InputError, ServiceError

ROWS_AT_ONCE = 5_000
HNSW = {"M": 32, "efConstruction": 200}


def name_of(checksum: str) -> str:
    """The collection of a release by the checksum of its files."""
    return f"crops_{checksum[:16]}"


@dataclass(frozen=True, slots=True)
class MilvusIndex:
    """Searches one collection (or alias) by inner product."""

    client: Any
    collection: str
    ids: tuple[str, ...]
    width: int
    ef_search: int = 128

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 and rows int64, both [Q, k], best first; row -1 where fewer were found. queries
        float32 [Q, H].
        """
        if queries.ndim != 2 or queries.shape[1] != self.width:
            raise ValueError(f"queries have shape {queries.shape}, expected [Q, {self.width}]")
        k = min(k, len(self.ids))
        request: dict[str, Any] = {
            "data": np.asarray(queries, dtype=np.float32).tolist(),
            "limit": k,
            "output_fields": ["row"],
            "search_params": {"params": {"ef": max(self.ef_search, k)}},
        }
        answer = _said(lambda: self.client.search(self.collection, **request))
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        for q, hits in enumerate(answer):
            for place, hit in enumerate(hits):
                scores[q, place], rows[q, place] = hit["distance"], hit["row"]
        return scores, rows


def build(uri: str, collection: str, vectors: Iterable[np.ndarray], *, width: int) -> int:
    """Fills a new collection from batches float32 [n, H] in the order of the rows; returns the count.

    A collection of that name that is whole is left alone; one that a killed build left is made anew. Marked
    whole at the end.
    """
    client = _client(uri)
    if _whole(client, collection):
        return int(client.get_collection_stats(collection)["row_count"])
    _said(lambda: client.drop_collection(collection))
    _create(client, collection, width)
    count = 0
    for batch in vectors:
        for start in range(0, len(batch), ROWS_AT_ONCE):
            part = batch[start : start + ROWS_AT_ONCE]
            rows = [
                {"row": count + n, "vector": vector}
                for n, vector in enumerate(np.asarray(part, dtype=np.float32))
            ]
            _said(lambda rows=rows: client.insert(collection, rows))
            count += len(rows)
    _said(lambda: client.flush(collection))
    _said(lambda: client.load_collection(collection))
    _said(lambda: client.create_alias(collection, f"{collection}_whole"))
    return count


def load(uri: str, collection: str, ids: tuple[str, ...], *, width: int) -> MilvusIndex:
    """An InputError where the collection is not there, not whole, or holds other rows or another width."""
    client = _client(uri)
    if not _whole(client, collection):
        raise InputError(uri, f"no whole collection {collection}; `crops deploy` makes it")
    count = int(client.get_collection_stats(collection)["row_count"])
    fields = {f["name"]: f for f in client.describe_collection(collection)["fields"]}
    stored = int(fields["vector"]["params"]["dim"])
    if count != len(ids) or stored != width:
        raise InputError(
            uri, f"{collection} holds {count} vectors of width {stored}, expected {len(ids)} of width {width}"
        )
    _said(lambda: client.load_collection(collection))
    return MilvusIndex(client, collection, ids, width)


def swap(uri: str, alias: str, collection: str) -> None:
    """Points `alias` to `collection`: whoever searches the alias sees the new one from now on."""
    client = _client(uri)
    if _held(client, alias) is not None:
        _said(lambda: client.alter_alias(collection, alias))
    else:
        _said(lambda: client.create_alias(collection, alias))


def _client(uri: str) -> Any:
    from pymilvus import MilvusClient

    return _said(lambda: MilvusClient(uri))


def _create(client: Any, collection: str, width: int) -> None:
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False)
    schema.add_field("row", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=width)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="HNSW", metric_type="IP", params=HNSW)
    _said(lambda: client.create_collection(collection, schema=schema, index_params=index))


def _whole(client: Any, collection: str) -> bool:
    return (
        bool(_said(lambda: client.has_collection(collection)))
        and _held(client, f"{collection}_whole") == collection
    )


def _held(client: Any, alias: str) -> str | None:
    from pymilvus.exceptions import MilvusException

    try:
        return str(client.describe_alias(alias)["collection_name"])
    except MilvusException:
        return None


def _said(call: Any) -> Any:
    from pymilvus.exceptions import MilvusException

    try:
        return call()
    except MilvusException as error:
        raise ServiceError(f"Milvus says: {str(error)[:200]}") from error
