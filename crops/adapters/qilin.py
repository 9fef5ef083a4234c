"""Qilin (Xiaohongshu, 2025; huggingface.co/datasets/THUIR/Qilin) to the tables: plain Chinese text, search
and feed.

What its rows need:
- What was shown lies nested in a search's or request's row, as a list of structs or, as some writers of
  Parquet store it, a struct of lists; both are read.
- The time stands in the nested items: `search_timestamp`, `request_timestamp` or `timestamp`, in seconds or
  milliseconds. A search's time is the earliest of its items; one without items has none and is left out, and
  counted.
- `page_time` is NaN or -1 where nobody knows: null, not 0. Its unit is not documented; it is taken as
  seconds.
- `search_idx` starts again in the test part: ids carry their part.
- `position` may start at 0 or 1 and have holes: it gives the order, and ours counts from 0.
- `bm25_results` and `dpr_results` are lists of a later experiment, not of the platform: they are no stage and
  stay out.
"""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from crops.adapters import release
from crops.adapters.release import Piece, Release
from crops.errors import InputError

ADVICE = (
    "take the Parquet files of huggingface.co/datasets/THUIR/Qilin and name the folder that holds its configs"
)
PARTS = {
    "search": ("search_train", "search_test"),
    "recommendation": ("recommendation_train", "recommendation_test"),
}
DETAILS = {"search": "search_result_details_with_idx", "recommendation": "rec_result_details_with_idx"}
IDS = {"search": "search_idx", "recommendation": "request_idx"}
TIMES = ("search_timestamp", "request_timestamp", "timestamp")


def read(src: Path) -> Release:
    """The release in `src`. Raises InputError where a config, a column or a nested field is missing."""
    if src.is_file():
        raise InputError(src, f"a file, expected a folder; {ADVICE}")
    notes = _files(src, "notes")
    if not notes:
        raise InputError(src, f"holds no Parquet file of the config notes; {ADVICE}")
    release.require(_schema(notes[0]).names, ("note_idx", "note_title", "note_content"), notes[0], ADVICE)
    searches = _shown(src, "search", ("query",))
    views = _shown(src, "recommendation", ())
    setup = (f"CREATE TEMP TABLE shown AS {searches}", f"CREATE TEMP TABLE viewed AS {views}", FOUND, LISTED)
    piece = Piece(setup=setup, tables={**SEARCH_TABLES, "feed": FEED, "videos": _videos(notes)})
    counts = {
        "searches_without_results": f"SELECT (SELECT count(*) FROM {_parquet(_parts(src, 'search'))}) - "
        "count(*) FROM found",
        "rows_unreadable": "SELECT count(*) FROM (FROM shown UNION ALL BY NAME FROM viewed) "
        "WHERE id IS NULL OR user_id IS NULL OR note_id IS NULL OR ts_us IS NULL",
    }
    return Release(
        pieces=(piece,), counts=counts, notes=("page_time is taken as seconds: its unit is not documented",)
    )


def _files(src: Path, config: str) -> list[Path]:
    """Parquet files whose folder or name starts with the config's name."""
    names = re.compile(rf"{config}([-_.]\d.*|\.parquet)?$")
    return sorted(
        p for p in src.rglob("*.parquet") if any(names.match(part) for part in p.relative_to(src).parts)
    )


def _parts(src: Path, kind: str) -> list[Path]:
    files = [path for part in PARTS[kind] for path in _files(src, part)]
    if not files:
        raise InputError(src, f"holds no Parquet file of the config {PARTS[kind][0]}; {ADVICE}")
    return files


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            path, f"not a readable Parquet file ({str(error).splitlines()[0]}); {ADVICE}"
        ) from error


def _parquet(files: list[Path]) -> str:
    return f"read_parquet([{', '.join(map(release.text, files))}], union_by_name = true)"


def _shown(src: Path, kind: str, extra: tuple[str, ...]) -> str:
    """One row per item that was shown, of all parts of one kind together."""
    _parts(src, kind)
    return " UNION ALL ".join(
        _unnested(files, kind, part.rpartition("_")[2], extra)
        for part in PARTS[kind]
        if (files := _files(src, part))
    )


