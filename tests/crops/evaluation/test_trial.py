"""Which queries are drawn together."""

from crops.evaluation import trial


def test_a_query_without_a_chain_is_in_none_whatever_the_numbers():
    """Of a capped set only some of the numbers are left: 4 is the chain of a and b, and nobody else's."""
    together = trial.chained(["a", "b", "c", "d", "e", "f"], {"a": 4, "b": 4})
    assert together[0] == together[1]
    assert len(set(together.tolist())) == 5
    assert len(set(trial.chained("xyz", {}).tolist())) == 3
