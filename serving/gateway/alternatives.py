"""Releases that nobody is served, searched in this process for the console: what a run trained beside its
challenger. On one machine, for a person who looks: no Triton, no batches, no cache.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crops.errors import ConfigError
from crops.release import layout
from crops.release.manifest import Release
from crops.text import normalise_query
from serving.gateway import releases
from serving.gateway.search import Hits
from serving.gateway.settings import Settings

if TYPE_CHECKING:
    from crops.release.encoder import OnnxEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One of them in memory."""

    served: releases.Served
    encoder: "OnnxEncoder"

    def search(self, query: str, k: int) -> Hits:
        """The k nearest documents."""
        started_s = time.perf_counter()
        vectors = self.encoder.encode([normalise_query(query)])
        encoded_s = time.perf_counter()
        scores, rows = self.served.index.search(vectors, k)
        real = rows[0] >= 0
        return Hits(
            rows=tuple(rows[0][real].tolist()),
            scores=tuple(scores[0][real].tolist()),
            vector=vectors[0],
            encode_s=encoded_s - started_s,
            retrieve_s=time.perf_counter() - encoded_s,
            cached=False,
        )


def load(folders: Mapping[str, Path], settings: Settings) -> dict[str, Alternative]:
    """By name; a CropsError where a folder is no release, or not what was sealed."""
    if not folders:
        return {}
    from crops.release.encoder import OnnxEncoder  # the gateway's image has no ONNX Runtime

    own = settings.model_copy(update={"milvus": None, "fusion": False, "rerank": 0})
    loaded = {}
    for name, folder in folders.items():
        if not layout.is_release(folder):
            raise ConfigError(f"alternatives: {name} is {folder}, expected the folder of a release")
        layout.check(folder)
        release = Release(uri=name, model=name, files=str(folder), checksum=layout.checksum(folder))
        served = releases.opened(release, folder, own)
        loaded[name] = Alternative(served=served, encoder=OnnxEncoder(folder, threads=1))
    return loaded
