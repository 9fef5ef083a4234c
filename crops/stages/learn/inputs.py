"""What training reads, from the tables of label and augment: samples by number, texts and validation, as
columns that every rank maps from one folder.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from crops import labels, perspectives
from crops.engines import session
from crops.engines.warehouse import Warehouse
from crops.errors import InputError
from crops.evaluation import sets, trial
from crops.release import layout
from crops.retriever import batch, columns, samples, systems, train
from crops.retriever.duplicates import near_duplicates
from crops.retriever.weights import PLAIN, TABLE, Weights, weighed
from crops.tables import artifacts, records

DIGEST = "digest"


@dataclass(frozen=True, slots=True)
class Inputs:
    """The visible samples, the validation, and all texts of the corpus (the same for every system).

    digest: one name for all of it: a checkpoint belongs to exactly these inputs.
    """

    samples: batch.Pairs
    valid: train.Validation
    corpus: columns.Texts
    digest: str


def inputs_of(
    samples: Path,
    documents: Path,
    system: systems.System,
    graded: dict[str, int],
    *,
    weights: Weights = PLAIN,
    home: Path | None = None,
) -> Inputs:
    """Samples by the rank of their label: only the order of the labels matters.

    home: where the columns lie, in a folder named after the tables' content; who comes first makes it, others
    map it. None: they have no name, and are gone with this process.
    """
    border = perspectives.positive_min({name: labels.rank(n, graded) for name, n in graded.items()})
    if home is not None:
        own = home / f"data-{_key(samples, documents, system, graded, weights)}"
        made = columns.made(own, lambda new: _write(samples, documents, new, system, graded, weights))
        return _mapped(made, border)
    with tempfile.TemporaryDirectory(prefix="crops-data-") as folder:
        _write(samples, documents, Path(folder), system, graded, weights)
        return _mapped(Path(folder), border, kept=False)  # a mapped file stays after its name


def _key(
    samples: Path, documents: Path, system: systems.System, graded: dict[str, int], weights: Weights
) -> str:
    """Of the content of all tables that are read."""
    digest = hashlib.blake2b(repr((system, sorted(graded.items()), weights)).encode(), digest_size=6)
    for folder, tables in (
        (samples, (records.SAMPLES, records.ORIGINS, records.DROPPED, records.KNOWLEDGE)),
        (documents, (records.DOCUMENTS, records.VALID_QR, records.QUERIES, *_evidence(documents, weights))),
    ):
        for table in tables:
            for path in artifacts.parquet_files(folder, table):
                digest.update(f"{table.name} {layout.sha256(path)}\n".encode())
    return digest.hexdigest()


def _evidence(documents: Path, weights: Weights) -> list[records.Table]:
    """The tables that the weights are read from, in order; an InputError names the one that is not there."""
    tables = sorted(weights.tables, key=lambda table: table.name)
    for table in tables:
        if not artifacts.exists(documents, table):
            why = "; `crops augment` writes it where augment.evidence is true"
            raise InputError(
                documents,
                f"train.weigh is {', '.join(weights.kinds)}, and there is no table {table.name}"
                f"{why * (table is records.EVIDENCE)}",
            )
    return tables


def _mapped(folder: Path, positive_min: int, *, kept: bool = True) -> Inputs:
    relevant = columns.lists(folder, "relevant")
    return Inputs(
        samples=batch.Pairs(
            queries=columns.texts(folder, "queries"),
            texts=columns.texts(folder, "texts"),
            query=columns.mapped(folder, "query"),
            text=columns.mapped(folder, "text"),
            label=columns.mapped(folder, "label"),
            positive_min=positive_min,
            **{
                name: columns.mapped(folder, name)
                for name in ("weight", "theta")
                if (folder / f"{name}.npy").exists()
            },
            home=folder if kept else None,
        ),
        valid=train.Validation(
            queries=columns.texts(folder, "valid"),
            texts=columns.texts(folder, "catalogue"),
            relevant=tuple(frozenset(rows.tolist()) for rows in relevant),
            people=tuple(columns.mapped(folder, "people").tolist()),
        ),
        corpus=columns.texts(folder, "corpus"),
        digest=f"{positive_min} {(folder / DIGEST).read_text()}",
    )


def _write(
    tables: Path,
    documents: Path,
    folder: Path,
    system: systems.System,
    graded: dict[str, int],
    weights: Weights,
) -> None:
    """All columns; the engine spills into `folder` what exceeds its memory."""
    with session.opened("duckdb", scratch=folder) as house:
        catalogue = house.read(documents, records.DOCUMENTS)
        texts = _texts(house, catalogue, tables)
        _write_samples(house, tables, documents, folder, texts, system, graded, weights)
        _write_corpus(house, catalogue, house.read(documents, records.QUERIES), folder)
        _write_valid(house, catalogue, documents, folder)
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.npy")):
        digest.update(f"{path.name} {layout.sha256(path)}\n".encode())
    (folder / DIGEST).write_text(digest.hexdigest())


def _texts(house: Warehouse, catalogue: ir.Table, tables: Path) -> ir.Table:
    """(doc_id, text, spelled): of the catalogue and of what an LLM wrote; `spelled` numbers distinct texts in
    their order.
    """
    all_texts = catalogue
    if artifacts.exists(tables, records.KNOWLEDGE):
        own = house.read(tables, records.KNOWLEDGE).select("doc_id", "text")
        all_texts = ibis.union(all_texts.anti_join(own, "doc_id"), own)
    all_texts = house.keep(all_texts.group_by("doc_id").agg(text=all_texts.text.max()), "all_texts")
    spelled = house.keep(samples.numbered(all_texts.select("text").distinct(), "text", "spelled"), "spelled")
    return house.keep(all_texts.join(spelled, "text").select("doc_id", "text", "spelled"), "texts")


def _write_samples(
    house: Warehouse,
    tables: Path,
    documents: Path,
    folder: Path,
    texts: ir.Table,
    system: systems.System,
    graded: Mapping[str, int],
    weights: Weights,
) -> None:
    ranks = {name: labels.rank(label, graded) for name, label in graded.items()}
    every, origins = house.read(tables, records.SAMPLES), house.read(tables, records.ORIGINS)
    pairs = samples.visible(every, origins, system, ranks, set(graded.values()))
    border = perspectives.positive_min(ranks)
    if weights.kinds:
        read = {table: house.read(documents, table) for table in _evidence(documents, weights)}
        given = {kind: read[TABLE[kind]] if kind in TABLE else every for kind in weights.kinds}
        pairs = weighed(pairs, weights, given, positive_min=border)
    if weights.bring_theta:
        pairs = pairs.left_join(every.select("query", "doc_id", "theta"), ["query", "doc_id"])
        pairs = pairs.drop("query_right", "doc_id_right")
    seen = house.keep(pairs, "seen")
    lost = house.fetch(seen.anti_join(texts, "doc_id").agg(doc_id=ibis._.doc_id.min()))[0]["doc_id"]
    if lost is not None:
        raise InputError(tables / "samples", f"doc_id {lost!r} is neither in documents nor in knowledge")
    asked = house.keep(samples.numbered(seen.select("query").distinct(), "query", "asked"), "asked")

    def coded(pairs: ir.Table, *, only: list[str]) -> ir.Table:
        """(query, doc_id, ...) with numbers for both, `only` those columns."""
        rows = pairs.join(texts.select("doc_id", text="spelled"), "doc_id").join(asked, "query")
        return rows.drop("query").rename(query="asked").select(*only)

    values = [name for name in seen.columns if name not in ("query", "doc_id")]
    valid = house.read(documents, records.VALID_QR).select("query", doc_id="video_id")
    valid = valid.semi_join(house.read(documents, records.DOCUMENTS), "doc_id")
    apart = house.keep(coded(valid, only=["query", "text"]).distinct(), "apart")
    whole = house.keep(samples.best(coded(seen, only=["query", "text", *values]), apart), "whole")
    if not house.fetch(whole.agg(pairs=whole.count()))[0]["pairs"]:
        raise InputError(tables / "samples", "no samples: nothing to train on")
    doubted = apart
    if artifacts.exists(tables, records.DROPPED):
        gone = samples.dropped(house.read(tables, records.DROPPED), system)
        doubted = ibis.union(apart, coded(gone, only=["query", "text"]))
    _write_numbered(house, folder, asked, texts, whole, doubted, border)


def _write_numbered(
    house: Warehouse,
    folder: Path,
    asked: ir.Table,
    texts: ir.Table,
    whole: ir.Table,
    doubted: ir.Table,
    positive_min: int,
) -> None:
    """Numbers without gaps for the queries and texts of `whole`, and the columns of the samples."""
    query = asked.semi_join(whole.select(asked="query"), "asked")
    query = house.keep(samples.numbered(query.select("query", "asked"), "asked", "row"), "query_rows")
    text = texts.select("text", "spelled").distinct().semi_join(whole.select(spelled="text"), "spelled")
    text = house.keep(samples.numbered(text, "spelled", "row"), "text_rows")
    columns.write_texts(folder, "queries", _column(house, query.order_by("row").select("query")))
    columns.write_texts(folder, "texts", _column(house, text.order_by("row").select("text")))

    def rows(pairs: ir.Table) -> ir.Table:
        q, t = query.select(query="asked", query_row="row"), text.select(text="spelled", text_row="row")
        joined = pairs.join(q, "query").join(t, "text").drop("query", "text")
        return joined.rename(query="query_row", text="text_row")

    numbered = house.keep(rows(whole), "numbered")
    near = np.fromiter(near_duplicates(columns.texts(folder, "texts")), np.dtype((np.int32, 2)))
    both = np.concatenate([near, near[:, ::-1]])
    alike = house.put(pa.table({"text": both[:, 0], "other": both[:, 1]}), "alike")
    masked = samples.masked(numbered, rows(doubted), alike, positive_min=positive_min)
    ordered = ibis.union(numbered, masked.select(*numbered.columns)).order_by("query", "text")
    kinds = {"query": "i4", "text": "i4", "label": "i1", "weight": "f4", "theta": "f4"}
    with ExitStack() as stack:
        written = {
            name: stack.enter_context(columns.Column(folder / f"{name}.npy", kinds[name]))
            for name in ordered.columns
        }
        for piece in house.stream(ordered):
            for name, column in written.items():
                column.add(piece.column(name).to_numpy(zero_copy_only=False))


def _write_corpus(house: Warehouse, catalogue: ir.Table, queries: ir.Table, folder: Path) -> None:
    """The catalogue's distinct texts, then the queries of the training days, each in their order."""
    texts = catalogue.select("text").distinct().order_by("text")
    asked = queries.filter(queries.split == "train").select("query").distinct().order_by("query")

    def both() -> Iterator[pa.Array]:
        yield from _column(house, texts)
        yield from _column(house, asked)

    columns.write_texts(folder, "corpus", both())


