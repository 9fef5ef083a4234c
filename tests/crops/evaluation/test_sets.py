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


def test_queries_are_told_by_script_only_where_two_scripts_have_enough():
    """30 Latin, 30 Han, 29 Thai queries: Thai is too few, and Latin alone is compared with nothing."""
    latin, han, thai = ([f"{word} {n}" for n in range(30)] for word in ("bread", "红烧肉", "ขนมปัง"))
    raw = {query: {0} for query in (*latin, *han, *thai[:29], "2026")}
    built = sets.build(raw, None, [], slice_of=lambda _: "tail")
    assert set(built["qr_raw_latin"]) == set(latin)
    assert set(built["qr_raw_han"]) == set(han)
    assert sets.scripts_of(built, "qr_raw") == ["han", "latin"]
    assert sets.scripts_of(built, "truth") == []
    fewer = {query: {0} for query in (*latin, *han[:29])}
    assert sets.scripts_of(sets.build(fewer, None, [], slice_of=lambda _: "tail"), "qr_raw") == []


def test_the_cold_start_set_by_hand():
    """Training had 0 and 3 as positives. a loses 3, b all that it has, c nothing; b comes back by the second
    set, a gains what only the second one has.
    """
    first, second = {"a": {3, 5}, "b": {0, 3}, "c": {7}}, {"a": {0, 6}, "b": {8}}
    assert sets.cold_start({0, 3}, first) == {"a": {5}, "c": {7}}
    assert sets.cold_start({0, 3}, first, second, None) == {"a": {5, 6}, "b": {8}, "c": {7}}
    assert first == {"a": {3, 5}, "b": {0, 3}, "c": {7}}, "what it was made of stays"
