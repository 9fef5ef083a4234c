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
from crops.validation import casts
from crops.validation.checks import Check
from crops.validation.source import Shape, Source
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


@dataclass(frozen=True, slots=True)
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
        own = ("part", "column", "reason", "severity", "success", "expected", "observed")
        return {
            "expectation": config.type,
            **{name: getattr(self, name) for name in own},
            "unexpected": result["unexpected_count"],
            "rows": result["element_count"],
            "looked_at": result.get("looked_at", result["element_count"]),
            "examples": [_plain(value) for value in result.get("partial_unexpected_list", [])[:EXAMPLES]],
        }


def added(parts: Iterable[Sequence[Tally]], checks: Sequence[Check]) -> list[Tally]:
    """One tally a check from those of the parts, in their order."""
    tallies = [Tally() for _ in checks]
    for part in parts:
        for tally, one in zip(tallies, part, strict=True):
            tally.looked_at += one.looked_at
            tally.unexpected += one.unexpected
            tally.examples += one.examples[: EXAMPLES - len(tally.examples)]
    return tallies


def context() -> Any:
    """A Great Expectations project that lives in memory alone."""
    import great_expectations as gx

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    project = gx.get_context(mode="ephemeral")
    project.variables.progress_bars = {"globally": False}
    project.data_sources.add_pandas("logs")
    return project


def watch(project: Any, name: str, batches: Iterable[pa.RecordBatch], checks: Sequence[Check]) -> list[Tally]:
    """Runs the checks of `name` as expectations on each batch; one tally a check, in their order."""
    import great_expectations as gx

    suite = gx.ExpectationSuite(
        name, expectations=[_expectation(check, meta={"n": n}) for n, check in enumerate(checks)]
    )
    tallies = [Tally() for _ in checks]
    for batch in batches:
        frame = pa.Table.from_batches([batch]).to_pandas(types_mapper=_pandas_type)
        for number, result in _validate(project, f"{name} rows", frame, suite):
            tallies[number].add(result.result)
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
        percent = ("unexpected_percent", "unexpected_percent_total", "unexpected_percent_nonmissing")
        result = {
            "element_count": concerned,
            "unexpected_count": failed,
            **dict.fromkeys(percent, 100 * share),
            "missing_count": 0,
            "missing_percent": 0.0,
            "partial_unexpected_list": tally.examples,
            "looked_at": tally.looked_at,
        }
        tiers = [("warning", 0.0, "none")]
        if check.worst == "critical":
            tiers.append(("critical", cfg.max_bad_share, f"at most {cfg.max_bad_share:.4%}"))
        for severity, tolerated, expected in tiers:
            meta = {"reason": check.reason}
            expectation = _expectation(check, mostly=1 - tolerated, severity=severity, meta=meta)
            rendered = _result(expectation, success=share <= tolerated, result=result)
            observed = f"{failed:,} of {concerned:,} rows ({share:.4%})"
            yield Outcome(rendered, "rows", check.reason, severity, expected, observed)


def day_outcomes(
    project: Any, table: Table, days: Sequence[dict[str, Any]], cfg: ValidateConfig
) -> Iterator[Outcome]:
    """Volume of each day against the day before, days that are missing, and for results clicks and
    positions.
    """
    import pandas as pd

    volume, rate = (cfg.min_volume_ratio, cfg.max_volume_ratio), (cfg.min_click_rate, cfg.max_click_rate)
    limits: list[tuple] = [("rows", "a table is empty", 1, None)]
    if table.partitioned:
        limits += [
            ("days_since_day_before", "days are missing", None, 1),
            ("rows_against_day_before", "volume differs from the day before", *volume),
        ]
    if table.name == "results":
        limits += [
            ("click_rate", "click rate is out of its bounds", *rate),
            ("position_gap_share", "positions are not 0, 1, 2 ...", None, cfg.max_position_gap_share),
        ]
    frame = pd.DataFrame([*days], columns=["date", *(name for name, *_ in limits)])
    frame = frame.astype({name: "float64" for name, *_ in limits})
    pairs = []
    for name, reason, low, high in limits:
        bounds = {key: bound for key, bound in (("min_value", low), ("max_value", high)) if bound is not None}
        pairs.append((name, reason, bounds, "critical" if name == "rows" else "warning"))
    signs = {"min_value": ">=", "max_value": "<="}
    for (name, reason, bounds, severity), result in _results(project, f"{table.name} days", frame, pairs):
        expected = " and ".join(f"{signs[key]} {bound:g}" for key, bound in bounds.items())
        observed = _failing(frame, name, **bounds) or f"{len(frame)} day(s), all within"
        yield Outcome(result, "days", reason, severity, expected, observed)


