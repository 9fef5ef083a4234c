"""New videos into a release that stays what it is otherwise: the same encoder, an index that is extended or
built anew.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from crops import accelerator
from crops.config.index import IndexConfig
from crops.engines import session
from crops.errors import InputError
from crops.mining import documents
from crops.release import index as indexes
from crops.release import layout
from crops.release.encoder import OnnxEncoder
from crops.stages.base import StageReport
from crops.stages.release import index
from crops.tables import artifacts, records
from crops.tables.folders import MARK, TASK

ASKED = 16  # documents that are encoded again to see whether the index still has their vectors
# largest difference of an element: another encoder is off by 0.1, another machine's arithmetic by 1e-6
CLOSE = 1e-3
REPLACED = {*layout.INDEX_FILES, layout.DOCUMENTS, layout.CHECKSUMS, MARK, TASK}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Documents of the catalogue against those of the release, by id."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def any(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.added or self.changed or self.removed)


def run(release: Path, logs: Path, out: Path, cfg: IndexConfig) -> StageReport:
    """Reads the catalogue `logs`/videos; writes `out`/release, sealed, and refresh.json; no release where
    nothing changed.

    What the release has vectors for and whose text is the same is not encoded again, unless its index keeps
    codes instead of vectors: then all of it is, because a rebuild from codes would lose a little more every
    time. An InputError where the release's encoder does not give its own fingerprint: its index is of another
    encoder, and new vectors would not fit to the old.
    """
    if not layout.is_release(release):
        raise InputError(release, "holds no release; the registry has no champion to refresh")
    catalogue = _catalogue(logs, out.parent)
    released = dict(_pairs(artifacts.read(release, records.DOCUMENTS)))
    change = _change(released, catalogue)
    facts: dict[str, Any] = {
        "source": layout.checksum(release),
        "added": len(change.added),
        "changed": len(change.changed),
        "removed": len(change.removed),
        "documents": len(catalogue),
    }
    with artifacts.replacing(out) as folder:
        if change.any:
            facts |= _refreshed(release, folder / "release", catalogue, change, cfg)
        artifacts.write_json(folder / "refresh.json", {"how": "nothing changed", **facts})
    counts: dict[str, float | int] = {
        name: int(facts[name]) for name in ("documents", "added", "changed", "removed")
    }
    return StageReport(numbers=counts, notes=() if change.any else ("nothing changed",))


def _catalogue(logs: Path, scratch: Path) -> dict[str, str]:
    """Id -> text of every video that has a text, in the order of ids."""
    with session.opened("duckdb", scratch=scratch) as house:
        texts = documents.documents(house.read(logs, records.VIDEOS))
        rows = house.backend.to_pyarrow(texts.distinct(on="doc_id").order_by("doc_id"))
    catalogue = {name: text for name, text in _pairs(rows) if text}
    if not catalogue:
        raise InputError(logs / "videos", "no video with a text, expected the whole catalogue")
    return catalogue


def _pairs(rows: pa.Table) -> list[tuple[str, str]]:
    return list(zip(rows["doc_id"].to_pylist(), rows["text"].to_pylist(), strict=True))


def _change(released: dict[str, str], catalogue: dict[str, str]) -> Change:
    return Change(
        added=tuple(i for i in catalogue if i not in released),
        changed=tuple(i for i in catalogue if i in released and released[i] != catalogue[i]),
        removed=tuple(i for i in released if i not in catalogue),
    )


def _refreshed(
    release: Path, folder: Path, catalogue: dict[str, str], change: Change, cfg: IndexConfig
) -> dict[str, Any]:
    encoder = OnnxEncoder(release, providers=accelerator.providers())
    _same_encoder(release, encoder)
    old, before = indexes.of_release(release), artifacts.read_json(release / layout.INDEX_FACTS)
    ids = old.ids
    kept = old.inner.reconstruct_n(0, len(ids))
    exact = _holds_vectors(dict(zip(ids, kept, strict=True)), catalogue, change, encoder)
    fresh = (*change.added, *change.changed) if exact else tuple(catalogue)
    new = index.encoded(encoder, [catalogue[i] for i in fresh], batch=cfg.batch)
    grown = len(change.added) <= cfg.rebuild_above * len(ids) and not (change.changed or change.removed)
    same_kind = indexes.factory_for(len(catalogue), cfg.factories) == before["factory"]
    if exact and grown and same_kind:
        way, factory, vectors = "extended", before["factory"], np.concatenate([kept, new])
        made = indexes.extended(release / layout.INDEX, ids, new, change.added)
    else:
        way = "rebuilt" if exact else "encoded anew"
        vectors = _in_order(catalogue, dict(zip((*ids, *fresh), (*kept, *new), strict=True)))
        made, factory = index.built(vectors, tuple(catalogue), cfg)
    shutil.copytree(release, folder, ignore=lambda _, names: REPLACED & set(names))
    source = index.source_of(release, catalogue, catalogue.values())
    recall = index.write(folder, made, vectors, factory=factory, probes=cfg.probes, source=source)
    rows = pa.table({"doc_id": list(catalogue), "text": list(catalogue.values())})
    artifacts.write(folder, records.DOCUMENTS, rows)
    layout.seal(folder)
    return {"how": way, "factory": factory, "recall_against_exact": recall}


def _same_encoder(release: Path, encoder: OnnxEncoder) -> None:
    """An InputError where the encoder does not give the release's fingerprint."""
    probes = artifacts.read_json(release / layout.FINGERPRINT)
    off = np.abs(encoder.encode(probes["queries"]) - np.asarray(probes["vectors"], dtype=np.float32)).max(
        initial=0.0
    )
    if off > CLOSE:
        raise InputError(
            release,
            f"its encoder is off its fingerprint by {off:.3f}: encoder and index do not belong together",
        )


def _holds_vectors(
    vectors: dict[str, np.ndarray], catalogue: dict[str, str], change: Change, encoder: OnnxEncoder
) -> bool:
    """Whether what the index gives back of unchanged documents is what the encoder makes of them."""
    same = sorted(vectors.keys() & catalogue.keys() - set(change.changed))
    asked = same[:: max(1, len(same) // ASKED)][:ASKED]
    if not asked:
        return True
    made = encoder.encode([catalogue[i] for i in asked], kind="document")
    return bool(np.abs(made - np.stack([vectors[i] for i in asked])).max() <= CLOSE)


def _in_order(catalogue: dict[str, str], vectors: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([vectors[i] for i in catalogue])
