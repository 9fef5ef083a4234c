"""Near-duplicates: the same as comparing all pairs, for any texts and bar."""

from hypothesis import given
from hypothesis import strategies as st

from crops.retriever import duplicates

TEXTS = st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=9).map(" ".join), max_size=14)


def everyone(texts, least):
    sets = [frozenset(text.split()) for text in texts]
    return [
        (i, j)
        for j in range(len(sets))
        for i in range(j)
        if sets[j] and len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= least - 1e-12
    ]


@given(TEXTS, st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]))
def test_the_prefixes_miss_no_pair(texts, least):
    found = list(duplicates.near_duplicates(texts, least=least))
    assert found == everyone(texts, least)


def test_marks_are_no_words_and_a_script_without_spaces_has_its_letters():
    """One letter less: 22 of 23 pairs of neighbours are common. Half of it turned round: hardly any."""
    chinese = "今天教你做红烧肉又香又软不腻人人都爱吃的家常菜"
    texts = ["bread | rye", "rye bread", chinese, chinese[:-1], chinese[:12] + chinese[12:][::-1]]
    assert list(duplicates.near_duplicates(texts)) == [(0, 1), (2, 3)]


def test_a_template_of_many_texts_stays_cheap(monkeypatch):
    """A word that more texts than MOST have in their prefix is not followed further."""
    monkeypatch.setattr(duplicates, "MOST", 3)
    assert len(list(duplicates.near_duplicates(["same words"] * 10))) <= 3 * 10
