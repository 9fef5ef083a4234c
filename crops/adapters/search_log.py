"""A search log of any shape, as CSV, JSON lines or Parquet, to the tables by a map of its columns.

- One row per result that was shown, per click or per search: rows of one search are told by its id, or else
  by user, time and query; rows of one result in one search become one.
- What a cell holds that its column cannot (a time that is none) becomes null, is counted and shown, and goes
  to quarantine in `crops validate`. A column of which no cell can be read is an error.
- A line of a CSV file that has too few or too many fields is left out, counted and shown.
- Times are numbers (seconds, milliseconds, microseconds or nanoseconds, told by their size), ISO 8601 or
  day.month.year; without a zone they are UTC.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from crops.adapters import cells, delimited, release, remarks, structs
from crops.adapters.columns import TABLES, TEXTS, ColumnMap, Origin, unmapped
from crops.adapters.release import Piece, Release, Remark
from crops.errors import InputError
from crops.tables import artifacts, records

CSV = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
JSON = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
TOUCHED = ("clicked", "liked", "play_s")
# What a column says that nothing is said about.
DEFAULTS = {"stage": records.STAGES[0], "clicked": "false", "liked": "false", "caption": "", "cover_text": ""}


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one kind, the SQL that reads them, and the types of their columns as DuckDB names them."""

    path: Path
    files: tuple[Path, ...]
    sql: str
    types: Mapping[str, str]

    @property
    def delimited(self) -> bool:
        """Whether these are CSV files, whose lines may be broken."""
        return form(self.files[0]) == "csv"


def read(src: Path, columns: ColumnMap, more: Mapping[str, Path] | None = None) -> Release:
    """The log in `src`, a file or a folder of files. more: files of results, feed and videos, by these names;
    without them, results and the texts of videos are looked for in the log's own rows.

    Raises InputError where a file is not to be read or a column that is needed is missing.
    """
    log = source(src)
    sources = {name: source(path) for name, path in (more or {}).items()}
    columns.check_used(
        {s.path: s.types for s in (log, *sources.values())},
        ("searches", *(("results",) if "results" not in sources else ()), "videos", *sources),
    )
    own_results = "results" in sources
    parts = {"searches": _Part("searches", log, columns, need=("query", "user_id", "ts"))}
    shown = sources.get("results", log)
    key = ("search_id", "video_id") if own_results else ("video_id",)
    parts["results"] = _Part("results", shown, columns, need=key, some=TOUCHED)
    texts = sources.get("videos", log)
    parts["videos"] = _Part("videos", texts, columns, need=("video_id",), some=TEXTS)
    if "feed" in sources:
        need = ("user_id", "video_id", "ts")
        parts["feed"] = _Part("feed", sources["feed"], columns, need=need, some=TOUCHED)
    by_id = parts["searches"].has("search_id")
    if own_results and not by_id:
        raise unmapped(log.path, ("search_id",), log.types, "the file of results names searches by it")
    return Release(
        pieces=(Piece(setup=_setup(parts, by_id, own_results), tables=_tables(parts, "videos" in sources)),),
        notes=_notes(parts, by_id, sources),
        remarks=(
            *(r for part in parts.values() for r in part.remarks()),
            *_broken(parts),
            *remarks.rows_per_search(by_id, own_results),
            remarks.MERGED_ROWS,
        ),
    )


