"""Events to the A/B readout: per-user sums by day (only days that changed), comparisons, readout.json and
readout.html.
"""

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import ibis
import ibis.expr.types as ir
from ibis import _

from crops.arms import ARMS
from crops.config.experiment import ExperimentConfig
from crops.engines import session, warehouse
from crops.engines.warehouse import Warehouse
from crops.errors import ConfigError, InputError, ServiceError
from crops.experiment import readout, sums
from crops.experiment.metrics import METRICS
from crops.experiment.moments import Arms
from crops.long_play import LONG_PLAY_S
from crops.mining import queries, reformulation
from crops.report import experiment as page
from crops.stages.base import StageReport
from crops.tables import artifacts, records

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
            result = _read(house, folder, cfg)
        shutil.rmtree(scratch)
        result["period"] = {key: _iso(moment) for key, moment in asdict(period).items()}
        result["window_s"] = cfg.window_s
        result["notes"] = _notes(source, period, result)
        artifacts.write_json(folder / KEYS, keys)
        artifacts.write_json(folder / "readout.json", result)
        simulated = any((input_folder / "world.json").exists() for input_folder in (events, source))
        (folder / "readout.html").write_text(page.render(result, simulated=simulated), encoding="utf-8")
    numbers = {f"users_{arm}": result["users"][arm] for arm in ARMS}
    numbers |= {f"lift_{name}": m["lift"] for name, m in result["metrics"].items() if m["lift"] is not None}
    numbers |= {"days": len(keys), "days_computed": len(stale)}
    return StageReport(
        numbers=numbers, notes=(f"verdict: {result['verdict']}", *result["reasons"], *result["notes"])
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
    other = searches.arm.min(where=searches.arm.notin(ARMS))
    row = house.fetch(searches.agg(first=first, last=searches.ts.max(), other=other))[0]
    if row["last"] is None:
        raise InputError(events / "searches", "holds no search")
    if row["other"] is not None:
        raise InputError(events / "searches", f"arm is {row['other']!r}, expected {', '.join(ARMS)} or null")
    return Period(since=cfg.since or row["first"], until=cfg.until, log_end=row["last"])


def _by_day(folder: Path, table: records.Table) -> dict[str, list[Path]]:
    days = defaultdict(list)
    for path in artifacts.table_files(folder, table):
        key, _, day = path.parent.name.partition("=")
        if key != "date" or not _is_day(day):
            raise InputError(path, "lies in no date=YYYY-MM-DD folder, expected one per day")
        days[day].append(path)
    return days


def _is_day(text: str) -> bool:
    try:
        return datetime.strptime(text, "%Y-%m-%d").strftime("%Y-%m-%d") == text
    except ValueError:
        return False


def _keys(events: Path, videos: Path, period: Period, cfg: ExperimentConfig) -> dict[str, str]:
    """Per day, what its sums depend on: its files, the next day's searches (windows cross midnight),
    durations, the period.
    """
    searches, results = _by_day(events, records.SEARCHES), _by_day(events, records.RESULTS)
    has_videos = artifacts.exists(videos, records.VIDEOS)
    catalogue = artifacts.table_files(videos, records.VIDEOS) if has_videos else []
    window = timedelta(seconds=cfg.window_s)
    keys = {}
    for day in sorted(searches):
        midnight = datetime.fromisoformat(f"{_next(day)}T00:00:00+00:00")
        files = (searches[day], results.get(day, ()), searches.get(_next(day), ()), catalogue)
        moments = (min(period.log_end, midnight + window), period.since, period.until)
        depends = [*map(_stamps, files), *map(_iso, moments), cfg.window_s]
        keys[day] = hashlib.sha256(json.dumps(depends).encode()).hexdigest()
    return keys


def _next(day: str) -> str:
    return (datetime.fromisoformat(day) + timedelta(days=1)).strftime("%Y-%m-%d")


def _stamps(files: Iterable[Path]) -> list[list[Any]]:
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _carry_over(old: Path, new: Path, keys: dict[str, str]) -> list[str]:
    """Copies the days of an earlier readout that still hold; returns the days that must be computed."""
    before = artifacts.read_json(old / KEYS) if (old / KEYS).exists() else {}
    stale = [day for day, key in keys.items() if before.get(day) != key]
    for day in keys.keys() - set(stale):
        for table in (records.USER_DAYS, records.PATH_DAYS):
            if (folder := old / table.name / day).exists():
                shutil.copytree(folder, new / table.name / day)
    return stale


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
    near = sorted({*days, *map(_next, days)} & searches.keys())
    # A day is what the folders say, in whatever zone the log has its midnight: results lie by it as well.
    of_days = [
        warehouse.conform(house.scan(searches[day]), records.SEARCHES).mutate(date=ibis.literal(day))
        for day in near
    ]
    raw = ibis.union(*of_days)
    spelled = house.keep(queries.spellings(raw.drop("date")), "spelled")
    wording = queries.normalised(raw.drop("date"), spelled).drop("date")
    all_searches = house.keep(wording.join(raw.select("search_id", "arm", "date"), "search_id"), "every")
    assert period.since is not None
    mine = house.keep(
        sums.within(all_searches, since=period.since, until=period.until).filter(lambda t: t.date.isin(days)),
        "mine",
    )
    results = _by_day(events, records.RESULTS)
    files = [p for day in days for p in results.get(day, ())]
    shown = warehouse.conform(
        house.scan(files or artifacts.table_files(events, records.RESULTS)[:1]), records.RESULTS
    )
    durations = house.read(videos, records.VIDEOS) if artifacts.exists(videos, records.VIDEOS) else None
    later = reformulation.later_searches(mine, all_searches, window_s=cfg.window_s).select(
        search_id="first_id"
    )
    settled_until = period.log_end - timedelta(seconds=cfg.window_s)
    tables = {
        records.USER_DAYS: sums.user_days(
            mine, sums.shown(shown, durations), later, settled_until=settled_until
        ),
        records.PATH_DAYS: sums.path_days(mine, shown),
    }
    for table, expr in tables.items():
        rows = house.keep(expr, table.name)
        for day in _dates(house, rows):
            of_day = warehouse.conform(rows.filter(rows.date == day), table)
            (folder / table.name).mkdir(exist_ok=True)
            house.save([of_day.order_by([*table.key])], folder / table.name / day)


def _dates(house: Warehouse, rows: ir.Table) -> list[str]:
    return [row["date"] for row in house.fetch(rows.select("date").distinct().order_by("date"))]


def _read(house: Warehouse, folder: Path, cfg: ExperimentConfig) -> dict[str, Any]:
    reading = readout.Reading(**{name: getattr(cfg, name) for name in readout.Reading.__dataclass_fields__})
    measured, paths = readout.Measured(whole=_arms([])), []
    if artifacts.exists(folder, records.USER_DAYS):
        measured = _measured(house.keep(house.read(folder, records.USER_DAYS), "days"), house)
    if artifacts.exists(folder, records.PATH_DAYS):
        by_path = house.read(folder, records.PATH_DAYS).group_by("arm", "path")
        paths = house.fetch(by_path.agg(ranked=_.ranked.sum(), shown=_.shown.sum()))
    return readout.read(measured, reading) | {"paths": readout.ratios(paths)}


def _arms(rows: list[sums.Row], in_both: int = 0) -> dict[str, Arms]:
    return {name: sums.arms_of(rows, metric, in_both=in_both) for name, metric in METRICS.items()}


def _measured(days: ir.Table, house: Warehouse) -> readout.Measured:
    people = house.keep(sums.people(days), "people")
    single = people.filter(people.arms == 1)
    counts = house.fetch(people.agg(in_both=(people.arms > 1).sum(), returning=people.returning.sum()))[0]

    def arms(part: ir.Table, users: ir.Table) -> dict[str, Arms]:
        return _arms(house.fetch(sums.moments(part, users)), int(counts["in_both"] or 0))

    segments = {f"query: {band}": (days.filter(days.band == band), single) for band in records.BANDS}
    if counts["returning"]:
        segments["user: seen before"] = (days, single.filter(single.returning))
        segments["user: new"] = (days, single.filter(~single.returning))
    return readout.Measured(
        whole=arms(days, single),
        by_day={
            date: arms(days.filter(days.date <= date), single)
            for date in _dates(house, days.filter(days.arm.notnull()))
        },
        segments={name: arms(part, users) for name, (part, users) in segments.items()},
    )


def _notes(videos: Path, period: Period, result: dict[str, Any]) -> list[str]:
    notes = (
        (period.since is None, "no search has an arm: nothing to compare"),
        (
            not artifacts.exists(videos, records.VIDEOS),
            f"no table videos: a long play is {LONG_PLAY_S:g} s, also of shorter videos",
        ),
        (not result["paths"], "no result says which recall path brought it: no Ratio_rank, no Ratio_show"),
        (
            len(result["metrics"]["ctr"]["segments"]) == len(records.BANDS),
            "no searches from before the experiment: no CUPED, no segments of new and known users",
        ),
    )
    return [note for applies, note in notes if applies]
