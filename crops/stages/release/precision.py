"""The weights of an export in float16 or int8, refused where the encoder then finds too little of what it
found in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crops.config.export import ExportConfig
from crops.errors import InputError
from crops.evaluation import metrics, sets
from crops.release import index, layout
from crops.release.encoder import FILES, OnnxEncoder
from crops.retriever import precision
from crops.tables import artifacts, records

K = 100
MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Cost:
    """What the log's queries find in float32 and in `precision`.

    judged    whether it is recall@100 of what people consumed on the held-out days; else the share of
              float32's own first 100 that stays, and `float32` is 1
    queries   how many queries told
    bytes     of the ONNX files, in float32 and now
    """

    precision: str
    judged: bool
    queries: int
    float32: float
    found: float
    bytes: tuple[int, int]

    def fault(self, cfg: ExportConfig) -> str | None:
        """Why these weights are refused, in one sentence, or None."""
        most = cfg.max_recall_loss if self.judged else 1 - cfg.min_overlap
        if self.float32 - self.found <= most:
            return None
        what = "recall@100" if self.judged else "the share of float32's first 100"
        return (
            f"{self.precision} is refused: {what} is {self.found:.4f} on {self.queries:,} queries, in "
            f"float32 {self.float32:.4f}, and may fall by {most:.4f}; set export.precision: float32, or "
            f"allow more by export.{'max_recall_loss' if self.judged else 'min_overlap'}"
        )

    def __str__(self) -> str:
        before, now = (size / MEGABYTE for size in self.bytes)
        told = f"recall@100 {self.found:.4f}, in float32 {self.float32:.4f}"
        told = told if self.judged else f"{self.found:.4f} of float32's first 100"
        return f"{self.precision}: {told}, on {self.queries:,} queries; {now:.1f} MB instead of {before:.1f}"


def lower(folder: Path, documents: Path, cfg: ExportConfig) -> Cost:
    """Rewrites the ONNX files of the export `folder` in cfg.precision; an InputError where that costs too
    much.

    documents: what `crops augment` wrote: the catalogue, and queries to try it with.
    """
    ids, texts = (artifacts.read(documents, records.DOCUMENTS)[c].to_pylist() for c in ("doc_id", "text"))
    relevant = _relevant(documents, {d: n for n, d in enumerate(ids)}, cfg.precision_queries)
    queries = list(relevant) or _asked(documents, cfg.precision_queries)
    if not queries or not texts:
        raise InputError(documents, f"neither query nor document to try {cfg.precision} with")
    before, size = _first(folder, texts, queries), _bytes(folder)
    try:
        for name in _files(folder):
            precision.reduce(folder / name, cfg.precision)
    except ValueError as error:
        raise InputError(folder, f"{cfg.precision} is refused: {error}") from error
    after = _first(folder, texts, queries)
    wanted = list(relevant.values()) or [set(row) for row in before.tolist()]
    share, now = (metrics.recall_at_k(rows, wanted, K) for rows in (before, after))
    cost = Cost(cfg.precision, bool(relevant), len(queries), share, now, (size, _bytes(folder)))
    if fault := cost.fault(cfg):
        raise InputError(documents, fault)
    facts = artifacts.read_json(folder / layout.ENCODER)
    artifacts.write_json(folder / layout.ENCODER, {**facts, "precision": cfg.precision})
    return cost


def _relevant(documents: Path, row: dict[str, int], most: int) -> sets.Relevant:
    """query -> rows of what was consumed for it on the held-out days, after it was reworded or at once."""
    pairs = [
        (pair["query"], pair["video_id"])
        for table in (records.TEST_QR, records.TEST_CT)
        if artifacts.exists(documents, table)
        for pair in artifacts.read(documents, table).to_pylist()
    ]
    return sets.capped(sets.grouped(pairs, row), most, seed=0)


def _asked(documents: Path, most: int) -> list[str]:
    """Queries of the log, most searched first."""
    if not artifacts.exists(documents, records.QUERIES):
        return []
    rows = artifacts.read(documents, records.QUERIES).sort_by(
        [("searches", "descending"), ("query", "ascending")]
    )
    return list(dict.fromkeys(rows["query"].to_pylist()))[:most]


def _first(folder: Path, texts: Sequence[str], queries: Sequence[str]) -> np.ndarray:
    """int [Q, min(K, D)]: rows of `texts`, best first; nothing is near a vector that is not a number."""
    encoder = OnnxEncoder(folder)
    documents, asked = encoder.encode(texts, kind="document"), encoder.encode(queries)
    rows = index.exact(np.nan_to_num(documents), np.nan_to_num(asked), K)[1]
    return np.where(np.isfinite(asked).all(axis=1, keepdims=True), rows, -1)


def _files(folder: Path) -> list[str]:
    return [name for name in FILES.values() if (folder / name).is_file()]


def _bytes(folder: Path) -> int:
    """Of the ONNX files and of weights that lie beside them."""
    return sum(path.stat().st_size for name in _files(folder) for path in folder.glob(f"{name}*"))
