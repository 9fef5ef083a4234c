"""Which test queries say the same thing."""

from crops.evaluation import sets


def row(query, later_query, video_id):
    return {"query": query, "later_query": later_query, "video_id": video_id}


def test_a_chain_is_what_one_rewording_made():
    """a -> c and b -> c watched v: one chain of a and b; d joins it by another video of the same last query.
    The same video after another query (e), and another video after the same one (f), are other evidence.
    """
    found = sets.chains(
        [
            row("a", "c", "v"),
            row("b", "c", "v"),
            row("b", "c", "w"),
            row("d", "c", "w"),
            row("e", "x", "v"),
            row("f", "c", "u"),
        ]
    )
    assert found["a"] == found["b"] == found["d"]
    assert len({found["a"], found["e"], found["f"]}) == 3
    assert sets.chains([]) == {}


def test_order_of_the_rows_changes_no_chain():
    rows = [row(f"q{n % 7}", f"l{n % 3}", f"v{n % 5}") for n in range(12)]
    one, other = sets.chains(rows), sets.chains(rows[::-1])
    together = [{frozenset(q for q in of if of[q] == of[name]) for name in of} for of in (one, other)]
    assert together[0] == together[1]
