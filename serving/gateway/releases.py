"""Releases as a gateway holds them: fetched, checked against their checksums and fingerprint, swapped as a
whole.
"""

import asyncio
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from crops.errors import CropsError, InputError, ServiceError
from crops.perspectives import KNOWLEDGE
from crops.release import index as indexes
from crops.release import layout, lexical, manifest, milvus, plugin
from crops.release.fetch import BadRelease as Rejected
from crops.release.fetch import fetch
from crops.release.manifest import Manifest, Release
from serving.gateway.cache import EmbeddingCache
from serving.gateway.drift import DEPTH, Drift, vocabulary
from serving.gateway.errors import Unavailable
from serving.gateway.settings import Settings

Encode = Callable[[str, list[str]], Awaitable[np.ndarray]]
SearchIndex = indexes.Index | milvus.MilvusIndex | plugin.PluggedIndex
# Least product of a document's vector, encoded anew, with the one in the index: 1 but for float16, less in a
# coarse index.
OWN_SCORE, OWN_SCORE_COARSE = 0.99, 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A training pair of the release: what it learnt that a document is for. None: not known of this one.

    support      how often the log has it
    later_query  what people typed after `query` when they came upon the document
    """

    query: str
    perspective: str
    label: int | None = None
    support: int | None = None
    later_query: str | None = None


@dataclass(frozen=True, slots=True)
class Reranker:
    """What reorders the first results: the texts by row of the index, and the weights of the cross-encoder's
    logit and of the dense score.
    """

    texts: tuple[str, ...]
    weights: tuple[float, float]

    def order(self, logits: np.ndarray, scores: Sequence[float]) -> list[int]:
        """Places, best first; equal ones as they were."""
        joined = self.weights[0] * logits + self.weights[1] * np.asarray(scores)
        places: list[int] = np.argsort(-joined, kind="stable").tolist()
        return places


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One release in memory; everything that belongs together is found through it."""

    release: Release
    index: SearchIndex
    captions: tuple[str, ...]  # by row of the index
    index_checksum: str
    built_s: float
    fingerprint: str
    cache: EmbeddingCache
    drift: Drift
    pairs: Mapping[str, tuple[Pair, ...]] = field(default_factory=dict)  # doc_id -> pairs
    folder: Path | None = None  # where its files lie on this machine
    reranker: Reranker | None = None  # None: the dense order stands
    by_words: lexical.LexicalIndex | None = None  # the same rows by their words; None: vectors alone answer

    def texts(self, doc_ids: Sequence[str]) -> dict[str, str]:
        """doc_id -> its whole text, read from disk: only the console asks. Those that are not there are left
        out.
        """
        if self.folder is None:
            return {}
        rows = pq.read_table(
            self.folder / layout.DOCUMENTS, columns=["doc_id", "text"], filters=[("doc_id", "in", [*doc_ids])]
        )
        return dict(zip(rows["doc_id"].to_pylist(), rows["text"].to_pylist(), strict=True))

    def examples(self, count: int) -> list[str]:
        """Queries that brought most of its training pairs, of those that people typed."""
        told = (p.query for of_one in self.pairs.values() for p in of_one if p.perspective != KNOWLEDGE.name)
        return [query for query, _ in Counter(sorted(told)).most_common(count)]

    @property
    def width(self) -> int:
        """H of its vectors."""
        return self.index.width


class Holder:
    """What each arm serves now. `arms` is replaced as a whole, so a search sees one generation from its start
    to its end.
    """

    def __init__(self, settings: Settings, encode: Encode, ensure: Callable[[str], Awaitable[None]]) -> None:
        self.settings, self._encode, self._ensure = settings, encode, ensure
        self.arms: dict[str, Served] = {}
        self.served = Manifest()  # what `arms` were taken from
        self.refused = 0  # the newest generation that was refused
        self.problem = "no manifest has been read yet"

    async def look(self) -> str | None:
        """Reads the manifest and serves what it says; the reason of the refusal where a release in it is not
        fit to be.
        """
        wanted = await asyncio.to_thread(manifest.read, self.settings.manifest)
        if wanted == self.served and self.arms:  # not the number alone: a backup may have been put back
            return None
        return await self.take(wanted)

    async def take(self, wanted: Manifest) -> str | None:
        """All arms of `wanted`, or none of them: the old ones stay if one is refused."""
        if not wanted.arms:
            self.problem = f"{self.settings.manifest} names no release"
            return None
        arms: dict[str, Served] = {}
        loaded = {s.release.checksum: s for s in self.arms.values()}
        try:
            for arm, release in wanted.arms.items():
                arms[arm] = loaded.get(release.checksum) or await self._load(release)
        except Rejected as refused:
            self.problem, self.refused = f"{arm}: {release.uri}: {refused}", wanted.generation
            return refused.reason
        self.arms, self.served, self.problem = arms, wanted, ""
        return None

    @property
    def generation(self) -> int:
        """The manifest's that is served; 0: none."""
        return self.served.generation

    async def _load(self, release: Release) -> Served:
        folder = await asyncio.to_thread(fetch, release, self.settings.state / "releases")
        served = await asyncio.to_thread(opened, release, folder, self.settings)
        try:
            await self._ensure(release.model)
        except Unavailable as error:
            raise Rejected("encoder", str(error)) from error
        await self._same_vectors(release, folder, served)
        try:
            await self._same_space(release, folder, served)
        except ServiceError as error:
            raise Rejected("index", str(error)) from error
        return served

    async def _same_vectors(self, release: Release, folder: Path, served: Served) -> None:
        """The probe queries, encoded anew, against the vectors that were registered."""
        probes, tolerance = _facts(folder, layout.FINGERPRINT), self.settings.fingerprint_tolerance
        expected = np.array(probes["vectors"], dtype=np.float32)
        vectors = await self._encode(release.model, list(probes["queries"]))
        if vectors.shape != expected.shape:
            raise Rejected(
                "fingerprint", f"the encoder gives vectors {vectors.shape}, registered were {expected.shape}"
            )
        worst = float(np.abs(vectors - expected).max(initial=0.0))
        if worst > tolerance:
            raise Rejected("fingerprint", f"a probe differs by {worst:.4f}, allowed {tolerance}")
        if (width := vectors.shape[1]) != served.width:
            raise Rejected("dimension", f"the encoder gives width {width}, the index has {served.width}")

    async def _same_space(self, release: Release, folder: Path, served: Served) -> None:
        """Documents encoded anew and looked up: each must meet itself. Only where queries and documents are
        encoded alike: one tower, no prompts that tell them apart.

        Near is not enough: two encoders that began with the same weights find most of each other's documents.
        """
        facts = _facts(folder, layout.ENCODER)
        prompts = facts.get("prompts") or {}
        if not facts.get("shared") or prompts.get("query") != prompts.get("document"):
            return
        factory = _facts(folder, layout.INDEX_FACTS)["factory"]
        documents = pq.read_table(folder / layout.DOCUMENTS, columns=["doc_id", "text"])
        probes = min(self.settings.index_probes, documents.num_rows)
        if not probes:
            return
        picked = documents.take(np.linspace(0, documents.num_rows - 1, probes).astype(int))
        vectors = await self._encode(release.model, picked["text"].to_pylist())
        scores, rows = await asyncio.to_thread(served.index.search, vectors, 10)
        least = OWN_SCORE_COARSE if any(mark in factory for mark in ("PQ", "SQ", "LSH")) else OWN_SCORE
        near = (rows >= 0) & (scores >= least)  # [probes, 10]
        hits = sum(
            name in [served.index.ids[row] for row in rows[n, near[n]]]
            for n, name in enumerate(picked["doc_id"].to_pylist())
        )
        if hits < 0.8 * probes:
            raise Rejected(
                "index", f"the index knows {hits} of {probes} of its own documents: it is another encoder's"
            )