class _Part:
    """One of our tables in one source: every column of it as SQL."""

    def __init__(
        self,
        table: str,
        source: Source,
        columns: ColumnMap,
        *,
        need: Iterable[str],
        some: tuple[str, ...] = (),
    ) -> None:
        self.table, self.source = table, source
        self.origins: dict[str, Origin] = {}
        for name in TABLES[table].schema.names:
            self.origins[name] = self._fitting(name, columns.origin(table, name, source.types, source.path))
        if lacking := [n for n in need if not self.has(n)]:
            raise unmapped(source.path, lacking, source.types, f"{table} need it")
        if some and not any(self.has(n) for n in some):
            why = f"{table} need one of {', '.join(some)}"
            if "clicked" in some:
                why += " (where every row is a click: --set clicked=true)"
            elif table == "videos":
                why += " (or give the file of videos: --videos FILE)"
            raise unmapped(source.path, some, source.types, why, only_one=True)

    def _fitting(self, name: str, origin: Origin) -> Origin:
        """The origin with the unit that its column's type says; an InputError where one cell holds many
        values and the column of ours one.
        """
        kind = self.source.types.get(origin.column or "", "")
        several = kind.startswith(("MAP(", "UNION(")) or "STRUCT(" in kind
        if several or (kind.endswith("]") and not kind.startswith("duration") and not self._listed(name)):
            wanted = "a list of texts" if self._listed(name) else "one value a row (one row per item)"
            problem = f"column {origin.column!r} (for {self.table}.{name}) is {kind}, expected {wanted}"
            raise InputError(self.source.path, problem)
        if kind.startswith("duration[") and origin.unit is None:
            return replace(origin, unit=kind[len("duration[") : -1])
        return origin

    def has(self, name: str) -> bool:
        """Whether the file or a value of --set says anything of the column."""
        origin = self.origins.get(name)
        return origin is not None and (origin.column is not None or origin.default is not None)

    def select(self) -> str:
        """The source's rows in their order: `row` from 1, our columns, `bad_NAME` with the text of what does
        not fit, `kind_NAME` with how a time was read.
        """
        columns = ["row_number() OVER () AS row"]
        for field in TABLES[self.table].schema:
            columns += self._column(field)
        return f"SELECT {', '.join(columns)} FROM {self.source.sql}"

    def remarks(self) -> list[Remark]:
        """What was read how, and what could not be read."""
        questions = []
        for name, origin in self.origins.items():
            if origin.column is None or not self._judged(name):
                continue
            column = f"{self.table}.{name}: column {origin.column!r}"
            bad = f"bad_{name}"
            counts = (
                f"SELECT count({bad}), count(given_{name}), min(row) FILTER (WHERE {bad} IS NOT NULL), "
                f"arg_min({bad}, row) FILTER (WHERE {bad} IS NOT NULL) FROM in_{self.table}"
            )
            questions.append(
                Remark(counts, remarks.unreadable(self.source.path, column, cells.expected(name)))
            )
            if name in ("ts", "uploaded_at"):
                kinds = (
                    f"SELECT kind_{name}, count(*), {release.date(f'min({name})')}, "
                    f"{release.date(f'max({name})')} FROM in_{self.table} WHERE kind_{name} IS NOT NULL "
                    "GROUP BY 1 ORDER BY 2 DESC, 1"
                )
                questions.append(Remark(kinds, remarks.kinds(self.source.path, column)))
        return questions

    def _listed(self, name: str) -> bool:
        return bool(pa.types.is_list(TABLES[self.table].schema.field(name).type))

    def _judged(self, name: str) -> bool:
        """Whether not every text is a value of it: an id may be none, or have lost digits."""
        kind = TABLES[self.table].schema.field(name).type
        return name.endswith("_id") or kind not in (pa.string(), records.TEXTS)

    def _column(self, field: pa.Field) -> list[str]:
        name, origin = field.name, self.origins[field.name]
        listed = self._listed(name)
        if origin.column is None and listed:
            return [f"CAST({'[]' if name in TEXTS else 'NULL'} AS VARCHAR[]) AS {name}"]
        default = DEFAULTS.get(name) if origin.default is None else origin.default
        if origin.column is None:
            text = "CAST(NULL AS VARCHAR)" if default is None else release.text(default)
            return [f"{cells.value(field, text, None)} AS {name}"]
        cell = structs.quoted(origin.column)
        if listed:
            return [f"{cells.listed(cell, self.source.types[origin.column])} AS {name}"]
        text = f"nullif(nullif(trim(CAST({cell} AS VARCHAR)), ''), '\\N')"  # \N: null, in Hive and MySQL
        if self._judged(name):
            nothing = cells.NO_ID if name.endswith("_id") else cells.NOTHING
            text = f"CASE WHEN lower({text}) NOT IN {nothing} THEN {text} END"
        value = cells.value(field, text, origin.unit)
        made = f"coalesce({value}, '')" if name in TEXTS else value
        if origin.default is not None:
            instead = cells.value(field, release.text(origin.default), None)
            made = f"CASE WHEN {text} IS NULL THEN {instead} ELSE {made} END"
        columns = [f"{made} AS {name}"]
        if self._judged(name):
            columns.append(f"CASE WHEN {value} IS NULL THEN {text} END AS bad_{name}")
            columns.append(f"CASE WHEN {text} IS NOT NULL THEN true END AS given_{name}")
            if pa.types.is_timestamp(field.type):
                columns.append(
                    f"CASE WHEN {value} IS NOT NULL THEN {cells.kind(text, origin.unit)} END AS kind_{name}"
                )
        return columns


