"""Small logs for tests: rows by hand, tables on disk, random ones full of edges."""

import random
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from crops.config.augment import AugmentConfig
from crops.tables import artifacts, records

START = datetime(2026, 3, 1, tzinfo=UTC)
TABLES = (
    records.CANDIDATES,
    records.DOCUMENTS,
    records.QUERIES,
    records.TEST_CT,
    records.TEST_QR,
    records.VALID_QR,
)
# Small enough that every cap cuts in a log of a few dozen rows.
CAPPED = AugmentConfig(
    max_searches_per_user_day=6,
    feed_users_per_query=2,
    feed_videos_per_user=2,
    stage_videos_per_query=2,
    threads=1,
)


def at(seconds: float, *, day: int = 0) -> datetime:
    """So many seconds after midnight of a day; exact to the microsecond."""
    return START + timedelta(days=day, microseconds=round(seconds * 1e6))


def search(search_id, user_id, ts, query):
    return {"search_id": search_id, "user_id": user_id, "ts": ts, "query": query, "arm": None}


def result(search_id, video_id, *, stage="exposed", clicked=False, liked=False, play_s=None):
    place = {"position": 0 if stage == "exposed" else None, "paths": None}
    return {
        "search_id": search_id,
        "video_id": video_id,
        "stage": stage,
        "clicked": clicked,
        "liked": liked,
        "play_s": play_s,
        **place,
    }


def view(user_id, video_id, ts, *, clicked=True, liked=False, play_s=None):
    return {
        "user_id": user_id,
        "video_id": video_id,
        "ts": ts,
        "clicked": clicked,
        "liked": liked,
        "play_s": play_s,
    }


def video(video_id, caption="some text"):
    empty = {
        "keywords": [],
        "cover_text": "",
        "related_queries": [],
        "author_id": None,
        "duration_s": None,
        "uploaded_at": None,
    }
    return {"video_id": video_id, "caption": caption, **empty}


def arrow(table: records.Table, rows: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema([field.with_nullable(True) for field in table.schema]))


def write(folder, *, searches, results, feed, videos):
    """The tables under `folder` in the order of the rows given; `feed` None: no such table."""
    day_of = {s["search_id"]: s["ts"].strftime("%Y-%m-%d") for s in searches}
    dated = [
        (records.SEARCHES, searches, [s["ts"].strftime("%Y-%m-%d") for s in searches]),
        (records.RESULTS, results, [day_of[r["search_id"]] for r in results]),
        (records.FEED, feed, [v["ts"].strftime("%Y-%m-%d") for v in feed or ()]),
    ]
    for table, rows, dates in dated:
        if rows is not None:
            artifacts.write(
                folder, table, arrow(table, rows).append_column("date", pa.array(dates, pa.string()))
            )
            if not rows:  # a day without rows is still a file
                artifacts.write(
                    folder,
                    records.Table(name=table.name, schema=table.schema, key=table.key),
                    arrow(table, rows),
                )
    artifacts.write(folder, records.VIDEOS, arrow(records.VIDEOS, videos))
    return folder


def mined(out) -> dict[str, list[tuple]]:
    """What `augment` wrote, as tuples in the files' order."""
    return {
        table.name: [tuple(row.values()) for row in artifacts.read(out, table).to_pylist()]
        for table in TABLES
    }


def random_log(seed: int, *, searches: int = 30, days: int = 3) -> dict:
    """Searches in bursts whose gaps lie on and beside the windows' ends, some across midnight; feed views
    likewise.
    """
    draw = random.Random(seed)
    queries = ("bread", " BREAD ", "ｂｒｅａｄ", "rolls", "Straße", "strasse", "soup", " ", "a  b", "A b")
    users = ("u1", "u2", "u3", "u4")
    catalogue = [video(f"v{i}", caption="" if i == 4 else f"Video {i}") for i in range(5)]
    videos = [v["video_id"] for v in catalogue] + ["v9"]  # v9: in the logs, not in the catalogue
    rows, hits = [], []
    anchors = [at(86_390, day=day) for day in range(days - 1)] + [at(0, day=days - 1)]
    anchors += [at(draw.randrange(600, 80_000) + 0.5, day=day) for day in range(days)]
    for number in range(searches):
        ts = draw.choice(anchors) + timedelta(
            seconds=draw.choice((0, 0, 1, 5, 45, 90, 90.000001, 91, 180, 1800))
        )
        rows.append(search(f"s{number:03d}", draw.choice(users), ts, draw.choice(queries)))
        for name in draw.sample(videos, draw.randrange(4)):
            stage = draw.choice(("exposed", "exposed", "exposed", "ranked", "filtered"))
            shown = stage == "exposed"
            play_s = draw.choice((None, 0.0, 4.9, 5.0, 30.0)) if shown else None
            hits.append(
                result(
                    rows[-1]["search_id"],
                    name,
                    stage=stage,
                    clicked=shown and draw.random() < 0.4,
                    liked=shown and draw.random() < 0.1,
                    play_s=play_s,
                )
            )
    views = {}
    for _ in range(2 * searches):
        ts = draw.choice(anchors) + timedelta(
            seconds=draw.choice((-1800, -1800.000001, -60, 0, 5, 60, 1800, 1800.000001, 3600))
        )
        name, user = draw.choice(videos), draw.choice(users)
        views[user, name, ts] = view(
            user, name, ts, clicked=draw.random() < 0.6, play_s=draw.choice((None, 4.9, 5.0))
        )
    return {"searches": rows, "results": hits, "feed": list(views.values()), "videos": catalogue}
