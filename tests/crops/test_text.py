"""Normalisation is what joins queries across stages: it must be idempotent and blind to form, case and white
space.
"""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from crops.text import document_text, normalise_query, script, wording, words


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    once = normalise_query(text)
    assert normalise_query(once) == once


@given(st.text(), st.sampled_from([" ", "\t", "\n", "\u3000"]))
def test_outer_white_space_does_not_matter(text, space):
    assert normalise_query(space + text + space) == normalise_query(text)


@given(st.text(st.characters(max_codepoint=127)))
def test_case_does_not_matter(text):
    assert normalise_query(text.upper()) == normalise_query(text.lower())


def test_by_hand():
    """Full width letters fold to ASCII, sharp s to ss, the ligature to f + i."""
    assert normalise_query("  ＡＢ\u3000Straße ﬁn ") == "ab strasse fin"


def test_document_text_leaves_out_empty_fields_and_bounds_long_ones():
    assert document_text("A", [], "", ["b", "c"]) == "a | b ; c"
    assert document_text("", [], "", []) == ""
    assert len(document_text("x" * 1_000_000)) == 2048


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#Bread, bread: (BREAD)", ["bread", "bread", "bread"]),
        ("c++ c# f#, #c", ["c++", "c#", "f#", "c"]),
        ("红烧肉", ["红", "烧", "肉", "红烧", "烧肉"]),
        ("#面包#，烘焙！", ["面", "包", "面包", "烘", "焙", "烘焙"]),
        ("iPhone15拍照vlog", ["iphone15", "拍", "照", "拍照", "vlog"]),
        ("ｶﾞ", ["ガ"]),
        ("スープ・カレー", ["ス", "ー", "プ", "スー", "ープ", "カ", "レ", "ー", "カレ", "レー"]),
        ("ไทย", ["ไ", "ท", "ย", "ไท", "ทย"]),
        ("ที่", ["ที่"]),  # the marks stay on their letter
        ("हिन्दी में", ["हिन्दी", "में"]),  # marks do not cut a word where a script has spaces
        ("한국어 검색", ["한국어", "검색"]),
        ("ca\u200bt \ufeffdog\u00ad", ["cat", "dog"]),
        ("👍🏽bread❤️", ["👍", "bread", "❤"]),
        ("1️⃣ 👩‍🍳", ["1", "👩", "🍳"]),
        ("?! …", []),
    ],
)
def test_words_by_hand(text, expected):
    assert words(text) == expected


@given(st.text())
def test_words_are_those_of_the_normalised_text_and_hold_no_separator(text):
    """No white space, no punctuation but the + and # of a language's name, nothing that cannot be seen."""
    assert words(text) == words(normalise_query(text))
    for word in words(text):
        kinds = {unicodedata.category(char) for char in word if char not in "+#"}
        assert word
        assert not kinds & {"Zs", "Zl", "Zp", "Cf", "Po", "Pd", "Ps", "Pe", "Pi", "Pf", "Pc"}


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"])))
def test_a_wording_is_its_own_and_never_empty_where_the_query_is_not(text):
    assert bool(wording(text)) == bool(normalise_query(text))
    assert wording(wording(text)) == wording(text)


@given(st.text("abc红烧肉すしไทย 12"), st.sampled_from("?!。、…\"'()\u200b\ufe0f"))
def test_punctuation_around_a_query_is_the_same_wording(text, mark):
    if wording(text):
        assert wording(mark + text + mark) == wording(text)


def test_where_words_are_spaced_they_are_those_of_an_independent_splitter():
    """BERT's own splitter (the Rust library `tokenizers`), which cuts at spaces, punctuation and Han."""
    text = normalise_query("Home-made sourdough: bread & butter (2026), «brød», хлеб; 面包机 100 g!")
    theirs = [
        piece for piece, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text.replace("面包机", ""))
    ]
    own = [word for word in words(text) if word not in ("面", "包", "机", "面包", "包机")]
    assert own == [piece for piece in theirs if any(map(str.isalnum, piece))]


def test_the_script_of_most_letters():
    assert script(["红烧肉怎么做", "vlog"]) == "han"
    assert script(["東京の夜景"]) == "kana"
    assert [script([text]) for text in ("bread", "хлеб", "ﾊﾟﾝ", "빵", "ขนมปัง", "خبز", "12 !")] == [
        "latin",
        "cyrillic",
        "kana",
        "hangul",
        "thai",
        "arabic",
        "",
    ]
