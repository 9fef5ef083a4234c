"""Trained encoder to ONNX, checked against torch."""

import statistics
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from crops.config.export import ExportConfig
from crops.discriminator import export as reranking
from crops.discriminator import rerank, score
from crops.errors import InputError
from crops.release import layout
from crops.release.encoder import OnnxEncoder
from crops.release.reranker import OnnxReranker
from crops.retriever import encoder as encoders
from crops.retriever import export, hub
from crops.retriever.precision import FLOAT32
from crops.stages.base import StageReport
from crops.stages.learn import theta as thetas
from crops.stages.release import precision
from crops.tables import artifacts

# Where θ's cross-encoder is the one that is made here; measured on simulated logs (docs/method.md).
WORSE = (
    "re-ranker: θ's cross-encoder is the small one that is made where its base has none, and it ordered "
    "first results worse than the encoder alone; compare crops_reranked (evaluate.rerank) before you serve it"
)
PROBES = (
    "sourdough",
    "how to make bread at home",
    "",
    "東京 タワー",
    "a" * 400,
    "word " * 300,
    "🍞",
    "İstanbul ﬁne Straße",
    "<eos> <pad>",
    *(
        f"{word} {n}"
        for n in range(6)
        for word in ("funny cats", "learn guitar", "fix a flat tyre", "10 minute workout")
    ),
)


def run(
    encoder: Path, out: Path, cfg: ExportConfig, *, documents: Path | None = None, theta: Path | None = None
) -> StageReport:
    """Writes the encoder's files and export.json; an InputError if ONNX and torch differ, or if float16 or
    int8 cost too much.

    theta: what `crops theta` wrote, whose cross-encoder is the re-ranker, if the settings want one.
    documents: what `crops augment` wrote, whose queries tell; float32 does without.
    """
    if cfg.precision != FLOAT32 and documents is None:
        raise InputError(encoder, f"{cfg.precision} is tried on the log's queries: say --documents")
    if cfg.reranker and theta is None:
        raise InputError(encoder, "export.reranker is of θ: say --theta")
    source = encoder / "encoder" if (encoder / "encoder").is_dir() else encoder
    trained = encoders.load(source)
    if cfg.width is not None and trained.widths:
        trained.cut(cfg.width)
    with artifacts.replacing(out) as folder:
        export.write(trained, source, folder, opset=cfg.opset)
        if cfg.sentence_transformers:
            hub.write(trained, folder / layout.HUB)
            if trained.document is not None:
                hub.write(trained, folder / layout.HUB_DOCUMENTS, kind="document")
        texts = list(PROBES[: cfg.probes])
        difference = _difference(trained, OnnxEncoder(folder, threads=1), texts)
        if difference > cfg.max_difference:
            raise InputError(
                source, f"ONNX differs from torch by {difference:.2e}, allowed {cfg.max_difference:.0e}"
            )
        notes = []
        if cfg.reranker and theta is not None:
            difference = max(difference, _reranker(theta, trained, folder, cfg))
            notes += [WORSE] if artifacts.read_json(folder / layout.RERANKER)["small"] else []
        cost = None
        if cfg.precision != FLOAT32 and documents is not None:
            cost = precision.lower(folder, documents, cfg)
            notes.append(str(cost))
        encode_ms = _median_ms(OnnxEncoder(folder, threads=1))
        facts = {"max_difference": difference, "encode_ms": encode_ms}
        artifacts.write_json(folder / "export.json", facts | (asdict(cost) if cost else {}))
    return StageReport(numbers={**facts, "width": trained.width}, notes=tuple(notes))


def _difference(trained: encoders.Encoder, exported: OnnxEncoder, texts: list[str]) -> float:
    """Largest difference of an element over the towers: all texts at once, and one alone (another batch size
    and length).
    """
    kinds: tuple[encoders.Kind, ...] = ("query", "document")
    return max(
        float(np.abs(exported.encode(part, kind=kind) - trained.encode(part, kind=kind)).max())
        for kind in kinds
        for part in (texts, texts[:1])
    )


def _reranker(theta: Path, trained: encoders.Encoder, folder: Path, cfg: ExportConfig) -> float:
    """Writes the re-ranker, see `rerank.weights`. The largest difference of a logit to torch."""
    judge = thetas.load(theta)
    weights = rerank.weights(judge, float(trained.log_tau.detach().exp()))
    reranking.write(judge.cross, weights, folder, opset=cfg.opset)
    queries = list(PROBES[: cfg.probes])
    logits = OnnxReranker(folder).logits(queries, queries[::-1])
    difference = float(np.abs(logits - score.logits(judge.cross, queries, queries[::-1])).max())
    if difference > cfg.max_difference * max(1.0, float(np.abs(logits).max())):
        raise InputError(theta, f"ONNX differs from torch by {difference:.2e} in a logit")
    return difference


def _median_ms(encoder: OnnxEncoder) -> float:
    """Median of one query at a time on one thread."""
    times = []
    for n in range(30):
        started = time.perf_counter()
        encoder.encode([f"how to make bread {n}"])
        times.append((time.perf_counter() - started) * 1000)
    return round(statistics.median(times[5:]), 3)
