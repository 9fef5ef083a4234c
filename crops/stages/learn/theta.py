"""Trains θ on judged pairs of the log and calibrates it on held-out queries."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from crops import perspectives
from crops.config.discriminate import DiscriminateConfig
from crops.config.train import TrainConfig
from crops.discriminator import calibrate, joined, model, pairs, train
from crops.engines import session
from crops.errors import InputError
from crops.mining import queries
from crops.retriever import batch
from crops.retriever import encoder as encoders
from crops.retriever import train as retriever
from crops.stages.base import StageReport
from crops.stages.learn import train as train_stage
from crops.tables import artifacts, records

# What the dual encoder learns from: the clicks of the engine's own results, as the baseline `clicks` does.
CLICKS = {p.name: p.label for p in (perspectives.CLICK, *perspectives.ENGINE)}


def run(logs: Path, candidates: Path, out: Path, cfg: DiscriminateConfig) -> StageReport:
    """Writes the models, their tokenizers and theta.json: calibration, reliability and what it was learnt
    from.
    """
    texts = artifacts.texts(candidates)
    theta, dual, about = fit(logs, candidates, texts, cfg)
    with artifacts.replacing(out) as folder:
        save(folder, theta, dual, about)
    notes = tuple(about["notes"])
    return StageReport(
        numbers={"pairs": about["pairs"], "auc": about["auc"], "ece": about["ece"]}, notes=notes
    )


def save(folder: Path, theta: joined.Discriminator, dual: encoders.Encoder, about: dict[str, Any]) -> None:
    """Into an existing folder; `about` holds the calibration."""
    theta.cross.save(folder)
    (folder / "dual").mkdir()
    dual.save(folder / "dual", system="theta")
    artifacts.write_json(folder / "theta.json", about)


def load(folder: Path) -> tuple[joined.Discriminator, encoders.Encoder, dict[str, Any]]:
    """What `run` wrote."""
    about = artifacts.read_json(folder / "theta.json")
    dual = encoders.load(folder / "dual")
    found = calibrate.Calibration(
        tuple(about["weights"][name] for name in joined.FEATURES),
        about["offset"],
        about["prior"],
        {name: entry["shift"] for name, entry in about["shifts"].items()},
    )
    return (
        joined.Discriminator(model.load(folder), _embed(dual), float(dual.log_tau.detach().exp()), found),
        dual,
        about,
    )


def fit(
    logs: Path, candidates: Path, texts: dict[str, str], cfg: DiscriminateConfig
) -> tuple[joined.Discriminator, encoders.Encoder, dict[str, Any]]:
    """The calibrated θ, its dual encoder, and the numbers of both."""
    everything = judged(logs, candidates, long_play_s=cfg.long_play_s)
    known = sampled(everything, texts, cfg)
    apart = {q for q, held in zip(known.queries, known.held_out, strict=True) if held}
    cross, losses = _cross(known, texts, cfg)
    mined = artifacts.read(candidates, records.CANDIDATES, ["query", "video_id", "perspective"]).to_pandas()
    mined = mined[
        mined["video_id"].isin(texts.keys())
        & (mined["query"].isin(apart) | mined["perspective"].isin(CLICKS))
    ]
    dual, notes = _dual(mined[~mined["query"].isin(apart)], texts, cfg)
    raw = joined.Discriminator(cross, _embed(dual), float(dual.log_tau.detach().exp()))
    calibration, about = _calibrated(raw, known, logs)
    shifts = _shifts(raw, calibration, everything[everything["query"].isin(apart)], mined, texts)
    about |= {
        "base": cfg.base,
        "pairs": len(known.relevant),
        "losses": losses,
        "shifts": shifts,
        "notes": notes,
        "mix": {"positive": int(known.relevant.sum()), "negative": int((1 - known.relevant).sum())},
        "weights": dict(zip(joined.FEATURES, calibration.weights, strict=True)),
        "offset": calibration.offset,
        "prior": calibration.prior,
    }
    found = calibrate.Calibration(
        calibration.weights,
        calibration.offset,
        calibration.prior,
        {name: entry["shift"] for name, entry in shifts.items()},
    )
    return joined.Discriminator(cross, raw.embed, raw.temperature, found), dual, about


def judged(logs: Path, candidates: Path, *, long_play_s: float) -> pd.DataFrame:
    """(query, video_id, relevant bool) of the training days only; see `pairs.judged`."""
    last = artifacts.read_json(candidates / "augment.json")["days"]["train"][-1]
    with session.opened("duckdb", scratch=candidates) as house:
        raw = house.read(logs, records.SEARCHES)
        searches = house.keep(
            queries.normalised(raw, house.keep(queries.spellings(raw), "spellings")), "normalised"
        )
        searches = searches.filter(searches.date <= last).select("search_id", "query")
        videos = house.read(logs, records.VIDEOS).select("video_id", "duration_s")
        found = pairs.judged(searches, house.read(logs, records.RESULTS), videos, long_play_s=long_play_s)
        table = house.backend.to_pyarrow(found)
    relevant = table["relevant"].to_numpy(zero_copy_only=False).astype(bool)
    if not relevant.any() or relevant.all():
        raise InputError(
            logs / "results",
            "no long plays and skips side by side: the discriminator has nothing to learn from",
        )
    rows: pd.DataFrame = table.to_pandas()
    return rows


def sampled(rows: pd.DataFrame, texts: dict[str, str], cfg: DiscriminateConfig) -> pairs.Judged:
    """The balanced mix that θ is trained and calibrated on; see `pairs.sample`."""
    return pairs.sample(
        rows["query"].tolist(),
        rows["video_id"].tolist(),
        rows["relevant"].to_numpy(bool),
        texts,
        max_pairs=cfg.max_pairs,
        random_per_positive=cfg.random_per_positive,
        held_out_share=cfg.held_out_share,
        seed=cfg.seed,
    )


def _cross(
    known: pairs.Judged, texts: dict[str, str], cfg: DiscriminateConfig
) -> tuple[model.CrossEncoder, list[float]]:
    corpus = [*sorted(texts.values()), *sorted(set(known.queries))]
    encoder = model.build(cfg.base, corpus, max_tokens=cfg.max_tokens, seed=cfg.seed)
    with tqdm(desc="discriminator", unit="step", disable=None) as bar:

        def progress(_step: int, steps: int, loss: float) -> None:
            bar.total = steps
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

        losses = train.fit(
            encoder,
            known,
            epochs=cfg.epochs,
            batch=cfg.batch,
            learning_rate=cfg.learning_rate,
            seed=cfg.seed,
            progress=progress,
        )
    return encoder, losses


def _dual(
    mined: pd.DataFrame, texts: dict[str, str], cfg: DiscriminateConfig
) -> tuple[encoders.Encoder, list[str]]:
    """Trained on clicks for dual_steps; the base as it is where there are too few clicks to fill a batch."""
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
        for q, d, p in zip(mined["query"], mined["video_id"], mined["perspective"], strict=True)
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
    with tempfile.TemporaryDirectory(prefix="crops-theta-") as place:
        retriever.fit(
            dual,
            batches,
            unchecked,
            train_stage.plan_of(settings, "info_nce", perspectives.CLICK.label),
            checkpoints=Path(place),
        )
    return dual, []


def _embed(dual: encoders.Encoder) -> joined.Embed:
    return lambda texts, kind: dual.encode(texts, kind=kind)


def _calibrated(
    raw: joined.Discriminator, known: pairs.Judged, logs: Path
) -> tuple[calibrate.Calibration, dict[str, Any]]:
    """One half of the held-out queries fits the calibration, the other half judges it."""
    held = np.flatnonzero(known.held_out)
    features = raw.features([known.queries[i] for i in held], [known.texts[i] for i in held])
    relevant = known.relevant[held]
    names = sorted({known.queries[i] for i in held})
    first = {q: n % 2 == 0 for n, q in enumerate(names)}
    fits = np.array([first[known.queries[i]] for i in held], dtype=bool)
    for half in (fits, ~fits):
        if len(set(relevant[half].tolist())) < 2:
            raise InputError(
                logs / "results",
                f"{len(names)} held-out queries with long plays or skips: too few to calibrate on",
            )
    calibration = calibrate.fit(features[fits], relevant[fits])
    theta, observed = calibration(features[~fits]), relevant[~fits]
    return calibration, {
        "held_out": len(held),
        "reliability": calibrate.reliability(theta, observed),
        "ece": round(calibrate.expected_error(theta, observed), 4),
        "auc": round(calibrate.auc(theta, observed), 4),
    }


def _shifts(
    raw: joined.Discriminator,
    calibration: calibrate.Calibration,
    judged_apart: pd.DataFrame,
    mined: pd.DataFrame,
    texts: dict[str, str],
) -> dict[str, dict[str, float]]:
    """Per shifted perspective: what the log's own judgements on its held-out pairs say that θ is off by.

    All of them, not the balanced mix: their share of relevant pairs is what the shift is about.
    """
    found = {}
    for perspective in perspectives.names(shifted=True):
        own = mined.loc[mined["perspective"] == perspective, ["query", "video_id"]].drop_duplicates()
        rows = judged_apart.merge(own, on=["query", "video_id"])
        theta = calibration(raw.features(rows["query"].tolist(), [texts[d] for d in rows["video_id"]]))
        by = calibrate.shift_of(theta, rows["relevant"].to_numpy(float))
        found[perspective] = {"shift": round(by, 4), "pairs": len(rows)}
    return found
