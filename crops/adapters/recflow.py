"""RecFlow (Kuaishou, 2024; github.com/RecFlow-ICLR/RecFlow) to the tables: true stages of a recommender, no
queries.

A request stands for a search and `user<n>` for its query, so that the real stage labels (3 exposed, 2 ranked,
1 filtered) can be measured and trained on. It is no search log: two requests of a person have the same
"query", so there is no reformulation, and the feed perspective would only repeat the results, so no feed is
written. Videos have no text either; their ids and categories are written as words, which an encoder trained
from nothing can read.

stage: exposed = realshow; ranked = reached rank or rerank (rank_pos, rank_neg, rerank_pos, rerank_neg) but
was not shown; filtered = lost before rank (coarse_neg, prerank_neg). clicked = effective_view (30 % watched),
liked = like.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.ipc

from crops.adapters import release
from crops.adapters.release import Piece, Release
from crops.errors import InputError

ADVICE = "take all_stage/ of RecFlow (its README has the address) and name the folder that holds it"
RANKED = ("rank_pos", "rank_neg", "rerank_pos", "rerank_neg")
FILTERED = ("coarse_neg", "prerank_neg")
COLUMNS = (
    "request_id",
    "request_timestamp",
    "user_id",
    "video_id",
    "author_id",
    "category_level_one",
    "category_level_two",
    "upload_timestamp",
    "duration",
    "realshow",
    *RANKED,
    *FILTERED,
    "rank_index",
    "rerank_index",
    "playing_time",
    "effective_view",
    "like",
)


def read(src: Path) -> Release:
    """The release in `src`: one piece per day of all_stage/, then the videos. Raises InputError where it is
    another.
    """
    root = release.folder_with(src, "all_stage", ADVICE)
    files = sorted((root / "all_stage").glob("*.feather"))
    if not files:
        raise InputError(root / "all_stage", f"holds no .feather file; {ADVICE}")
    for path in files:
        release.require(_columns(path), COLUMNS, path, ADVICE)
    pieces = [Piece(setup=(CATALOGUE_TABLE, DROPPED_TABLE))]
    pieces += [Piece(feather={"day": path}, setup=_setup(), tables=TABLES) for path in files]
    pieces.append(Piece(tables={"videos": VIDEOS}))
    counts = {"rows_without_a_stage": "SELECT coalesce(sum(n), 0) FROM dropped"}
    notes = (
        "no queries in this data set: `user<n>` stands for the query of a request",
        "feed: not written, it would repeat the results",
    )
    return Release(pieces=tuple(pieces), counts=counts, notes=notes)


def _columns(path: Path) -> list[str]:
    try:
        with pa.memory_map(str(path)) as source:
            return list(pyarrow.ipc.open_file(source).schema.names)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            path, f"not a Feather file of version 2 ({str(error).splitlines()[0]}); {ADVICE}"
        ) from error


CATALOGUE_TABLE = """
        CREATE TEMP TABLE catalogue (video_id VARCHAR, author_id VARCHAR, one VARCHAR, two VARCHAR,
            duration_s FLOAT,
            uploaded_us BIGINT)"""


DROPPED_TABLE = "CREATE TEMP TABLE dropped (n BIGINT)"


def _setup() -> tuple[str, ...]:
    """A day: its rows with a stage, its requests, and what it tells about videos; the next day replaces the
    first two.
    """
    ranked, filtered = (" OR ".join(f"{flag} = 1" for flag in flags) for flags in (RANKED, FILTERED))
    rows = f"""
        CREATE OR REPLACE TEMP TABLE rows AS
        SELECT {release.whole("request_id")} AS search_id, {release.whole("user_id")} AS user_id,
            {release.whole("video_id")} AS video_id, {release.epoch_us("request_timestamp")} AS ts_us,
            CASE WHEN realshow = 1 THEN 0 WHEN {ranked} THEN 1 WHEN {filtered} THEN 2 END AS stage,
            rerank_index, rank_index, effective_view = 1 AS clicked, "like" = 1 AS liked,
            {release.seconds("playing_time", 1000)} AS play_s
        FROM day"""
    requests = """
        CREATE OR REPLACE TEMP TABLE requests AS
        SELECT search_id, min(user_id) AS user_id, min(ts_us) AS ts_us FROM rows
        WHERE stage IS NOT NULL AND search_id IS NOT NULL AND user_id IS NOT NULL AND ts_us IS NOT NULL
            GROUP BY search_id"""
    seen = f"""
        INSERT INTO catalogue
        SELECT {release.whole("video_id")} AS video_id, min({release.whole("author_id")}),
            min({release.whole("category_level_one")}), min({release.whole("category_level_two")}),
            max(nullif({release.seconds("duration", 1000)}, 0)),
            min({release.epoch_us("upload_timestamp")})
        FROM day WHERE video_id IS NOT NULL GROUP BY 1"""
    return rows, requests, seen, "INSERT INTO dropped SELECT count(*) FROM rows WHERE stage IS NULL"


TABLES = {
    "searches": f"""
        SELECT search_id, user_id, {release.utc("ts_us")} AS ts, 'user' || user_id AS query,
            CAST(NULL AS VARCHAR) AS arm,
            {release.date("ts_us")} AS date FROM requests""",
    "results": f"""
        SELECT search_id, video_id, ['exposed', 'ranked', 'filtered'][stage + 1] AS stage,
            CASE WHEN stage = 0 THEN CAST(row_number() OVER (PARTITION BY search_id
                ORDER BY stage, rerank_index NULLS LAST, rank_index NULLS LAST,
                    video_id) - 1 AS INTEGER) END AS position,
            stage = 0 AND clicked AS clicked, stage = 0 AND liked AS liked,
                CASE WHEN stage = 0 THEN play_s END AS play_s,
            CAST(NULL AS VARCHAR[]) AS paths, {release.date("ts_us")} AS date
        FROM (SELECT search_id, r.ts_us, video_id, min(stage) AS stage, min(rerank_index) AS rerank_index,
                min(rank_index) AS rank_index, coalesce(bool_or(clicked), false) AS clicked,
                coalesce(bool_or(liked), false) AS liked, max(play_s) AS play_s
              FROM rows JOIN requests AS r USING (search_id) WHERE stage IS NOT NULL AND video_id IS NOT NULL
              GROUP BY search_id, r.ts_us, video_id)""",
}


VIDEOS = f"""
        SELECT video_id, 'video' || video_id AS caption,
            list_filter(['first' || min(one), 'second' || min(two), 'author' || min(author_id)],
                lambda x: x IS NOT NULL)
                AS keywords,
            '' AS cover_text, CAST([] AS VARCHAR[]) AS related_queries, min(author_id) AS author_id,
            max(duration_s) AS duration_s, {release.utc("min(uploaded_us)")} AS uploaded_at
        FROM catalogue GROUP BY video_id"""
