"""CSV files as SQL: the dialect is told by their first lines, and a line that does not fit it is set aside
with its number instead of ending the import.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb

from crops.adapters import release
from crops.adapters.release import text
from crops.errors import InputError

# What the engine calls the tables of lines that were set aside, and of the files that they are from.
BROKEN, SCANS = "broken_lines", "scanned_files"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # as a file in it begins
NOT_SAID = "(empty)"  # so says the sniffer of a character that the file does not have
Layout = tuple[str, tuple[str, ...]]


def sql(engine: duckdb.DuckDBPyConnection, files: Iterable[Path]) -> str:
    """All lines of all files as one table of texts; a column that a file lacks is null in its rows.

    Raises InputError for a file that is empty or in which no columns can be told.
    """
    alike: dict[Layout, list[Path]] = {}
    for path in files:
        alike.setdefault(_layout(engine, path), []).append(path)
    return f"({' UNION ALL BY NAME '.join(f'SELECT * FROM {_read(*group)}' for group in alike.items())})"


def hint(path: Path, error: str) -> str:
    """What to do about an engine's error on a file, or nothing."""
    if "not utf-8" in error.lower():
        return "; it is not UTF-8: iconv -f latin1 -t utf-8 FILE"
    if "invalid state" in error:
        return f"; are its lines ended in two ways? tr -d '\\r' < {path.name} > clean.csv"
    return ""


def _layout(engine: duckdb.DuckDBPyConnection, path: Path) -> Layout:
    """The options of read_csv and the names of the columns."""
    if not path.stat().st_size:
        raise InputError(path, "an empty file, expected a header and rows")
    with path.open("rb") as file:
        if file.read(2) in UTF_16:
            raise InputError(path, "is UTF-16: iconv -f utf-16 -t utf-8 FILE")
    delimiter, quote, escape, comment, skip, columns = _sniffed(engine, path)
    if columns[0]["name"].lower().startswith("sep="):  # Excel's own line above the header
        delimiter, quote, escape, comment, skip, columns = _sniffed(engine, path, f"skip = {skip + 1}, ")
    if escape == NOT_SAID and quote == '"':
        escape = quote  # no quote inside of quotes in the first lines: a later one is written as by everybody
    characters = {"delim": delimiter, "quote": quote, "escape": escape, "comment": comment}
    options = [f"{name} = {text('' if c == NOT_SAID else c)}" for name, c in characters.items()]
    return ", ".join([*options, f"skip = {skip}"]), tuple(column["name"] for column in columns)


def _sniffed(engine: duckdb.DuckDBPyConnection, path: Path, more: str = "") -> tuple[Any, ...]:
    """What DuckDB takes the file's dialect for."""
    # Strict, the sniffer refuses a whole file for one line that has too few fields.
    query = (
        "SELECT Delimiter, Quote, Escape, Comment, SkipRows, Columns FROM sniff_csv("
        f"{text(path)}, {more}header = true, all_varchar = true, strict_mode = false, ignore_errors = true, "
        f"max_line_size = {release.MAX_LINE_BYTES})"
    )
    dialect = engine.execute(query).fetchone()
    assert dialect is not None
    return dialect


def _read(layout: Layout, files: list[Path]) -> str:
    options, names = layout
    columns = ", ".join(f"{text(name)}: 'VARCHAR'" for name in names)
    return (
        f"read_csv([{', '.join(map(text, files))}], auto_detect = false, header = true, {options}, "
        f"columns = {{{columns}}}, max_line_size = {release.MAX_LINE_BYTES}, hive_partitioning = false, "
        f"store_rejects = true, rejects_table = '{BROKEN}', rejects_scan = '{SCANS}')"
    )
