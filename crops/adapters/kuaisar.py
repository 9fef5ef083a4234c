"""KuaiSAR (Kuaishou, 2023; zenodo.org/record/8181109) to the tables: search and feed of the same people,
words hashed.

What its rows need, and where each trap is met:
- A search is (user, session, time, keyword): session ids are used again, and a session's rows do not stand
  together.
- An item that stands twice in a search counts once, at its first place, clicked if any of its rows says so.
- `search_session_timestamp` and `timestamp` can be floats that lost their last digits ("1.684742e+12"): where
  they contradict the readable Beijing time by a second or more, that time wins. All times become UTC.
- Words are integers, the same in keyword and caption. They become `w<n>`: many tokenizers drop words of one
  character.
- Users, live rooms, goods, music and adverts among the results keep their place in the positions but are no
  videos.
"""

from pathlib import Path

from crops.adapters import release
from crops.adapters.release import Piece, Release

ADVICE = (
    "take KuaiSAR_v2.zip or KuaiSAR.zip from zenodo.org/record/8181109, unzip it and name "
    "the folder with src_inter.csv"
)
VIDEO_TYPES = ("VIDEO", "IMAGE_ATLAS")
BEIJING_US = 8 * 3600 * 1_000_000
SEARCH = (
    "user_id",
    "search_session_id",
    "search_session_time",
    "search_session_timestamp",
    "keyword",
    "item_id",
    "click_cnt",
    "item_type",
)
FEED = ("user_id", "item_id", "playing_time", "duration_ms", "time", "timestamp", "click", "like")
ITEMS = ("item_id", "caption", "author_id", "upload_time")
CATEGORIES = tuple(f"{level}_level_category_name" for level in ("first", "second", "third", "fourth"))
# How the release writes "no category", in both languages.
NO_CATEGORY = ("", "空", "empty", "UNKNOWN")


def read(src: Path) -> Release:
    """The release in `src` (or in the one folder in it). Raises InputError where files or columns are
    missing.
    """
    root = release.folder_with(src, "src_inter.csv", ADVICE)
    headers = {}
    for name, columns in (("src_inter", SEARCH), ("rec_inter", FEED), ("item_features", ITEMS)):
        path = release.folder_with(root, f"{name}.csv", ADVICE) / f"{name}.csv"
        headers[name] = release.csv_columns(path)
        release.require(headers[name], columns, path, ADVICE)
    categories = [c for c in CATEGORIES if c in headers["item_features"]]
    setup = (
        _shown(root),
        SEARCHES,
        RESULTS,
        _views(root),
        _features(root, categories),
        "CREATE TEMP TABLE durations AS SELECT item_id, max(duration_s) AS duration_s FROM "
        "views GROUP BY item_id",
    )
    piece = Piece(setup=setup, tables={**SEARCH_TABLES, "feed": FEED_TABLE, "videos": VIDEOS})
    return Release(
        pieces=(piece,),
        counts=COUNTS,
        notes=(
            "words are hashed: only encoders trained from nothing can read it",
            "no likes and no play times in search: only clicks count there",
        ),
    )


def _time_us(stamp: str, readable: str) -> str:
    exact = f"CAST(try_cast({stamp} AS DOUBLE) * 1000 AS BIGINT)"
    beijing = f"epoch_us(try_cast({readable} AS TIMESTAMP)) - {BEIJING_US}"
    return (
        f"CASE WHEN abs({exact} - ({beijing})) >= 1000000 THEN {beijing} ELSE "
        f"coalesce({exact}, {beijing}) END"
    )


def _words(column: str) -> str:
    spaced = f"regexp_replace({column}, '[^0-9]+', ' ', 'g')"
    return f"trim(coalesce(regexp_replace({spaced}, '([0-9]+)', 'w\\1', 'g'), ''))"


def _shown(root: Path) -> str:
    return f"""
        CREATE TEMP TABLE shown AS
        SELECT {release.whole("user_id")} AS user_id, {release.whole("search_session_id")} AS session_id,
            {_time_us("search_session_timestamp", "search_session_time")} AS ts_us,
                {_words("keyword")} AS query,
            {release.whole("item_id")} AS item_id, coalesce(try_cast(click_cnt AS DOUBLE), 0) > 0 AS clicked,
            coalesce(item_type, '') IN ({", ".join(map(release.text, VIDEO_TYPES))}) AS is_video, row
        FROM (SELECT *, row_number() OVER () AS row FROM {release.read_csv(root / "src_inter.csv")})"""


# A name that is short in the usual case; the rare second keyword of one user, session and millisecond
# gets a number.
SEARCHES = """
        CREATE TEMP TABLE found AS
        SELECT *, concat_ws(':', user_id, session_id, ts_us // 1000, CASE WHEN n > 1 THEN n END) AS search_id
        FROM (SELECT *, row_number() OVER (PARTITION BY user_id, session_id, ts_us // 1000 ORDER BY ts_us,
            query) AS n
              FROM (SELECT DISTINCT user_id, session_id, ts_us, query FROM shown
                    WHERE user_id IS NOT NULL AND session_id IS NOT NULL AND ts_us IS NOT NULL
                        AND query <> ''))"""


