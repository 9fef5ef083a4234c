"""What a cell of a CSV or Parquet file says: SQL from its text to the value of our column, null where it is
none.
"""

import pyarrow as pa

from crops.adapters import release
from crops.adapters.columns import UNITS

# How exports write that there is no number, flag or time.
NOTHING = "('nan', 'nat', 'null', 'none', 'na', 'n/a', '\\n')"
YES, NO = ("true", "t", "yes", "y"), ("false", "f", "no", "n")


def value(field: pa.Field, text: str, unit: str | None) -> str:
    """The column's value of a cell's text; null where it is none."""
    if pa.types.is_timestamp(field.type):
        return time_us(text, unit)
    number = f"try_cast({text} AS DOUBLE)"
    if pa.types.is_boolean(field.type):
        cases = " ".join(
            f"WHEN lower({text}) IN ({', '.join(map(release.text, words))}) THEN {flag}"
            for flag, words in ((True, YES), (False, NO))
        )
        return f"CASE {cases} WHEN {number} >= 0 THEN {number} > 0 END"
    if pa.types.is_floating(field.type):
        return f"try_cast({number} * {UNITS[unit or 's']} AS FLOAT)"
    if pa.types.is_integer(field.type):
        return f"CASE WHEN {number} = floor({number}) THEN try_cast({number} AS INTEGER) END"
    # Whole numbers with a gap become floats in pandas: 12.0 here is the 12 of another file.
    return f"regexp_replace({text}, '^(-?[0-9]+)\\.0$', '\\1')" if field.name.endswith("_id") else text


def time_us(text: str, unit: str | None) -> str:
    """Microseconds since 1970."""
    number = f"try_cast({text} AS DOUBLE)"
    us = release.epoch_us(text) if unit is None else f"try_cast({number} * {UNITS[unit] * 1e6} AS BIGINT)"
    return f"CASE WHEN {number} IS NULL THEN epoch_us(try_cast({text} AS TIMESTAMPTZ)) ELSE {us} END"


def kind(text: str, unit: str | None) -> str:
    """In which form a time stands there."""
    number = f"try_cast({text} AS DOUBLE)"
    named = release.epoch_unit(text) if unit is None else release.text(unit)
    return f"CASE WHEN {number} IS NULL THEN 'ISO 8601 text' ELSE {named} END"


def listed(cell: str, kind: str) -> str:
    """A list as it is; a text is cut at commas, semicolons and bars."""
    if kind.endswith("[]"):
        return f"coalesce(CAST({cell} AS VARCHAR[]), [])"
    cut = f"string_split_regex(CAST({cell} AS VARCHAR), '[,;|]')"
    return f"coalesce(list_filter(list_transform({cut}, lambda x: trim(x)), lambda x: x <> ''), [])"


def expected(name: str) -> str:
    """What the column `name` can hold, in words."""
    return {
        "ts": "time (ISO 8601, or seconds, ms, us or ns since 1970)",
        "uploaded_at": "time (ISO 8601, or seconds, ms, us or ns since 1970)",
        "clicked": "true or false, 1 or 0, yes or no, or a count",
        "liked": "true or false, 1 or 0, yes or no, or a count",
        "position": "whole number",
    }.get(name, "number")
