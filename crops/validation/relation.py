"""One table of the log as a DuckDB relation: every row with the helpers that the checks read (named in
rules.py).
"""

import pyarrow as pa

from crops.config.validate import ValidateConfig
from crops.tables.records import TS, Table
from crops.validation.checks import quoted

TYPES = {
    pa.string(): "VARCHAR",
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.float32(): "FLOAT",
    TS: "TIMESTAMPTZ",
    pa.list_(pa.string()): "VARCHAR[]",
}

# What str.split() takes for white space, so that "empty" means the same as in crops.text.normalise_query.
WHITE = "".join(chr(c) for c in range(0x3001) if chr(c).isspace())


def helped(table: Table, present: set[str], cfg: ValidateConfig) -> str:
    """SQL of the rows of `raw_files`, typed as in crops.tables.records, with `file`, `row_number` and the
    helpers.

    `present` are the columns that the files have; known_searches(search_id, accepted, ts) and
    known_videos(video_id, accepted, uploaded_at) must be there for the tables that refer to them.
    """
    typed = ", ".join(
        f"CAST({name if name in present else 'NULL'} AS {TYPES[table.schema.field(name).type]}) AS {name}"
        for name in table.schema.names
    )
    columns, joins = _helpers(table, cfg)
    return f"""
        WITH raw AS (
            SELECT {typed}, filename AS file, file_row_number AS row_number,
                   nullif(regexp_extract(filename, 'date=([0-9-]{{10}})', 1), '') AS folder_day
            FROM raw_files
        )
        SELECT raw.*, {", ".join(f"{sql} AS {name}" for name, sql in columns.items())},
               row_number() OVER (PARTITION BY {", ".join(f"raw.{k}" for k in table.key)} ORDER BY file,
                   row_number) AS copy
        FROM raw {" ".join(joins)}
    """


def day_of(table: Table) -> str:
    """SQL of the day under which an accepted row is written: of its own time, for results of their
    search's.
    """
    if not table.partitioned:
        return "'all'"
    return "ts_day" if "ts" in table.schema.names else "search_day"


def _helpers(table: Table, cfg: ValidateConfig) -> tuple[dict[str, str], list[str]]:
    """Name to SQL of the helpers, and the joins that they need."""
    names = table.schema.names
    columns: dict[str, str] = {}
    joins = []
    if "ts" in names:
        columns["ts_day"] = "strftime(raw.ts, '%Y-%m-%d')"
    if table.name == "searches":
        columns["visible_characters"] = f"length(translate(query, {quoted(WHITE)}, ''))"
    if table.name == "videos":
        lists = (f"array_to_string({name}, '')" for name in ("keywords", "related_queries"))
        columns["text_fields"] = " + ".join(map(_has_text, ("caption", "cover_text", *lists)))
    if "video_id" in names and table.name != "videos":
        joins.append("LEFT JOIN known_videos AS v ON v.video_id = raw.video_id")
        columns["video"] = _fate("raw.video_id", "v")
        columns["earliest_ts"] = f"v.uploaded_at - INTERVAL '{round(cfg.max_clock_skew_s * 1e6)}' MICROSECOND"
    if table.name == "results":
        joins.append("LEFT JOIN known_searches AS s ON s.search_id = raw.search_id")
        columns |= {
            "search": _fate("raw.search_id", "s"),
            "search_ts": "s.ts",
            "search_day": "strftime(s.ts, '%Y-%m-%d')",
            "interacted": "coalesce(clicked, false) OR coalesce(liked, false) OR coalesce(play_s > 0, false)",
        }
    return columns, joins


def _fate(column: str, known: str) -> str:
    missing = f"WHEN {known}.accepted IS NULL THEN 'missing'"
    return (
        f"CASE WHEN {column} IS NULL THEN NULL {missing} WHEN {known}.accepted THEN 'accepted' "
        "ELSE 'quarantined' END"
    )


def _has_text(column: str) -> str:
    return f"(length(translate(coalesce({column}, ''), {quoted(WHITE)}, '')) > 0)::BIGINT"