def _unnested(files: list[Path], kind: str, part: str, extra: tuple[str, ...]) -> str:
    schema, details = _schema(files[0]), DETAILS[kind]
    release.require(schema.names, (IDS[kind], "user_idx", details, *extra), files[0], ADVICE)
    nested = schema.field(details).type
    if _is_list(nested) and pa.types.is_struct(nested.value_type):
        names = [f.name for f in nested.value_type]
        source = f"SELECT * EXCLUDE ({details}), unnest({details}) AS item FROM {_parquet(files)}"
        value = "item.{}".format
    elif pa.types.is_struct(nested) and all(_is_list(f.type) for f in nested):
        names = [f.name for f in nested]
        columns = ", ".join(f"unnest({details}.{n}) AS item_{n}" for n in names)
        source, value = f"SELECT * EXCLUDE ({details}), {columns} FROM {_parquet(files)}", "item_{}".format
    else:
        raise InputError(files[0], f"column {details!r} is {nested}, expected a list of structs; {ADVICE}")
    time = next((t for t in TIMES if t in names), None)
    if time is None:
        raise InputError(
            files[0],
            f"items in {details!r} have no time ({' or '.join(TIMES)}), found {', '.join(names)}; {ADVICE}",
        )
    release.require(names, ("note_idx", "position", "click"), files[0], ADVICE)
    has = {name: value(name) for name in names}
    return f"""
        SELECT {release.text(part + ":")} || {release.whole(IDS[kind])} AS id,
            {release.whole("user_idx")} AS user_id,
            {"trim(query)" if "query" in extra else "CAST(NULL AS VARCHAR)"} AS query,
            {release.whole(has["note_idx"])} AS note_id, try_cast({has["position"]} AS DOUBLE) AS place,
            {_positive(has, "click")} AS clicked, {_positive(has, "like")}
                OR {_positive(has, "collect")} AS liked,
            {release.seconds(has["page_time"], 1) if "page_time" in has else "CAST(NULL AS FLOAT)"} AS play_s,
            {release.epoch_us(has[time])} AS ts_us
        FROM ({source})"""


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _positive(has: dict[str, str], name: str) -> str:
    return f"coalesce(try_cast({has[name]} AS DOUBLE), 0) > 0" if name in has else "false"


FOUND = """
        CREATE TEMP TABLE found AS
        SELECT id AS search_id, min(user_id) AS user_id, min(ts_us) AS ts_us, min(query) AS query
        FROM shown WHERE id IS NOT NULL AND user_id IS NOT NULL AND ts_us IS NOT NULL AND coalesce(query,
            '') <> ''
        GROUP BY id"""


LISTED = """
        CREATE TEMP TABLE listed AS
        SELECT search_id, ts_us, note_id, clicked, liked, play_s,
            CAST(row_number() OVER (PARTITION BY search_id ORDER BY place NULLS LAST,
                note_id) - 1 AS INTEGER) AS position
        FROM (SELECT search_id, f.ts_us, note_id, bool_or(clicked) AS clicked, bool_or(liked) AS liked,
                max(play_s) AS play_s, min(place) AS place
              FROM shown JOIN found AS f ON search_id = id WHERE note_id IS NOT NULL GROUP BY search_id,
                  f.ts_us, note_id)"""


SEARCH_TABLES = {
    "searches": f"""
        SELECT search_id, user_id, {release.utc("ts_us")} AS ts, query, CAST(NULL AS VARCHAR) AS arm,
            {release.date("ts_us")} AS date FROM found""",
    "results": f"""
        SELECT search_id, note_id AS video_id, 'exposed' AS stage, position, clicked, liked, play_s,
            CAST(NULL AS VARCHAR[]) AS paths, {release.date("ts_us")} AS date FROM listed""",
}


FEED = f"""
        SELECT user_id, note_id AS video_id, {release.utc("ts_us")} AS ts, bool_or(clicked) AS clicked,
            bool_or(liked) AS liked, max(play_s) AS play_s, {release.date("ts_us")} AS date
        FROM viewed WHERE user_id IS NOT NULL AND note_id IS NOT NULL AND ts_us IS NOT NULL
        GROUP BY user_id, note_id, ts_us"""


def _videos(notes: list[Path]) -> str:
    """The note's text stands where a video's cover text does: the field for text beyond the caption. The unit
    of `video_duration` is not documented, so nothing is claimed about it.
    """
    return f"""
        SELECT video_id, coalesce(caption, '') AS caption, CAST([] AS VARCHAR[]) AS keywords,
            coalesce(body, '') AS cover_text, CAST([] AS VARCHAR[]) AS related_queries,
                CAST(NULL AS VARCHAR) AS author_id,
            CAST(NULL AS FLOAT) AS duration_s, CAST(NULL AS TIMESTAMPTZ) AS uploaded_at
        FROM (SELECT note_id AS video_id FROM listed UNION SELECT note_id FROM viewed
            WHERE note_id IS NOT NULL
              UNION SELECT {release.whole("note_idx")} FROM {_parquet(notes)})
            LEFT JOIN (SELECT {release.whole("note_idx")} AS video_id, min(note_title) AS caption,
                min(note_content) AS body
                       FROM {_parquet(notes)} GROUP BY 1) USING (video_id)
        WHERE video_id IS NOT NULL"""
