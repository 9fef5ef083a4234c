"""Trains θ on judged pairs of the log and calibrates it on held-out queries."""

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crops import accelerator, perspectives, progress
from crops.config.discriminate import DiscriminateConfig
from crops.config.train import TrainConfig
from crops.discriminator import calibrate, cascade, chance, joined, model, pairs, train
from crops.engines import session
from crops.errors import ConfigError, InputError
from crops.retriever import batch
from crops.retriever import encoder as encoders
from crops.retriever import train as retriever
from crops.retriever.errors import Diverged
from crops.stages.base import StageReport
from crops.stages.learn import train as train_stage
from crops.stages.learn.material import Material, drawn
from crops.tables import artifacts

# What the dual encoder learns from: the clicks of the engine's own results, as the baseline `clicks` does.
CLICKS = {p.name: p.label for p in (perspectives.CLICK, *perspectives.ENGINE)}

FACTS = "theta.json"


def run(logs: Path, candidates: Path, out: Path, cfg: DiscriminateConfig) -> StageReport:
    """Writes the models, their tokenizers and theta.json: calibration, reliability and what it was learnt
    from.
    """
    with artifacts.replacing(out) as folder:
        scratch = folder / ".scratch"
        with session.opened("duckdb", scratch=scratch) as house:
            material = drawn(house, logs, candidates, cfg)
        shutil.rmtree(scratch, ignore_errors=True)
        cross, dual, facts = fit(material, artifacts.texts(candidates), cfg)
        cross.save(folder)
        (folder / "dual").mkdir()
        dual.save(folder / "dual", system="theta")
        artifacts.write_json(folder / FACTS, facts)
    numbers = {name: facts[name] for name in ("pairs", "auc", "ece")}
    return StageReport(numbers=numbers, notes=tuple(facts["notes"]))


def load(folder: Path) -> joined.Discriminator:
    """What `run` wrote."""
    facts = artifacts.read_json(folder / FACTS)
    calibration = calibrate.Calibration(
        tuple(facts["weights"][name] for name in joined.FEATURES),
        facts["offset"],
        facts["prior"],
        _by(facts["shifts"]),
    )
    chances = {name: chance.Chance(**entry) for name, entry in facts["chance"].items()}
    dual = encoders.load(folder / "dual").to(accelerator.device())
    levels = facts.get("cascade")
    return dataclasses.replace(
        _joined(model.load(folder), dual, calibration, chances),
        cascade=None if levels is None else cascade.of(levels["edges"]),
    )


