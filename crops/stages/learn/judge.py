"""Human judgement: a blinded sample out, as a page and a sheet; grades of one or more raters back in."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from crops import judgement, labels
from crops.config.judge import JudgeConfig
from crops.errors import InputError
from crops.report import template
from crops.stages.base import Shard, StageReport
from crops.tables import artifacts, grades, pieces, records

MOST_PAIRS = 2_000_000  # read to draw from
SHEET = ("pair_id", "query", "text", "grade")
KEY = "key.json"  # what the raters must not see
CANNOT_TELL = "?"  # of the page: not judged, and said so
POOL = "pool"  # stands where the others have their perspective


def export(
    scored: Path,
    documents: Path,
    out: Path,
    cfg: JudgeConfig,
    *,
    metrics: Path | None = None,
    samples: Path | None = None,
) -> StageReport:
    """Writes sheet.csv, judge.html (the same pairs to grade by key presses) and key.json, which stays with
    the asker.

    scored, documents  discriminate's out, augment's out: the candidates, which the ladder is judged by. Gated
                       pairs are drawn whether θ kept them or not.
    metrics, samples   evaluate's out, label's out: pooled results of all systems for held-out queries, which
                       systems are judged by. What any of them was trained on or chosen by is left out.
    """
    rows = _drawn_from(scored).to_pandas()
    texts = artifacts.texts(documents)
    if artifacts.exists(scored, records.KNOWLEDGE):
        texts |= artifacts.texts(scored, records.KNOWLEDGE)
    rows = rows[rows["doc_id"].isin(texts.keys())].drop_duplicates(["query", "doc_id", "perspective"])
    if rows.empty:
        raise InputError(scored / "scored", "no pair with a text: nothing to judge")
    asked = judgement.sample(rows, per_perspective=cfg.pairs, seed=cfg.seed)
    if metrics is not None:
        results = _pool(metrics, samples, documents, texts)
        pool = judgement.pool(results, queries=cfg.queries, depth=cfg.depth, seed=cfg.seed)
        # A pair is asked once: for the pool, of which each missing one would count.
        twice = asked.merge(pool[["query", "doc_id"]], how="left", on=["query", "doc_id"], indicator=True)
        asked = pd.concat([asked[(twice["_merge"] == "left_only").to_numpy()], pool.assign(perspective=POOL)])
    drawn = judgement.shuffled(asked, seed=cfg.seed)
    shown = [
        {"pair_id": r.pair_id, "query": r.query, "text": texts[r.doc_id], "grade": ""}
        for r in drawn.itertuples()
    ]
    with artifacts.replacing(out) as folder:
        with (folder / "sheet.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, SHEET)
            writer.writeheader()
            writer.writerows(shown)
        (folder / "judge.html").write_text(_page(shown), encoding="utf-8")
        key = {
            r.pair_id: {
                "query": r.query,
                "doc_id": r.doc_id,
                "perspective": r.perspective,
                "theta": None if np.isnan(r.theta) else round(float(r.theta), 4),
            }
            for r in drawn.itertuples()
        }
        artifacts.write_json(folder / KEY, key)
    counts = drawn["perspective"].value_counts().sort_index()
    return StageReport(numbers={f"pairs_{name}": int(n) for name, n in counts.items()})


def _drawn_from(scored: Path) -> pa.Table:
    """(query, doc_id, perspective, theta) of all queries, or of a part of them that brings MOST_PAIRS."""
    part = Shard(0, max(1, math.ceil(artifacts.rows(scored, records.SCORED) / MOST_PAIRS)))
    columns = ["query", "doc_id", "perspective", "theta"]
    batches = artifacts.batches(scored, records.SCORED, columns=columns)
    return pa.concat_tables(
        pieces.holding(pa.Table.from_batches([batch]), "query", part.holds) for _path, batch in batches
    )


def _pool(metrics: Path, samples: Path | None, documents: Path, texts: Mapping[str, str]) -> pd.DataFrame:
    """The pooled results (query, doc_id, rank) without the pairs of `samples` and of the validation, by text:
    the same video may be there twice under two ids.
    """
    if samples is None:
        raise InputError(
            metrics, "a pool needs the samples as well (what `crops label` wrote): no trained pair is asked"
        )
    pool = artifacts.read(metrics, records.POOL).to_pandas().rename(columns={"video_id": "doc_id"})
    asked = {"query": pool["query"].unique()}
    pairs = [
        pair
        for table in (records.SAMPLES, records.ORIGINS)
        for pair in artifacts.read(samples, table, ["query", "doc_id"], **asked).to_pylist()
    ]
    pairs += [
        {"query": r["query"], "doc_id": r["video_id"]}
        for r in artifacts.read(documents, records.VALID_QR).to_pylist()
    ]
    seen = {(r["query"], texts.get(r["doc_id"])) for r in pairs}
    fresh = [
        doc_id in texts and (query, texts[doc_id]) not in seen
        for query, doc_id in zip(pool["query"], pool["doc_id"], strict=True)
    ]
    return pool[np.array(fresh, dtype=bool)]


def read(asked: Path, sheets: Sequence[Path], out: Path) -> StageReport:
    """Writes `relevance` (the raters' median grade) and judgement.json (precision per perspective and
    threshold, agreement) of the candidates, and the same table under pool/ of the pooled results: the ladder
    reads the one, `crops evaluate` the other.

    `asked`: the folder that `export` wrote. Grades may be missing, or `?`: cannot tell; an InputError names
    sheet and row of one that is wrong.
    """
    key = artifacts.read_json(asked / KEY)
    raters = [_sheet(path, key) for path in sheets]
    settled = judgement.settle(raters)
    if not settled:
        raise InputError(sheets[0], "no grade at all, expected 0, 1, 2 or 3 in column 'grade'")
    judged = pd.DataFrame([{**key[pair], "grade": grade} for pair, grade in settled.items()])
    pooled = judged["perspective"] == POOL
    rows, pool = judged[~pooled], judged[pooled]
    agreed = judgement.agreement(raters)
    rungs = {name: asdict(step) for name, step in _by_perspective(rows).items()}
    rating = {"raters": len(raters), "agreement": asdict(agreed), "grades": list(judgement.GRADES)}
    asked_of_pool = sum(pair["perspective"] == POOL for pair in key.values())
    facts = {
        **rating,
        "judged": len(rows),
        "asked": len(key) - asked_of_pool,
        "relevant": rungs,
        "theta": _thresholds(rows),
    }
    with artifacts.replacing(out) as folder:
        if not rows.empty:
            _write(folder, rows, facts)
        if not pool.empty:
            _write(folder / grades.POOL, pool, {**rating, "judged": len(pool), "asked": asked_of_pool})
    kappa = {} if agreed.kappa is None else {"kappa": agreed.kappa}
    missing = len(key) - len(judged)
    notes = (f"{missing} of {len(key)} pairs were not judged",) if missing else ()
    shares = {f"relevant_share_{name}": step["share"] for name, step in rungs.items()}
    pools = {} if pool.empty else {"judged_pool": len(pool)}
    return StageReport(numbers={"judged": len(judged), **pools, **kappa, **shares}, notes=notes)


def _write(folder: Path, rows: pd.DataFrame, facts: dict) -> None:
    table = pa.Table.from_pandas(
        rows.rename(columns={"doc_id": "video_id"})[["query", "video_id", "grade"]], preserve_index=False
    )
    artifacts.write(
        folder, records.RELEVANCE, table.set_column(2, "grade", pc.cast(table["grade"], pa.int8()))
    )
    artifacts.write_json(folder / grades.SAMPLE, facts)


def _sheet(path: Path, key: dict[str, dict]) -> dict[str, int]:
    """pair_id -> grade of one rater; pairs without a grade are left out."""
    sheet: dict[str, int] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := {"pair_id", "grade"} - set(reader.fieldnames or ()):
                raise InputError(
                    path, f"column {sorted(missing)[0]!r} is missing, expected {', '.join(SHEET)}"
                )
            for row in reader:
                if (grade := (row["grade"] or "").strip()) in ("", CANNOT_TELL):
                    continue
                where = f"row {reader.line_num}"
                if grade not in map(str, judgement.GRADES):
                    raise InputError(path, f"{where}: grade is {grade!r}, expected 0, 1, 2, 3 or ?")
                if (pair := row["pair_id"]) not in key:
                    raise InputError(path, f"{where}: pair_id {pair!r} is not one of those that were asked")
                if sheet.get(pair, int(grade)) != int(grade):
                    raise InputError(path, f"{where}: pair {pair} has two grades, {sheet[pair]} and {grade}")
                sheet[pair] = int(grade)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, f"not a readable CSV file ({error})") from error
    return sheet


def _by_perspective(rows: pd.DataFrame) -> dict[str, labels.Rung]:
    relevant = (rows["grade"] >= records.RELEVANT_GRADE).to_numpy(float)
    return labels.ladder(relevant, rows["perspective"].to_numpy())


def _thresholds(rows: pd.DataFrame) -> dict[str, dict[str, dict]]:
    """Per perspective and α: what people say of the pairs above it."""
    table: dict[str, dict[str, dict]] = {}
    for alpha in (0.0, 0.5, 0.6, 0.7, 0.8):
        for name, step in _by_perspective(rows[rows["theta"].fillna(-1.0) > alpha]).items():
            table.setdefault(name, {})[f"{alpha:.1f}"] = asdict(step)
    return table


def _page(shown: list[dict[str, str]]) -> str:
    # "<" cannot close the script element that the pairs stand in.
    pairs = json.dumps(shown, ensure_ascii=False).replace("<", "\\u003c")
    return template.render("judge.html.j2", pairs=pairs)
