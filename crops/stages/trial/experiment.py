"""Events to the A/B readout: per-user sums by day (only days that changed), comparisons, readout.json and
readout.html.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import ibis.expr.types as ir

from crops.arms import ARMS
from crops.config.experiment import ExperimentConfig
from crops.engines import session, warehouse
from crops.engines.warehouse import Warehouse
from crops.errors import ConfigError, InputError, ServiceError
from crops.experiment import readout, sums
from crops.experiment.metrics import METRICS
from crops.long_play import LONG_PLAY_S
from crops.mining import queries, reformulation
from crops.report import experiment as page
from crops.stages.base import StageReport
from crops.tables import artifacts, records

KEPT = (records.USER_DAYS, records.PATH_DAYS)
KEYS = "days.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """`since` None: no search has an arm. `log_end` is the last search's time."""

    since: datetime | None
    until: datetime | None
    log_end: datetime


def run(
    events: Path, out: Path, cfg: ExperimentConfig, *, videos: Path | None = None, engine: str | None = None
) -> StageReport:
    """Reads searches and results (with `arm`) under `events`, durations under `videos` (default: `events`);
    writes `out`.

    Days that are under `out` already and whose files did not change since are not read again.
    """
    source = videos or events
    with artifacts.replacing(out) as folder:
        scratch = folder / ".scratch"
        scratch.mkdir()
        with session.opened(
            engine or cfg.engine,
            scratch=scratch,
            threads=cfg.threads,
            memory_gb=cfg.memory_gb,
            spark_master=cfg.spark_master,
        ) as house:
            period = _period(house, events, cfg)
            keys = _keys(events, source, period, cfg)
            stale = _carry_over(out, folder, keys)
            if stale and period.since:
                _sum_up(house, events, source, stale, folder, period=period, cfg=cfg)
            found = _read(house, folder, cfg)
        shutil.rmtree(scratch)
        found["period"] = {key: _iso(getattr(period, key)) for key in ("since", "until", "log_end")}
        found["window_s"] = cfg.window_s
        found["notes"] = _notes(source, period, found)
        artifacts.write_json(folder / KEYS, keys)
        artifacts.write_json(folder / "readout.json", found)
        simulated = (events / "world.json").exists() or (source / "world.json").exists()
        (folder / "readout.html").write_text(page.render(found, simulated=simulated), encoding="utf-8")
    numbers = {f"users_{arm}": found["users"][arm] for arm in ARMS}
    numbers |= {f"lift_{name}": m["lift"] for name, m in found["metrics"].items() if m["lift"] is not None}
    days = {"days": len(keys), "days_computed": len(stale)}
    return StageReport(
        numbers=numbers | days, notes=(f"verdict: {found['verdict']}", *found["reasons"], *found["notes"])
    )


def check_window(gateway: str, cfg: ExperimentConfig) -> None:
    """A ConfigError unless the gateway at this address counts reformulations by the readout's window."""
    try:
        window_s = httpx.get(f"{gateway.rstrip('/')}/v1/release", timeout=10.0).json()[
            "reformulation_window_s"
        ]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise ServiceError(f"{gateway}: does not say its window of reformulations: {error!r}") from error
    if window_s != cfg.window_s:
        raise ConfigError(
            f"{gateway} counts reformulations within {window_s:g} s, the readout within {cfg.window_s} s: "
            "set reformulation.window_s to one value for both"
        )


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment else None


def _period(house: Warehouse, events: Path, cfg: ExperimentConfig) -> Period:
    searches = house.read(events, records.SEARCHES)
    first = searches.ts.min(where=searches.arm.notnull())
    row = house.fetch(searches.agg(first=first, last=searches.ts.max()))[0]
    if row["last"] is None:
        raise InputError(events / "searches", "holds no search")
    return Period(since=cfg.since or row["first"], until=cfg.until, log_end=row["last"])


def _by_day(folder: Path, table: records.Table) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in artifacts.table_files(folder, table):
        if not path.parent.name.startswith("date="):
            raise InputError(path, "lies in no date=YYYY-MM-DD folder, expected one per day")
        found.setdefault(path.parent.name.removeprefix("date="), []).append(path)
    return found


def _keys(events: Path, videos: Path, period: Period, cfg: ExperimentConfig) -> dict[str, str]:
    """Per day, what its sums depend on: its files, the next day's searches (windows cross midnight),
    durations, the period.
    """
    searches, results = _by_day(events, records.SEARCHES), _by_day(events, records.RESULTS)
    catalogue = (
        artifacts.table_files(videos, records.VIDEOS) if artifacts.exists(videos, records.VIDEOS) else []
    )
    shared = [_iso(period.since), _iso(period.until), cfg.window_s, _stamps(catalogue)]
    keys = {}
    for day in sorted(searches):
        end = min(
            period.log_end,
            datetime.fromisoformat(f"{_next(day)}T00:00:00+00:00") + timedelta(seconds=cfg.window_s),
        )
        parts = [
            _stamps(searches[day]),
            _stamps(results.get(day, ())),
            _stamps(searches.get(_next(day), ())),
            _iso(end),
        ]
        keys[day] = hashlib.sha256(json.dumps([*parts, *shared]).encode()).hexdigest()
    return keys


def _next(day: str) -> str:
    return (datetime.fromisoformat(day) + timedelta(days=1)).strftime("%Y-%m-%d")


