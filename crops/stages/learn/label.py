"""Scored pairs to graded samples, the ladder, and the hierarchy that training takes."""

from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pyarrow as pa

from crops import labels, perspectives
from crops.config.label import LabelConfig
from crops.discriminator import calibrate
from crops.errors import InputError
from crops.stages.base import StageReport
from crops.tables import artifacts, grades, records


def run(
    scored: Path, out: Path, cfg: LabelConfig, *, truth: Path | None = None, judged: Path | None = None
) -> StageReport:
    """Writes samples, origins, dropped, knowledge and label.json. `scored`: discriminate's out; `truth`: only
    reported; `judged`: people's grades, which the ladder believes instead of θ for every label with at least
    cfg.judged_pairs of them.
    """
    rows = artifacts.read(scored, records.SCORED).to_pandas()
    if not (rows["kept"] & rows["perspective"].isin(perspectives.names(positive=True))).any():
        raise InputError(
            scored / "scored",
            f"no positive pair is kept: none of {', '.join(perspectives.names(positive=True))}",
        )
    samples, origin = labels.assign(rows, cfg.labels), labels.origins(rows)
    dropped = labels.origins(rows, kept=False)
    rows = rows.assign(label=rows["perspective"].map(cfg.labels))
    rows = rows[rows["kept"]].drop_duplicates(["query", "doc_id", "perspective"])
    estimated = _in_own_mix(rows[rows["theta"].notna()], scored)
    estimated = estimated.assign(margin=_margins(estimated["perspective"], scored))
    by_perspective = _ladder(estimated, "perspective")
    # θ learns from clicks: what it says of texts that no log ever held tells nothing of how relevant their
    # label is.
    final = _as_trained(
        estimated[~estimated["perspective"].isin(perspectives.names(synthetic=True))], samples
    )
    by_label = _ladder(final, "label")
    people = _by_grades(rows, samples, grades.read(judged))
    trusted = {label: step for label, step in people["label"].items() if step.pairs >= cfg.judged_pairs}
    by_label |= trusted
    measured = labels.choose(
        by_label,
        min_share=cfg.min_anchor_share,
        uncertain=cfg.uncertain_share,
        anchor_min=cfg.anchor_min,
        judged=trusted,
        labels=cfg.labels,
    )
    least = min(cfg.labels.values())
    paper = labels.Hierarchy((least,), f"the paper's form: anchors >= {least}", measured.merged)
    chosen = paper if cfg.hierarchy == "paper" else measured
    graded = _by_grades(rows, samples, grades.read(truth))
    shares: dict[str, dict | None] = {
        "theta": _shares(by_label),
        "theta_by_perspective": _shares(by_perspective),
    }
    for name, steps in (("truth", graded), ("judged", people)):
        shares |= {
            name: _shares(steps["label"]) or None,
            f"{name}_by_perspective": _shares(steps["perspective"]) or None,
        }
    hierarchy = {
        "labels": dict(cfg.labels),
        "anchor_min_candidates": list(chosen.anchor_min_candidates),
        "reason": chosen.reason,
        "chosen_by": cfg.hierarchy,
        "judged_labels": sorted(trusted),
        "indistinct": [list(pair) for pair in chosen.merged],
    }
    flat = {label: step.share for label, step in by_label.items()}
    with artifacts.replacing(out) as folder:
        artifacts.write(folder, records.SAMPLES, pa.Table.from_pandas(samples, preserve_index=False))
        artifacts.write(folder, records.ORIGINS, pa.Table.from_pandas(origin, preserve_index=False))
        artifacts.write(folder, records.DROPPED, pa.Table.from_pandas(dropped, preserve_index=False))
        artifacts.write(folder, records.KNOWLEDGE, artifacts.read(scored, records.KNOWLEDGE))
        artifacts.write_json(folder / "label.json", {"ladder": flat, "rungs": shares, "hierarchy": hierarchy})
    counts = {
        f"label_{label}": int(n)
        for label, n in samples["label"].value_counts().sort_index(ascending=False).items()
    }
    numbers = {
        "samples": len(samples),
        **counts,
        **{f"relevant_share_{label}": share for label, share in flat.items()},
    }
    return StageReport(numbers=numbers, notes=(chosen.reason,))


def _shares(rungs: dict[str, labels.Rung]) -> dict[str, dict[str, float]]:
    return {name: asdict(step) for name, step in rungs.items()}


def _ladder(estimated: pd.DataFrame, column: str) -> dict[str, labels.Rung]:
    theta, margin = estimated["theta"].to_numpy(float), estimated["margin"].to_numpy(float)
    return labels.ladder(theta, estimated[column].to_numpy(), margin)


def _margins(perspective: pd.Series, scored: Path) -> pd.Series:
    """By how much θ may be off for each row beyond the chance of the sample: where the log judges pairs of
    the perspective, by how far it disagrees with them; in any case by θ's error on held-out judged pairs.
    """
    path = scored / "discriminate.json"
    facts = artifacts.read_json(path) if path.exists() else {}
    margins = {name: row["margin"] for name, row in facts.get("judged", {}).items()}
    return perspective.map(margins).fillna(0.0).clip(lower=facts.get("ece", 0.0))


def _as_trained(rows: pd.DataFrame, samples: pd.DataFrame) -> pd.DataFrame:
    """One row per pair, under the label that it is trained with: a pair both clicked and skipped says nothing
    about label 3.
    """
    final = rows.merge(samples[["query", "doc_id", "label"]], on=["query", "doc_id", "label"])
    return final.drop_duplicates(["query", "doc_id"])


def _in_own_mix(estimated: pd.DataFrame, scored: Path) -> pd.DataFrame:
    """θ of what the engine only considered, in the mix that its stages really have: far fewer are relevant
    there than in the pairs that θ was calibrated on, while both kinds look as they did there. Positives keep
    θ as the gate saw it.
    """
    facts = scored / "discriminate.json"
    prior = artifacts.read_json(facts).get("prior") if facts.exists() else None
    if prior is None:
        return estimated
    moved = estimated.copy()
    for perspective in set(estimated["perspective"]) - set(perspectives.names(positive=True)):
        own = estimated["perspective"] == perspective
        moved.loc[own, "theta"] = calibrate.to_own_mix(estimated.loc[own, "theta"].to_numpy(), prior)
    return moved


def _by_grades(
    decided: pd.DataFrame, samples: pd.DataFrame, graded: grades.Grades | None
) -> dict[str, dict[str, labels.Rung]]:
    """The ladder by grades, per label as trained and per perspective; empty without grades."""
    if graded is None:
        return {"label": {}, "perspective": {}}
    # The world's truth knows the catalogue only; people may have judged what an LLM wrote as well.
    pairs = (
        decided[~decided["perspective"].isin(perspectives.names(synthetic=True))]
        if graded.complete
        else decided
    )

    def ladder(rows: pd.DataFrame, column: str) -> dict[str, labels.Rung]:
        return labels.ladder(graded.relevant(rows["query"], rows["doc_id"]), rows[column].to_numpy())

    return {
        "label": ladder(_as_trained(pairs, samples), "label"),
        "perspective": ladder(pairs, "perspective"),
    }
