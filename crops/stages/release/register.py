"""Export, index, documents and training pairs to ONE model version: a release. Only what the gate promotes is
registered.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crops import perspectives
from crops.arms import CHALLENGER
from crops.config.register import RegisterConfig
from crops.release import index
from crops.release.encoder import OnnxEncoder
from crops.services import registry
from crops.stages.base import StageReport
from crops.tables import artifacts, records

DEFAULT_REGISTRY = Path("mlruns")


def run(
    export: Path,
    index: Path,
    documents: Path,
    samples: Path,
    out: Path,
    cfg: RegisterConfig,
    *,
    registry: str | None = None,
    alias: str = CHALLENGER,
    verdict: Path | None = None,
    metrics: Path | None = None,
    first: bool = False,
) -> StageReport:
    """Writes release.json {"uri", "name", "version", "alias"}, or {"uri": null, "reason"} where the verdict
    is not promote.

    `first`: nobody holds the alias yet; a ServiceError where somebody took it in the meantime.
    """
    decided = (
        artifacts.read_json(verdict / "verdict.json")
        if verdict
        else {"verdict": "promote", "reasons": ["no gate asked"]}
    )
    if decided["verdict"] != "promote":
        with artifacts.replacing(out) as folder:
            artifacts.write_json(
                folder / "release.json", {"uri": None, "reason": f"the gate says {decided['verdict']}"}
            )
        return StageReport(
            numbers={"registered": 0}, notes=(f"not registered: the gate says {decided['verdict']}",)
        )
    measured = artifacts.read_json(metrics / "metrics.json") if metrics else {}
    with artifacts.replacing(out) as folder:
        release = folder / "release"
        release.mkdir()
        assemble(
            release, (export, index, documents, samples), cfg, alias=alias, measured=measured, decided=decided
        )
        about = _register(release, registry, alias, cfg, measured, decided["reasons"], first)
        artifacts.write_json(folder / "release.json", about)
    return StageReport(numbers={"registered": 1, "version": int(about["version"])})


def assemble(
    release: Path,
    parts: tuple[Path, Path, Path, Path],
    cfg: RegisterConfig,
    *,
    alias: str = CHALLENGER,
    measured: dict[str, Any] | None = None,
    decided: dict[str, Any] | None = None,
) -> None:
    """Fills the empty folder `release` with what a release is. parts: what export, index, augment and label
    wrote.
    """
    _collect(release, *parts, cfg)
    _card(release / "MODEL_CARD.md", alias, measured or {}, decided or {"verdict": "promote", "reasons": []})
    seal(release)


def _collect(
    release: Path, export: Path, built: Path, documents: Path, samples: Path, cfg: RegisterConfig
) -> None:
    for source in (*export.iterdir(), *built.iterdir()):
        if source.is_file() and not source.name.startswith(".") and source.name != "stage.json":
            shutil.copyfile(source, release / source.name)
    artifacts.write(release, records.DOCUMENTS, artifacts.read(documents, records.DOCUMENTS))
    pairs = artifacts.read(samples, records.ORIGINS)
    mined = pairs.filter(pc.is_in(pairs["perspective"], pa.array(perspectives.names(positive=True))))
    queries = artifacts.read(documents, records.QUERIES).sort_by(
        [("searches", "descending"), ("query", "ascending")]
    )
    names = list(dict.fromkeys(queries["query"].to_pylist()))
    pq.write_table(
        _capped(mined, names, cfg.max_training_pairs), release / "training_pairs.parquet", compression="zstd"
    )
    probes = names[: cfg.probes]
    vectors = OnnxEncoder(release).encode(probes)
    fingerprint = {
        "queries": probes,
        "vectors": [[round(float(x), 6) for x in row] for row in np.asarray(vectors)],
    }
    artifacts.write_json(release / "fingerprint.json", fingerprint)


def _capped(pairs: pa.Table, queries: Sequence[str], most: int) -> pa.Table:
    """The pairs of the most searched queries: those are what people ask about."""
    place = {query: n for n, query in enumerate(queries)}
    rank = pa.array([place.get(q, len(place)) for q in pairs["query"].to_pylist()], pa.int64())
    ordered = pairs.append_column("rank", rank).sort_by(
        [(c, "ascending") for c in ("rank", "query", "doc_id", "perspective")]
    )
    return ordered.slice(0, most).drop_columns("rank")


def seal(release: Path) -> None:
    """Checksums of every file, the tables' too."""
    files = sorted(p for p in release.rglob("*") if p.is_file())
    artifacts.write_json(
        release / registry.CHECKSUMS, {p.relative_to(release).as_posix(): index.sha256(p) for p in files}
    )


def _card(path: Path, alias: str, measured: dict[str, Any], decided: dict[str, Any]) -> None:
    rows = [
        f"| {name} | " + ", ".join(f"{system} {value:.3f}" for system, value in values.items()) + " |"
        for name, values in (measured.get("recall_at_100") or {}).items()
        if values
    ]
    table = ["| set | recall@100 |", "|---|---|", *rows] if rows else ["Not measured."]
    reasons = [f"- {reason}" for reason in decided["reasons"]]
    lines = [
        "# CroPS release",
        "",
        f"Registered as {alias}.",
        "",
        *table,
        "",
        f"Gate: {decided['verdict']}",
        "",
        *reasons,
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _register(
    release: Path,
    uri: str | None,
    alias: str,
    cfg: RegisterConfig,
    measured: dict[str, Any],
    reasons: Sequence[str],
    first: bool,
) -> dict[str, Any]:
    uri = uri or registry.uri_of(DEFAULT_REGISTRY)
    flat = {
        f"recall_at_100.{name}.{system}": value
        for name, values in (measured.get("recall_at_100") or {}).items()
        for system, value in (values or {}).items()
    }
    tags = {"checksums": index.sha256(release / registry.CHECKSUMS)}
    before = None if first else registry.holder(uri, alias, name=cfg.name)
    version = registry.register(uri, release, name=cfg.name, metrics=flat, tags=tags)
    registry.move(uri, alias, version, expected=before, reason="; ".join(reasons)[:400], name=cfg.name)
    return registry.about(uri, version, alias, name=cfg.name)
