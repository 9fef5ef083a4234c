"""A small sound log as plain rows, and one fault a check: what to do to it so that a row fails exactly
there.
"""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crops.tables import artifacts, records

TABLES = {t.name: t for t in records.LOGS}
START = dt.datetime(2026, 1, 5, 12, tzinfo=dt.UTC)
Rows = dict[str, list[dict[str, Any]]]


def day(n: int) -> str:
    return f"{START + dt.timedelta(days=n):%Y-%m-%d}"


def rows(days: int = 3, searches: int = 30, videos: int = 20) -> Rows:
    """`searches` a day with 4 results each (two exposed, the first clicked every other time), and a feed view
    a search.
    """
    found: Rows = {"searches": [], "results": [], "feed": [], "videos": []}
    for v in range(videos):
        found["videos"].append(
            {
                "video_id": f"v{v:03}",
                "caption": f"caption {v}",
                "keywords": ["a", "b"],
                "cover_text": "",
                "related_queries": [],
                "author_id": None,
                "duration_s": 30.0,
                "uploaded_at": START - dt.timedelta(days=30),
            }
        )
    for n in range(days * searches):
        ts, date = START + dt.timedelta(days=n // searches, seconds=n % searches), day(n // searches)
        user = f"u{n % 7}"
        found["searches"].append(
            {
                "search_id": f"s{n:05}",
                "user_id": user,
                "ts": ts,
                "query": f"query {n % 5}",
                "arm": None,
                "date": date,
            }
        )
        for k, stage in enumerate(("exposed", "exposed", "ranked", "filtered")):
            clicked = k == 0 and n % 2 == 0
            found["results"].append(
                {
                    "search_id": f"s{n:05}",
                    "video_id": f"v{(n + k) % videos:03}",
                    "stage": stage,
                    "position": k if stage == "exposed" else None,
                    "clicked": clicked,
                    "liked": False,
                    "play_s": 20.0 if clicked else None,
                    "paths": None,
                    "date": date,
                }
            )
        found["feed"].append(
            {
                "user_id": user,
                "video_id": f"v{n % videos:03}",
                "ts": ts,
                "clicked": True,
                "liked": False,
                "play_s": 5.0,
                "date": date,
            }
        )
    return found


def table(name: str, found: list[dict[str, Any]]) -> pa.Table:
    schema = pa.schema([f.with_nullable(True) for f in TABLES[name].schema])
    made = pa.Table.from_pylist(
        [{k: v for k, v in row.items() if k != "date"} for row in found], schema=schema
    )
    if not TABLES[name].partitioned:
        return made
    return made.append_column("date", pa.array([row["date"] for row in found], pa.string()))


def write(folder: Path, log: Rows) -> Path:
    """Writes the tables as a platform would, under date= folders; nulls where no null may be are written all
    the same.
    """
    for name, found in log.items():
        if not found:
            continue
        made = table(name, found)
        root = folder / name
        for date in sorted(set(made["date"].to_pylist())) if "date" in made.column_names else [None]:
            part = made.filter(pc.equal(made["date"], date)).drop(["date"]) if date else made
            target = root / f"date={date}" if date else root
            target.mkdir(parents=True, exist_ok=True)
            pq.write_table(part, target / "part-0.parquet", row_group_size=artifacts.ROW_GROUP)
    return folder


def _set(**values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda row: {**row, **values}


FAR = dt.datetime(1970, 1, 21, tzinfo=dt.UTC)
EARLY = START - dt.timedelta(days=31)

# (table, reason) -> what is done to one row of the table (for results an exposed one, or a ranked one where
# said).
FAULTS: dict[tuple[str, str], Callable[[dict[str, Any]], dict[str, Any]]] = {
    **{
        (t, f"{c} is null"): _set(**{c: None})
        for t, c in (
            ("searches", "search_id"),
            ("searches", "user_id"),
            ("searches", "ts"),
            ("searches", "query"),
            ("results", "search_id"),
            ("results", "video_id"),
            ("results", "stage"),
            ("results", "clicked"),
            ("results", "liked"),
            ("feed", "user_id"),
            ("feed", "video_id"),
            ("feed", "ts"),
            ("feed", "clicked"),
            ("feed", "liked"),
            ("videos", "video_id"),
            ("videos", "caption"),
            ("videos", "keywords"),
            ("videos", "cover_text"),
            ("videos", "related_queries"),
        )
    },
    ("searches", "user_id is empty"): _set(user_id=""),
    ("searches", "query is empty"): _set(query=" \t　 "),
    ("searches", "query is too long"): _set(query="x" * 10_240),
    ("searches", "ts is not between 2000 and 2100"): _set(ts=FAR),
    ("searches", "ts is of another day than its partition"): _set(date="2026-01-01"),
    ("searches", "arm is unknown"): _set(arm="<script>alert(1)</script>"),
    ("searches", "key stands twice"): _set(search_id="s00000"),
    ("results", "stage is unknown"): _set(stage="shown", position=None, clicked=False, play_s=None),
    ("results", "exposed without a position"): _set(position=None),
    ("results", "position without being exposed"): _set(stage="ranked", clicked=False, play_s=None),
    ("results", "position is negative"): _set(position=-1),
    ("results", "clicked, liked or played without being exposed"): _set(
        stage="ranked", position=None, clicked=True
    ),
    ("results", "play_s is negative or no number"): _set(play_s=float("nan")),
    ("results", "play_s is too long"): _set(play_s=90_000.0),
    ("results", "search is not in searches"): _set(search_id="nowhere"),
    ("results", "search is in quarantine"): _set(search_id="s00029"),
    ("results", "video is not in videos"): _set(video_id="nowhere"),
    ("results", "video is in quarantine"): _set(video_id="bad"),
    ("results", "lies under another day than its search"): _set(date="2026-01-01"),
    ("results", "search is before the video's upload"): _set(video_id="late"),
    ("results", "key stands twice"): _set(search_id="s00000", video_id="v000"),
    ("feed", "user_id is empty"): _set(user_id=""),
    ("feed", "play_s is negative or no number"): _set(play_s=-1.0),
    ("feed", "play_s is too long"): _set(play_s=float("inf")),
    ("feed", "ts is not between 2000 and 2100"): _set(ts=FAR),
    ("feed", "ts is of another day than its partition"): _set(date="2026-01-01"),
    ("feed", "video is not in videos"): _set(video_id="nowhere"),
    ("feed", "video is in quarantine"): _set(video_id="bad"),
    ("feed", "view is before the video's upload"): _set(video_id="late"),
    ("feed", "key stands twice"): _set(user_id="u0", video_id="v000", ts=START),
    ("videos", "no text in any field"): _set(caption="", keywords=[" "], cover_text=" ", related_queries=[]),
    ("videos", "duration_s is not positive"): _set(duration_s=0.0),
    ("videos", "uploaded_at is not between 2000 and 2100"): _set(uploaded_at=FAR),
    ("videos", "key stands twice"): _set(video_id="v000"),
}


def faulty() -> Rows:
    """The log with one more row a fault, each bad for that reason alone (and the rows that this needs)."""
    log = rows()
    late = {**log["videos"][0], "video_id": "late", "uploaded_at": START + dt.timedelta(days=20)}
    log["videos"] += [late, {**log["videos"][0], "video_id": "bad", "duration_s": -1.0}]
    # The search s00029 goes to quarantine, its own results with it.
    log["searches"][29] = {**log["searches"][29], "query": ""}
    log["results"] = [r for r in log["results"] if r["search_id"] != "s00029"]
    for n, ((name, _), change) in enumerate(FAULTS.items()):
        log[name].append(change(_new(name, n)))
    return log


def _new(name: str, n: int) -> dict[str, Any]:
    """A sound row with a key that no other has."""
    row = dict(rows(days=1, searches=1, videos=1)[name][0])
    if name == "searches":
        return {**row, "search_id": f"new{n}"}
    if name == "results":
        return {
            **row,
            "search_id": f"s{n % 29:05}",
            "video_id": f"v{(n + 7) % 20:03}",
            "position": 2,
            "clicked": False,
            "play_s": None,
        }
    if name == "feed":
        return {**row, "user_id": f"new{n}"}
    return {**row, "video_id": f"new{n}"}
