"""Sorted rows in pieces: no value is cut, no row is lost, and what is written is the table."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crops.tables import artifacts, pieces, records


@given(st.lists(st.integers(0, 6), max_size=40), st.integers(1, 9), st.integers(1, 12))
def test_pieces_hold_whole_queries_and_all_rows_in_order(numbers, size, rows):
    table = pa.table({"query": [f"q{n}" for n in sorted(numbers)], "row": range(len(numbers))})
    made = list(pieces.whole(table.to_batches(max_chunksize=size), "query", rows=rows))
    assert [row for piece in made for row in piece["row"].to_pylist()] == [*range(len(numbers))]
    queries = [set(piece["query"].to_pylist()) for piece in made]
    assert sum(map(len, queries)) == len({*numbers}), "a query is in two pieces"
    longest = max((numbers.count(n) for n in numbers), default=0)
    assert all(piece.num_rows < rows + size + longest for piece in made), "memory is bounded"


def test_rows_written_piece_by_piece_are_the_table(tmp_path):
    rows = pa.table({"video_id": ["a", "b", "c"], "query": ["x", "x", "y"]})
    with pieces.Writer(tmp_path / "one", records.TEST_CT) as writer:
        writer.add(rows.slice(0, 2))
        writer.add(rows.slice(2))
    artifacts.write(tmp_path / "whole", records.TEST_CT, rows)
    one, whole = (artifacts.read(tmp_path / name, records.TEST_CT) for name in ("one", "whole"))
    assert one.equals(whole)
    assert writer.rows == 3


def test_a_table_without_rows_is_a_table(tmp_path):
    with pieces.Writer(tmp_path, records.TEST_CT) as writer:
        pass
    assert artifacts.rows(tmp_path, records.TEST_CT) == writer.rows == 0


def test_columns_that_are_missing_are_an_error(tmp_path):
    with pytest.raises(KeyError), pieces.Writer(tmp_path, records.TEST_CT) as writer:
        writer.add(pa.table({"query": ["x"]}))
