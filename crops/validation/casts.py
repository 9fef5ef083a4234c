"""How a column of one type is read as another without losing anything: what pandas, Polars, Spark, BigQuery
and Arrow write where our tables say something else.

Two kinds of readings: some take every value (text of another width, a time of another unit), some ask the
value itself (a whole number in a float, 0 or 1 for a flag). Where it does not fit the column is null, and the
row goes to quarantine with that reason.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

# Largest float32, and the largest whole number up to which float64 holds every whole number.
FLOAT_MAX, WHOLE_MAX = "3.4028234663852886e38", "9007199254740991"

SQL_TYPES = {
    pa.string(): "VARCHAR",
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float64(): "DOUBLE",
    pa.float32(): "FLOAT",
    pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ",
    pa.list_(pa.string()): "VARCHAR[]",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """SQL (in DuckDB's dialect) from a column as it is stored, `{0}`, to the wanted type.

    sql    the value in the wanted type, null where it does not fit
    value  the value as it is stored, null where that is how its type says "none"
    exact  no value can fail to fit
    """

    sql: str
    value: str = "{0}"
    exact: bool = False

    def typed(self, column: str) -> str:
        """SQL of the column in the wanted type."""
        return self.sql.format(self.value.format(column))

    def unfit(self, column: str) -> str:
        """SQL of the text of a value that does not fit, else null."""
        if self.exact:
            return "CAST(NULL AS VARCHAR)"
        stored = self.value.format(column)
        return f"CASE WHEN {self.typed(column)} IS NULL THEN CAST({stored} AS VARCHAR) END"


def reading(actual: pa.DataType, target_type: pa.DataType) -> Reading | None:
    """How `actual` is read as `wanted`; None where that would be a guess, as text for a number."""
    actual, target = plain(actual), SQL_TYPES[target_type]
    if pa.types.is_null(actual):
        return Reading(f"CAST(NULL AS {target})", exact=True)
    return next((reader(actual, target) for is_wanted, reader in FAMILIES if is_wanted(target_type)), None)


def plain(dtype: pa.DataType) -> pa.DataType:
    """The type of the values, where they are stored by number."""
    return plain(dtype.value_type) if pa.types.is_dictionary(dtype) else dtype


def named(dtype: pa.DataType) -> str:
    """The type as we write it down, whatever the writer called a list's items."""
    if hasattr(dtype, "value_type") and not pa.types.is_dictionary(dtype):
        return f"list<{named(dtype.value_type)}>"
    return str(dtype)


def is_text(dtype: pa.DataType) -> bool:
    """Any of Arrow's string types."""
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_kind(dtype) for is_kind in kinds)


def _text(actual: pa.DataType, target: str) -> Reading | None:
    """Text itself; ids that are whole numbers by their digits."""
    if is_text(actual):
        return Reading("{0}", exact=True)
    if pa.types.is_integer(actual):
        return Reading(f"CAST({{0}} AS {target})", exact=True)
    if pa.types.is_floating(actual):
        whole = f"{{0}} = TRY_CAST({{0}} AS BIGINT) AND abs({{0}}) <= {WHOLE_MAX}"
        return Reading(f"CASE WHEN {whole} THEN CAST(TRY_CAST({{0}} AS BIGINT) AS {target}) END", NUMBER)
    if _is_decimal(actual):
        whole = "TRY_CAST({0} AS DECIMAL(38, 0))"
        return Reading(f"CASE WHEN {{0}} = {whole} THEN CAST({whole} AS {target}) END")
    return None


def _flag(actual: pa.DataType, _target: str) -> Reading | None:
    if pa.types.is_boolean(actual):
        return Reading("{0}", exact=True)
    flag = "CASE WHEN {0} = 0 THEN false WHEN {0} = 1 THEN true END"
    return Reading(flag, NUMBER if pa.types.is_floating(actual) else "{0}") if _is_number(actual) else None


def _whole(actual: pa.DataType, target: str) -> Reading | None:
    if pa.types.is_integer(actual):
        width = {"INTEGER": 32, "BIGINT": 64}[target]
        exact = actual.bit_width < width or (actual.bit_width == width and pa.types.is_signed_integer(actual))
        return Reading(f"TRY_CAST({{0}} AS {target})", exact=exact)
    value = NUMBER if pa.types.is_floating(actual) else "{0}"
    whole = f"TRY_CAST({{0}} AS {target})"
    return Reading(f"CASE WHEN {{0}} = {whole} THEN {whole} END", value) if _is_number(actual) else None


def _fraction(actual: pa.DataType, target: str) -> Reading | None:
    """Rounded to the width of the column; what is not finite stays so, and is the checks' concern."""
    if actual == pa.float64() and target == "FLOAT":
        fits = f"isnan({{0}}) OR abs({{0}}) <= {FLOAT_MAX} OR abs({{0}}) = CAST('inf' AS DOUBLE)"
        return Reading(f"CASE WHEN {fits} THEN CAST({{0}} AS FLOAT) END")
    return Reading(f"CAST({{0}} AS {target})", exact=True) if _is_number(actual) else None


def _time(actual: pa.DataType, target: str) -> Reading | None:
    """Any unit; an instant of any zone is stored in UTC, a time without one is taken for UTC, a date is its
    midnight.
    """
    if pa.types.is_timestamp(actual) or pa.types.is_date(actual):
        return Reading(f"TRY_CAST({{0}} AS {target})", exact=bool(pa.types.is_timestamp(actual)))
    return None


def _texts(actual: pa.DataType, _target: str) -> Reading | None:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view)
    if not any(is_list(actual) for is_list in kinds):
        return None
    values = plain(actual.value_type)
    if pa.types.is_null(values):  # only empty lists and nulls
        return Reading("CASE WHEN {0} IS NOT NULL THEN CAST([] AS VARCHAR[]) END", exact=True)
    return Reading("{0}", exact=True) if is_text(values) else None


def _is_decimal(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(dtype)) and dtype.bit_width <= 128


def _is_number(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_integer(dtype) or pa.types.is_floating(dtype)) or _is_decimal(dtype)


# A float column says "no value" by NaN where whole numbers, flags and ids cannot.
NUMBER = "CASE WHEN NOT isnan({0}) THEN {0} END"
FAMILIES: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType, str], Reading | None]], ...] = (
    (pa.types.is_string, _text),
    (pa.types.is_boolean, _flag),
    (pa.types.is_integer, _whole),
    (pa.types.is_floating, _fraction),
    (pa.types.is_timestamp, _time),
    (pa.types.is_list, _texts),
)

# What to do about a column that is read as nothing, by the type that is wanted.
HINTS = {
    "VARCHAR": "text, or ids as whole numbers",
    "BOOLEAN": "true and false, or 0 and 1",
    "INTEGER": "whole numbers (pandas: pd.to_numeric)",
    "BIGINT": "whole numbers (pandas: pd.to_numeric)",
    "FLOAT": "numbers (pandas: pd.to_numeric)",
    "DOUBLE": "numbers (pandas: pd.to_numeric)",
    "TIMESTAMPTZ": "a time (pandas: pd.to_datetime(column, utc=True), with unit='s' or 'ms' for numbers)",
    "VARCHAR[]": "a list of texts in each row (pandas: column.str.split(','))",
}
