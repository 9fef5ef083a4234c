"""Texts that are nearly the same: what is relevant in one is relevant in the other."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from math import ceil

from crops.text import words

# A share of common words that is met by all but none in that order, e.g. by the same caption with one hashtag
# more.
LEAST = 0.9
# A word in the prefix of more texts than this tells nothing: its texts are not compared through it, so that
# the cost stays bounded where thousands of texts come from one template.
MOST = 500


def near_duplicates(texts: Sequence[str], *, least: float = LEAST) -> Iterator[tuple[int, int]]:
    """Rows (i, j), i < j, of texts whose sets of words have a Jaccard similarity of at least `least`.

    Found by their rarest words (the prefix filter of Chaudhuri, Ganti and Kaushik 2006): two sets of that
    similarity share one of the first `size - ceil(least * size) + 1` words of either, in any order of all
    words; in the order of rarity there are few others to compare with.

    >>> list(near_duplicates(["a b c d e f g h i j", "a b c d e f g h i k", "j i h g f e d c b a x"]))
    [(0, 2)]
    """
    sets = [frozenset(words(text)) for text in texts]
    seen = Counter(word for own in sets for word in own)
    held: defaultdict[str, list[int]] = defaultdict(list)
    for j, own in enumerate(sets):
        ordered = sorted(own, key=lambda word: (seen[word], word))
        prefix = ordered[: len(own) - ceil(least * len(own) - 1e-9) + 1] if own else []
        met = {i for word in prefix if len(held[word]) < MOST for i in held[word]}
        for i in sorted(met):
            common = len(own & sets[i])
            if common >= least * (len(own) + len(sets[i]) - common):
                yield i, j
        for word in prefix:
            held[word].append(j)
