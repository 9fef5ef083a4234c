"""Export, index, documents and training pairs to ONE model version: a release. Only what the gate promotes is
registered.
"""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from crops.arms import CHALLENGER
from crops.config.register import RegisterConfig
from crops.errors import InputError
from crops.release import card, layout
from crops.release import index as indexes
from crops.release.encoder import OnnxEncoder
from crops.services import mlmodel
from crops.services.registry import Registry, uri_of
from crops.stages.base import StageReport
from crops.stages.release import index as index_stage
from crops.stages.release import pairs
from crops.tables import artifacts, records
from crops.tables.folders import TASK

UNGATED = {"verdict": "promote", "reasons": ["no gate asked"]}


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
    """Writes release.json {"uri", "name", "version", "alias"}, or {"uri": null, "reason"} if the verdict is
    not promote.

    `first`: nobody holds the alias yet; a ServiceError if somebody has taken it in the meantime.
    """
    decided = artifacts.read_json(verdict / "verdict.json") if verdict else UNGATED
    if decided["verdict"] != "promote":
        reason = f"the gate says {decided['verdict']}"
        with artifacts.replacing(out) as folder:
            artifacts.write_json(folder / "release.json", {"uri": None, "reason": reason})
        return StageReport(numbers={"registered": 0}, notes=(f"not registered: {reason}",))
    measured = artifacts.read_json(metrics / "metrics.json") if metrics else {}
    recall = _recall(measured)
    models = Registry(registry or uri_of(), cfg.name)
    with artifacts.replacing(out) as folder:
        release = folder / "release"
        release.mkdir()
        checksum = assemble(
            release, (export, index, documents, samples), cfg, alias=alias, measured=measured, decided=decided
        )
        before = None if first else models.holder(alias)
        flat = {f"recall_at_100.{name}.{s}": x for name, by in recall.items() for s, x in by.items()}
        version = models.register(release, metrics=flat, tags={"checksums": checksum})
        models.move(alias, version, expected=before, reason="; ".join(decided["reasons"])[:400])
        artifacts.write_json(folder / "release.json", models.entry(version, alias))
    return StageReport(numbers={"registered": 1, "version": int(version)})


def _recall(measured: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Recall@100 by set and system, of the sets that were measured."""
    return {name: values for name, values in (measured.get("recall_at_100") or {}).items() if values}


def assemble(
    release: Path,
    parts: tuple[Path, Path, Path, Path],
    cfg: RegisterConfig,
    *,
    alias: str = CHALLENGER,
    measured: dict[str, Any] | None = None,
    decided: dict[str, Any] | None = None,
) -> str:
    """Fills the empty folder `release`, seals it and returns its checksum. parts: what export, index, augment
    and label wrote.
    """
    _export, _index, documents, samples = parts
    _collect(release, *parts, cfg)
    _fits(release, _index)
    facts = artifacts.read_json(release / layout.ENCODER)
    written = card.text(
        name=cfg.name,
        alias=alias,
        licence=cfg.licence,
        encoder=facts,
        data=_counted(documents, samples),
        recall=_recall(measured or {}),
        decided=decided or {"verdict": "promote", "reasons": []},
    )
    (release / layout.CARD).write_text(written, encoding="utf-8")
    if (release / layout.HUB).is_dir():
        mlmodel.write(release, width=int(facts["width"]))
    return layout.seal(release)


def _collect(
    release: Path, export: Path, built: Path, documents: Path, samples: Path, cfg: RegisterConfig
) -> None:
    for source in (*export.iterdir(), *built.iterdir()):
        if source.is_file() and not source.name.startswith(".") and source.name != TASK:
            shutil.copyfile(source, release / source.name)
        elif source.name in (layout.HUB, layout.HUB_DOCUMENTS):
            shutil.copytree(source, release / source.name)
    catalogue = artifacts.read(documents, records.DOCUMENTS)
    artifacts.write(release, records.DOCUMENTS, catalogue)
    # A release goes to many hands: only what several people typed goes with it.
    names = pairs.common(documents, cfg.min_users)
    kept = pairs.of(names, documents, samples, most=cfg.max_training_pairs)
    pq.write_table(kept, release / layout.TRAINING_PAIRS, compression="zstd")
    captions = (text.split(" | ")[0] for text in catalogue["text"].slice(0, cfg.probes).to_pylist())
    probes = list(dict.fromkeys([*names, *filter(None, captions)]))[: cfg.probes]
    vectors = [[round(float(x), 6) for x in row] for row in OnnxEncoder(release).encode(probes)]
    artifacts.write_json(release / layout.FINGERPRINT, {"queries": probes, "vectors": vectors})


def _fits(release: Path, built: Path) -> None:
    """An InputError where the index is not whole, or was made with another encoder or of other documents:
    such a release answers, and answers nonsense.
    """
    indexes.of_release(release)
    rows = artifacts.read(release, records.DOCUMENTS)
    source = index_stage.source_of(release, rows["doc_id"].to_pylist(), rows["text"].to_pylist())
    # An index of an older version does not say what it was made of.
    if artifacts.read_json(release / layout.INDEX_FACTS).get("source", source) != source:
        raise InputError(
            built, "made with another encoder or of other documents than those given: run `crops index` again"
        )


def _counted(documents: Path, samples: Path) -> dict[str, int]:
    """What the encoder was made from: documents, queries of the training days, pairs by perspective."""
    queries = artifacts.read(documents, records.QUERIES)
    by = Counter[str]()
    for _path, origins in artifacts.batches(samples, records.ORIGINS, columns=["perspective"]):
        by.update({r["values"]: r["counts"] for r in origins["perspective"].value_counts().to_pylist()})
    return {
        "documents": artifacts.read(documents, records.DOCUMENTS).num_rows,
        "queries of the training days": int(pc.sum(pc.equal(queries["split"], "train")).as_py() or 0),
        **{f"pairs: {name}": by[name] for name in sorted(by)},
    }
