"""Segments of all replicas to the tables `searches` and `results`, as validate and augment read them.

Only what is new is read: the state in the output says how far each segment was taken. New records go to the
days of their searches, and a day is joined with what its tables hold already, part by part (a part is a range
of hashes of search ids), so that memory grows neither with the log nor with a day. A day's folders are
replaced as a whole. Taking a record twice changes nothing, so a killed run is simply run again.
"""

import contextlib
import fcntl
import json
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crops.errors import InputError
from crops.tables import artifacts
from crops.tables import records as tables
from serving.events import ids, segments
from serving.events.files import Files
from serving.events.records import Interaction, Result, Search, decode

BUCKET_BYTES = 16 << 20  # of records in one part; some five times that as Python objects
ROW_BYTES = 64  # of a result in a segment, roughly: decides only into how many parts a day is cut
OPEN_DAYS = 64  # files that are open at once while records go to their days
STATE, NEWER = ".compaction", "newer.seg"
UNKNOWN, UNSEEN = "unknown search", "video was not exposed in the search"
TABLES = (tables.SEARCHES, tables.RESULTS)
ORPHANS = pa.schema(
    {
        **dict.fromkeys(("search_id", "video_id", "type", "reason"), pa.string()),
        "play_s": pa.float64(),
        "ts_us": pa.int64(),
    }
)


@dataclass(slots=True)
class Tally:
    """What one run of compaction read and wrote. orphans: reason -> interactions that belong to nothing that
    was logged. damage: SEGMENT@OFFSET -> bytes that are no record and were not accepted yet. newer: records
    that this version does not know. days: those that were written.
    """

    searches: int = 0
    results: int = 0
    interactions: int = 0
    duplicates: int = 0
    torn_bytes: int = 0
    newer: int = 0
    days: int = 0
    retired_bytes: int = 0
    orphans: Counter[str] = field(default_factory=Counter)
    damage: dict[str, int] = field(default_factory=dict)


def compact(
    folders: Iterable[Path], out: Path, *, accept_damage: bool = False, retire: bool = False
) -> Tally:
    """Brings searches/, results/ and orphans/ under `out` up to date. Open segments are read, never changed.

    A search that two segments hold (a retried append) stands once; of a click or like any number counts as
    one, of plays the longest; an interaction with a video that was not exposed, or of an unknown search,
    becomes an orphan, until its search arrives. Damaged bytes are copied to damaged/, records of a newer
    version to newer.seg, which later versions read again. retire: removes finished segments all of whose
    records are durable in the tables.
    """
    with _alone(out) as home:
        _roll_forward(out)
        shutil.rmtree(home / "spool", ignore_errors=True)
        run = _Run(out, home)
        ends = run.scatter([p for folder in folders for p in segments.listed(folder)])
        for day in run.spooled():
            _merge(run, day)
        run.save(ends, accept_damage=accept_damage)
        if retire:
            _retire(run, ends)
        shutil.rmtree(run.spool)
    return run.tally


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[Path]:
    home = out / STATE
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(out, "another `crops compact` writes here") from error
        yield home