def _facts(folder: Path, name: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return facts


def opened(release: Release, folder: Path, settings: Settings) -> Served:
    """The release in memory; Rejected with the reason where its files do not fit one another."""
    try:
        checksum = _facts(folder, layout.INDEX_FACTS)["sha256"]
        width = int(_facts(folder, layout.ENCODER)["width"])
        ids = indexes.ids_of(folder)
        index = _index(release, folder, settings, ids, width=width)
        documents = pq.read_table(folder / layout.DOCUMENTS, columns=["doc_id", "text"])
        texts = dict(zip(documents["doc_id"].to_pylist(), documents["text"].to_pylist(), strict=True))
        probes = (folder / layout.FINGERPRINT).read_bytes()
        vectors = np.array(json.loads(probes)["vectors"], dtype=np.float32)
        # Vectors of another width are refused later, with the reason.
        fits = vectors.ndim == 2 and vectors.shape[1] == width
        near = index.search(vectors, DEPTH)[1] if fits else np.empty((0, DEPTH), dtype=int)
    except InputError as error:
        raise Rejected("dimension" if "width" in str(error) else "index", str(error)) from error
    except ServiceError as error:
        raise Rejected("index", str(error)) from error
    except (OSError, KeyError, ValueError, CropsError) as error:
        raise Rejected("files", f"{folder}: {error}") from error
    pairs = _pairs(folder)
    words = vocabulary(chain(texts.values(), (pair.query for of_one in pairs.values() for pair in of_one)))
    drift = Drift(words=words, probes=vectors, found=near)
    reranker = None
    if settings.rerank:
        if not (folder / layout.RERANKER).is_file():
            raise Rejected(
                "reranker", f"rerank is {settings.rerank}, but it was exported without a re-ranker"
            )
        cross, dense = _facts(folder, layout.RERANKER)["weights"]
        reranker = Reranker(tuple(texts.get(i, "") for i in ids), (float(cross), float(dense)))
    return Served(
        release=release,
        reranker=reranker,
        index=index,
        captions=tuple(texts.get(i, "").split(" | ")[0] for i in ids),
        index_checksum=checksum,
        built_s=(folder / layout.INDEX).stat().st_mtime,
        fingerprint=hashlib.sha256(probes).hexdigest(),
        cache=EmbeddingCache(settings.cache_queries),
        drift=drift,
        pairs=pairs,
        folder=folder,
        by_words=lexical.build([texts.get(i, "") for i in ids]) if settings.fusion else None,
    )


def _index(
    release: Release, folder: Path, settings: Settings, ids: tuple[str, ...], *, width: int
) -> SearchIndex:
    if settings.index_plugin is not None:
        return plugin.load(settings.index_plugin, release.checksum, ids, width=width)
    if settings.milvus is not None:
        return milvus.load(settings.milvus, milvus.name_of(release.checksum), ids, width=width)
    checksum = _facts(folder, layout.INDEX_FACTS)["sha256"]
    return indexes.load(folder / layout.INDEX, ids, checksum=checksum, width=width)


def _pairs(folder: Path) -> dict[str, tuple[Pair, ...]]:
    path = folder / layout.TRAINING_PAIRS
    pairs = defaultdict(list)
    if path.is_file():
        wanted = ["doc_id", *(f.name for f in fields(Pair))]
        present = set(pq.read_schema(path).names)  # a release of an earlier version has the first three
        columns = [name for name in wanted if name in present]
        for row in pq.read_table(path, columns=columns).to_pylist():
            pairs[row.pop("doc_id")].append(Pair(**row))
    return {doc_id: tuple(of_one) for doc_id, of_one in pairs.items()}
