"""Tokens from a file are those that the encoder makes of each text."""

import pyarrow as pa
import pytest

from crops.retriever import columns, tokens
from crops.retriever import encoder as encoders

TEXTS = ["one two", "", "three four five six seven", "two  TWO", "one"]


@pytest.mark.parametrize("settings", [{}, {"pooling": "last"}, {"query_prompt": "ask: ", "max_tokens": 3}])
def test_they_are_the_same_made_here_or_mapped(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(tokens, "PIECE", 2)
    encoder = encoders.from_base("small", TEXTS, **settings)
    columns.write_texts(tmp_path, "queries", [pa.array(TEXTS)])
    asked, plain = columns.texts(tmp_path, "queries"), encoder.tokenize(TEXTS, "query")
    for home in (None, tmp_path, tmp_path):  # in this process, made, found
        assert [ids.tolist() for ids in tokens.tokenized(encoder, asked, "query", home)] == plain
    # The encoder has been used since: its tokenizer keeps the settings of the last call, but is the same.
    tokens.tokenized(encoder, asked, "query", tmp_path)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
    assert len(tokens.tokenized(encoder, [], "document")) == 0


def test_another_tokenizer_prompt_or_length_has_a_name_of_its_own(tmp_path):
    columns.write_texts(tmp_path, "queries", [pa.array(TEXTS)])
    asked = columns.texts(tmp_path, "queries")
    for made in (
        encoders.from_base("small", TEXTS),
        encoders.from_base("small", TEXTS, query_prompt="ask: "),
        encoders.from_base("small", TEXTS, max_tokens=2),
        encoders.from_base("small", [*TEXTS, "eight eight eight"]),
    ):
        mapped = tokens.tokenized(made, asked, "query", tmp_path)
        assert [ids.tolist() for ids in mapped] == made.tokenize(TEXTS, "query")
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 4