def _stamps(files: Iterable[Path]) -> list[list[Any]]:
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _carry_over(old: Path, new: Path, keys: dict[str, str]) -> list[str]:
    """Copies the days of an earlier readout that still hold; returns the days that must be computed."""
    known = artifacts.read_json(old / KEYS) if (old / KEYS).exists() else {}
    fresh = [day for day, key in keys.items() if known.get(day) == key]
    for day in fresh:
        for table in KEPT:
            if (place := old / table.name / day).exists():
                shutil.copytree(place, new / table.name / day)
    return [day for day in keys if day not in fresh]


def _sum_up(
    house: Warehouse,
    events: Path,
    videos: Path,
    days: list[str],
    folder: Path,
    *,
    period: Period,
    cfg: ExperimentConfig,
) -> None:
    searches = _by_day(events, records.SEARCHES)
    near = sorted({*days, *(day for day in map(_next, days) if day in searches)})
    raw = warehouse.conform(house.scan([p for day in near for p in searches[day]]), records.SEARCHES)
    spelled = house.keep(queries.spellings(raw), "spelled")
    arm = raw.select("search_id", "arm")
    every = house.keep(queries.normalised(raw, spelled).join(arm, "search_id"), "every")
    assert period.since is not None
    mine = house.keep(
        sums.within(every, since=period.since, until=period.until).filter(lambda t: t.date.isin(days)), "mine"
    )
    results = _by_day(events, records.RESULTS)
    listed = [p for day in days for p in results.get(day, ())] or artifacts.table_files(
        events, records.RESULTS
    )[:1]
    shown = warehouse.conform(house.scan(listed), records.RESULTS)
    durations = house.read(videos, records.VIDEOS) if artifacts.exists(videos, records.VIDEOS) else None
    later = reformulation.later_searches(mine, every, window_s=cfg.window_s).select(search_id="first_id")
    settled_until = period.log_end - timedelta(seconds=cfg.window_s)
    made = {
        records.USER_DAYS: sums.user_days(
            mine, sums.shown(shown, durations), later, settled_until=settled_until
        ),
        records.PATH_DAYS: sums.path_days(mine, shown),
    }
    for table, expr in made.items():
        kept = house.keep(expr, table.name)
        for row in house.fetch(kept.select("date").distinct().order_by("date")):
            rows = warehouse.conform(kept.filter(kept.date == row["date"]), table)
            (folder / table.name).mkdir(exist_ok=True)
            house.save([rows.order_by([*table.key])], folder / table.name / row["date"])


def _read(house: Warehouse, folder: Path, cfg: ExperimentConfig) -> dict[str, Any]:
    reading = readout.Reading(**{name: getattr(cfg, name) for name in readout.Reading.__dataclass_fields__})
    if not artifacts.exists(folder, records.USER_DAYS):
        return readout.read(_measured(None, house), reading) | {"paths": {}}
    days = house.keep(house.read(folder, records.USER_DAYS), "days")
    found = readout.read(_measured(days, house), reading)
    if not artifacts.exists(folder, records.PATH_DAYS):
        return found | {"paths": {}}
    by_path = house.read(folder, records.PATH_DAYS)
    total = by_path.group_by("arm", "path").agg(ranked=by_path.ranked.sum(), shown=by_path.shown.sum())
    return found | {"paths": readout.ratios(house.fetch(total))}


def _measured(days: ir.Table | None, house: Warehouse) -> readout.Measured:
    if days is None:
        return readout.Measured(
            whole={name: sums.arms_of([], m) for name, m in METRICS.items()}, by_day={}, segments={}
        )
    people = house.keep(sums.people(days), "people")
    single = people.filter(people.arms == 1)
    in_both = house.fetch(people.agg(n=(people.arms > 1).sum()))[0]["n"] or 0

    def arms(part: ir.Table, users: ir.Table) -> dict[str, Any]:
        rows = house.fetch(sums.moments(part, users))
        return {name: sums.arms_of(rows, metric, in_both=int(in_both)) for name, metric in METRICS.items()}

    dates = [
        row["date"]
        for row in house.fetch(days.filter(days.arm.notnull()).select("date").distinct().order_by("date"))
    ]
    segments = {f"query: {band}": (days.filter(days.band == band), single) for band in records.BANDS}
    if house.fetch(people.agg(n=people.returning.cast("int64").sum()))[0]["n"]:
        segments["user: seen before"] = (days, single.filter(single.returning))
        segments["user: new"] = (days, single.filter(~single.returning))
    return readout.Measured(
        whole=arms(days, single),
        by_day={date: arms(days.filter(days.date <= date), single) for date in dates},
        segments={name: arms(part, users) for name, (part, users) in segments.items()},
    )


def _notes(videos: Path, period: Period, found: dict[str, Any]) -> list[str]:
    said = (
        (period.since is None, "no search has an arm: nothing to compare"),
        (
            not artifacts.exists(videos, records.VIDEOS),
            f"no table videos: a long play is {LONG_PLAY_S:g} s, also of shorter videos",
        ),
        (not found["paths"], "no result says which recall path brought it: no Ratio_rank, no Ratio_show"),
        (
            len(found["metrics"]["ctr"]["segments"]) == len(records.BANDS),
            "no searches from before the experiment: no CUPED, no segments of new and known users",
        ),
    )
    return [note for applies, note in said if applies]
