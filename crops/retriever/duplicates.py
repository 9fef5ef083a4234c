"""Texts that are nearly the same: what is relevant in one is relevant in the other."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from math import ceil

# A share of common words that is met by all but none in that order, e.g. by the same caption with one hashtag
# more.
LEAST = 0.9
# A word in the prefix of more texts than this tells nothing: its texts are not compared through it, so that
# the cost stays bounded where thousands of texts come from one template.
MOST = 500
# A run of letters that is longer is no word but a script without spaces.
LONGEST_WORD = 16


def near_duplicates(texts: Sequence[str], *, least: float = LEAST) -> Iterator[tuple[int, int]]:
    """Rows (i, j), i < j, of texts whose sets of words have a Jaccard similarity of at least `least`.

    Found by their rarest words (the prefix filter of Chaudhuri, Ganti and Kaushik 2006): two sets of that
    similarity share one of the first `size - ceil(least * size) + 1` words of either, in any order of all
    words; in the order of rarity there are few others to compare with.

    >>> list(near_duplicates(["a b c d e f g h i j", "a b c d e f g h i k", "j i h g f e d c b a x"]))
    [(0, 2)]
    """
    sets = [_words(text) for text in texts]
    seen = Counter(word for words in sets for word in words)
    held: defaultdict[str, list[int]] = defaultdict(list)
    for j, words in enumerate(sets):
        ordered = sorted(words, key=lambda word: (seen[word], word))
        prefix = ordered[: len(words) - ceil(least * len(words) - 1e-9) + 1] if words else []
        met = {i for word in prefix if len(held[word]) < MOST for i in held[word]}
        for i in sorted(met):
            common = len(words & sets[i])
            if common >= least * (len(words) + len(sets[i]) - common):
                yield i, j
        for word in prefix:
            held[word].append(j)


def _words(text: str) -> frozenset[str]:
    """Words without the marks between fields; pairs of neighbouring letters where a script has no spaces."""
    words = [word for word in text.split() if any(letter.isalnum() for letter in word)]
    return frozenset(
        part
        for word in words
        for part in (
            [word] if len(word) <= LONGEST_WORD else [word[at : at + 2] for at in range(len(word) - 1)]
        )
    )
