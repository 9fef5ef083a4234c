"""Texts that are nearly the same: what is relevant in one is relevant in the other."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from math import ceil

from crops.text import words

# A share of common words that is met by all but none in that order, e.g. by the same caption with one hashtag
# more.
LEAST = 0.9
# A word in the prefix of more texts than this tells nothing: its texts are not compared through it, so that
# the cost stays bounded where thousands of texts come from one template.
MOST = 500


def near_duplicates(texts: Iterable[str], *, least: float = LEAST) -> Iterator[tuple[int, int]]:
    """Rows (i, j), i < j, of texts whose sets of words have a Jaccard similarity of at least `least`.

    Found by their rarest words (the prefix filter of Chaudhuri, Ganti and Kaushik 2006): two sets of that
    similarity share one of the first `size - ceil(least * size) + 1` words of either, in any order of all
    words; in the order of rarity there are few others to compare with.

    >>> list(near_duplicates(["a b c d e f g h i j", "a b c d e f g h i k", "j i h g f e d c b a x"]))
    [(0, 2)]
    """
    # Words are numbers, the rarest first: a list of sets of words would be many times the texts themselves.
    numbers: dict[str, int] = {}
    flat, starts = array("i"), array("q", [0])
    for text in texts:
        flat.extend({numbers.setdefault(word, len(numbers)) for word in words(text)})
        starts.append(len(flat))
    seen = Counter(flat)
    place = array("i", bytes(flat.itemsize * len(numbers)))
    for rank, word in enumerate(sorted(numbers, key=lambda word: (seen[numbers[word]], word))):
        place[numbers[word]] = rank
    rows_of: defaultdict[int, list[int]] = defaultdict(list)

    def own(row: int) -> list[int]:
        return [place[word] for word in flat[starts[row] : starts[row + 1]]]

    for j in range(len(starts) - 1):
        ordered = sorted(own(j))
        whole = frozenset(ordered)
        prefix = ordered[: len(ordered) - ceil(least * len(ordered) - 1e-9) + 1] if ordered else []
        met = {i for number in prefix if len(rows_of[number]) < MOST for i in rows_of[number]}
        for i in sorted(met):
            common = len(whole.intersection(own(i)))
            if common >= least * (len(ordered) + starts[i + 1] - starts[i] - common):
                yield i, j
        for number in prefix:
            rows_of[number].append(j)
