"""The Great Expectations suite of one table, and its verdict over batches of bounded size.

A suite has three parts: rows (every check of rules.py, twice: no bad row at all is a warning, more than the
tolerated share is what the check says), days (volume, click rate, positions) and files (the types that the
Parquet files declare). Rows come batch by batch and the counts of the batches add up, so memory does not grow
with the log.
"""

import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from crops.config.validate import ValidateConfig
from crops.tables.records import Table
from crops.validation.checks import Check
from crops.validation.split import Split

# Great Expectations reports its use to its makers unless told not to, and reads this when it is imported.
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

EXAMPLES = 10


@dataclass(slots=True)
class Tally:
    """What the batches add up to for one check: counts, and the first few unexpected values."""

    looked_at: int = 0
    unexpected: int = 0
    examples: list[Any] = field(default_factory=list)

    def add(self, result: dict[str, Any]) -> None:
        """Adds the `result` of one batch."""
        self.looked_at += result["element_count"]
        self.unexpected += result["unexpected_count"]
        self.examples += [
            _plain(v) for v in result.get("partial_unexpected_list", [])[: EXAMPLES - len(self.examples)]
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One expectation with its result in Great Expectations' own form, and what `crops` adds to it.

    part      rows, days or files: what it is about
    reason    the check, in words;  severity  warning or critical
    expected  what was asked for, in words;  observed  what was found, in words
    """

    result: Any
    part: Literal["rows", "days", "files"]
    reason: str
    severity: str
    expected: str
    observed: str

    @property
    def success(self) -> bool:
        """Whether the expectation holds."""
        return bool(self.result.success)

    @property
    def column(self) -> str:
        """The column, or both."""
        kwargs = self.result.expectation_config.kwargs
        return str(kwargs.get("column") or f"{kwargs['column_A']}, {kwargs['column_B']}")

    def as_json(self) -> dict[str, Any]:
        """For validation.json."""
        config, result = self.result.expectation_config, self.result.result
        return {
            "expectation": config.type,
            "part": self.part,
            "column": self.column,
            "reason": self.reason,
            "severity": self.severity,
            "success": self.success,
            "expected": self.expected,
            "observed": self.observed,
            "unexpected": result["unexpected_count"],
            "rows": result["element_count"],
            "looked_at": result.get("looked_at", result["element_count"]),
            "examples": [_plain(value) for value in result.get("partial_unexpected_list", [])[:EXAMPLES]],
        }


def context() -> Any:
    """A Great Expectations project that lives in memory alone."""
    import great_expectations as gx

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    found = gx.get_context(mode="ephemeral")
    found.variables.progress_bars = {"globally": False}
    found.data_sources.add_pandas("logs")
    return found


def watch(project: Any, name: str, batches: Iterable[pa.RecordBatch], checks: Sequence[Check]) -> list[Tally]:
    """Runs the checks of `name` as expectations on each batch; one tally a check, in their order."""
    import great_expectations as gx

    suite = gx.ExpectationSuite(
        name, expectations=[_expectation(check, meta={"n": n}) for n, check in enumerate(checks)]
    )
    # The results come in an order of their own; each carries the number of its check.
    tallies = [Tally() for _ in checks]
    for batch in batches:
        for found in _validate(
            project,
            f"{name} rows",
            pa.Table.from_batches([batch]).to_pandas(types_mapper=_pandas_type),
            suite,
        ):
            tallies[found.expectation_config.meta["n"]].add(found.result)
    return tallies


def row_outcomes(
    checks: Sequence[Check], tallies: Sequence[Tally], split: Split, cfg: ValidateConfig
) -> Iterator[Outcome]:
    """Two expectations a check: not one bad row (warning), and no more than the tolerated share (what the
    check says).

    The counts are those of all rows; what Great Expectations saw itself is in the examples and in
    `looked_at`.
    """
    for check, tally in zip(checks, tallies, strict=True):
        concerned, failed = split.concerned[check.reason], split.failed[check.reason]
        share = failed / concerned if concerned else 0.0
        seen = f"{failed:,} of {concerned:,} rows ({share:.4%})"
        tiers = (
            [(1.0, "warning")]
            if check.worst == "warning"
            else [(1.0, "warning"), (1 - cfg.max_bad_share, "critical")]
        )
        for mostly, severity in tiers:
            expectation = _expectation(check, mostly=mostly, severity=severity, meta={"reason": check.reason})
            success = share <= cfg.max_bad_share if severity == "critical" else not failed
            result = {
                "element_count": concerned,
                "unexpected_count": failed,
                "unexpected_percent": 100 * share,
                "unexpected_percent_total": 100 * share,
                "unexpected_percent_nonmissing": 100 * share,
                "missing_count": 0,
                "missing_percent": 0.0,
                "partial_unexpected_list": tally.examples,
                "looked_at": tally.looked_at,
            }
            yield Outcome(
                result=_result(expectation, success=success, result=result),
                part="rows",
                reason=check.reason,
                severity=severity,
                expected="none" if mostly == 1 else f"at most {cfg.max_bad_share:.4%}",
                observed=seen,
            )


def day_outcomes(
    project: Any, table: Table, days: Sequence[dict[str, Any]], cfg: ValidateConfig
) -> Iterator[Outcome]:
    """Volume of each day against the day before, days that are missing, and for results clicks and
    positions.
    """
    import pandas as pd

    asked: list[tuple[str, str, dict[str, float], str]] = [
        ("rows", "a table is empty", {"min_value": 1}, "critical")
    ]
    if table.partitioned:
        asked += [
            ("days_since_day_before", "days are missing", {"max_value": 1}, "warning"),
            (
                "rows_against_day_before",
                "volume differs from the day before",
                {"min_value": cfg.min_volume_ratio, "max_value": cfg.max_volume_ratio},
                "warning",
            ),
        ]
    if table.name == "results":
        asked += [
            (
                "click_rate",
                "click rate is out of its bounds",
                {"min_value": cfg.min_click_rate, "max_value": cfg.max_click_rate},
                "warning",
            ),
            (
                "position_gap_share",
                "positions are not 0, 1, 2 ...",
                {"max_value": cfg.max_position_gap_share},
                "warning",
            ),
        ]
    frame = pd.DataFrame([*days], columns=["date", *(name for name, *_ in asked)])
    frame = frame.astype({name: "float64" for name, *_ in asked})
    for (name, reason, bounds, severity), found in _frame(project, f"{table.name} days", frame, asked):
        signs = [
            f"{sign} {bounds[key]:g}"
            for key, sign in (("min_value", ">="), ("max_value", "<="))
            if key in bounds
        ]
        observed = _failing(frame, name, bounds) or f"{len(frame)} day(s), all within"
        yield Outcome(
            result=found,
            part="days",
            reason=reason,
            severity=severity,
            expected=" and ".join(signs),
            observed=observed,
        )


def file_outcomes(project: Any, table: Table, schemas: Sequence[pa.Schema]) -> Iterator[Outcome]:
    """The type that each Parquet file declares for each column."""
    import pandas as pd

    frame = pd.DataFrame(
        [{f"type of {n}": _declared(schema, n) for n in table.schema.names} for schema in schemas],
        dtype=object,
    )
    asked = [
        (
            f"type of {column.name}",
            "a file declares another type",
            {"value_set": _types(column.type, column.name in table.optional)},
            "critical",
        )
        for column in table.schema
    ]
    for (name, reason, bounds, severity), found in _frame(project, f"{table.name} files", frame, asked):
        observed = f"{len(frame)} file(s): {', '.join(sorted(frame[name].unique()))}"
        yield Outcome(
            result=found,
            part="files",
            reason=reason,
            severity=severity,
            expected=" or ".join(bounds["value_set"]),
            observed=observed,
        )


def _frame(project: Any, name: str, frame: Any, asked: Sequence[tuple]) -> Iterator[tuple[tuple, Any]]:
    """One expectation for each (column, reason, bounds, severity), all of them on a small frame."""
    import great_expectations as gx
    import great_expectations.expectations as gxe

    expectations = []
    for n, (column, reason, bounds, severity) in enumerate(asked):
        kind = gxe.ExpectColumnValuesToBeInSet if "value_set" in bounds else gxe.ExpectColumnValuesToBeBetween
        expectations.append(kind(column=column, **bounds, severity=severity, meta={"reason": reason, "n": n}))
    found = _validate(project, name, frame, gx.ExpectationSuite(name, expectations=expectations))
    yield from zip(asked, sorted(found, key=lambda f: f.expectation_config.meta["n"]), strict=True)


def _validate(project: Any, asset: str, frame: Any, suite: Any) -> list[Any]:
    """The results of one batch; an expectation that could not be asked is an error of ours, never a
    verdict.
    """
    source = project.data_sources.get("logs")
    if asset not in {a.name for a in source.assets}:
        source.add_dataframe_asset(asset).add_batch_definition_whole_dataframe("batch")
    definition = source.get_asset(asset).get_batch_definition("batch")
    found = definition.get_batch(batch_parameters={"dataframe": frame}).validate(
        suite, result_format="SUMMARY"
    )
    for result in found.results:
        if result.exception_info and "element_count" not in result.result:
            raise RuntimeError(
                f"{asset}: {result.expectation_config.type} could not be asked: {result.exception_info}"
            )
    return found.results


def _expectation(check: Check, **more: Any) -> Any:
    import great_expectations.expectations as gxe
    from great_expectations.expectations.row_conditions import Column

    kwargs = {**check.kwargs, **more}
    if check.where:
        kwargs["row_condition"] = Column(check.where.column).is_in([*check.where.values])
    return getattr(gxe, check.expectation)(**kwargs)


def _result(expectation: Any, *, success: bool, result: dict[str, Any]) -> Any:
    from great_expectations.core import ExpectationValidationResult

    found = {"raised_exception": False, "exception_message": None, "exception_traceback": None}
    return ExpectationValidationResult(
        success=success, expectation_config=expectation.configuration, result=result, exception_info=found
    )


def _plain(value: Any) -> Any:
    """An example as JSON has it: null for what is missing."""
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if (isinstance(value, float) and math.isfinite(value)) or isinstance(value, bool | int | str | None):
        return value
    return None if str(value) in ("<NA>", "nan", "NaT") else str(value)


def _pandas_type(found: pa.DataType) -> Any:
    """Arrow's own strings and nullable booleans: no Python object a value, and a null stays a null."""
    import pandas as pd

    text = pd.StringDtype("pyarrow")
    return {pa.string(): text, pa.large_string(): text, pa.bool_(): pd.BooleanDtype()}.get(found)


def _failing(frame: Any, column: str, bounds: dict[str, float]) -> str:
    """The days whose value is out of bounds, with it; empty where none is."""
    values = frame[column]
    bad = frame[(values < bounds.get("min_value", -math.inf)) | (values > bounds.get("max_value", math.inf))]
    shown = [f"{date}: {value:.4g}" for date, value in zip(bad["date"], bad[column], strict=True)]
    return ", ".join(shown[:EXAMPLES]) + (
        f" and {len(shown) - EXAMPLES} more days" if len(shown) > EXAMPLES else ""
    )


def _declared(schema: pa.Schema, name: str) -> str:
    if name not in schema.names:
        return "absent"
    return _named(schema.field(name).type)


def _named(found: pa.DataType) -> str:
    if pa.types.is_dictionary(found):
        return _named(found.value_type)
    if pa.types.is_list(found) or pa.types.is_large_list(found):
        return f"list<{_named(found.value_type)}>"
    return str(found)


def _types(wanted: pa.DataType, optional: bool) -> list[str]:
    """Names of the physical types that are read as `wanted` (the same as artifacts.check_schema lets
    pass).
    """
    text = ["string", "large_string", "string_view"]
    if pa.types.is_timestamp(wanted):
        found = [
            f"timestamp[{unit}, tz={zone}]"
            for zone in ("UTC", "Etc/UTC", "+00:00")
            for unit in ("us", "ms", "ns", "s")
        ]
    elif pa.types.is_list(wanted):
        found = [f"list<{t}>" for t in _types(wanted.value_type, False)]
    elif pa.types.is_string(wanted):
        found = text
    elif pa.types.is_integer(wanted):
        found = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
    else:
        found = ["halffloat", "float", "double"] if pa.types.is_floating(wanted) else [str(wanted)]
    return [*found, "null", *(["absent"] if optional else [])]