class _Run:
    """What one run reads, and where it keeps it: records by day under `spool`, orphans and state in
    memory.
    """

    def __init__(self, out: Path, home: Path) -> None:
        self.out, self.home, self.spool, self.tally = out, home, home / "spool", Tally()
        self.spool.mkdir()
        self.ends: dict[str, int] = {}
        with contextlib.suppress(OSError, ValueError, KeyError):  # without it all is read again
            state = json.loads((home / "state.json").read_text(encoding="utf-8"))
            self.ends, self.tally.damage = state["segments"], state["damage"]
        self.lost = {tuple(row.values()): row for row in _orphans(out)}
        self._lost_before = set(self.lost)
        self._newer: dict[bytes, None] = {}
        self._fresh: set[str] = set()  # days that got a search
        self._foreign: dict[str, str] = {}  # search -> its day, where the id does not tell it
        self._files: dict[str, Any] = {}

    def scatter(self, paths: list[Path]) -> dict[Path, tuple[str, int, int]]:
        """Takes what is new; returns for each segment its name in the state, its size and the bytes taken."""
        ends = {}
        for _end, payload in segments.read(self.out / NEWER):
            self._take(payload)
        for path in paths:
            name = str(path.resolve().with_suffix(segments.FINISHED))
            size, start = segments.size(path), self.ends.get(name, 0)  # what is appended later is not torn
            start = start if start <= size else 0
            end = max(start, min(size, len(segments.MAGIC)))
            for piece in segments.pieces(path, start) if size > start else ():
                end = piece.end
                if piece.payload is None:
                    segments.set_aside(self.out, path, piece.at, segments.content(path, piece.at, piece.end))
                    self.tally.damage[f"{path.with_suffix(segments.FINISHED)}@{piece.at}"] = end - piece.at
                else:
                    self._take(piece.payload)
            self.tally.torn_bytes += max(0, size - end)
            ends[path] = (name, size, end if end >= len(segments.MAGIC) else 0)
        for key, row in list(self.lost.items()):
            if row["reason"] == UNKNOWN and (
                row["search_id"] in self._foreign or _day_of(row["search_id"]) in self._fresh
            ):
                del self.lost[key]
                event = {name: value for name, value in row.items() if name != "reason"}
                self._take(json.dumps({"kind": "interaction", **event}).encode())
        self._place()
        for file in self._files.values():
            file.close()
        return ends

    def spooled(self) -> list[str]:
        """The days that got records, in their order."""
        return sorted(path.name for path in self.spool.iterdir())

    def orphan(self, event: Interaction, reason: str) -> None:
        """Keeps an interaction that belongs to nothing."""
        row = {name: reason if name == "reason" else getattr(event, name) for name in ORPHANS.names}
        key = tuple(row.values())
        if key not in self._lost_before:
            self.tally.orphans[reason] += 1
        self.lost[key] = row

    def save(self, ends: dict[Path, tuple[str, int, int]], *, accept_damage: bool) -> None:
        """Makes durable what is no table; the state last, because it says that all else is."""
        files = Files()
        if set(self.lost) != self._lost_before:
            rows = sorted(self.lost.values(), key=lambda row: json.dumps(row, sort_keys=True))
            (self.out / "orphans").mkdir(exist_ok=True)
            sink = pa.BufferOutputStream()
            pq.write_table(pa.Table.from_pylist(rows, schema=ORPHANS), sink, compression="zstd")
            files.store(self.out / "orphans" / "part-0.parquet", sink.getvalue().to_pybytes())
        self.tally.newer = len(self._newer)
        if self._newer:
            frames = b"".join(map(segments.frame, self._newer))
            files.store(self.out / NEWER, segments.MAGIC + frames)
        else:
            files.unlink(self.out / NEWER)
        if accept_damage:
            self.tally.damage = {}
        folders = {str(path.parent.resolve()) for path in ends}
        others = {name: end for name, end in self.ends.items() if str(Path(name).parent) not in folders}
        taken = {**others, **{name: end for name, _size, end in ends.values()}}
        text = json.dumps({"segments": taken, "damage": self.tally.damage}, indent=1, sort_keys=True)
        place = self.home / "state.json"
        if not place.exists() or place.read_text(encoding="utf-8") != text:
            files.store(place, text.encode())

    def _take(self, payload: bytes) -> None:
        try:
            record = decode(payload)
            day = _day(record.ts_us) if isinstance(record, Search) else _day_of(record.search_id)
        except (ValueError, TypeError):
            self._newer[payload] = None
            return
        if isinstance(record, Search):
            self._fresh.add(str(day))
            if _day_of(record.search_id) != day:
                self._foreign[record.search_id] = str(day)
        self._add(day or "unplaced", payload)

    def _add(self, day: str, payload: bytes) -> None:
        if len(self._files) >= OPEN_DAYS and day not in self._files:
            for file in self._files.values():
                file.close()
            self._files.clear()
        if day not in self._files:
            self._files[day] = (self.spool / day).open("ab")
        self._files[day].write(b" ".join(payload.splitlines()) + b"\n")  # JSON has none in its strings

    def _place(self) -> None:
        """Interactions whose id does not tell the day go to where their search is, newest days first."""
        if (file := self._files.pop("unplaced", None)) is not None:
            file.close()
        unplaced = self.spool / "unplaced"
        if not unplaced.exists():
            return
        with unplaced.open("rb") as lines:
            missing = {decode(line).search_id for line in lines} - self._foreign.keys()
        place = dict(self._foreign)
        for folder in sorted((self.out / tables.SEARCHES.name).glob("date=*"), reverse=True):
            for path in sorted(folder.glob("*.parquet")) if missing else ():
                there = pq.read_table(path, columns=["search_id"], partitioning=None)["search_id"]
                hits = there.filter(pc.is_in(there, pa.array(sorted(missing), pa.string()))).to_pylist()
                place.update(dict.fromkeys(hits, folder.name.removeprefix("date=")))
                missing -= set(hits)
        with unplaced.open("rb") as lines:
            for line in lines:
                event = decode(line)
                assert isinstance(event, Interaction)
                if event.search_id in place:
                    self._add(place[event.search_id], line.rstrip(b"\n"))
                else:
                    self.orphan(event, UNKNOWN)
        unplaced.unlink()


