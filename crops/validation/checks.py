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


@dataclass(frozen=True, slots=True, kw_only=True)
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
    return Check(
        reason=reason or f"{column} is null",
        bad=f"{seen(column)} IS NULL",
        concerns=where.sql if where else "true",
        expectation="ExpectColumnValuesToNotBeNull",
        kwargs={"column": column},
        where=where,
    )


def is_null(column: str, reason: str, *, where: Where) -> Check:
    """The column has no value."""
    return Check(
        reason=reason,
        bad=f"{seen(column)} IS NOT NULL",
        concerns=where.sql,
        expectation="ExpectColumnValuesToBeNull",
        kwargs={"column": column},
        where=where,
    )


def in_set(column: str, values: tuple[Any, ...], reason: str, *, where: Where | None = None) -> Check:
    """The value is one of `values`."""
    listed = ", ".join(quoted(v) for v in values)
    return Check(
        reason=reason,
        bad=f"{seen(column)} NOT IN ({listed})",
        concerns=_valued(where, column),
        expectation="ExpectColumnValuesToBeInSet",
        kwargs={"column": column, "value_set": [*values]},
        where=where,
    )


def not_in_set(column: str, values: tuple[Any, ...], reason: str, *, worst: Severity = "critical") -> Check:
    """The value is none of `values`."""
    listed = ", ".join(quoted(v) for v in values)
    return Check(
        reason=reason,
        bad=f"{seen(column)} IN ({listed})",
        concerns=_valued(None, column),
        worst=worst,
        expectation="ExpectColumnValuesToNotBeInSet",
        kwargs={"column": column, "value_set": [*values]},
    )


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
    bounds = [("<=" if above_low else "<", low), (">", high)]
    bad = " OR ".join(
        f"{seen(column)} {sign} {_literal(bound)}" for sign, bound in bounds if bound is not None
    )
    kwargs = {"column": column, "min_value": low, "max_value": high, "strict_min": above_low or None}
    return Check(
        reason=reason,
        bad=bad,
        concerns=_valued(None, column),
        worst=worst,
        expectation="ExpectColumnValuesToBeBetween",
        kwargs={k: v for k, v in kwargs.items() if v is not None},
    )


def length_between(column: str, reason: str, *, low: int | None = None, high: int | None = None) -> Check:
    """low <= characters <= high."""
    bounds = [
        f"length({column}) {sign} {bound}" for sign, bound in (("<", low), (">", high)) if bound is not None
    ]
    kwargs = {"column": column, "min_value": low, "max_value": high}
    return Check(
        reason=reason,
        bad=" OR ".join(bounds),
        concerns=_valued(None, column),
        expectation="ExpectColumnValueLengthsToBeBetween",
        kwargs={k: v for k, v in kwargs.items() if v is not None},
    )


def same(left: str, right: str, reason: str) -> Check:
    """Both columns hold the same, where both hold something."""
    return Check(
        reason=reason,
        bad=f"{left} <> {right}",
        concerns=f"{left} IS NOT NULL AND {right} IS NOT NULL",
        expectation="ExpectColumnPairValuesToBeEqual",
        kwargs={"column_A": left, "column_B": right, "ignore_row_if": "either_value_is_missing"},
    )


def not_before(later: str, earlier: str, reason: str) -> Check:
    """earlier <= later, where both hold something."""
    return Check(
        reason=reason,
        bad=f"{later} < {earlier}",
        concerns=f"{later} IS NOT NULL AND {earlier} IS NOT NULL",
        expectation="ExpectColumnPairValuesAToBeGreaterThanB",
        kwargs={
            "column_A": later,
            "column_B": earlier,
            "or_equal": True,
            "ignore_row_if": "either_value_is_missing",
        },
    )


def _valued(where: Where | None, column: str) -> str:
    valued = f"{seen(column)} IS NOT NULL"
    return f"{where.sql} AND {valued}" if where else valued


def _literal(bound: Any) -> str:
    return f"TIMESTAMPTZ {quoted(bound)}" if isinstance(bound, str) else quoted(bound)
