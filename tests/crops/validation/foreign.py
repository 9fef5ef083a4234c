"""A sound log as pandas, Spark, Polars, BigQuery and Arrow write it; the values stay the same."""

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Change = Callable[[pa.Table], pa.Table]


def cast(**types: pa.DataType) -> Change:
    """Columns in other types, by Arrow's own lossless cast."""

    def change(table: pa.Table) -> pa.Table:
        for name, dtype in types.items():
            table = put(table, name, table[name].cast(dtype))
        return table

    return change


def put(table: pa.Table, name: str, values) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def number(value: str | None) -> int | None:
    """s00012 -> 12: the id as other systems have it."""
    return None if value is None else int(value[1:])


def ids(dtype: pa.DataType, *names: str) -> Change:
    def change(table: pa.Table) -> pa.Table:
        for name in names:
            found = [number(v) for v in table[name].to_pylist()]
            found = [Decimal(v) for v in found] if pa.types.is_decimal(dtype) else found
            table = put(
                table,
                name,
                pa.array(found, pa.int64() if not pa.types.is_decimal(dtype) else dtype).cast(dtype),
            )
        return table

    return change


def flags(dtype: pa.DataType) -> Change:
    return lambda table: cast(clicked=dtype, liked=dtype)(cast(clicked=pa.int8(), liked=pa.int8())(table))


def zone(unit: str, tz: str | None, name: str = "ts") -> Change:
    return cast(**{name: pa.timestamp(unit, tz)})


def decimals(table: pa.Table, *names: str) -> pa.Table:
    for name in names:
        values = [None if v is None else Decimal(str(v)) for v in table[name].to_pylist()]
        table = put(table, name, pa.array(values, pa.decimal128(12, 3)))
    return table


def nothing(name: str) -> Change:
    return lambda table: put(table, name, pa.nulls(table.num_rows))


def lists(dtype: Callable[[pa.DataType], pa.DataType]) -> Change:
    return lambda t: put(t, "keywords", pa.array(t["keywords"].to_pylist(), dtype(pa.string())))


def extra(table: pa.Table) -> pa.Table:
    """Columns that nobody asked for, some of them named as the engines name a row's place."""
    rows = table.num_rows
    for name in ("filename", "file_row_number", "date", "file", "reason", "copy"):
        if name not in table.column_names:
            table = table.append_column(name, pa.array([name] * rows))
    return table.append_column("x", pa.array([{"a": [1]}] * rows)).append_column(
        "span", pa.array([dt.timedelta(1)] * rows)
    )


# What is done to which tables; ids are told apart below, because their values become other text.
SAME: dict[str, dict[str, Change]] = {
    "pandas: whole numbers with nulls": {"results": cast(position=pa.float64(), play_s=pa.float64())},
    "pandas: nanoseconds without zone": {t: zone("ns", None) for t in ("searches", "feed")},
    "pandas: nanoseconds of another zone": {t: zone("ns", "Asia/Shanghai") for t in ("searches", "feed")},
    "pandas: categories": {"results": lambda t: put(t, "stage", t["stage"].dictionary_encode())},
    "pandas: only nulls": {"videos": nothing("author_id"), "results": nothing("paths")},
    "Polars: large text and lists": {
        "searches": cast(query=pa.large_string(), user_id=pa.large_string()),
        "videos": cast(caption=pa.large_string(), keywords=pa.large_list(pa.large_string())),
    },
    "Polars: narrow numbers": {"results": cast(position=pa.uint8()), "feed": flags(pa.int8())},
    "Arrow: views and lists of one length": {"videos": lists(lambda t: pa.list_(t, 2))},
    "Arrow: milliseconds and seconds": {"searches": zone("ms", "UTC"), "feed": zone("s", None)},
    "BigQuery: INT64 and FLOAT64": {
        "results": lambda t: flags(pa.int64())(cast(position=pa.int64(), play_s=pa.float64())(t)),
        "videos": cast(duration_s=pa.int64()),
    },
    "BigQuery: NUMERIC": {
        "results": lambda t: decimals(cast(position=pa.float64())(t), "play_s", "position")
    },
    "flags as floats": {"results": flags(pa.float64())},
    "dates of upload": {"videos": cast(uploaded_at=pa.timestamp("us"))},
    "more columns": dict.fromkeys(("searches", "results", "feed", "videos"), extra),
}


def rewrite(logs: Path, table: str, change: Change, only: int | None = None, **options) -> None:
    """Every file of the table, or the one with the number `only`, as `change` makes it."""
    for path in sorted((logs / table).rglob("*.parquet"))[
        slice(None) if only is None else slice(only, only + 1)
    ]:
        changed = change(pq.ParquetFile(path).read())
        path.unlink()
        pq.write_table(changed, path, **options)