def _broken(parts: Mapping[str, _Part]) -> list[Remark]:
    """One remark per CSV source, however many tables are read from it."""
    of_source = {part.source.path: part for part in parts.values() if part.source.delimited}
    return [
        remarks.broken_lines(path, part.source.files, f"in_{part.table}") for path, part in of_source.items()
    ]


def source(path: Path) -> Source:
    """A file, or all files of one form in a folder; an InputError where they cannot be read."""
    files = [p for p in artifacts.walk(path) if form(p)] if path.is_dir() else [artifacts.named(path)]
    forms = {form(p) for p in files}
    if len(forms) != 1 or None in forms:
        mixture = " and ".join(sorted(filter(None, forms))) or "none of them"
        words = f"expected CSV ({', '.join(CSV[:3])}, .gz), JSON lines ({JSON[0]}, .gz) or Parquet files"
        raise InputError(path, f"{words}, found {mixture}")
    with duckdb.connect() as engine:
        try:
            listed = f"[{', '.join(map(release.text, files))}]"
            if forms == {"parquet"}:
                # Writers older than the mark of UTF-8 have texts as bytes.
                options = "union_by_name = true, hive_partitioning = false, binary_as_string = true"
                sql = structs.flat(engine, f"read_parquet({listed}, {options})")
            elif forms == {"json"}:
                sql = structs.flat(engine, _json_lines(engine, path, listed))
            else:
                sql = delimited.sql(engine, files)
            described = engine.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall()
        except duckdb.Error as error:
            raise unread(path, error) from error
    types = {row[0]: row[1] for row in described}
    if forms == {"parquet"}:
        types |= _durations(files)
    return Source(path, tuple(files), sql, types)


def _durations(files: Iterable[Path]) -> dict[str, str]:
    """Arrow's durations, as pandas and Polars write them: to the engine they are numbers without a unit."""
    fields = [field for path in files for field in pq.read_schema(path)]
    return {f.name: str(f.type) for f in fields if pa.types.is_duration(f.type)}


def _json_lines(engine: duckdb.DuckDBPyConnection, path: Path, listed: str) -> str:
    """Objects, one a line, as one table of texts, and of lists and structs of texts: a number or a time is
    read as it stands there, as in a CSV file.
    """
    options = "format = 'newline_delimited', union_by_name = true, hive_partitioning = false"
    # All lines: what is seldom said, as a purchase, may be said late.
    guessed = engine.sql(f"SELECT * FROM read_json({listed}, {options}, sample_size = -1)")
    if guessed.columns == ["json"]:  # so the engine calls what is no object
        raise InputError(path, "holds no JSON object a line; of one array: jq -c '.[]' FILE > clean.jsonl")
    types = dict(zip(guessed.columns, map(structs.texts, guessed.types), strict=True))
    columns = ", ".join(f"{release.text(name)}: {release.text(kind)}" for name, kind in types.items())
    return f"read_json({listed}, {options}, columns = {{{columns}}})"


def unread(path: Path, error: duckdb.Error) -> InputError:
    """The engine's error in one line, with what to do where that is known."""
    told = " ".join(str(error).split())
    return InputError(path, f"cannot be read: {told[:200]}{delimited.hint(path, told)}")


def form(path: Path) -> str | None:
    """`csv`, `json`, `parquet`, or None: not to be read; by the name."""
    endings = {"parquet": artifacts.PARQUET, "csv": CSV, "json": JSON}
    return next((kind for kind, ending in endings.items() if path.name.lower().endswith(ending)), None)