def _day(ts_us: int) -> str:
    try:
        return datetime.fromtimestamp(ts_us / 1e6, UTC).strftime("%Y-%m-%d")
    except (TypeError, OverflowError, OSError) as error:
        raise ValueError(f"ts_us is {ts_us!r}, expected microseconds") from error


def _day_of(search_id: str) -> str | None:
    """The day that the id tells; None where it tells none."""
    ts_us = ids.when(search_id)
    with contextlib.suppress(ValueError):
        return None if ts_us is None else _day(ts_us)
    return None


def _orphans(out: Path) -> list[dict[str, Any]]:
    path = out / "orphans" / "part-0.parquet"
    rows = pq.read_table(path).to_pylist() if path.exists() else []
    return [{name: row.get(name) for name in ORPHANS.names} for row in rows]


def _bucket(search_id: str, parts: int) -> int:
    return zlib.crc32(search_id.encode()) % parts


def _merge(run: _Run, day: str) -> None:
    """Joins a day's new records with its tables and replaces those, where that changes anything."""
    spool, staged = run.spool / day, run.home / "staged"
    old = {t: sorted((run.out / t.name / f"date={day}").glob("*.parquet")) for t in TABLES}
    size = spool.stat().st_size + ROW_BYTES * sum(pq.read_metadata(p).num_rows for p in old[tables.RESULTS])
    before = max([_part(path)[1] for path in old[tables.SEARCHES]], default=1)
    parts = before
    while parts * BUCKET_BYTES < size:
        parts *= 2
    changed = False
    for number, lines in enumerate(_split(spool, parts)):
        one = {t: _rows(t, old[t], number, parts) for t in TABLES}
        changed |= _join(run, lines, one)
        for table, rows in one.items():
            if rows.num_rows:
                (staged / table.name).mkdir(parents=True, exist_ok=True)
                path = staged / table.name / f"part-{number:05d}-of-{parts:05d}.parquet"
                pq.write_table(rows, path, compression="zstd", row_group_size=artifacts.ROW_GROUP)
    if changed:
        run.tally.days += 1
        _commit(run.out, day)
    shutil.rmtree(staged, ignore_errors=True)


def _split(spool: Path, parts: int) -> Iterator[list[bytes]]:
    """The lines of each part; a small day in memory, a large one by way of a file for each part."""
    if parts == 1:
        yield spool.read_bytes().splitlines()
        return
    folder = spool.with_name(f"{spool.name}.parts")
    folder.mkdir()
    for first in range(0, parts, OPEN_DAYS):
        numbers = range(first, min(parts, first + OPEN_DAYS))
        files = {n: (folder / str(n)).open("wb") for n in numbers}
        with spool.open("rb") as lines:
            for line in lines:
                if (file := files.get(_bucket(decode(line).search_id, parts))) is not None:
                    file.write(line)
        for number, file in files.items():
            file.close()
            yield (folder / str(number)).read_bytes().splitlines()
    shutil.rmtree(folder)


