"""What a document was learnt from, by hand."""

from crops.stages.release import pairs
from tests.crops.stages import toy_release as toy


def test_queries_of_few_people_are_private_and_the_most_searched_come_first(tmp_path):
    """subject t was searched 40 - t times by nine people; "part t subject t" by two."""
    mined = toy.mined(tmp_path)
    assert pairs.common(mined, 3) == [f"subject{t}" for t in range(toy.TOPICS)]
    assert len(pairs.common(mined, 2)) == 2 * toy.TOPICS


def test_a_pair_says_what_it_was_learnt_from_but_no_query_of_few(tmp_path):
    """subject0 came to a document five times through subject1 and four times through a query of two people:
    nine times in all, through subject1. A click has no later query, and nobody kept a sample of it.
    """
    row = {"query": "subject0", "doc_id": toy.doc(0, 0)}
    found = {"query": "subject0", "video_id": toy.doc(0, 0), "perspective": "reformulation", "first_ts": 0}
    later = [("subject1", 5), ("part1 subject1", 4)]
    mined = toy.write(
        tmp_path / "mined", CANDIDATES=[{**found, "later_query": q, "support": n} for q, n in later]
    )
    samples = toy.write(
        tmp_path / "samples", SAMPLES=[{**row, "perspective": "reformulation", "label": 5, "theta": 0.9}]
    )
    kept = [{**row, "perspective": "reformulation"}, {**row, "doc_id": toy.doc(0, 1), "perspective": "click"}]
    toy.write(samples, ORIGINS=[*kept, {**row, "perspective": "exposed"}, {**kept[1], "query": "of two"}])
    learnt = pairs.of(["subject1", "subject0"], mined, samples)
    assert [(r["label"], r["support"], r["later_query"]) for r in learnt.to_pylist()] == [
        (5, 9, "subject1"),
        (None, None, None),
    ]
    only = pairs.of(["subject0"], mined, samples, doc_ids={toy.doc(0, 1)})
    assert [r["perspective"] for r in only.to_pylist()] == ["click"]
    assert pairs.of(["subject0"], mined, samples, most=1).num_rows == 1
