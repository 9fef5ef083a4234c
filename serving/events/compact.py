"""Segments of all replicas to the tables `searches` and `results`, as validate and augment read them.

Two passes: records go to buckets by a hash of their search, then each bucket is joined in memory. So memory
does not grow with the log, late events find their search wherever it stands, and the same segments give the
same tables.
"""

import json
import shutil
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crops.tables import records as tables
from serving.events import segments
from serving.events.records import Interaction, Result, Search, decode

BUCKET_BYTES = 64 << 20  # of segments; some five times that as Python objects
ROWS_PER_FILE = 1_000_000


@dataclass(slots=True)
class Tally:
    """What compaction read and wrote. orphans: reason -> interactions that belong to nothing that was
    logged.
    """

    searches: int = 0
    results: int = 0
    interactions: int = 0
    duplicates: int = 0
    torn_bytes: int = 0
    orphans: Counter[str] = field(default_factory=Counter)


def compact(folders: Iterable[Path], out: Path) -> Tally:
    """Writes searches/, results/ and orphans/ under the existing folder `out`. Open segments are read, never
    changed.

    A search that two segments hold (a retried append) stands once; of a click or like any number counts as
    one, of plays the longest; an interaction with a video that was not exposed, or of an unknown search,
    becomes an orphan.
    """
    paths = [p for folder in folders for p in segments.listed(folder)]
    buckets = max(1, -(-sum(segments.size(p) for p in paths) // BUCKET_BYTES))
    tally, scratch = Tally(), out / ".buckets"
    scratch.mkdir()
    _scatter(paths, scratch, buckets, tally)
    writers = _Writers(out)
    for bucket in sorted(scratch.iterdir()):
        _join(bucket, writers, tally)
    writers.close()
    shutil.rmtree(scratch)
    return tally


def _scatter(paths: list[Path], scratch: Path, buckets: int, tally: Tally) -> None:
    files = [(scratch / f"{n:05d}").open("wb") for n in range(buckets)]
    try:
        for path in paths:
            end, size = (
                len(segments.MAGIC),
                segments.size(path),
            )  # before it is read: what is appended meanwhile is not torn
            for end, payload in segments.read(path):  # noqa: B007  the last one is needed
                record = decode(payload)
                files[zlib.crc32(record.search_id.encode()) % buckets].write(payload + b"\n")
            tally.torn_bytes += max(0, size - end)
    finally:
        for file in files:
            file.close()


def _join(bucket: Path, writers: "_Writers", tally: Tally) -> None:
    searches: dict[str, Search] = {}
    touched: dict[tuple[str, str], dict[str, Any]] = {}
    lost: list[Interaction] = []
    events: list[Interaction] = []
    with bucket.open("rb") as file:
        for line in file:
            record = decode(line)
            if isinstance(record, Search):
                tally.duplicates += record.search_id in searches
                searches.setdefault(record.search_id, record)
            else:
                events.append(record)
    shown = {name: {r.video_id for r in s.results if r.position is not None} for name, s in searches.items()}
    for event in events:
        if event.video_id in shown.get(event.search_id, ()):
            _count(touched.setdefault((event.search_id, event.video_id), {}), event, tally)
        else:
            known = event.search_id in searches
            tally.orphans["video was not exposed in the search" if known else "unknown search"] += 1
            lost.append(event)
    for name in sorted(searches):
        writers.search(searches[name], touched)
        tally.searches += 1
        tally.results += len(searches[name].results)
    writers.orphans(lost, searches)


def _count(what: dict[str, Any], event: Interaction, tally: Tally) -> None:
    tally.interactions += 1
    tally.duplicates += event.type in what
    if event.type == "play":
        what["play"] = max(what.get("play", 0.0), event.play_s or 0.0)
    else:
        what[event.type] = True


class _Writers:
    """Rows to Parquet files, one folder a day; a file is closed when it is full."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._files: Counter[tuple[str, str]] = Counter()
        self._lost: list[dict[str, Any]] = []

    def search(self, search: Search, touched: dict[tuple[str, str], dict[str, Any]]) -> None:
        at = datetime.fromtimestamp(search.ts_us / 1e6, UTC)
        day = at.strftime("%Y-%m-%d")
        row = {
            "search_id": search.search_id,
            "user_id": search.user_id,
            "ts": search.ts_us,
            "query": search.query,
        }
        self._add(tables.SEARCHES, day, {**row, "arm": search.arm})
        for result in search.results:
            self._add(
                tables.RESULTS,
                day,
                _result(search.search_id, result, touched.get((search.search_id, result.video_id), {})),
            )

    def orphans(self, lost: list[Interaction], searches: dict[str, Search]) -> None:
        for event in lost:
            why = "video was not exposed in the search" if event.search_id in searches else "unknown search"
            self._lost.append(
                {
                    "search_id": event.search_id,
                    "video_id": event.video_id,
                    "type": event.type,
                    "reason": why,
                    "play_s": event.play_s,
                    "ts_us": event.ts_us,
                }
            )

    def close(self) -> None:
        for (name, day), rows in sorted(self._rows.items()):
            self._flush(name, day, rows)
        if self._lost:
            (self.out / "orphans").mkdir()
            ordered = sorted(self._lost, key=lambda row: json.dumps(row, sort_keys=True))
            pq.write_table(
                pa.Table.from_pylist(ordered), self.out / "orphans" / "part-0.parquet", compression="zstd"
            )

    def _add(self, table: tables.Table, day: str, row: dict[str, Any]) -> None:
        rows = self._rows.setdefault((table.name, day), [])
        rows.append(row)
        if len(rows) >= ROWS_PER_FILE:
            self._flush(table.name, day, rows)
            self._rows[table.name, day] = []

    def _flush(self, name: str, day: str, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        table = tables.SEARCHES if name == tables.SEARCHES.name else tables.RESULTS
        folder = self.out / name / f"date={day}"
        folder.mkdir(parents=True, exist_ok=True)
        columns = {f.name: pa.array([row.get(f.name) for row in rows], f.type) for f in table.schema}
        path = folder / f"part-{self._files[name, day]}.parquet"
        pq.write_table(pa.table(columns, schema=table.schema), path, compression="zstd")
        self._files[name, day] += 1


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


def read_all(folder: Path) -> Iterator[Search | Interaction]:
    """Every whole record of a folder's segments, in their order."""
    for path in segments.listed(folder):
        for _end, payload in segments.read(path):
            yield decode(payload)
