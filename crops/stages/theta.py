"""Trains θ on judged pairs of the log and calibrates it on held-out queries."""

from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from crops import records
from crops.config.discriminate import DiscriminateConfig
from crops.discriminator import calibrate, model, pairs, score, train
from crops.errors import InputError
from crops.io import artifacts, warehouse
from crops.mining import queries
from crops.stages.base import StageReport


def run(logs: Path, candidates: Path, out: Path, cfg: DiscriminateConfig) -> StageReport:
    """Writes the model, its tokenizer and theta.json: calibration, reliability and what it was learnt from."""
    texts = {r["doc_id"]: r["text"] for r in artifacts.read(candidates, records.DOCUMENTS).to_pylist()}
    encoder, _calibration, about = fit(judged(logs, candidates, texts, cfg), logs, texts, cfg)
    with artifacts.replacing(out) as folder:
        save(folder, encoder, about)
    return StageReport(numbers={"pairs": about["pairs"], "auc": about["auc"], "ece": about["ece"]})


def save(folder: Path, encoder: model.CrossEncoder, about: dict[str, Any]) -> None:
    """Into an existing folder; `about` holds slope and offset of the calibration."""
    encoder.save(folder)
    artifacts.write_json(folder / "theta.json", about)


def load(folder: Path) -> tuple[model.CrossEncoder, calibrate.Calibration, dict[str, Any]]:
    """What `run` wrote."""
    about = artifacts.read_json(folder / "theta.json")
    return model.load(folder), calibrate.Calibration(about["slope"], about["offset"]), about


def judged(logs: Path, candidates: Path, texts: dict[str, str], cfg: DiscriminateConfig) -> pairs.Judged:
    """Judged pairs of the training days only."""
    last = artifacts.read_json(candidates / "augment.json")["days"]["train"][-1]
    with warehouse.opened("duckdb", scratch=candidates) as house:
        raw = house.read(logs, records.SEARCHES)
        searches = house.keep(queries.normalised(raw, house.keep(queries.spellings(raw), "spellings")), "normalised")
        searches = searches.filter(searches.date <= last).select("search_id", "query")
        videos = house.read(logs, records.VIDEOS).select("video_id", "duration_s")
        found = pairs.judged(searches, house.read(logs, records.RESULTS), videos, long_play_s=cfg.long_play_s)
        table = house.backend.to_pyarrow(found)
    relevant = table["relevant"].to_numpy(zero_copy_only=False).astype(bool)
    if not relevant.any() or relevant.all():
        raise InputError(logs / "results", "no long plays and skips side by side: the discriminator has nothing to learn from")
    return pairs.sample(
        table["query"].to_pylist(), table["video_id"].to_pylist(), relevant, texts, max_pairs=cfg.max_pairs,
        random_per_positive=cfg.random_per_positive, held_out_share=cfg.held_out_share, seed=cfg.seed,
    )  # fmt: skip


def fit(
    known: pairs.Judged, logs: Path, texts: dict[str, str], cfg: DiscriminateConfig
) -> tuple[model.CrossEncoder, calibrate.Calibration, dict[str, Any]]:
    """Encoder, calibration, and the numbers of both; `logs` only for errors."""
    corpus = [*sorted(texts.values()), *sorted(set(known.queries))]
    encoder = model.build(cfg.base, corpus, max_tokens=cfg.max_tokens, seed=cfg.seed)
    with tqdm(desc="discriminator", unit="step", disable=None) as bar:

        def progress(_step: int, steps: int, loss: float) -> None:
            bar.total = steps
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

        losses = train.fit(
            encoder, known, epochs=cfg.epochs, batch=cfg.batch, learning_rate=cfg.learning_rate, seed=cfg.seed, progress=progress
        )  # fmt: skip
    held = np.flatnonzero(known.held_out)
    # One half of the held-out queries fits the calibration, the other half judges it.
    logits = score.logits(encoder, [known.queries[i] for i in held], [known.texts[i] for i in held])
    relevant = known.relevant[held]
    names = sorted({known.queries[i] for i in held})
    first = {q: n % 2 == 0 for n, q in enumerate(names)}
    fits = np.array([first[known.queries[i]] for i in held], dtype=bool)
    for half in (fits, ~fits):
        if len(set(relevant[half].tolist())) < 2:
            raise InputError(logs / "results", f"{len(names)} held-out queries with long plays or skips: too few to calibrate on")
    calibration = calibrate.fit(logits[fits], relevant[fits])
    theta, observed = calibration(logits[~fits]), relevant[~fits]
    about = {
        "base": cfg.base, "pairs": len(known.relevant), "held_out": len(held), "losses": losses,
        "mix": {"positive": int(known.relevant.sum()), "negative": int((1 - known.relevant).sum())},
        "reliability": calibrate.reliability(theta, observed), "ece": round(calibrate.expected_error(theta, observed), 4),
        "auc": round(calibrate.auc(theta, observed), 4), "slope": calibration.slope, "offset": calibration.offset,
    }  # fmt: skip
    return encoder, calibration, about
