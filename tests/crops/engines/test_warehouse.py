"""What DuckDB's warehouse does in parts."""

import pyarrow as pa
import pyarrow.parquet as pq

from crops.engines import session
from crops.tables import artifacts, records


def test_split_gives_every_row_once_to_the_table_of_its_part(tmp_path):
    """Two expressions, three parts, of which the second is empty and keeps its columns and types."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with session.opened("duckdb", scratch=scratch, threads=1) as house:
        one = house.put(
            pa.table({"x": ["a", "b"], "ts": pa.array([1, None], records.TS), "part": [0, 2]}), "one"
        )
        two = house.put(
            pa.table({"x": ["c", "d"], "ts": pa.array([3, 4], records.TS), "part": [2, 2]}), "two"
        )
        found = house.split([one, two], "cut", parts=3)
        assert [sorted(row["x"] for row in house.fetch(table)) for table in found] == [
            ["a"],
            [],
            ["b", "c", "d"],
        ]
        assert {table.schema() for table in found} == {one.drop("part").schema()}


def test_parts_are_written_one_after_another_and_a_dropped_table_is_gone(tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    pairs = [("a", "2"), ("a", "1"), ("b", "9"), ("b", "3")]

    def made(house):
        for query in ("a", "b"):
            rows = [{"query": q, "video_id": v} for q, v in pairs if q == query]
            kept = house.put(pa.Table.from_pylist(rows), f"rows_{query}")
            yield kept
            house.drop(kept)

    with session.opened("duckdb", scratch=scratch, threads=1) as house:
        assert house.write_parts(made(house), tmp_path, records.TEST_CT) == 4
        left = house.backend.raw_sql(
            "SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE 'rows%'"
        ).fetchall()
        assert left == [(0,)]
    files = artifacts.table_files(tmp_path, records.TEST_CT)
    assert [file.name for file in files] == ["part-00000.parquet", "part-00001.parquet"]
    found = [tuple(row.values()) for file in files for row in pq.read_table(file).to_pylist()]
    assert found == sorted(pairs)
