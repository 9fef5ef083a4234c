"""The map from the columns of a file to those of our tables: `query=q,user=uid,videos.caption=title`."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crops.errors import ConfigError, InputError
from crops.tables import records

TABLES = {table.name: table for table in records.LOGS}
FIELDS = tuple(dict.fromkeys(name for table in records.LOGS for name in table.schema.names))
TEXTS = ("caption", "keywords", "cover_text", "related_queries")
SHORT = {"search": "search_id", "user": "user_id", "video": "video_id", "time": "ts"}
UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0}
# How the day stands in a date that is not ISO's; with dots it is the first by itself.
DOTTED = "dotted"
FORMS = {DOTTED: "day.month.year text", "dmy": "day/month/year text", "mdy": "month/day/year text"}
CALENDAR = ("ts", "uploaded_at")
TIMED = ("ts", "uploaded_at", "play_s", "duration_s")
# How others call it. Only ever proposed: a guess that is wrong would teach the wrong thing in silence.
USUAL = {
    "query": "q query_text search_query search_term searchterm search_text term keyword",
    "user_id": "uid userid customer customer_id visitor visitor_id session session_id client_id",
    "ts": "timestamp event_time time_stamp datetime date created_at event_ts searched_at",
    "search_id": "searchid query_id qid request_id impression_id search_uid serp_id",
    "video_id": "item item_id product product_id sku doc_id document_id article_id url asin note_id",
    "position": "rank pos slot index",
    "clicked": "click is_click is_clicked clicks",
    "liked": "like likes purchase purchased bought add_to_cart order is_bought favourite",
    "play_s": "play_time watch_time dwell dwell_time duration_watched",
    "caption": "title name product_name product_title headline item_title",
    "cover_text": "description body text content abstract",
    "keywords": "tags category categories",
    "duration_s": "duration length",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the values of one of our columns come from.

    column  of the file; None: it has none. unit: one of UNITS; None: told from the values
    default what stands where the file has nothing; None: it stays unknown
    """

    column: str | None
    unit: str | None = None
    default: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnMap:
    """(table or None for every table, our column) -> the file's column, and the same -> a value in its
    place.
    """

    columns: Mapping[tuple[str | None, str], str] = field(default_factory=dict)
    values: Mapping[tuple[str | None, str], str] = field(default_factory=dict)

    @classmethod
    def parse(cls, columns: Iterable[str], values: Iterable[str] = ()) -> "ColumnMap":
        """From the texts of --map and --set. ConfigError names what is no pair or no column of ours.

        >>> ColumnMap.parse(["query=q,videos.caption=title"]).columns
        {(None, 'query'): 'q', ('videos', 'caption'): 'title'}
        """
        return cls(columns=_pairs("--map", columns), values=_pairs("--set", values))

    def origin(self, table: str, name: str, columns: Iterable[str], path: Path) -> Origin:
        """Of column `name` of `table` in a file with the columns `found`: what the map says for this table,
        what it says for all, or the column of the same name.
        """
        have = list(columns)
        default = self.values.get((table, name), self.values.get((None, name)))
        if (mapped := self.columns.get((table, name))) is not None:
            column, unit = _split(mapped, have)
            if column not in have:
                raise missing(path, column, f"{table}.{name}", have)
            return Origin(column=column, unit=_unit(unit, name), default=default)
        if (shared := self.columns.get((None, name))) is not None:
            column, unit = _split(shared, have)
            if column in have:
                return Origin(column=column, unit=_unit(unit, name), default=default)
        same = [c for c in have if SHORT.get(c.lower(), c.lower()) == name]
        return Origin(column=same[0] if same else None, default=default)

    def check_used(self, columns_of: Mapping[Path, Iterable[str]], tables: Iterable[str]) -> None:
        """An InputError for a column of the map that no file has, a ConfigError for one of a table that is
        not read.
        """
        for (table, name), text in self.columns.items():
            if table is not None and table not in tables:
                raise ConfigError(
                    f"--map {table}.{name}={text}: no file of {table} is given (--{table} FILE)"
                )
            have = [c for columns in columns_of.values() for c in columns]
            column, _ = _split(text, have)
            if column not in have:
                raise missing(next(iter(columns_of)), column, name, have)


