"""Nested columns: a struct is read as its fields, each a column called by its path, as `hit.id` is."""

from collections.abc import Iterator

import duckdb
from duckdb import sqltypes

from crops.adapters.release import text


def flat(engine: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The table `sql` with no struct in it, however deep they lay. A column that is itself called as a path
    hides that field.
    """
    table = engine.sql(f"SELECT * FROM {sql}")
    names = {name.lower() for name in table.columns}
    columns = []
    for name, kind in zip(table.columns, table.types, strict=True):
        for path, cell in _fields(name, quoted(name), kind):
            if path == name or path.lower() not in names:
                columns.append(f"{cell} AS {quoted(path)}")
    return f"(SELECT {', '.join(columns)} FROM {sql})"


def texts(kind: sqltypes.DuckDBPyType) -> str:
    """The type in which what a column of JSON holds stays as it is written: lists and structs of texts."""
    if kind.id == "struct":
        return f"STRUCT({', '.join(f'{quoted(name)} {texts(child)}' for name, child in _of(kind))})"
    return "VARCHAR[]" if kind.id == "list" else "VARCHAR"


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _fields(path: str, cell: str, kind: sqltypes.DuckDBPyType) -> Iterator[tuple[str, str]]:
    if kind.id != "struct":
        yield path, cell
        return
    for name, child in _of(kind):
        yield from _fields(f"{path}.{name}", f"struct_extract({cell}, {text(name)})", child)


def _of(kind: sqltypes.DuckDBPyType) -> list[tuple[str, sqltypes.DuckDBPyType]]:
    # The children of another kind's type are its size or its words.
    return [(name, child) for name, child in kind.children if isinstance(child, sqltypes.DuckDBPyType)]