RESULTS = """
        CREATE TEMP TABLE listed AS
        SELECT search_id, ts_us, item_id, clicked, is_video,
            CAST(row_number() OVER (PARTITION BY search_id ORDER BY row) - 1 AS INTEGER) AS position
        FROM (SELECT search_id, ts_us, item_id, bool_or(clicked) AS clicked, bool_or(is_video) AS is_video,
            min(row) AS row
              FROM shown JOIN found USING (user_id, session_id, ts_us, query) WHERE item_id IS NOT NULL
              GROUP BY search_id, ts_us, item_id)"""


SEARCH_TABLES = {
    "searches": f"""
        SELECT search_id, user_id, {release.utc("ts_us")} AS ts, query, CAST(NULL AS VARCHAR) AS arm,
            {release.date("ts_us")} AS date FROM found""",
    "results": f"""
        SELECT search_id, item_id AS video_id, 'exposed' AS stage, position, clicked, false AS liked,
            CAST(NULL AS FLOAT) AS play_s, CAST(NULL AS VARCHAR[]) AS paths, {release.date("ts_us")} AS date
        FROM listed WHERE is_video""",
}


def _views(root: Path) -> str:
    """One row per user, item and time: the system hands out several items at once, and repeats some."""
    return f"""
        CREATE TEMP TABLE views AS
        SELECT user_id, item_id, ts_us, bool_or(clicked) AS clicked, bool_or(liked) AS liked,
            max(play_s) AS play_s,
            max(duration_s) AS duration_s
        FROM (SELECT {release.whole("user_id")} AS user_id, {release.whole("item_id")} AS item_id,
                {_time_us('"timestamp"', '"time"')} AS ts_us, coalesce(try_cast(click AS DOUBLE),
                    0) > 0 AS clicked,
                coalesce(try_cast("like" AS DOUBLE), 0) > 0 AS liked,
                    {release.seconds("playing_time", 1000)} AS play_s,
                nullif({release.seconds("duration_ms", 1000)}, 0) AS duration_s
              FROM {release.read_csv(root / "rec_inter.csv")})
        WHERE user_id IS NOT NULL AND item_id IS NOT NULL AND ts_us IS NOT NULL
        GROUP BY user_id, item_id, ts_us"""


FEED_TABLE = f"""
        SELECT user_id, item_id AS video_id, {release.utc("ts_us")} AS ts, clicked, liked, play_s,
            {release.date("ts_us")} AS date FROM views"""


def _features(root: Path, categories: list[str]) -> str:
    empty = ", ".join(map(release.text, NO_CATEGORY))
    names = [f"CASE WHEN trim({c}) NOT IN ({empty}) THEN trim({c}) END" for c in categories]
    keywords = (
        f"list_filter([{', '.join(names)}], lambda x: x IS NOT NULL)" if names else "CAST([] AS VARCHAR[])"
    )
    return f"""
        CREATE TEMP TABLE features AS
        SELECT item_id, first(caption ORDER BY row) AS caption, first(author_id ORDER BY row) AS author_id,
            first(uploaded_us ORDER BY row) AS uploaded_us, first(keywords ORDER BY row) AS keywords
        FROM (SELECT {release.whole("item_id")} AS item_id, {_words("caption")} AS caption,
                nullif({release.whole("author_id")}, '0') AS author_id, {keywords} AS keywords,
                CASE WHEN year(try_cast(upload_time AS TIMESTAMP)) > 1970
                     THEN epoch_us(try_cast(upload_time AS TIMESTAMP)) - {BEIJING_US} END AS uploaded_us,
                row_number() OVER () AS row
              FROM {release.read_csv(root / "item_features.csv")})
        WHERE item_id IS NOT NULL GROUP BY item_id"""


# Every item with features, and those that only the logs know, without texts: what was shown stays on
# record.
VIDEOS = f"""
        SELECT item_id AS video_id, coalesce(caption, '') AS caption, coalesce(keywords,
            CAST([] AS VARCHAR[])) AS keywords,
            '' AS cover_text, CAST([] AS VARCHAR[]) AS related_queries, author_id, duration_s,
            {release.utc("uploaded_us")} AS uploaded_at
        FROM (SELECT item_id FROM features UNION SELECT item_id FROM listed
            WHERE is_video UNION SELECT item_id FROM views)
            LEFT JOIN features USING (item_id) LEFT JOIN durations USING (item_id)"""


COUNTS = {
    "search_rows_unreadable": "SELECT count(*) FROM shown WHERE user_id IS NULL OR session_id IS NULL "
    "OR ts_us IS NULL OR item_id IS NULL",
    "search_rows_without_words": "SELECT count(*) FROM shown WHERE query = ''",
    "results_that_are_no_videos": "SELECT count(*) FROM listed WHERE NOT is_video",
    "videos_without_features": "SELECT count(*) FROM (SELECT item_id FROM listed WHERE is_video UNION "
    "SELECT item_id FROM views) ANTI JOIN features USING (item_id)",
}
