"""What training reads, written by the engine and mapped, against the same in Python's own sets."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crops import labels, perspectives
from crops.errors import InputError
from crops.retriever import batch, systems
from crops.retriever.errors import NothingToTrainOn
from crops.retriever.weights import Weights
from crops.stages.learn import inputs
from crops.tables import artifacts, records

GRADED = {**perspectives.labels(), "exposed": 2, "ranked": 2}  # two of one label
# Ids in another order than their texts, twins, near-duplicates, letters beyond ASCII; d9 has no text.
LONG = "one two three four five six seven eight nine ten"
DOCUMENTS = {"d1": LONG, "d2": f"{LONG} éleven", "d3": "𝄞 z", "d4": "ﬀ a", "d5": "𝄞 z", "d6": "A"}
WRITTEN = {"knowledge:1": "written", "knowledge:2": "𝄞 z"}
QUERIES = st.sampled_from(["a", "é", "𝄞", "ﬀ", "b c"])
PAIRS = st.lists(
    st.tuples(QUERIES, st.sampled_from([*DOCUMENTS, *WRITTEN]), st.sampled_from([*GRADED])),
    min_size=1,
    max_size=25,
)


def written(folder, origins, held, gone):
    best = {}
    for query, doc_id, perspective in origins:
        best[query, doc_id] = max(GRADED[perspective], best.get((query, doc_id), 0))
    rows = {
        records.DOCUMENTS: [{"doc_id": d, "text": t} for d, t in DOCUMENTS.items()],
        records.KNOWLEDGE: [
            {"query": "a", "doc_id": d, "text": t, "exemplar_id": "", "model": ""} for d, t in WRITTEN.items()
        ],
        records.SAMPLES: [
            {"query": q, "doc_id": d, "perspective": "click", "label": n, "theta": None}
            for (q, d), n in best.items()
        ],
        records.ORIGINS: [{"query": q, "doc_id": d, "perspective": p} for q, d, p in sorted({*origins})],
        records.DROPPED: [{"query": q, "doc_id": d, "perspective": p} for q, d, p in sorted({*gone})],
        records.VALID_QR: [{"query": q, "video_id": d, "later_query": n} for q, d, n in sorted({*held})],
        records.QUERIES: [
            {"query": q, "split": split, "searches": 1, "clicks": 1, "users": 1}
            for q, split in (("b", "train"), ("a", "train"), ("a", "test"), ("c", "test"))
        ],
    }
    for table, content in rows.items():
        artifacts.write(folder, table, pa.Table.from_pylist(content, schema=table.schema))
    return best


def seen(system, samples, origins, ranks):
    """(query, doc_id) -> rank of the label under which `system` sees it."""
    if not system.only and not system.hides:
        return dict(samples)
    labelled = {}
    for query, doc_id, perspective in origins:
        if systems.sees(system, perspective) and (query, doc_id) in samples:
            labelled[query, doc_id] = max(ranks[perspective], labelled.get((query, doc_id), 0))
    return labelled


def expected(best, origins, held, gone, system):
    """The same by Python's own sets."""
    ranks = {name: labels.rank(n, GRADED) for name, n in GRADED.items()}
    texts = DOCUMENTS | WRITTEN
    graded = {pair: labels.rank(n, GRADED) for pair, n in best.items()}
    apart = {(q, DOCUMENTS[d]) for q, d, _later in held if d in DOCUMENTS}
    unknown = apart | {(q, texts[d]) for q, d, p in gone if systems.sees(system, p)}
    labelled = seen(system, graded, origins, ranks)
    rows = [(q, texts[d], n) for (q, d), n in labelled.items() if (q, texts[d]) not in apart]
    return batch.pairs(rows, positive_min=perspectives.positive_min(ranks), unknown=unknown)


@settings(max_examples=8, deadline=None)
@given(
    PAIRS,
    st.lists(st.tuples(QUERIES, st.sampled_from([*DOCUMENTS, "d9"]), st.sampled_from("xy")), max_size=6),
    PAIRS,
    st.sampled_from(["crops", "clicks", "crops_no_knowledge"]),
)
def test_the_engine_codes_what_python_codes(tmp_path_factory, origins, held, gone, name):
    folder, system = tmp_path_factory.mktemp("tables"), systems.SYSTEMS[name]
    best = written(folder, origins, held, gone)
    try:
        whole = expected(best, origins, held, gone, system)
    except NothingToTrainOn:
        with pytest.raises(InputError, match="nothing to train on"):
            inputs.inputs_of(folder, folder, system, GRADED)
        return
    for home in (None, folder / "home", folder / "home"):  # nameless, made, found
        made = inputs.inputs_of(folder, folder, system, GRADED, home=home)
        for column in ("queries", "texts"):
            assert (*getattr(made.samples, column),) == getattr(whole, column)
        for column in ("query", "text", "label"):
            np.testing.assert_array_equal(getattr(made.samples, column), getattr(whole, column))
        assert made.samples.positive_min == whole.positive_min
        ids = sorted(DOCUMENTS)
        relevant = systems.relevant_rows(((q, d) for q, d, _later in held), ids)
        assert (*made.valid.texts,) == tuple(DOCUMENTS[d] for d in ids)
        assert dict(zip(made.valid.queries, made.valid.relevant, strict=True)) == relevant
        assert [*made.valid.queries] == [*relevant]
        assert [*made.corpus] == [*sorted(set(DOCUMENTS.values())), "a", "b"]
    assert [path.name for path in (folder / "home").iterdir()] == [made.samples.home.name]


def test_what_is_gated_is_weighed_by_theta(tmp_path):
    origins = [("a", "d1", "click"), ("a", "d4", "feed"), ("é", "d5", "reformulation")]
    written(tmp_path, origins, [], gone=[("é", "d1", "feed")])
    theta = {"d1": 0.9, "d4": 0.25, "d5": None}  # θ of a click is asked for the ladder only
    rows = [
        {"query": q, "doc_id": d, "perspective": p, "label": GRADED[p], "theta": theta[d]}
        for q, d, p in origins
    ]
    artifacts.write(tmp_path, records.SAMPLES, pa.Table.from_pylist(rows, schema=records.SAMPLES.schema))
    system = systems.SYSTEMS["crops"]
    assert inputs.inputs_of(tmp_path, tmp_path, system, GRADED).samples.weight is None
    made = inputs.inputs_of(tmp_path, tmp_path, system, GRADED, weights=Weights(kinds=("theta",))).samples
    weights = {
        (made.queries[q], made.texts[t]): float(weight)
        for q, t, weight, label in zip(made.query, made.text, made.weight, made.label, strict=True)
        if label > 0
    }
    assert weights == {("a", LONG): 1.0, ("a", "ﬀ a"): 0.25, ("é", "𝄞 z"): 1.0}
    assert made.weight[made.label == -1].tolist() == [1.0]  # what was dropped stays in doubt


def test_a_sample_without_a_text_is_named(tmp_path):
    written(tmp_path, [("a", "d1", "click")], [], [])
    row = {"query": "a", "doc_id": "d9", "perspective": "click", "label": 4, "theta": None}
    artifacts.write(tmp_path, records.SAMPLES, pa.Table.from_pylist([row], schema=records.SAMPLES.schema))
    with pytest.raises(InputError, match=r"samples.*'d9' is neither in documents nor in knowledge"):
        inputs.inputs_of(tmp_path, tmp_path, systems.SYSTEMS["crops"], GRADED)