def _part(path: Path) -> tuple[int, int]:
    """(number, of how many parts) by a file's name; every file of another writer is part 0 of 1."""
    name = re.fullmatch(r"part-(\d+)-of-(\d+)\.parquet", path.name)
    return (int(name[1]), int(name[2])) if name else (0, 1)


def _rows(table: tables.Table, paths: list[Path], number: int, parts: int) -> pa.Table:
    """What the tables hold of one part."""
    pieces = [table.schema.empty_table()]
    for path in paths:
        place, count = _part(path)
        if number % count != place:
            continue
        rows = pq.read_table(path, columns=table.schema.names, partitioning=None).cast(table.schema)
        if count != parts:
            own = [_bucket(name, parts) == number for name in rows["search_id"].to_pylist()]
            rows = rows.filter(pa.array(own, pa.bool_()))
        pieces.append(rows)
    return pa.concat_tables(pieces)


def _join(run: _Run, lines: list[bytes], one: dict[tables.Table, pa.Table]) -> bool:
    """Adds new records to one part's tables, in place of `one`'s; returns whether they changed them."""
    new = [decode(line) for line in lines]
    wanted = pa.array(sorted({record.search_id for record in new}), pa.string())
    there = one[tables.SEARCHES]["search_id"]
    stored = set(there.filter(pc.is_in(there, wanted)).to_pylist())
    fresh: dict[str, Search] = {}
    for record in new:
        if isinstance(record, Search):
            run.tally.duplicates += record.search_id in stored or record.search_id in fresh
            if record.search_id not in stored:
                fresh.setdefault(record.search_id, record)
    events = [record for record in new if isinstance(record, Interaction)]
    rows = _held_rows(one[tables.RESULTS], {event.search_id for event in events} & stored)
    shown = {(s.search_id, r.video_id) for s in fresh.values() for r in s.results if r.position is not None}
    shown |= {key for key, (_at, row) in rows.items() if row["stage"] == "exposed"}
    touched: dict[tuple[str, str], dict[str, Any]] = {}
    for event in events:
        key = (event.search_id, event.video_id)
        if key not in shown:
            run.orphan(event, UNSEEN if event.search_id in stored or event.search_id in fresh else UNKNOWN)
            continue
        if key not in touched:
            touched[key] = _before(rows[key][1]) if key in rows else {}
        _count(touched[key], event, run.tally)
    late = {rows[key][0]: what for key, what in touched.items() if key in rows}
    changed = any(what != _before(rows[key][1]) for key, what in touched.items() if key in rows)
    if changed:
        one[tables.RESULTS] = _touched(one[tables.RESULTS], late)
    searches = [{**_columns(s, tables.SEARCHES), "ts": s.ts_us} for s in fresh.values()]
    results = [
        _result(s.search_id, r, touched.get((s.search_id, r.video_id), {}))
        for s in fresh.values()
        for r in s.results
    ]
    run.tally.searches += len(searches)
    run.tally.results += len(results)
    for table, added in ((tables.SEARCHES, searches), (tables.RESULTS, results)):
        arrays = [pa.array([row[f.name] for row in added], f.type) for f in table.schema]
        both = pa.concat_tables([one[table], pa.table(arrays, schema=table.schema)])
        # The order is stable: a search's results stay as they were ranked.
        one[table] = both.take(pc.sort_indices(both, sort_keys=[("search_id", "ascending")]))
    return changed or bool(fresh)


def _columns(search: Search, table: tables.Table) -> dict[str, Any]:
    return {name: getattr(search, name, None) for name in table.schema.names}


def _held_rows(results: pa.Table, names: set[str]) -> dict[tuple[str, str], tuple[int, dict[str, Any]]]:
    """(search, video) -> (place in the table, row) of these searches."""
    if not names:
        return {}
    at = pc.indices_nonzero(pc.is_in(results["search_id"], pa.array(sorted(names), pa.string())))
    rows = results.take(at).to_pylist()
    return {
        (row["search_id"], row["video_id"]): (place, row)
        for place, row in zip(at.to_pylist(), rows, strict=True)
    }