def file_outcomes(project: Any, source: Source) -> Iterator[Outcome]:
    """The type that each Parquet file declares for each column."""
    import pandas as pd

    table = source.table
    frame = pd.DataFrame(
        [
            {f"type of {n}": _declared(shape, n) for n in table.schema.names}
            for shape in source.shapes
            for _ in shape.files
        ],
        dtype=object,
    )
    reason, severity = "a file declares another type", "critical"
    pairs = []
    for column in table.schema:
        types = (shape.types[column.name] for shape in source.shapes if column.name in shape.types)
        read = [casts.named(dtype) for dtype in types if casts.reading(dtype, column.type)]
        missing = ["absent"] if column.nullable or column.name in table.optional else []
        names = [*dict.fromkeys([casts.named(column.type), *read, *missing])]
        pairs.append((f"type of {column.name}", reason, {"value_set": names}, severity))
    for (name, _, bounds, _), result in _results(project, f"{table.name} files", frame, pairs):
        observed = f"{len(frame)} file(s): {', '.join(sorted(frame[name].unique()))}"
        yield Outcome(result, "files", reason, severity, " or ".join(bounds["value_set"]), observed)


def _results(project: Any, name: str, frame: Any, pairs: Sequence[tuple]) -> Iterator[tuple[tuple, Any]]:
    """One expectation for each (column, reason, bounds, severity), all of them on a small frame."""
    import great_expectations as gx
    import great_expectations.expectations as gxe

    suite = gx.ExpectationSuite(name)
    for n, (column, reason, bounds, severity) in enumerate(pairs):
        kind = gxe.ExpectColumnValuesToBeInSet if "value_set" in bounds else gxe.ExpectColumnValuesToBeBetween
        meta = {"reason": reason, "n": n}
        suite.add_expectation(kind(column=column, **bounds, severity=severity, meta=meta))
    results = dict(_validate(project, name, frame, suite))
    yield from ((one, results[n]) for n, one in enumerate(pairs))


def _validate(project: Any, asset: str, frame: Any, suite: Any) -> Iterator[tuple[int, Any]]:
    """The results of one batch, each with its expectation's number `n`; an expectation that could not be
    asked is an error of ours, never a verdict.
    """
    source = project.data_sources.get("logs")
    if asset not in {a.name for a in source.assets}:
        source.add_dataframe_asset(asset).add_batch_definition_whole_dataframe("batch")
    batch = source.get_asset(asset).get_batch_definition("batch").get_batch({"dataframe": frame})
    for result in batch.validate(suite, result_format="SUMMARY").results:
        if result.exception_info and "element_count" not in result.result:
            raise RuntimeError(
                f"{asset}: {result.expectation_config.type} could not be asked: {result.exception_info}"
            )
        yield result.expectation_config.meta["n"], result


def _expectation(check: Check, **more: Any) -> Any:
    import great_expectations.expectations as gxe
    from great_expectations.expectations.row_conditions import Column

    kwargs = {**check.kwargs, **more}
    if check.where:
        kwargs["row_condition"] = Column(check.where.column).is_in([*check.where.values])
    return getattr(gxe, check.expectation)(**kwargs)


def _result(expectation: Any, *, success: bool, result: dict[str, Any]) -> Any:
    from great_expectations.core import ExpectationValidationResult

    none = {"raised_exception": False, "exception_message": None, "exception_traceback": None}
    return ExpectationValidationResult(
        success=success, expectation_config=expectation.configuration, result=result, exception_info=none
    )


def _plain(value: Any) -> Any:
    """An example as JSON has it: null for what is missing."""
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if (isinstance(value, float) and math.isfinite(value)) or isinstance(value, bool | int | str | None):
        return value
    return None if str(value) in ("<NA>", "nan", "NaT") else str(value)


def _pandas_type(dtype: pa.DataType) -> Any:
    """Arrow's own strings and nullable booleans: no Python object a value, and a null stays a null."""
    import pandas as pd

    text = pd.StringDtype("pyarrow")
    return {pa.string(): text, pa.large_string(): text, pa.bool_(): pd.BooleanDtype()}.get(dtype)


def _failing(frame: Any, column: str, min_value: float = -math.inf, max_value: float = math.inf) -> str:
    """The days whose value is out of bounds, with it; empty where none is."""
    bad = frame[(frame[column] < min_value) | (frame[column] > max_value)]
    shown = [f"{date}: {value:.4g}" for date, value in zip(bad["date"], bad[column], strict=True)]
    more = f" and {len(shown) - EXAMPLES} more days" if len(shown) > EXAMPLES else ""
    return ", ".join(shown[:EXAMPLES]) + more


def _declared(shape: Shape, name: str) -> str:
    return casts.named(shape.types[name]) if name in shape.types else "absent"
