"""Encodes the catalogue with the exported encoder and builds the FAISS index."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from crops import index, records
from crops.config.index import IndexConfig
from crops.errors import InputError
from crops.io import artifacts
from crops.retriever.onnx_encoder import OnnxEncoder
from crops.stages.base import StageReport


def run(export: Path, documents: Path, out: Path, cfg: IndexConfig) -> StageReport:
    """Writes index.faiss, doc_ids.parquet and index.json (factory, width, rows, checksum, recall against exact search)."""
    rows = artifacts.read(documents, records.DOCUMENTS)
    ids, texts = tuple(rows["doc_id"].to_pylist()), rows["text"].to_pylist()
    encoder = OnnxEncoder(export)
    if not ids:
        raise InputError(documents / "documents", "no document, expected at least one to index")
    starts = tqdm(range(0, len(texts), cfg.batch), desc="encoding documents", disable=None)
    vectors = np.concatenate([encoder.encode(texts[s : s + cfg.batch], kind="document") for s in starts])
    factory = index.factory_for(len(ids), cfg.factories)
    made = index.build(vectors, ids, factory=factory, nprobe=cfg.nprobe, ef_search=cfg.ef_search, refine_factor=cfg.refine_factor)
    probes = vectors[:: max(1, len(vectors) // cfg.probes)]
    recall = _recall(made, vectors, probes)
    with artifacts.replacing(out) as folder:
        checksum = index.save(made, folder / "index.faiss")
        pq.write_table(pa.table({"doc_id": pa.array(ids)}), folder / "doc_ids.parquet", compression="zstd")
        about = {"factory": factory, "width": int(vectors.shape[1]), "rows": len(ids), "sha256": checksum}
        artifacts.write_json(folder / "index.json", {**about, "recall_against_exact": recall})
    return StageReport(numbers={"documents": len(ids), "width": int(vectors.shape[1]), "recall_against_exact": recall})


def _recall(made: index.Index, vectors: np.ndarray, probes: np.ndarray, k: int = 100) -> float:
    """Share of the exact top k that the index finds, counting equal scores as found."""
    scores, _ = index.exact(vectors, probes, k)
    found, _ = made.search(probes, k)
    floor = scores[:, -1:] - 1e-4
    return round(float((found >= floor).sum(axis=1).mean() / scores.shape[1]), 4)
