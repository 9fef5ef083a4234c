"""Normalisation is what joins queries across stages: it must be idempotent and blind to form, case and white
space.
"""

from hypothesis import given
from hypothesis import strategies as st

from crops.text import document_text, normalise_query


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