def _setup(parts: Mapping[str, _Part], by_id: bool, own_results: bool) -> tuple[str, ...]:
    """Rows in the file's order, with the id of their search."""
    made = [f"CREATE TEMP TABLE in_{name} AS {part.select()}" for name, part in parts.items()]
    told = "search_id" if by_id else "left(md5(concat_ws(chr(31), user_id, ts, query)), 16)"
    asked = (
        f"CREATE TEMP TABLE asked AS SELECT row, {told} AS search_id, user_id, ts, query, arm "
        "FROM in_searches"
    )
    of_searches = (
        "CREATE TEMP TABLE found AS SELECT search_id, user_id, query, min(ts) AS ts, min(arm) AS arm "
        "FROM asked GROUP BY search_id, user_id, query"
    )
    days = "CREATE TEMP TABLE days AS SELECT search_id, min(ts) AS ts FROM asked GROUP BY search_id"
    rows = (
        "in_results"
        if own_results
        else "in_results JOIN (SELECT row, search_id AS id FROM asked) USING (row)"
    )
    told = "search_id" if own_results else "id"
    # A search without results has a row without a video; in a file of results such a row is a fault.
    where = "" if own_results else "WHERE video_id IS NOT NULL"
    # Positions count from 1 where there is no 0.
    from_zero = "min(place - (SELECT least(1, min(position)) FROM in_results WHERE position >= 0))"
    in_order = "row_number() OVER (PARTITION BY search_id ORDER BY stage, min(row)) - 1"
    position = from_zero if parts["results"].has("position") else in_order
    listed = (
        "CREATE TEMP TABLE listed AS SELECT search_id, video_id, stage, bool_or(clicked) AS clicked, "
        "bool_or(liked) AS liked, max(play_s) AS play_s, arg_min(paths, row) AS paths, "
        f"CASE WHEN stage = 'exposed' THEN CAST({position} AS INTEGER) END AS position "
        f"FROM (SELECT row, {told} AS search_id, video_id, stage, position AS place, clicked, liked, play_s, "
        f"paths FROM {rows} {where}) GROUP BY search_id, video_id, stage"
    )
    ordered = ("SET preserve_insertion_order = true", *made, "SET preserve_insertion_order = false")
    return (*ordered, asked, of_searches, days, listed)


def _tables(parts: Mapping[str, _Part], own_videos: bool) -> dict[str, str]:
    # A row whose time is unknown needs a folder too: the first day's, from where validate quarantines it.
    first = f"(SELECT coalesce({release.date('min(ts)')}, '1970-01-01') FROM days)"
    day = f"coalesce({release.date('ts')}, {first}) AS date"
    tables = {
        "searches": f"SELECT search_id, user_id, {release.utc('ts')} AS ts, query, arm, {day} FROM found",
        "results": f"SELECT listed.*, {day} FROM listed LEFT JOIN days USING (search_id)",
    }
    if "feed" in parts:
        tables["feed"] = (
            f"SELECT user_id, video_id, {release.utc('ts')} AS ts, bool_or(clicked) AS clicked, "
            f"bool_or(liked) AS liked, max(play_s) AS play_s, {day} FROM in_feed "
            "GROUP BY user_id, video_id, in_feed.ts"
        )
    names = TABLES["videos"].schema.names
    plain = {name: name for name in names} | {"uploaded_at": release.utc("uploaded_at")}
    if (
        not own_videos
    ):  # a text in each of its rows: the first of the longest, so that none is empty by chance
        longest = {n: f"arg_max({plain[n]}, (len({n}), -row))" for n in TEXTS}
        plain |= {n: f"arg_min({plain[n]}, row)" for n in names if n not in ("video_id", *TEXTS)} | longest
    chosen = ", ".join(f"{sql} AS {name}" for name, sql in plain.items())
    grouped = "" if own_videos else " WHERE video_id IS NOT NULL GROUP BY video_id"
    tables["videos"] = f"SELECT {chosen} FROM in_videos{grouped}"
    return tables


def _notes(parts: Mapping[str, _Part], by_id: bool, tables: Iterable[str]) -> tuple[str, ...]:
    results = parts["results"]
    silent = [n for n in TOUCHED if not results.has(n)]
    notes = {
        "searches: no search_id; rows of one user, time and query are one search": not by_id,
        f"results: nothing says {' or '.join(silent)}: unknown": bool(silent),
        "results: no stage; all of them were exposed": not results.has("stage"),
        "results: no position; the order of the file is taken": not results.has("position"),
        "feed: no file; there is no feed perspective": "feed" not in tables,
        "videos: no file; texts are those of the log's rows": "videos" not in tables,
    }
    return tuple(note for note, applies in notes.items() if applies)
