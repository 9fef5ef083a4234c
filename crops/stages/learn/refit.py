"""The last fit: the chosen challenger trained anew on all days, so that what is released knows the newest
one.

Nothing is chosen here, and no figure of a report comes from here: system, hierarchy, α, θ and length are
those of the training that never saw the held-out days. Only an untouched share of the newest pairs is kept
from this training too, to see whether it went wrong.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from crops import gate, labels, perspectives
from crops.config.augment import AugmentConfig
from crops.config.discriminate import DiscriminateConfig
from crops.config.label import LabelConfig
from crops.config.train import TrainConfig
from crops.evaluation import metrics
from crops.release import layout
from crops.retriever import encoder as encoders
from crops.retriever import train as retriever
from crops.retriever.systems import CHALLENGER, SYSTEMS
from crops.stages.base import StageReport
from crops.stages.learn import discriminate, label, train
from crops.stages.learn.inputs import inputs_of
from crops.stages.logs import augment
from crops.tables import artifacts, records

# Of the held-out days' queries the share whose new pairs stay untouched; no fewer than can tell anything, and
# no more than half.
UNTOUCHED, MIN_QUERIES, MOST = 0.1, 30, 0.5
MAX_LOSS = 0.02  # as of the gate's guardrails
DRAWS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of the stages that are done again."""

    augment: AugmentConfig
    discriminate: DiscriminateConfig
    label: LabelConfig
    train: TrainConfig

    @classmethod
    def from_json(cls, augment: str, discriminate: str, label: str, train: str) -> Self:
        """For the KFP component, which gets each as one JSON string."""
        return cls(
            augment=AugmentConfig.from_json(augment),
            discriminate=DiscriminateConfig.from_json(discriminate),
            label=LabelConfig.from_json(label),
            train=TrainConfig.from_json(train),
        )


def run(
    encoder: Path,
    logs: Path,
    documents: Path,
    out: Path,
    cfg: Settings,
    *,
    theta: Path,
    checkpoints: Path | None = None,
    registry: str | None = None,
    **gating: Any,
) -> StageReport:
    """Writes what `train` wrote into `encoder`, fitted anew on all days where the setting says so and the new
    one is not worse on what both have not seen. `logs`: what validate wrote; `documents`: augment's out;
    `registry`: has the release that the base may name; `gating`: what discriminate gets besides.
    """
    before = artifacts.read_json(encoder / train.FACTS)
    if not cfg.train.last_fit:
        return _kept(encoder, out, before)
    if not before["best_step"]:
        return _kept(encoder, out, before, "no step of the training was better than none")
    work = out.with_name(f".{out.name}.all_days")
    shutil.rmtree(work, ignore_errors=True)
    try:
        mined, samples, scored = work / "mined", work / "samples", work / "scored"
        augment.whole(logs, mined, cfg.augment)
        artifacts.write(mined, records.VALID_QR, _untouched(documents, seed=cfg.train.seed))
        discriminate.run(mined, scored, cfg.discriminate, theta=theta, **gating)
        label.run(scored, samples, cfg.label)
        with train.at_hand(cfg.train, registry) as settings:
            fitted, unseen, steps = _fitted(
                samples, mined, before, settings, checkpoints or work / "checkpoints"
            )
        check = _check(encoders.load(encoder), fitted, unseen, seed=cfg.train.seed)
        if not check.passed:
            return _kept(encoder, out, before, check.reason)
        day = artifacts.read_json(mined / "augment.json")["days"]["train"][-1]
        fit = {"released": True, "day": day, "steps": steps, "reason": check.reason}
        _write(fitted, out, before, fit)
        note = f"last fit: {steps} steps on all days until {day}; every figure is of the model before it"
        return StageReport(numbers={"refitted": 1, "steps": steps}, notes=(note, check.reason))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write(fitted: encoders.Encoder, out: Path, before: dict, fit: dict) -> None:
    with artifacts.replacing(out) as folder:
        saved = folder / "encoder"
        saved.mkdir()
        fitted.save(saved, system=before["system"])
        facts = artifacts.read_json(saved / layout.ENCODER)
        artifacts.write_json(saved / layout.ENCODER, {**facts, layout.LAST_FIT: fit["day"]})
        artifacts.write_json(folder / train.FACTS, {**before, layout.LAST_FIT: fit})


