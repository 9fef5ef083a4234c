"""Scored pairs to graded samples, the ladder, and the hierarchy that training takes."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import ibis.expr.types as ir
import pandas as pd
import pyarrow as pa

from crops import labels, perspectives
from crops.config.label import LabelConfig
from crops.discriminator import calibrate
from crops.engines import session
from crops.engines.warehouse import Warehouse
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
    with artifacts.replacing(out, inputs=[scored]) as folder:
        scratch = folder / ".scratch"
        with session.opened("duckdb", scratch=scratch) as house:
            report = _labelled(house, scored, folder, cfg, grades.read(truth), grades.read(judged))
        shutil.rmtree(scratch, ignore_errors=True)
    return report


def _labelled(
    house: Warehouse,
    scored: Path,
    folder: Path,
    cfg: LabelConfig,
    truth: grades.Grades | None,
    judged: grades.Grades | None,
) -> StageReport:
    rows = house.read(scored, records.SCORED)
    _check(house, rows, scored, cfg)
    samples = house.keep(labels.assign(rows, cfg.labels), "samples")
    decided = house.keep(_decided(rows, cfg.labels), "decided")
    estimated = _estimated(house, decided, samples, scored)
    by_perspective, by_label = _ladders(estimated, "theta", estimated["margin"])
    people = _by_grades(house, decided, samples, judged, "judged")
    graded = _by_grades(house, decided, samples, truth, "truth")
    trusted = {label: step for label, step in people[1].items() if step.pairs >= cfg.judged_pairs}
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
    shares: dict[str, dict | None] = {
        "theta": _shares(by_label),
        "theta_by_perspective": _shares(by_perspective),
    }
    for name, (of_perspective, of_label) in (("truth", graded), ("judged", people)):
        shares |= {name: _shares(of_label) or None, f"{name}_by_perspective": _shares(of_perspective) or None}
    hierarchy = {
        "labels": dict(cfg.labels),
        "anchor_min_candidates": list(chosen.anchor_min_candidates),
        "reason": chosen.reason,
        "chosen_by": cfg.hierarchy,
        "judged_labels": sorted(trusted),
        "indistinct": [list(pair) for pair in chosen.merged],
    }
    flat = {label: step.share for label, step in by_label.items()}
    for table, expr in (
        (records.SAMPLES, samples),
        (records.ORIGINS, labels.origins(rows)),
        (records.DROPPED, labels.origins(rows, kept=False)),
    ):
        house.write(expr, folder, table)
    artifacts.write(folder, records.KNOWLEDGE, artifacts.read(scored, records.KNOWLEDGE))
    artifacts.write_json(folder / "label.json", {"ladder": flat, "rungs": shares, "hierarchy": hierarchy})
    counts = {row["label"]: row["n"] for row in house.fetch(samples.group_by("label").agg(n=samples.count()))}
    numbers = {
        "samples": sum(counts.values()),
        **{f"label_{label}": counts[label] for label in sorted(counts, reverse=True)},
        **{f"relevant_share_{label}": share for label, share in flat.items()},
    }
    return StageReport(numbers=numbers, notes=(chosen.reason,))


def _check(house: Warehouse, rows: ir.Table, scored: Path, cfg: LabelConfig) -> None:
    kept = rows.filter(rows["kept"])
    counts = {r["perspective"]: r["n"] for r in house.fetch(kept.group_by("perspective").agg(n=kept.count()))}
    positives = perspectives.names(positive=True)
    if not counts.keys() & set(positives):
        raise InputError(scored / "scored", f"no positive pair is kept: none of {', '.join(positives)}")
    if unknown := sorted(counts.keys() - cfg.labels.keys()):
        raise InputError(
            scored / "scored", f"no label for perspective {unknown[0]!r}; labels: {dict(cfg.labels)}"
        )


def _shares(rungs: dict[str, labels.Rung]) -> dict[str, dict[str, float]]:
    return {name: asdict(step) for name, step in rungs.items()}


def _ladders(
    rows: pd.DataFrame, value: str, margins: pd.Series | None = None
) -> tuple[dict[str, labels.Rung], dict[str, labels.Rung]]:
    """By perspective, of all rows; and by label, of the one row of each pair that it is trained with."""

    def ladder(part: pd.DataFrame, column: str) -> dict[str, labels.Rung]:
        own = None if margins is None else margins[part.index].to_numpy(float)
        return labels.ladder(part[value].to_numpy(float), part[column].to_numpy(), own)

    return ladder(rows, "perspective"), ladder(rows[rows["final"]], "label")


def _decided(rows: ir.Table, graded: Mapping[str, int]) -> ir.Table:
    """(query, doc_id, perspective, label, theta) of the kept rows, each once: a reformulation has one for
    every later query.
    """
    kept = rows.filter(rows["kept"]).group_by("query", "doc_id", "perspective").agg(theta=rows["theta"].max())
    return kept.mutate(label=kept["perspective"].cases(*graded.items()).cast("int8"))


def _as_trained(rows: ir.Table, samples: ir.Table, counted: ir.BooleanValue | bool) -> ir.Table:
    """`rows` with the column `final`, true for one row per pair, of those that are `counted` under the label
    that it is trained with: a pair both clicked and skipped says nothing about label 3.
    """
    own = rows.filter(counted).semi_join(samples, ["query", "doc_id", "label"])
    first = own.group_by("query", "doc_id").agg(first=own["perspective"].min())
    both = rows.left_join(first, ["query", "doc_id"]).select(*rows.columns, "first")
    return both.mutate(final=(both["perspective"] == both["first"]).fill_null(False))


def _fetched(house: Warehouse, expr: ir.Table, *columns: str) -> pd.DataFrame:
    frame: pd.DataFrame = house.backend.to_pyarrow(expr.select(*columns)).to_pandas()
    return frame


def _estimated(house: Warehouse, decided: ir.Table, samples: ir.Table, scored: Path) -> pd.DataFrame:
    """(perspective, label, final, theta, margin) of what θ was asked of.

    What an LLM wrote is in no label: θ learns from clicks, and what it says of texts that no log ever held
    tells nothing of how relevant their label is.

    θ of what the engine only considered is in the mix that its stages really have: far fewer are relevant
    there than in the pairs that θ was calibrated on, while both kinds look as they did there. Positives keep
    θ as the gate saw it.

    margin  by how much θ may be off beyond the chance of the sample: where the log judges pairs of the
            perspective, by how far it disagrees with them; in any case by θ's error on held-out judged pairs
    """
    asked = decided.filter(decided["theta"].notnull())
    real = ~asked["perspective"].isin(perspectives.names(synthetic=True))
    columns = ("perspective", "label", "final", "theta")
    rows = _fetched(house, _as_trained(asked, samples, real), *columns)
    path = scored / "discriminate.json"
    facts = artifacts.read_json(path) if path.exists() else {}
    if (prior := facts.get("prior")) is not None:
        for perspective in set(rows["perspective"]) - set(perspectives.names(positive=True)):
            own = rows["perspective"] == perspective
            rows.loc[own, "theta"] = calibrate.to_own_mix(rows.loc[own, "theta"].to_numpy(), prior)
    margins = {name: row["margin"] for name, row in facts.get("judged", {}).items()}
    margin = rows["perspective"].map(margins).astype(float).fillna(0.0).clip(lower=facts.get("ece", 0.0))
    return rows.assign(margin=margin)


def _by_grades(
    house: Warehouse, decided: ir.Table, samples: ir.Table, graded: grades.Grades | None, name: str
) -> tuple[dict[str, labels.Rung], dict[str, labels.Rung]]:
    """The ladder by grades, per perspective and per label as trained; empty without grades."""
    if graded is None:
        return {}, {}
    table = house.put(pa.Table.from_pandas(graded.table, preserve_index=False), name)
    # The world's truth knows the catalogue only; people may have judged what an LLM wrote as well.
    if graded.complete:
        decided = decided.filter(~decided["perspective"].isin(perspectives.names(synthetic=True)))
    rows = graded.known(_as_trained(decided, samples, counted=True), table)
    return _ladders(_fetched(house, rows, "perspective", "label", "final", "relevant"), "relevant")
