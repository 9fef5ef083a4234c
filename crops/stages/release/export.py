"""Trained encoder to ONNX, checked against torch."""

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from crops.config.export import ExportConfig
from crops.errors import InputError
from crops.release import layout
from crops.release.encoder import OnnxEncoder
from crops.retriever import encoder as encoders
from crops.retriever import export, hub
from crops.stages.base import StageReport
from crops.tables import artifacts

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


def run(encoder: Path, out: Path, cfg: ExportConfig) -> StageReport:
    """Writes the encoder's files and export.json; an InputError if ONNX and torch differ."""
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
        vectors = OnnxEncoder(folder, threads=1).encode(texts)
        difference = _difference(trained, OnnxEncoder(folder, threads=1), texts)
        if difference > cfg.max_difference:
            raise InputError(
                source, f"ONNX differs from torch by {difference:.2e}, allowed {cfg.max_difference:.0e}"
            )
        facts = {
            "max_difference": difference,
            "encode_ms": _median_ms(OnnxEncoder(folder, threads=1)),
            "int8_cosine": None,
        }
        if cfg.int8:
            facts["int8_cosine"] = _int8(folder, vectors, texts, cfg.int8_min_cosine)
        artifacts.write_json(folder / "export.json", facts)
    return StageReport(
        numbers={"max_difference": difference, "encode_ms": facts["encode_ms"] or 0.0, "width": trained.width}
    )


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


def _median_ms(encoder: OnnxEncoder) -> float:
    """Median of one query at a time on one thread."""
    times = []
    for n in range(30):
        started = time.perf_counter()
        encoder.encode([f"how to make bread {n}"])
        times.append((time.perf_counter() - started) * 1000)
    return round(statistics.median(times[5:]), 3)


def _int8(folder: Path, vectors: np.ndarray, texts: list[str], least: float) -> float:
    """Smallest cosine of int8 to float vectors; the int8 file stays only where it is at least `least`."""
    small = export.quantise(folder)
    with tempfile.TemporaryDirectory() as trial:
        for name in layout.ENCODER_FILES:
            source = small if name == layout.QUERY_ENCODER else folder / name
            shutil.copyfile(source, Path(trial) / name)
        cosine = float((OnnxEncoder(Path(trial)).encode(texts) * vectors).sum(axis=1).min())
    if cosine < least:
        small.unlink()
    return round(cosine, 4)
