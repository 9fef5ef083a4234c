"""Logs of an experiment as tables on disk: users with their own habits, two arms, a planted effect."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from crops.tables import artifacts, records

START = datetime(2026, 2, 1, tzinfo=UTC)


def search(search_id, user_id, ts, query="bread", arm=None):
    return {"search_id": search_id, "user_id": user_id, "ts": ts, "query": query, "arm": arm}


def result(search_id, video_id="v1", *, stage="exposed", clicked=False, play_s=None, paths=None):
    return {
        "search_id": search_id,
        "video_id": video_id,
        "stage": stage,
        "position": 0 if stage == "exposed" else None,
        "clicked": clicked,
        "liked": False,
        "play_s": play_s,
        "paths": paths,
    }


def video(video_id, duration_s=60.0):
    return {
        "video_id": video_id,
        "caption": "c",
        "keywords": [],
        "cover_text": "",
        "related_queries": [],
        "author_id": None,
        "duration_s": duration_s,
        "uploaded_at": None,
    }


def arrow(table: records.Table, rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema([field.with_nullable(True) for field in table.schema]))


def write(
    folder: Path,
    searches: list[dict],
    results: list[dict],
    videos: list[dict] | None = None,
    *,
    east_h: int = 0,
) -> Path:
    """east_h: hours by which the clock of the folders' days is ahead of UTC."""
    day_of = {s["search_id"]: (s["ts"] + timedelta(hours=east_h)).strftime("%Y-%m-%d") for s in searches}
    dates = [day_of[s["search_id"]] for s in searches]
    dated = [
        (records.SEARCHES, searches, dates),
        (records.RESULTS, results, [day_of[r["search_id"]] for r in results]),
    ]
    for table, rows, days in dated:
        artifacts.write(folder, table, arrow(table, rows).append_column("date", pa.array(days, pa.string())))
    if videos is not None:
        artifacts.write(folder, records.VIDEOS, arrow(records.VIDEOS, videos))
    return folder


def experiment(
    *, users: int = 400, days: int = 3, pre_days: int = 1, lift: float = 0.0, seed: int = 0
) -> tuple[list[dict], list[dict], list[dict]]:
    """(searches, results, videos): every user searches some times a day; clicks lift in treatment,
    reformulations fall.
    """
    rng = np.random.default_rng(seed)
    rate, again = rng.beta(4, 12, users), rng.beta(3, 7, users)
    treated = np.arange(users) % 2 == 1
    searches, results = [], []
    for day in range(-pre_days, days):
        for user in range(users):
            effect = lift if day >= 0 and treated[user] else 0.0
            arm = None if day < 0 else ("treatment" if treated[user] else "control")
            for n in range(int(rng.poisson(1.5))):
                ts = START + timedelta(days=day, seconds=float(rng.uniform(0, 86_000)))
                query = f"q{int(rng.zipf(1.5)) % 50}"
                for k, text in enumerate(
                    [query] + [f"{query} more"] * int(rng.random() < again[user] * (1 - effect))
                ):
                    at, key = ts + timedelta(seconds=30 * k), f"d{day}u{user}n{n}k{k}"
                    searches.append(search(key, f"u{user}", at, text, arm))
                    clicked = rng.random(4) < rate[user] * (1 + effect)
                    results += [
                        result(
                            key,
                            f"v{j}",
                            clicked=bool(c),
                            play_s=float(rng.exponential(20)) if c else None,
                            paths=["lexical"] if j else ["dense", "lexical"],
                        )
                        for j, c in enumerate(clicked)
                    ]
                    results.append(result(key, "v9", stage="ranked", paths=["dense"]))
    return searches, results, [video(f"v{j}", 10.0 * (j + 1)) for j in range(10)]