def _before(row: dict[str, Any]) -> dict[str, Any]:
    """What interactions a row counts already."""
    what: dict[str, Any] = {"click": True} if row["clicked"] else {}
    return (
        what
        | ({"like": True} if row["liked"] else {})
        | ({"play": row["play_s"]} if row["play_s"] is not None else {})
    )


def _touched(results: pa.Table, late: dict[int, dict[str, Any]]) -> pa.Table:
    for name, kind in (("clicked", "click"), ("liked", "like"), ("play_s", "play")):
        values = results[name].to_pylist()
        for at, what in late.items():
            values[at] = what.get(kind, values[at])
        place, column = results.schema.get_field_index(name), results.schema.field(name)
        results = results.set_column(place, column, pa.array(values, column.type))
    return results


def _count(what: dict[str, Any], event: Interaction, tally: Tally) -> None:
    tally.interactions += 1
    tally.duplicates += event.type in what
    what[event.type] = max(what.get("play", 0.0), event.play_s or 0.0) if event.type == "play" else True


def _result(search_id: str, result: Result, what: dict[str, Any]) -> dict[str, Any]:
    exposed = result.position is not None
    return {
        "search_id": search_id,
        "video_id": result.video_id,
        "stage": "exposed" if exposed else "ranked",
        "position": result.position,
        "clicked": bool(what.get("click")),
        "liked": bool(what.get("like")),
        "play_s": what.get("play"),
        "paths": list(result.paths) or None,
    }


def _commit(out: Path, day: str) -> None:
    """Puts the staged folders in the place of the day's, once they and the intention are durable."""
    files, home = Files(), out / STATE
    for path in sorted((home / "staged").rglob("*"), reverse=True):
        if path.is_dir():
            files.sync_folder(path)
            continue
        with path.open("rb") as file:
            files.fsync(file.fileno())
    files.sync_folder(home / "staged")
    files.store(home / "commit", day.encode())
    _roll_forward(out)


def _roll_forward(out: Path) -> None:
    """Ends a replacement that was begun, also one of a killed run; removes what that run left."""
    home, files = out / STATE, Files()
    if (home / "commit").exists():
        day = (home / "commit").read_text(encoding="utf-8")
        for table in TABLES:
            staged, target = home / "staged" / table.name, out / table.name / f"date={day}"
            if staged.exists():
                target.parent.mkdir(exist_ok=True)
                if target.exists():
                    shutil.rmtree(home / "old", ignore_errors=True)
                    target.rename(home / "old")
                staged.rename(target)
                files.sync_folder(target.parent)
        files.sync_folder(out)
        files.unlink(home / "commit")
        files.sync_folder(home)
    for name in ("staged", "old"):
        shutil.rmtree(home / name, ignore_errors=True)


def _retire(run: _Run, ends: dict[Path, tuple[str, int, int]]) -> None:
    """Removes finished segments that were taken to their end and hold no damage that nobody has accepted."""
    damaged = {name.rpartition("@")[0] for name in run.tally.damage}
    for path, (_name, size, end) in ends.items():
        if path.suffix == segments.FINISHED and end == size and str(path) not in damaged:
            path.unlink()
            run.tally.retired_bytes += size
            Files().sync_folder(path.parent)


def totals(out: Path) -> dict[str, int]:
    """What the tables hold by now: searches, results, days."""
    paths = {table: list((out / table.name).glob("date=*/*.parquet")) for table in TABLES}
    rows = {t.name: sum(pq.read_metadata(path).num_rows for path in paths[t]) for t in TABLES}
    return {**rows, "days": len({path.parent for path in paths[tables.SEARCHES]})}


def read_all(folder: Path) -> Iterator[Search | Interaction]:
    """Every whole record of a folder's segments, in their order."""
    for path in segments.listed(folder):
        for _end, payload in segments.read(path):
            yield decode(payload)
