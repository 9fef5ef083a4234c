"""Which queries are drawn together, and what one of them does not say."""

import pytest

from crops.evaluation import trial
from crops.report import headline


def test_a_query_without_a_chain_is_in_none_whatever_the_numbers():
    """Of a capped set only some of the numbers are left: 4 is the chain of a and b, and nobody else's."""
    together = trial.chained(["a", "b", "c", "d", "e", "f"], {"a": 4, "b": 4})
    assert together[0] == together[1]
    assert len(set(together.tolist())) == 5
    assert len(set(trial.chained("xyz", {}).tolist())) == 3


@pytest.mark.parametrize(("chains", "known"), [({}, True), ({"a": 7, "b": 7}, False)])
def test_of_one_query_or_one_chain_there_is_no_interval(chains, known):
    """A single query that only the challenger answers is no "+100 points, 95 % interval +100 to +100"."""
    recalls = {"crops": (1.0, 1.0), "clicks": (0.0, 0.0)}
    for queries, expected in ((["a"], False), (["a", "b"], known)):
        sets = {"qr_raw": {q: {0} for q in queries}, "ct": None, "truth": None}
        scores = {
            system: trial.Scores({"qr_raw": dict.fromkeys(queries, both)}, {}, None, None, {})
            for system, both in recalls.items()
        }
        got = trial.summary(scores, sets, ours=("crops",), draws=50, seed=0, chains=chains)
        assert got["recall_at_100"]["qr_raw"] == {"crops": 1.0, "clicks": 0.0}
        assert bool(got["intervals"]["qr_raw"]) is expected
        first = headline.of(got)
        assert (first["difference"] is not None) is expected
        assert ("interval" in headline.sentence(first)) is expected
