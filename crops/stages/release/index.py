"""Encodes the catalogue with the exported encoder and builds the FAISS index."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crops import accelerator, memory, progress
from crops.config.index import IndexConfig
from crops.errors import InputError
from crops.release import index, layout
from crops.release.encoder import OnnxEncoder
from crops.stages.base import StageReport
from crops.tables import artifacts, records

SCRATCH = ".vectors.npy"


def run(export: Path, documents: Path, out: Path, cfg: IndexConfig) -> StageReport:
    """Writes the index, the documents' ids by row, and facts: factory, width, rows, checksum, recall against
    exact search.
    """
    rows = artifacts.read(documents, records.DOCUMENTS)
    ids, texts = tuple(rows["doc_id"].to_pylist()), rows["text"].to_pylist()
    encoder = OnnxEncoder(export, providers=accelerator.providers())
    if not ids:
        raise InputError(documents / "documents", "no document, expected at least one to index")
    factory = index.factory_for(len(ids), cfg.factories)
    memory.refuse(
        documents / "documents",
        f"an index {factory} of {len(ids):,} vectors of width {encoder.width}",
        len(ids) * index.bytes_each(factory, encoder.width),
    )
    with artifacts.replacing(out) as folder:
        scratch = folder / SCRATCH
        # On disk, where they make room for the index that is built of them.
        room = np.lib.format.open_memmap(
            scratch, mode="w+", dtype=np.float32, shape=(len(ids), encoder.width)
        )
        vectors = encoded(encoder, texts, batch=cfg.batch, into=room)
        made, factory = built(vectors, ids, cfg)
        source = source_of(export, ids, texts)
        recall = write(folder, made, vectors, factory=factory, probes=cfg.probes, source=source)
        scratch.unlink()
    return StageReport(
        numbers={"documents": len(ids), "width": encoder.width, "recall_against_exact": recall}
    )


def encoded(
    encoder: OnnxEncoder, texts: list[str], *, batch: int, into: np.ndarray | None = None
) -> np.ndarray:
    """float32 [D, H] of document texts, with a progress bar; in `into` of that shape, if it is given."""
    vectors = np.empty((len(texts), encoder.width), dtype=np.float32) if into is None else into
    for start in progress.bar(range(0, len(texts), batch), desc="encoding documents"):
        vectors[start : start + batch] = encoder.encode(texts[start : start + batch], kind="document")
    return vectors


def built(vectors: np.ndarray, ids: tuple[str, ...], cfg: IndexConfig) -> tuple[index.Index, str]:
    """The index that `cfg` wants for that many documents, and its factory string."""
    factory = index.factory_for(len(ids), cfg.factories)
    knobs = {"nprobe": cfg.nprobe, "ef_search": cfg.ef_search, "refine_factor": cfg.refine_factor}
    return index.build(vectors, ids, factory=factory, **knobs), factory


def source_of(encoder: Path, ids: Iterable[str], texts: Iterable[str]) -> str:
    """A sha256 of what an index is made of: the encoder's files, and the documents in their order."""
    digest = hashlib.sha256(layout.tower(encoder).encode())
    for pair in zip(ids, texts, strict=True):
        digest.update(f"{json.dumps(pair)}\n".encode())
    return digest.hexdigest()


def write(
    folder: Path, made: index.Index, vectors: np.ndarray, *, factory: str, probes: int, source: str
) -> float:
    """Index, its documents in order and what it is, to `folder`; returns its recall@100 against exact search
    over `vectors`. source: as of `source_of`, for whoever puts index, encoder and documents together.
    """
    recall = _recall(made, vectors, vectors[:: max(1, len(vectors) // probes)])
    checksum = index.save(made, folder / layout.INDEX)
    pq.write_table(pa.table({"doc_id": pa.array(made.ids)}), folder / layout.DOC_IDS, compression="zstd")
    facts = {"factory": factory, "width": int(vectors.shape[1]), "rows": len(made.ids), "sha256": checksum}
    more = {"source": source, "recall_against_exact": recall}
    artifacts.write_json(folder / layout.INDEX_FACTS, facts | more)
    return recall


def _recall(made: index.Index, vectors: np.ndarray, probes: np.ndarray, k: int = 100) -> float:
    """Share of the exact top k that the index finds, counting equal scores as found."""
    scores, _ = index.exact(vectors, probes, k)
    nearest, _ = made.search(probes, k)
    floor = scores[:, -1:] - 1e-4
    return round(float((nearest >= floor).sum(axis=1).mean() / scores.shape[1]), 4)
