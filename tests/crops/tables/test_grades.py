"""What is known of a pair: the same in pandas and in an engine."""

import ibis
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crops.tables.grades import Grades

GRADED = st.dictionaries(st.tuples(st.sampled_from("abc"), st.sampled_from("uvw")), st.integers(0, 3))
ROWS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("uvwx"), st.sampled_from("mn")), max_size=9
)


@pytest.mark.parametrize("complete", [True, False])
@settings(max_examples=15, deadline=None)
@given(graded=GRADED, asked=ROWS)
def test_an_engine_says_of_the_known_pairs_what_pandas_says(complete, graded, asked):
    table = pd.DataFrame(
        {
            "query": pd.Series([query for query, _ in graded], dtype="object"),
            "doc_id": pd.Series([doc for _, doc in graded], dtype="object"),
            "grade": pd.Series([*graded.values()], dtype="int8"),
        }
    )
    rows = pd.DataFrame(asked, columns=["query", "doc_id", "more"]).astype("object")
    grades = Grades(table, complete)
    expected = rows.assign(relevant=grades.relevant(rows["query"], rows["doc_id"]))
    expected = sorted(expected[~np.isnan(expected["relevant"])].itertuples(index=False, name=None))
    schema = {"query": "string", "doc_id": "string"}
    engine = ibis.duckdb.connect()
    found = grades.known(
        ibis.memtable(rows, schema=schema | {"more": "string"}),
        ibis.memtable(table, schema=schema | {"grade": "int8"}),
    )
    assert sorted(engine.to_pandas(found).itertuples(index=False, name=None)) == expected
