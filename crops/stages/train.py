"""Samples to one trained dual encoder, at its best check on the last training day's reformulations."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch

from crops import records
from crops.config.train import TrainConfig
from crops.errors import ConfigError, InputError
from crops.io import artifacts
from crops.retriever import encoder as encoders
from crops.retriever import train
from crops.retriever.batch import Batches, Pairs, pairs
from crops.retriever.encoder import Encoder
from crops.stages.base import StageReport

SYSTEMS = ("clicks", "crops", "crops_paper", "crops_no_knowledge")
CLICKS_LABEL = {"click": 4, "exposed": 3, "ranked": 2, "filtered": 1}
Texts = dict[str, str]


def run(
    samples: Path, documents: Path, out: Path, cfg: TrainConfig, *, system: str = "crops", checkpoints: Path | None = None,
    log: train.Log | None = None,
) -> StageReport:  # fmt: skip
    """Trains `system` on `samples` (label's out) with texts and validation from `documents` (augment's out)."""
    if system not in SYSTEMS:
        raise ConfigError(f"system is {system!r}, expected one of {', '.join(SYSTEMS)}")
    texts: Texts = {r["doc_id"]: r["text"] for r in artifacts.read(documents, records.DOCUMENTS).to_pylist()}
    valid = _validation(documents, texts)
    held_out = {(r["query"], r["video_id"]) for r in artifacts.read(documents, records.VALID_QR).to_pylist()}
    data = pairs(_rows(samples, texts, system, held_out))
    asked = {r["query"] for r in artifacts.read(documents, records.QUERIES).to_pylist() if r["split"] == "train"}
    corpus = [*sorted(set(texts.values())), *sorted(asked)]  # the same base for every system
    key = hashlib.sha256(
        (cfg.model_dump_json() + system + repr((data, corpus[:1])) + str(samples.resolve())).encode()
    ).hexdigest()
    kept = (checkpoints or out.with_name(f".{out.name}.checkpoints")) / key[:12]
    best, history, first = _best(system, _firsts(samples, system), data, valid, cfg, corpus=corpus, kept=kept, log=log)
    with artifacts.replacing(out) as folder:
        (folder / "encoder").mkdir()
        best.save(folder / "encoder", system=system)
        hierarchy = {"anchor_min": first, "loss": _loss(system)}
        artifacts.write_json(folder / "train.json", {"system": system, "hierarchy": hierarchy, **history})
    shutil.rmtree(kept, ignore_errors=True)
    numbers = {"pairs": len(data.query), "queries": len(data.queries), "anchor_min": first}
    return StageReport(numbers={**numbers, "best_step": history["best_step"], "valid_recall_at_100": history["best_recall"]})


def _loss(system: str) -> str:
    return "info_nce" if system == "clicks" else "h_infonce"


def _firsts(samples: Path, system: str) -> list[int]:
    """Candidates of the lowest anchor label, best first."""
    fixed = {"clicks": [4], "crops_paper": [1]}
    chosen = fixed.get(system) or artifacts.read_json(samples / "label.json")["hierarchy"]["anchor_min_candidates"]
    return [int(first) for first in chosen]


def _best(
    system: str, firsts: list[int], data: Pairs, valid: train.Validation, cfg: TrainConfig, *, corpus: list[str], kept: Path,
    log: train.Log | None,
) -> tuple[Encoder, dict[str, Any], int]:  # fmt: skip
    """Probes the candidates when there are several, then goes on with the best from its probe's last checkpoint."""

    def trained(first: int, steps: int) -> tuple[Encoder, dict[str, Any]]:
        encoder = encoders.from_base(
            cfg.base, corpus, pooling=cfg.pooling, max_tokens=cfg.max_tokens, shared=cfg.shared_towers, seed=cfg.seed,
            temperature=cfg.temperature,
        ).to("cuda" if torch.cuda.is_available() else "cpu")  # fmt: skip
        if cfg.gradient_checkpointing:
            encoder.query.gradient_checkpointing_enable()
        batches = Batches(
            data, anchor_min=first, size=cfg.batch_queries, positives=cfg.positives, lower=cfg.lower, seed=cfg.seed
        )  # fmt: skip
        plan = train.Plan(
            loss=_loss(system), first=first, steps=steps, check_every=cfg.check_every, patience=cfg.patience, seed=cfg.seed,
            learning_rate=cfg.learning_rate, temperature_rate=cfg.temperature_rate, weight_decay=cfg.weight_decay,
        )  # fmt: skip
        return encoder, train.fit(encoder, batches, valid, plan, checkpoints=kept / f"anchors-{first}", log=log)

    if len(firsts) > 1:
        probes = {first: trained(first, min(cfg.probe_steps, cfg.steps))[1]["best_recall"] for first in firsts}
        firsts = [max(firsts, key=lambda first: (probes[first], -firsts.index(first)))]
    encoder, history = trained(firsts[0], cfg.steps)
    return encoder, history, firsts[0]


def _rows(samples: Path, texts: Texts, system: str, held_out: set[tuple[str, str]]) -> list[tuple[str, str, int]]:
    """(query, text, label) of what `system` may see, without the validation pairs."""
    known = dict(texts)
    if artifacts.exists(samples, records.KNOWLEDGE):
        known |= {r["doc_id"]: r["text"] for r in artifacts.read(samples, records.KNOWLEDGE).to_pylist()}
    labels = {(r["query"], r["doc_id"]): int(r["label"]) for r in artifacts.read(samples, records.SAMPLES).to_pylist()}
    if system in ("clicks", "crops_no_knowledge"):
        origins = [r for r in artifacts.read(samples, records.ORIGINS).to_pylist() if (r["query"], r["doc_id"]) in labels]
        if system == "clicks":
            seen = [
                ((r["query"], r["doc_id"]), CLICKS_LABEL[r["perspective"]]) for r in origins if r["perspective"] in CLICKS_LABEL
            ]
            labels = dict(sorted(seen, key=lambda entry: entry[1]))  # the highest comes last and stays
        else:
            allowed = {(r["query"], r["doc_id"]) for r in origins if r["perspective"] != "knowledge"}
            labels = {pair: label for pair, label in labels.items() if pair in allowed}
    if missing := next((d for _, d in labels if d not in known), None):
        raise InputError(samples / "samples", f"doc_id {missing!r} is neither in documents nor in knowledge")
    return [(q, known[d], label) for (q, d), label in labels.items() if (q, d) not in held_out]


def _validation(documents: Path, texts: Texts) -> train.Validation:
    relevant: dict[str, set[int]] = {}
    ids = {doc_id: row for row, doc_id in enumerate(sorted(texts))}
    for r in artifacts.read(documents, records.VALID_QR).to_pylist():
        if r["video_id"] in ids:
            relevant.setdefault(r["query"], set()).add(ids[r["video_id"]])
    if not relevant:
        raise InputError(documents / "valid_qr", "holds no pair; training has nothing to choose its best checkpoint by")
    queries = sorted(relevant)
    wanted = tuple(frozenset(relevant[q]) for q in queries)
    return train.Validation(queries=tuple(queries), texts=tuple(texts[d] for d in sorted(texts)), relevant=wanted)
