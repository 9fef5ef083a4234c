"""Logs that lack what many hold: made of a whole one by leaving columns, rows or tables out. No test in
here.
"""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crops.tables import records

KINDS = ("plays", "impressions", "feed", "reformulations", "long plays")


def without(what: str, logs: Path, out: Path) -> Path:
    """A copy of `logs` under `out` that lacks one of KINDS, as a log of such a platform would be written."""
    shutil.copytree(logs, out)
    if what == "feed":
        shutil.rmtree(out / records.FEED.name)
        return out
    table = records.SEARCHES if what == "reformulations" else records.RESULTS
    for path in sorted((out / table.name).rglob("*.parquet")):
        pq.write_table(_less(what, pq.read_table(path, schema=table.schema)), path)
    return out


def _less(what: str, rows: pa.Table) -> pa.Table:
    if what == "plays":  # a shop: clicks and purchases, nothing is watched
        return _put(rows, "play_s", pa.nulls(len(rows), pa.float32()))
    if what == "long plays":
        return _put(
            rows,
            "play_s",
            pc.min_element_wise(rows["play_s"], pa.scalar(1.0, pa.float32()), skip_nulls=False),
        )
    if what == "impressions":  # a web log of clicks
        return rows.filter(pc.or_(rows["clicked"], rows["liked"]))
    # Nobody is known from one search to the next.
    return _put(rows, "user_id", pc.binary_join_element_wise("anonymous", rows["search_id"], "-"))


def _put(rows: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