def missing(path: Path, column: str, ours: str, columns: Iterable[str]) -> InputError:
    """A column of the map that the file lacks, with the nearest that it has."""
    have = list(dict.fromkeys(columns))
    near = difflib.get_close_matches(column, have, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return InputError(path, f"column {column!r} (for {ours}) is missing{hint} Columns: {', '.join(have)}")


def unmapped(
    path: Path, names: Iterable[str], columns: Iterable[str], reason: str, *, only_one: bool = False
) -> InputError:
    """Columns that are needed (`only_one`: one of them) and that nothing was said about, with a proposal from
    the usual names.
    """
    needed, have = list(names), list(columns)
    guesses = {name: guess for name in needed if (guess := _usual(name, have))}
    if only_one:
        needed = [*guesses, *needed][:1]
    short = {ours: word for word, ours in SHORT.items()}
    words = [f"{short.get(n, n)}={guesses.get(n, 'COLUMN')}" for n in needed]
    hint = f"--map {','.join(words)}" + (" (a guess by the names)" if guesses else "")
    return InputError(
        path, f"nothing is mapped to {', '.join(needed)}: {reason}; {hint}. Columns: {', '.join(have)}"
    )


def proposal(columns: Iterable[str], videos: Iterable[str] = ()) -> str:
    """A map of a search log with these columns, and of the texts in a file of `videos`, guessed by the usual
    names; COLUMN where none fits.

    >>> proposal(["search_term", "customer_id", "ts", "sku", "click"], videos=["sku", "title"])
    'query=search_term,user=customer_id,time=ts,video=sku,clicked=click,caption=title'
    """
    have, short = list(columns), {ours: word for word, ours in SHORT.items()}
    wanted = (
        "query",
        "user_id",
        "ts",
        "video_id",
        "clicked",
        "search_id",
        "position",
        "play_s",
        "liked",
        "caption",
    )
    pairs: dict[str, str] = {}
    for name in wanted:
        same = next((c for c in have if c.lower() in (name, short.get(name))), None)
        guess = same or _usual(name, have) or ("COLUMN" if name in wanted[:4] else None)
        if guess and (guess == "COLUMN" or guess not in pairs.values()):
            pairs[name] = guess
    catalogue = list(videos)
    texts = {name: _usual(name, catalogue) for name in TEXTS if name not in catalogue}
    for name, column in texts.items():
        if column and pairs.setdefault(name, column) != column:
            pairs[f"videos.{name}"] = column
    return ",".join(f"{short.get(name, name)}={column}" for name, column in pairs.items())


def _usual(name: str, have: list[str]) -> str | None:
    usual = USUAL.get(name, "").split()
    return next((c for word in usual for c in have if c.lower() == word), None)


def _pairs(option: str, texts: Iterable[str]) -> dict[tuple[str | None, str], str]:
    pairs: dict[tuple[str | None, str], str] = {}
    for pair in (p.strip() for text in texts for p in text.split(",") if p.strip()):
        key, equals, value = pair.partition("=")
        if not equals or not value.strip():
            raise ConfigError(f"{option} {pair!r} is no pair, expected OURS=THEIRS as in query=q")
        table, dot, name = key.strip().rpartition(".")
        name = SHORT.get(name, name)
        if dot and table not in TABLES:
            raise ConfigError(f"{option} {pair!r}: no table {table!r}, expected one of {', '.join(TABLES)}")
        allowed = TABLES[table].schema.names if dot else FIELDS
        if name not in allowed:
            near = difflib.get_close_matches(name, [*allowed, *SHORT], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ConfigError(
                f"{option} {pair!r}: no column {name!r} of ours{hint} Known: {', '.join(allowed)}"
            )
        pairs[table or None, name] = value.strip()
    return pairs


def _split(text: str, have: list[str]) -> tuple[str, str | None]:
    """`watched:ms` is the column `watched` in milliseconds, unless a column is called so."""
    column, colon, unit = text.rpartition(":")
    return (column, unit) if colon and text not in have else (text, None)


def _unit(unit: str | None, name: str) -> str | None:
    if unit is None or (unit in UNITS and name in TIMED) or (unit in ("dmy", "mdy") and name in CALENDAR):
        return unit
    raise ConfigError(
        f"unit {unit!r} of {name}: expected one of {', '.join(UNITS)}, of {', '.join(TIMED)} alone, or of "
        f"{' and '.join(CALENDAR)} also dmy or mdy"
    )