def _kept(encoder: Path, out: Path, before: dict, reason: str = "") -> StageReport:
    """The measured encoder as it is; `reason`: why, where a last fit was asked for."""
    with artifacts.replacing(out) as folder:
        shutil.copytree(encoder, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
        if reason:
            fit = {"released": False, "reason": reason}
            artifacts.write_json(folder / train.FACTS, {**before, layout.LAST_FIT: fit})
    notes = (f"last fit: the measured encoder is released; {reason}",) if reason else ()
    return StageReport(numbers={"refitted": 0}, notes=notes)


def _untouched(documents: Path, *, seed: int) -> pa.Table:
    """As valid_qr: the clicks and reformulations of the held-out days, of a random share of their queries,
    that no earlier day holds.
    """
    texts = artifacts.texts(documents)
    held_out = [artifacts.read(documents, table) for table in (records.TEST_CT, records.TEST_QR)]
    asked = {query for table in held_out for query in table["query"].to_pylist()}
    positive = {"perspective": perspectives.names(positive=True), "query": asked}
    earlier = _by_text(
        artifacts.read(documents, records.CANDIDATES, ["query", "video_id"], **positive), texts
    )
    pairs = sorted(
        {
            (row["query"], row["video_id"])
            for table in held_out
            for row in table.to_pylist()
            if row["video_id"] in texts and (row["query"], texts[row["video_id"]]) not in earlier
        }
    )
    queries = sorted({query for query, _video in pairs})
    count = int(min(max(UNTOUCHED * len(queries), MIN_QUERIES), MOST * len(queries)))
    drawn = set(np.random.default_rng(seed).permutation(np.array(queries, dtype=object))[:count].tolist())
    chosen = [{"query": q, "video_id": v, "later_query": ""} for q, v in pairs if q in drawn]
    return pa.Table.from_pylist(chosen, schema=records.VALID_QR.schema)


def _by_text(mined: pa.Table, texts: dict[str, str]) -> set[tuple[str, str | None]]:
    pairs = zip(mined["query"].to_pylist(), mined["video_id"].to_pylist(), strict=True)
    return {(query, texts.get(video)) for query, video in pairs}


def _fitted(
    samples: Path, mined: Path, before: dict, cfg: TrainConfig, checkpoints: Path
) -> tuple[encoders.Encoder, retriever.Validation, int]:
    """The encoder after as many passes as before, the pairs that it was kept from, and its steps."""
    graded = artifacts.read_json(samples / "label.json")["hierarchy"]["labels"]
    inputs = inputs_of(
        samples, mined, SYSTEMS[CHALLENGER], graded, weights=train.weights_of(cfg), home=samples.parent
    )
    lowest = labels.rank(before["hierarchy"]["anchor_min"], graded)
    passes = len(inputs.samples.queries) / before["queries"]
    plan = train.plan_of(cfg, cfg.loss, lowest, queries=before["queries"])
    horizon = max(1, round(plan.horizon * passes))
    steps = max(1, round(horizon * before["best_step"] / before["horizon"]))
    plan = replace(plan, steps=steps, horizon=horizon, check_every=max(1, steps))
    unchecked = replace(inputs, valid=replace(inputs.valid, queries=(), relevant=()))
    encoder, _history, _plan = train.fitted(
        cfg, unchecked, [plan], checkpoints=checkpoints, log=lambda _step, _values: None
    )
    return encoder, inputs.valid, steps


def _check(
    measured: encoders.Encoder, fitted: encoders.Encoder, unseen: retriever.Validation, *, seed: int
) -> gate.Check:
    """Whether the new one finds what neither has seen about as often: a guardrail against a fit that went
    wrong, not a measurement of the gain.
    """
    name = "untouched pairs of the held-out days"
    if not unseen.queries:
        return gate.no_loss(None, name, max_loss=MAX_LOSS, min_queries=MIN_QUERIES)
    ours, theirs = unseen.recalls(fitted), unseen.recalls(measured)
    gap = metrics.compare(ours, theirs, draws=DRAWS, seed=seed)
    difference = gate.Difference(name, gap["difference"], gap["low"], gap["high"], len(ours))
    return gate.no_loss(difference, name, max_loss=MAX_LOSS, min_queries=MIN_QUERIES)
