"""The kinds of check. Each gives the same verdict twice: as SQL for DuckDB, as an expectation for Great
Expectations.

Both are made from the same parameters, so a bound stands in one place; a test holds the two to the same
counts. A null is no value: except for `not_null` and `is_null` a check concerns only the rows that have one.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

# How a column is looked at, where that is not as it is stored. Great Expectations compares int64 and float64
# in one go and everything else value by value; and for pandas NaN is a missing value, for us it is a wrong
# one: below all numbers.
_NUMBER = "CASE WHEN isnan({0}) THEN '-inf'::DOUBLE ELSE {0}::DOUBLE END"
SEEN_AS = {
    "position": "position::DOUBLE",
    "play_s": _NUMBER.format("play_s"),
    "duration_s": _NUMBER.format("duration_s"),
}

Severity = Literal["warning", "critical"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """The rows that a check is about: those where `column` is one of `values`.

    Never "is not": a null is unequal to everything for pandas, and neither equal nor unequal for SQL.
    """

    column: str
    values: tuple[str, ...]

    @property
    def sql(self) -> str:
        """The condition for DuckDB."""
        return f"{self.column} IN ({', '.join(map(quoted, self.values))})"


@dataclass(frozen=True, slots=True)
class Check:
    """One check of single rows.

    reason       why a row that fails it is in quarantine
    bad          SQL, true where the row fails; only asked where `concerns` holds
    concerns     SQL, true where the row can fail at all: the rows that shares are taken of
    expectation  name of the class in great_expectations.expectations, with its arguments `kwargs`
    worst        what it is when more than the tolerated share of rows fails (a single bad row is always a
                 warning)
    """

    reason: str
    bad: str
    concerns: str
    expectation: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    where: Where | None = None
    worst: Severity = "critical"

    @property
    def sql(self) -> str:
        """True for a row that fails (false or null otherwise)."""
        return f"({self.concerns}) AND ({self.bad})"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the expectation reads."""
        named = [self.kwargs[k] for k in ("column", "column_A", "column_B") if k in self.kwargs]
        return (*named, self.where.column) if self.where else tuple(named)


def quoted(value: Any) -> str:
    """A Python value as an SQL literal."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else "'" + str(value).replace("'", "''") + "'"


def seen(column: str) -> str:
    """The SQL expression for the column as both engines look at it."""
    return SEEN_AS.get(column, column)


def not_null(column: str, reason: str = "", *, where: Where | None = None) -> Check:
    """The column has a value."""
    reason, concerns = reason or f"{column} is null", where.sql if where else "true"
    return Check(reason, f"{seen(column)} IS NULL", concerns, *_of(column, "ToNotBeNull"), where=where)


def is_null(column: str, reason: str, *, where: Where | None = None) -> Check:
    """The column has no value."""
    concerns = where.sql if where else "true"
    return Check(reason, f"{seen(column)} IS NOT NULL", concerns, *_of(column, "ToBeNull"), where=where)


def in_set(column: str, values: tuple[Any, ...], reason: str, *, where: Where | None = None) -> Check:
    """The value is one of `values`."""
    bad = f"{seen(column)} NOT IN ({', '.join(map(quoted, values))})"
    expectation = _of(column, "ToBeInSet", value_set=[*values])
    return Check(reason, bad, _valued(where, column), *expectation, where=where)


def not_in_set(column: str, values: tuple[Any, ...], reason: str, *, worst: Severity = "critical") -> Check:
    """The value is none of `values`."""
    bad = f"{seen(column)} IN ({', '.join(map(quoted, values))})"
    expectation = _of(column, "ToNotBeInSet", value_set=[*values])
    return Check(reason, bad, _valued(None, column), *expectation, worst=worst)


def between(
    column: str,
    reason: str,
    *,
    low: Any = None,
    high: Any = None,
    above_low: bool = False,
    worst: Severity = "critical",
) -> Check:
    """low <= value <= high (low < value if `above_low`); times are written RFC 3339."""
    bad = _outside(seen(column), low, high, "<=" if above_low else "<")
    expectation = _of(column, "ToBeBetween", min_value=low, max_value=high, strict_min=above_low or None)
    return Check(reason, bad, _valued(None, column), *expectation, worst=worst)


def length_between(column: str, reason: str, *, low: int | None = None, high: int | None = None) -> Check:
    """low <= characters <= high."""
    expectation = "ExpectColumnValueLengthsToBeBetween", _of(column, "", min_value=low, max_value=high)[1]
    return Check(reason, _outside(f"length({column})", low, high), _valued(None, column), *expectation)


def same(left: str, right: str, reason: str) -> Check:
    """Both columns hold the same, if both hold something."""
    return _pair(left, right, "<>", reason, "ExpectColumnPairValuesToBeEqual")


def not_before(later: str, earlier: str, reason: str) -> Check:
    """earlier <= later, if both hold something."""
    return _pair(later, earlier, "<", reason, "ExpectColumnPairValuesAToBeGreaterThanB", or_equal=True)


def _pair(a: str, b: str, bad: str, reason: str, expectation: str, **more: Any) -> Check:
    both = f"{a} IS NOT NULL AND {b} IS NOT NULL"
    columns = {"column_A": a, "column_B": b, "ignore_row_if": "either_value_is_missing"}
    return Check(reason, f"{a} {bad} {b}", both, expectation, columns | more)


def _of(column: str, verb: str, **kwargs: Any) -> tuple[str, dict[str, Any]]:
    """An expectation of one column's values, and its arguments."""
    arguments = {name: value for name, value in kwargs.items() if value is not None}
    return f"ExpectColumnValues{verb}", {"column": column, **arguments}


def _outside(value: str, low: Any, high: Any, below: str = "<") -> str:
    bounds = [(sign, bound) for sign, bound in ((below, low), (">", high)) if bound is not None]
    return " OR ".join(f"{value} {sign} {_literal(bound)}" for sign, bound in bounds)


def _valued(where: Where | None, column: str) -> str:
    valued = f"{seen(column)} IS NOT NULL"
    return f"{where.sql} AND {valued}" if where else valued


def _literal(bound: Any) -> str:
    return f"TIMESTAMPTZ {quoted(bound)}" if isinstance(bound, str) else quoted(bound)