def _write_valid(house: Warehouse, catalogue: ir.Table, documents: Path, folder: Path) -> None:
    """The catalogue in the order of its ids, and for each validation query its rows there and its people."""
    rows = house.keep(samples.numbered(catalogue, "doc_id", "row"), "rows")
    columns.write_texts(folder, "catalogue", _column(house, rows.order_by("row").select("text")))
    pairs = house.read(documents, records.VALID_QR)
    places = pairs.join(rows.select("row", video_id="doc_id"), "video_id")
    relevant = house.backend.to_pyarrow(
        places.select("query", "row")
        .distinct()
        .group_by("query")
        .agg(rows=ibis._.row.collect(order_by="row"))
        .order_by("query")
    )
    columns.write_texts(folder, "valid", (chunk for chunk in relevant["query"].chunks))
    with columns.ListColumn(folder, "relevant", "i4") as column:
        for chunk in relevant["rows"].chunks:
            column.add(chunk.flatten().to_numpy(), chunk.value_lengths().to_numpy())
    # Of one day's reformulations: who was led to the same video is one witness.
    chains = sets.chains(house.fetch(pairs))
    with columns.Column(folder / "people.npy", "i8") as people:
        people.add(trial.chained(relevant["query"].to_pylist(), chains))


def _column(house: Warehouse, expr: ir.Table) -> Iterator[pa.Array]:
    for piece in house.stream(expr):
        yield piece.column(0)
