"""What the adapters of the large data sets share: a release as SQL that one engine runs piece by piece.

An adapter looks at names and column headers only, and says in SQL what the tables are; reading, spilling and
writing are the stage's. So a set that does not fit in memory is converted in pieces or on disk, and a wrong
folder fails at once.
"""

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crops.errors import InputError

# A quoted field of the public releases can exceed Python's 128 KiB and DuckDB's 2 MB; a line above this is
# damage.
MAX_LINE_BYTES = 8 * 1024 * 1024
# Epoch numbers above this are milliseconds: as seconds they would lie beyond the year 5000. A thousand times
# that begins the microseconds, and again the nanoseconds.
LARGEST_EPOCH_S = 100_000_000_000
EPOCHS = {"seconds": 1e6, "milliseconds": 1e3, "microseconds": 1.0, "nanoseconds": 1e-3}  # in microseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part that is converted on its own and gives each table at most one file per date.

    `feather` names Arrow files for the SQL; `setup` runs first; `tables` has a SELECT per table with the
    table's columns and, where it is partitioned, `date` (YYYY-MM-DD).
    """

    feather: Mapping[str, Path] = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    tables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Remark:
    """A SELECT that is asked when all pieces are done, and what its rows have to say to the user; an
    InputError where they say that the data cannot be used.
    """

    sql: str
    say: Callable[[list[tuple[Any, ...]]], list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A whole data set. `counts` are SELECTs of one number each, asked when all pieces are done: what was
    left out.
    """

    pieces: tuple[Piece, ...]
    counts: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()


def text(value: object) -> str:
    """An SQL string literal.

    >>> text("it's")
    "'it''s'"
    """
    return "'" + str(value).replace("'", "''") + "'"


def folder_with(src: Path, name: str, advice: str) -> Path:
    """`src` or the folder directly in it that holds `name`; an InputError with `advice` where there is none
    or several.
    """
    if src.is_file():
        raise InputError(src, f"a file, expected the unpacked folder; {advice}")
    folders = [
        folder
        for folder in (src, *sorted(p for p in src.iterdir() if p.is_dir()))
        if (folder / name).exists()
    ]
    if not folders:
        raise InputError(src, f"holds no {name}; {advice}")
    if len(folders) > 1:
        raise InputError(
            src, f"holds {name} in several folders ({', '.join(p.name for p in folders)}): name one of them"
        )
    return folders[0]


def csv_columns(path: Path) -> list[str]:
    """The header of a CSV file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return next(csv.reader(lines), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, f"not a readable CSV file: {error}") from error


def require(columns: Iterable[str], needed: Iterable[str], path: Path, advice: str) -> None:
    """An InputError that names the first missing column, what is there instead, and what to do."""
    have = list(columns)
    for column in needed:
        if column not in have:
            raise InputError(
                path, f"column {column!r} is missing, found {', '.join(have) or 'none'}; {advice}"
            )


def read_csv(path: Path) -> str:
    """The file as an SQL table of texts, in its order, whatever lengths its quoted fields have."""
    return (
        f"read_csv({text(path)}, header = true, all_varchar = true, delim = ',', quote = '\"', "
        "escape = '\"', "
        f"max_line_size = {MAX_LINE_BYTES})"
    )


def epoch_us(column: str) -> str:
    """Microseconds of an epoch in one of EPOCHS, whichever it is; null where it is no number, or none that a
    time can be.
    """
    return f"try_cast(try_cast({column} AS DOUBLE) * {_by_epoch(column, EPOCHS.values())} AS BIGINT)"


def epoch_unit(column: str) -> str:
    """Which of EPOCHS an epoch is in."""
    return _by_epoch(column, map(text, EPOCHS))


def _by_epoch(column: str, choices: Iterable[object]) -> str:
    limits = [LARGEST_EPOCH_S * 1_000**n for n in range(len(EPOCHS))]
    pairs = zip(limits, choices, strict=True)
    cases = " ".join(
        f"WHEN abs(try_cast({column} AS DOUBLE)) <= {limit} THEN {choice}" for limit, choice in pairs
    )
    return f"(CASE {cases} END)"


def utc(us: str) -> str:
    """The column type of `ts` from microseconds."""
    return f"make_timestamp({us}) AT TIME ZONE 'UTC'"


def date(us: str) -> str:
    """The partition of microseconds: the day in UTC."""
    return f"strftime(make_timestamp({us}), '%Y-%m-%d')"


def whole(column: str) -> str:
    """An integer id as text; null where it is none (also from `12.0`, as floats are written)."""
    return f"CAST(try_cast({column} AS BIGINT) AS VARCHAR)"


def seconds(column: str, per_second: int) -> str:
    """A duration as float seconds; null where it is unknown: no number, NaN or negative."""
    number = f"try_cast({column} AS DOUBLE)"
    return f"CASE WHEN NOT isnan({number}) AND {number} >= 0 THEN CAST({number} / {per_second} AS FLOAT) END"
