"""Scored pairs to graded samples, the ladder, and the hierarchy that training takes."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from crops import labels, records
from crops.config.label import LabelConfig
from crops.discriminator import calibrate
from crops.errors import InputError
from crops.io import artifacts
from crops.stages.base import StageReport


def run(scored: Path, out: Path, cfg: LabelConfig, *, truth: Path | None = None) -> StageReport:
    """Writes samples, origins, knowledge and label.json; `scored` is discriminate's out, `truth` is only reported."""
    rows = artifacts.read(scored, records.SCORED).to_pandas()
    if not (rows["kept"] & rows["perspective"].isin(records.POSITIVE_PERSPECTIVES)).any():
        raise InputError(scored / "scored", "no positive pair is kept: neither click, reformulation, feed nor knowledge")
    samples, origin = labels.assign(rows, cfg.labels), labels.origins(rows)
    rows = rows.assign(label=rows["perspective"].map(cfg.labels))
    rows = rows[rows["kept"]].drop_duplicates(["query", "doc_id", "perspective"])
    asked = _in_own_mix(rows[rows["theta"].notna()], scored)
    by_perspective = labels.ladder(asked["theta"].to_numpy(float), asked["perspective"].to_numpy())
    # θ learns from clicks: what it says of texts that no log ever held tells nothing of how relevant label 4 is.
    judged = _as_trained(asked[asked["perspective"] != "knowledge"], samples)
    by_label = labels.ladder(judged["theta"].to_numpy(float), judged["label"].to_numpy())
    found = labels.choose(by_label, min_share=cfg.min_anchor_share, uncertain=cfg.uncertain_share)
    paper = labels.Hierarchy((1,), "the paper's form: anchors >= 1", found.merged)
    chosen = paper if cfg.hierarchy == "paper" else found
    known = _truth(rows, samples, truth)
    shares = {"theta": _shares(by_label), "theta_by_perspective": _shares(by_perspective), **known}
    hierarchy = {
        "labels": dict(cfg.labels), "anchor_min_candidates": list(chosen.anchor_min_candidates), "reason": chosen.reason,
        "chosen_by": cfg.hierarchy, "indistinct": [list(pair) for pair in chosen.merged],
    }  # fmt: skip
    flat = {label: step.share for label, step in by_label.items()}
    with artifacts.replacing(out) as folder:
        artifacts.write(folder, records.SAMPLES, pa.Table.from_pandas(samples, preserve_index=False))
        artifacts.write(folder, records.ORIGINS, pa.Table.from_pandas(origin, preserve_index=False))
        artifacts.write(folder, records.KNOWLEDGE, artifacts.read(scored, records.KNOWLEDGE))
        artifacts.write_json(folder / "label.json", {"ladder": flat, "rungs": shares, "hierarchy": hierarchy})
    counts = {f"label_{label}": int(n) for label, n in samples["label"].value_counts().sort_index(ascending=False).items()}
    numbers = {"samples": len(samples), **counts, **{f"relevant_share_{label}": share for label, share in flat.items()}}
    return StageReport(numbers=numbers, notes=(chosen.reason,))


def _shares(rungs: dict[str, labels.Rung]) -> dict[str, dict[str, float]]:
    return {name: asdict(step) for name, step in rungs.items()}


def _as_trained(rows: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """One row per pair under the label it is trained with: a pair both clicked and skipped says nothing of label 3."""
    final = rows.merge(samples[["query", "doc_id", "label"]], on=["query", "doc_id", "label"])
    return final.drop_duplicates(["query", "doc_id"])


def _in_own_mix(asked: pd.DataFrame, scored: Path) -> pd.DataFrame:
    """θ of what the engine only considered, in the mix that its stages really have: far fewer are relevant there than in the
    pairs that θ was calibrated on, while both kinds look as they did there. Positives keep θ as the gate saw it."""
    about = scored / "discriminate.json"
    prior = artifacts.read_json(about).get("prior") if about.exists() else None
    if prior is None:
        return asked
    moved = asked.copy()
    for perspective in set(asked["perspective"]) - set(records.POSITIVE_PERSPECTIVES):
        own = asked["perspective"] == perspective
        moved.loc[own, "theta"] = calibrate.to_own_mix(asked.loc[own, "theta"].to_numpy(), prior)
    return moved


def _truth(kept: pd.DataFrame, samples: pd.DataFrame, truth: Path | None) -> dict[str, Any]:
    """The ladder by truth, where the log has it; knowledge has no catalogue id and is left out."""
    if truth is None or not artifacts.exists(truth, records.RELEVANCE):
        return {"truth": None, "truth_by_perspective": None}
    grades = artifacts.read(truth, records.RELEVANCE).to_pandas().rename(columns={"video_id": "doc_id"})
    pairs = kept[(kept["perspective"] != "knowledge") & kept["query"].isin(set(grades["query"]))]

    def shares(rows: pd.DataFrame, column: str) -> dict[str, dict[str, float]]:
        joined = rows.merge(grades, how="left", on=["query", "doc_id"])
        relevant = (joined["grade"].fillna(0) >= records.RELEVANT_GRADE).to_numpy(np.float64)
        return _shares(labels.ladder(relevant, joined[column].to_numpy()))

    return {"truth": shares(_as_trained(pairs, samples), "label"), "truth_by_perspective": shares(pairs, "perspective")}
