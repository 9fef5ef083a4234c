"""Text as every encoder sees it: in training, evaluation and serving alike. The lowest layer; standard
library only.

Three readings of a text: `normalise_query` is what an encoder is given, `words` what rankings and counts of
shared words compare, `wording` what tells one query from another. No script is folded into another:
traditional and simplified Han, or a letter with and without an accent, are different.
"""

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

# Characters kept of one field: the encoder reads 128 tokens (arXiv 2511.15443, section "Implementation"), and
# no tokenizer here makes fewer than one token of 16 characters; more would only cost tokenizer time.
MAX_FIELD_CHARS = 2048

# The scripts that put no space between words, as the inside of a character class that Python's `re` and
# Oniguruma read alike. Their digits and punctuation stand outside.
UNSPACED = (
    "\u3005\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff"  # Han
    "\uf900-\ufaff\U00020000-\U0003fffd"
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ebd\u0ec0-\u0ece\u0edc-\u0edf"  # Thai, Lao
    "\u1780-\u17d3\u17d7\u17dc\u17dd"  # Khmer
    "\u1000-\u103f\u1050-\u108f\u109a-\u109f\ua9e0-\ua9e6\ua9fa-\ua9fe\uaa60-\uaa7f"  # Myanmar
)
# What changes the look of the character before it, and says nothing itself: selectors of a variant, the frame
# of a key, shades of skin.
VARIANTS = "\u20e3\ufe00-\ufe0f\U000e0100-\U000e01ef\U0001f3fb-\U0001f3ff"
_VARIANT = re.compile(f"[{VARIANTS}]")
# A run of a script without spaces; `c++`, `c#`, `f#`; everything else between two separators.
_PIECE = re.compile(
    rf"([{UNSPACED}]+)"
    rf"|((?<![^\s+#{UNSPACED}])[a-z](?:\+\+|#)(?=[\s{UNSPACED}]|$)|[^\s+#{UNSPACED}]+)"
)
# First words of Unicode's character names that are not the name of their script.
SCRIPTS = {"CJK": "han", "HIRAGANA": "kana", "KATAKANA": "kana"}


def normalise_query(text: str) -> str:
    """NFKC, case-folded, white space collapsed and stripped; idempotent.

    >>> normalise_query("  Ｓｏｕｒ\\tDOUGH  bread ")
    'sour dough bread'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    # Case folding can leave a string that is no longer in NFKC form (for example U+0345): normalise once
    # more.
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def document_text(
    caption: str, keywords: Sequence[str] = (), cover_text: str = "", related_queries: Sequence[str] = ()
) -> str:
    """Caption, keywords, OCR of the cover, related queries (arXiv 2511.15443), normalised like a query, empty
    fields left out.

    >>> document_text("Sourdough, day 1", ["bread", "baking"], "", ["how to bake bread"])
    'sourdough, day 1 | bread baking | how to bake bread'
    """
    fields = (caption, " ".join(keywords), cover_text, " ; ".join(related_queries))
    clean = (normalise_query(field[:MAX_FIELD_CHARS]) for field in fields)
    return " | ".join(field for field in clean if field)


def pieces(text: str) -> list[tuple[str, bool]]:
    """The text's words, without punctuation, and its runs of scripts without spaces, which are marked True.

    >>> pieces("iPhone拍照!")
    [('iphone', False), ('拍照', True)]
    """
    plain = normalise_query(text).translate(_PLAIN)
    return [(run or word, bool(run)) for run, word in _PIECE.findall(plain)]


def words(text: str) -> list[str]:
    """The words of a text, in its order, without punctuation; where a script has no spaces, its characters
    and each two of them in a row, as search engines do where no dictionary is at hand.

    A symbol such as an emoji is a word of its own. A character comes with the marks that stand on it.

    >>> words("#Bread, c++ iPhone15拍照")
    ['bread', 'c++', 'iphone15', '拍', '照', '拍照']
    """
    tokens: list[str] = []
    for piece, unspaced in pieces(text):
        if not unspaced:
            tokens.append(piece)
            continue
        characters = _characters(piece)
        tokens += [*characters, *map("".join, itertools.pairwise(characters))]
    return tokens


def wording(query: str) -> str:
    """What is left of a query when its punctuation, and the space beside a script without spaces, are left
    out: two searches with one wording are the same search. A query of nothing else stays as it is.

    >>> wording(" Sourdough? "), wording("红烧 肉！"), wording("???")
    ('sourdough', '红烧肉', '???')
    """
    parts: list[str] = []
    after_unspaced = True
    for piece, unspaced in pieces(query):
        parts += [piece] if unspaced or after_unspaced else [" ", piece]
        after_unspaced = unspaced
    return "".join(parts) or normalise_query(query)


def script(texts: Iterable[str]) -> str:
    """The script that most letters of the texts are of, in the words of Unicode's character names: latin,
    cyrillic, arabic, hangul, thai ...; han, and kana where one letter in twenty or more is kana. Empty
    without a letter.

    >>> script(["红烧肉怎么做 vlog"]), script(["すし"]), script(["2026"])
    ('han', 'kana', '')
    """
    letters = Counter(char for text in texts for char in normalise_query(text) if char.isalpha())
    count: Counter[str] = Counter()
    for char, times in letters.items():
        name = unicodedata.name(char, "").partition(" ")[0].partition("-")[0]
        count[SCRIPTS.get(name, name.lower())] += times
    if count["kana"] * 20 >= count.total() > 0:
        return "kana"
    return max(count, key=lambda name: (count[name], name), default="")


class _Plain(dict[int, str]):
    """Character to itself, to a space where it separates, to nothing where it cannot be seen; filled as
    characters come up.
    """

    def __missing__(self, code: int) -> str:
        char = chr(code)
        kind = unicodedata.category(char)
        if kind == "Cf" or _VARIANT.match(char) or (kind == "Cc" and not char.isspace()):
            plain = ""
        elif kind == "So":
            plain = f" {char} "
        else:
            plain = " " if kind[0] in "PSZ" and char not in "+#" else char
        self[code] = plain
        return plain


_PLAIN = _Plain()


def _characters(piece: str) -> list[str]:
    """Each character with the marks after it."""
    parts: list[str] = []
    for char in piece:
        if parts and unicodedata.category(char)[0] == "M":
            parts[-1] += char
        else:
            parts.append(char)
    return parts
