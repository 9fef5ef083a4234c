"""One table of the log as a DuckDB relation: every row with the helpers that the checks read (named in
rules.py).
"""

from collections.abc import Sequence
from pathlib import Path

from crops.config.validate import ValidateConfig
from crops.tables.records import Table
from crops.validation.checks import quoted
from crops.validation.source import Shape, Source, unfit

# What str.split() takes for white space, so that "empty" means the same as in crops.text.normalise_query.
WHITE = "".join(chr(c) for c in range(0x3001) if chr(c).isspace())


def helped(source: Source, root: Path, views: Sequence[str], cfg: ValidateConfig) -> str:
    """SQL of the rows of `views` (one a shape of the source), typed as in crops.tables.records, with `file`,
    `row_number` and the helpers.

    root: the table's folder, below which a `date=` folder is the day of its files.
    known_searches(search_id, accepted, ts) and known_videos(video_id, accepted, uploaded_at) must be there
    for the tables that refer to them.
    """
    table = source.table
    raw = " UNION ALL ".join(
        _typed(source, shape, view) for shape, view in zip(source.shapes, views, strict=True)
    )
    below = f"replace(substr(file, {len(str(root)) + 1}), '%2D', '-')"
    columns, joins = _helpers(table, cfg)
    keys = [f"raw.{name}" for name in table.key]
    whole = " AND ".join(f"{key} IS NOT NULL" for key in keys)
    return f"""
        WITH stored AS ({raw}),
             raw AS (SELECT *, nullif(regexp_extract({below}, '/date=([0-9-]{{10}})/', 1), '') AS folder_day
                     FROM stored)
        SELECT raw.*, {", ".join(f"{sql} AS {name}" for name, sql in columns.items())},
               CASE WHEN {whole} THEN row_number() OVER (PARTITION BY {", ".join(keys)} ORDER BY file,
                   row_number) END AS copy
        FROM raw {" ".join(joins)}
    """


def _typed(source: Source, shape: Shape, view: str) -> str:
    """The rows of one shape in the table's types, with the text of what does not fit in any of them."""
    ways = {name: shape.reading(source.table, name) for name in source.table.schema.names}
    columns = [f"{way.typed(name)} AS {name}" for name, way in ways.items()]
    columns += [f"{ways[name].unfit(name)} AS {unfit(name)}" for name in source.unsure]
    file = "filename" if shape.origin is None else quoted(str(shape.origin))
    return f"SELECT {', '.join(columns)}, {file} AS file, file_row_number AS row_number FROM {view}"


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
        columns["video"] = fate("raw.video_id", "v")
        columns["earliest_ts"] = earliest("v", cfg)
    if table.name == "results":
        joins.append("LEFT JOIN known_searches AS s ON s.search_id = raw.search_id")
        columns |= {
            "search": fate("raw.search_id", "s"),
            "search_ts": "s.ts",
            "search_day": "strftime(s.ts, '%Y-%m-%d')",
            "interacted": "coalesce(clicked, false) OR coalesce(liked, false) OR coalesce(play_s > 0, false)",
        }
    return columns, joins


def earliest(video: str, cfg: ValidateConfig) -> str:
    """SQL of when a row of known_videos, joined as `video`, may be seen first."""
    return f"{video}.uploaded_at - INTERVAL '{round(cfg.max_clock_skew_s * 1e6)}' MICROSECOND"


def fate(column: str, allowed: str) -> str:
    """SQL of what became of the row that `column` names, where known_TABLE is joined as `allowed`."""
    missing = f"WHEN {allowed}.accepted IS NULL THEN 'missing'"
    return (
        f"CASE WHEN {column} IS NULL THEN NULL {missing} WHEN {allowed}.accepted THEN 'accepted' "
        "ELSE 'quarantined' END"
    )


def _has_text(column: str) -> str:
    return f"(length(translate(coalesce({column}, ''), {quoted(WHITE)}, '')) > 0)::BIGINT"
