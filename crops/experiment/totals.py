"""Rows in memory to per-user totals to moments: what `stats.compare` does with the table it is given.

At scale the same totals come from crops.experiment.sums on an engine; both end in `arms`.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crops.arms import ARMS
from crops.errors import InputError
from crops.experiment.metrics import Metric
from crops.experiment.moments import COLUMNS, Arms, Moments, nobody
from crops.long_play import is_long

NEEDS = {"ctr": ("clicked",), "lpr": ("play_s", "duration_s"), "rqr": ("reformulated",)}


def of_events(events: Any, metric: Metric) -> Arms:
    """Moments of both arms from rows; see stats.compare for the columns. Raises InputError."""
    table = events if isinstance(events, pa.Table) else pa.Table.from_pandas(events, preserve_index=False)
    needed = ("user_id", "arm", *NEEDS[metric.name])
    if missing := [name for name in needed if name not in table.column_names]:
        raise InputError(
            "events",
            f"column {missing[0]!r} is missing for {metric.name}; columns: {', '.join(table.column_names)}",
        )
    arm = table["arm"].cast(pa.string())
    if unknown := sorted(set(pc.unique(arm).to_pylist()) - {*ARMS, None}):
        raise InputError("events", f"arm is {unknown[0]!r}, expected control, treatment or null")
    if not table.num_rows:
        return Arms(control=nobody(), treatment=nobody())
    rows = pa.table(
        {"user_id": table["user_id"], "arm": arm, "x": _counted(table, metric), "pre": _before(table, arm)}
    )
    return arms(_per_user(rows))


def _counted(table: pa.Table, metric: Metric) -> pa.ChunkedArray:
    """The numerator of each row, 0 or 1; what is null did not happen."""
    columns = [_numbers(table, name) for name in NEEDS[metric.name]]
    if metric.name == "lpr":
        happened = pa.chunked_array([is_long(*(column.to_numpy() for column in columns))])
        return pc.cast(happened, pa.float64())
    name, (happened,) = NEEDS[metric.name][0], columns
    _refuse(happened, pc.and_(pc.not_equal(happened, 0), pc.not_equal(happened, 1)), name, "true or false")
    return pc.fill_null(happened, 0.0)


def _numbers(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column as numbers, none of them negative or infinite; NaN is null. Raises InputError."""
    kind = table[name].type
    numeric = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    if not any(holds(kind) for holds in numeric) and table[name].null_count < table.num_rows:
        raise InputError("events", f"column {name!r} holds {kind}, expected numbers or true and false")
    values = pc.cast(table[name], pa.float64())
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    _refuse(values, pc.or_(pc.less(values, 0), pc.is_inf(values)), name, "a finite number >= 0")
    return values


def _refuse(values: pa.ChunkedArray, wrong: pa.ChunkedArray, name: str, expected: str) -> None:
    """An InputError of the first value that is `wrong`."""
    if (row := pc.index(wrong, True).as_py()) >= 0:
        raise InputError("events", f"{name} is {values[row].as_py():g}, expected {expected}", row=row)


def _before(table: pa.Table, arm: pa.ChunkedArray) -> pa.ChunkedArray:
    """True for rows without an arm that came strictly before the first one with an arm."""
    without = pc.is_null(arm)
    if "ts" not in table.column_names or not pc.any(without).as_py():
        return pc.and_(without, pa.scalar(False))
    first = pc.min(table["ts"].filter(pc.invert(without)))
    return pc.fill_null(pc.and_(without, pc.less(table["ts"], first)), False)


def _per_user(rows: pa.Table) -> pa.Table:
    """One row per (user_id, arm): x, y, and the pre-period's beside them for the users who have an arm."""
    inside = (
        rows.filter(pc.is_valid(rows["arm"]))
        .group_by(["user_id", "arm"])
        .aggregate([("x", "sum"), ([], "count_all")])
    )
    before = rows.filter(rows["pre"]).group_by("user_id").aggregate([("x", "sum"), ([], "count_all")])
    renamed = inside.rename_columns(["user_id", "arm", "x", "y"])
    joined = renamed.join(before.rename_columns(["user_id", "x_pre", "y_pre"]), "user_id")
    return joined.select(["user_id", "arm", *COLUMNS])


def arms(per_user: pa.Table) -> Arms:
    """Moments of both arms.

    per_user  user_id, arm, and COLUMNS as numbers; one row per (user_id, arm). A pre-period that is null is 0
              of 0: in the linearised covariate that is the mean, so such a user is corrected by nothing.
    Users whose denominator is 0 took part and are users of the arm.
    """
    arms_of = per_user.group_by("user_id").aggregate([("arm", "count_distinct")])
    twice = arms_of.filter(pc.greater(arms_of["arm_count_distinct"], 1))["user_id"]
    single = per_user.filter(pc.invert(pc.is_in(per_user["user_id"], value_set=twice.combine_chunks())))
    by_arm = {arm: _moments(single.filter(pc.equal(single["arm"], arm))) for arm in ARMS}
    return Arms(**by_arm, in_both=len(twice))


def _moments(rows: pa.Table) -> Moments:
    columns = [pc.fill_null(rows[name].cast(pa.float64()), 0.0).to_numpy() for name in COLUMNS]
    return Moments.of(np.stack(columns, axis=1))