def _by(shifts: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {name: entry["shift"] for name, entry in shifts.items()}


def held(
    judge: joined.Discriminator,
    asked: pd.DataFrame,
    perspective: str,
    texts: Mapping[str, str],
    *,
    mined: pd.DataFrame,
    usual: chance.Marginals | None = None,
) -> np.ndarray:
    """θ [N] as it holds for pairs of this perspective: against chance, where that is known of it, else by
    their texts and shifted.

    asked  (query, doc_id, theta by the texts alone, nearest)
    mined  (query, doc_id, support) of all pairs of the perspective, whose events count for those of `asked`;
           a pair that is not among them is one event
    usual  those of the perspective, where `mined` is only what it has of the queries of `asked`
    """
    against = judge.chance.get(perspective)
    if against is None or (mined.empty and usual is None):
        return judge.calibration.shifted(asked["theta"].to_numpy(float), perspective)
    pairs = chance.gathered(mined)
    support = asked[["query", "doc_id"]].merge(pairs, how="left", on=["query", "doc_id"])["support"]
    whole = asked.assign(support=support.fillna(1).to_numpy())
    return against(chance.evidence(whole, texts, usual or chance.marginals(pairs)))


def _joined(
    cross: model.CrossEncoder,
    dual: encoders.Encoder,
    calibration: calibrate.Calibration = joined.UNCALIBRATED,
    chances: Mapping[str, chance.Chance] | None = None,
) -> joined.Discriminator:
    return joined.Discriminator(
        cross,
        lambda texts, kind: dual.encode(texts, kind=kind),
        float(dual.log_tau.detach().exp()),
        calibration,
        chances or {},
    )


def fit(
    material: Material, texts: dict[str, str], cfg: DiscriminateConfig
) -> tuple[model.CrossEncoder, encoders.Encoder, dict[str, Any]]:
    """The two encoders of θ, and theta.json: how they are joined and what is known of the result."""
    everything, mined = material.judged, material.mined
    mix = sampled(everything, texts, cfg)
    apart = {q for q, is_held_out in zip(mix.queries, mix.held_out, strict=True) if is_held_out}
    cross, losses = _cross(mix, texts, cfg)
    held_out = mined["query"].isin(apart)
    dual, notes = _dual(mined[~held_out & mined["perspective"].isin(CLICKS)], texts, cfg)
    raw = _joined(cross, dual)
    calibration, levels, facts = _calibrated(raw, mix, material.logs, cfg)
    judged_apart = everything[everything["query"].isin(apart)]
    plain = dataclasses.replace(raw, calibration=calibration, cascade=levels)
    shifts = _shifts(plain, judged_apart, mined[held_out], texts)
    chances = _chances(plain, material, apart, texts, cfg)
    shifted = dataclasses.replace(calibration, shifts=_by(shifts))
    whole = dataclasses.replace(plain, calibration=shifted, chance=chances)
    facts |= {
        "judged": _agreements(whole, judged_apart, material, texts),
        "chance": {name: dataclasses.asdict(each) for name, each in chances.items()},
        "base": cfg.base,
        "pairs": len(mix.relevant),
        "losses": losses,
        "shifts": shifts,
        "notes": material.notes + notes,
        "mix": {"positive": int(mix.relevant.sum()), "negative": int((1 - mix.relevant).sum())},
        "weights": dict(zip(joined.FEATURES, calibration.weights, strict=True)),
        "offset": calibration.offset,
        "prior": calibration.prior,
    }
    return cross, dual, facts


def sampled(rows: pd.DataFrame, texts: dict[str, str], cfg: DiscriminateConfig) -> pairs.Judged:
    """The balanced mix that θ is trained and calibrated on; see `pairs.sample`."""
    return pairs.sample(
        rows["query"].tolist(),
        rows["doc_id"].tolist(),
        rows["relevant"].to_numpy(bool),
        texts,
        max_pairs=cfg.max_pairs,
        random_per_positive=cfg.random_per_positive,
        held_out_share=cfg.held_out_share,
        seed=cfg.seed,
    )


def _cross(
    mix: pairs.Judged, texts: dict[str, str], cfg: DiscriminateConfig
) -> tuple[model.CrossEncoder, list[float]]:
    corpus = [*sorted(texts.values()), *sorted(set(mix.queries))]
    encoder = model.build(cfg.base, corpus, max_tokens=cfg.max_tokens, seed=cfg.seed)
    with progress.bar(desc="discriminator", unit="step") as bar:

        def stepped(_step: int, steps: int, loss: float) -> None:
            bar.total = steps
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

        losses = train.fit(
            encoder,
            mix,
            epochs=cfg.epochs,
            batch=cfg.batch,
            learning_rate=cfg.learning_rate or model.learning_rate(cfg.base),
            seed=cfg.seed,
            progress=stepped,
        )
    return encoder, losses


def _dual(
    mined: pd.DataFrame, texts: dict[str, str], cfg: DiscriminateConfig
) -> tuple[encoders.Encoder, list[str]]:
    """The dual encoder after dual_steps on clicks; the untrained base if the clicks do not fill a batch."""
    rate, steps = cfg.dual_learning_rate, max(1, cfg.dual_steps)
    settings = TrainConfig.model_validate(
        {"base": cfg.base, "steps": steps, "check_every": steps, "seed": cfg.seed, "learning_rate": rate}
    )
    clicked = int(mined.loc[mined["perspective"] == perspectives.CLICK.name, "query"].nunique())
    dual = train_stage.encoder_of(settings, [*sorted(set(texts.values())), *sorted(set(mined["query"]))])
    if not cfg.dual_steps:
        return dual, []
    if clicked < settings.batch_queries:
        return dual, [
            f"θ: {clicked} queries with clicks are too few to train its dual encoder; it stays as it came"
        ]
    rows = [
        (q, texts[d], CLICKS[p])
        for q, d, p in zip(mined["query"], mined["doc_id"], mined["perspective"], strict=True)
        if p in CLICKS
    ]
    batches = batch.Batches(
        batch.pairs(rows),
        anchor_min=perspectives.CLICK.label,
        size=settings.batch_queries,
        positives=settings.positives,
        lower=settings.lower,
        seed=cfg.seed,
    )
    unchecked = retriever.Validation(queries=(), texts=(), relevant=())
    with tempfile.TemporaryDirectory(prefix="crops-theta-") as folder:
        plan = train_stage.plan_of(settings, "info_nce", perspectives.CLICK.label)
        try:
            retriever.fit(dual, batches, unchecked, plan, checkpoints=Path(folder))
        except Diverged as error:
            raise ConfigError(f"discriminate.dual_learning_rate is {plan.learning_rate}: {error}") from error
    return dual, []


def _calibrated(
    raw: joined.Discriminator, mix: pairs.Judged, logs: Path, cfg: DiscriminateConfig
) -> tuple[calibrate.Calibration, cascade.Cascade | None, dict[str, Any]]:
    """One half of the held-out queries fits the calibration and the cascade, the other half judges both."""
    places = np.flatnonzero(mix.held_out)
    features = raw.features([mix.queries[i] for i in places], [mix.texts[i] for i in places])
    relevant = mix.relevant[places]
    names = sorted({mix.queries[i] for i in places})
    first = {q: n % 2 == 0 for n, q in enumerate(names)}
    fits = np.array([first[mix.queries[i]] for i in places], dtype=bool)
    for half in (fits, ~fits):
        if len(set(relevant[half].tolist())) < 2:
            raise InputError(
                logs / "results",
                f"{len(names)} held-out queries with long plays or skips: too few to calibrate on",
            )
    calibration = calibrate.fit(features[fits], relevant[fits])
    theta, observed = calibration(features[~fits]), relevant[~fits]
    levels, told = None, None
    if cfg.cascade is not None:
        dual = features[:, joined.FEATURES.index("dual")]
        both = calibration(features[fits])
        levels = cascade.fit(dual[fits], both, relevant[fits], alpha=cfg.alpha, share=cfg.cascade)
        told = {"edges": cascade.edges(levels), **cascade.judged(levels, dual[~fits], theta)}
    return (
        calibration,
        levels,
        {
            "cascade": told,
            "held_out": len(places),
            "reliability": calibrate.reliability(theta, observed),
            "ece": round(calibrate.expected_error(theta, observed), 4),
            "auc": round(calibrate.auc(theta, observed), 4),
        },
    )


def _shifts(
    judge: joined.Discriminator, judged_apart: pd.DataFrame, mined: pd.DataFrame, texts: dict[str, str]
) -> dict[str, dict[str, float]]:
    """Per shifted perspective: what the log's own judgements on its held-out pairs say that θ is off by.

    All of them, not the balanced mix: their share of relevant pairs is what the shift is about.
    """
    shifts = {}
    for perspective in perspectives.names(shifted=True):
        own = mined.loc[mined["perspective"] == perspective, ["query", "doc_id"]].drop_duplicates()
        rows = judged_apart.merge(own, on=["query", "doc_id"])
        theta, _ = judge.read(rows["query"].tolist(), [texts[d] for d in rows["doc_id"]], {})
        by = calibrate.shift_of(theta, rows["relevant"].to_numpy(float))
        shifts[perspective] = {"shift": round(by, 4), "pairs": len(rows)}
    return shifts


def _chances(
    judge: joined.Discriminator,
    material: Material,
    apart: set[str],
    texts: dict[str, str],
    cfg: DiscriminateConfig,
) -> dict[str, chance.Chance]:
    """Per gated perspective what tells its pairs from chance; none for one with too few pairs.

    A pair that came from results may also be a click by mistake: `chance_shown` of its chance pairs are what
    the engine showed and nobody chose, of queries that θ's readers did not learn from.
    """
    chances, mined = {}, material.mined
    of_query = _clicked(mined, texts)
    idle = mined[(mined["perspective"] == perspectives.EXPOSED.name) & mined["query"].isin(apart)]
    for place, row in enumerate(p for p in perspectives.every() if p.gated):
        rng = np.random.default_rng([cfg.seed, place])
        every = chance.gathered(mined[mined["perspective"] == row.name])
        if len(every) < chance.MIN_PAIRS or every["query"].nunique() < chance.MIN_QUERIES:
            continue
        pairs = _some_queries(every, cfg.chance_pairs, rng)
        rounds = max(1, min(5, cfg.chance_pairs // len(pairs)))
        null = pd.concat([chance.repaired(pairs, rng) for _ in range(rounds)], ignore_index=True)
        kinds, weight = [pairs, null], np.ones(len(null))
        if row.table == perspectives.EXPOSED.table and len(idle) and cfg.chance_shown:
            shown = _some_queries(idle[["query", "doc_id", "support"]], cfg.chance_pairs, rng)
            kinds.append(shown)
            shares = (null, 1 - cfg.chance_shown), (shown, cfg.chance_shown)
            weight = np.concatenate([np.full(len(rows), share / len(rows)) for rows, share in shares])
        usual = material.usual[row.name]
        evidence = [_evidence(judge, rows, of_query, texts, usual) for rows in kinds]
        # How often it was shown says nothing: behind a mistake is what chance brings.
        for unchosen in evidence[2:]:
            drawn = evidence[1][rng.integers(0, len(evidence[1]), len(unchosen))]
            for name in ("support", "lift"):
                at = chance.EVIDENCE.index(name)
                unchosen[:, at] = drawn[:, at]
        chances[row.name] = chance.fit(evidence[0], np.concatenate(evidence[1:]), weight)
    return chances


def _clicked(mined: pd.DataFrame, texts: Mapping[str, str]) -> dict[str, list[str]]:
    return pairs.clicked(mined.assign(clicked=mined["perspective"] == perspectives.CLICK.name), texts)


def _evidence(
    judge: joined.Discriminator,
    pairs: pd.DataFrame,
    of_query: dict[str, list[str]],
    texts: dict[str, str],
    usual: chance.Marginals,
) -> np.ndarray:
    queries, read = pairs["query"].tolist(), [texts[d] for d in pairs["doc_id"]]
    theta, nearest = judge.read(queries, read, of_query)
    return chance.evidence(pairs.assign(theta=theta, nearest=nearest), texts, usual)


def _some_queries(pairs: pd.DataFrame, most: int, rng: np.random.Generator) -> pd.DataFrame:
    """All pairs of random queries, about `most` in all, in the order of `pairs`."""
    sizes = pairs.groupby("query").size()
    drawn = sizes.iloc[rng.permutation(len(sizes))]
    chosen = drawn.index[: max(1, int((drawn.cumsum() <= most).sum()))]
    return pairs[pairs["query"].isin(chosen)].reset_index(drop=True)


def _agreements(
    judge: joined.Discriminator, judged_apart: pd.DataFrame, material: Material, texts: dict[str, str]
) -> dict[str, dict[str, float | int]]:
    """Per gated perspective θ of its held-out pairs that were also shown for their query, against what people
    did with them there. Who skips a video once may still have wanted it: the share is on the low side.
    """
    agreed, mined = {}, material.mined
    of_query = _clicked(mined, texts)
    for name in perspectives.names(gated=True):
        own = mined[mined["perspective"] == name]
        asked = judged_apart.merge(chance.gathered(own)[["query", "doc_id"]], on=["query", "doc_id"])
        if asked.empty:
            continue
        theta, nearest = judge.read(asked["query"].tolist(), [texts[d] for d in asked["doc_id"]], of_query)
        read = asked.assign(theta=theta, nearest=nearest)
        theta = held(judge, read, name, texts, mined=own, usual=material.usual[name])
        agreed[name] = calibrate.agreement(
            theta, asked["relevant"].to_numpy(float), asked["query"].to_numpy(object)
        )
    return agreed
