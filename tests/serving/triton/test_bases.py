"""Bases of other make at the real Triton: an encoder, a decoder, T5's and one without layers; all others by
`make test-slow` (tests/crops/retriever/bases_table.py).
"""

import pytest

from tests.crops.retriever import bases
from tests.serving import releases as toys


@pytest.mark.triton
@pytest.mark.parametrize(
    ("family", "precision"),
    [
        ("XLM-R", "float32"),
        ("Qwen3", "bfloat16"),
        ("T5 encoder", "float16"),
        ("static vectors of BERT", "float32"),
    ],
)
def test_triton_gives_the_vectors_of_the_trained_encoder(triton, tmp_path, monkeypatch, family, precision):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    encoder = bases.encoder_of(tmp_path / "base", family, bases.PRECISIONS[precision])
    served = toys.encode_export(triton, bases.exported(encoder, tmp_path), bases.texts(100))
    assert (
        bases.least_cosine(served, encoder.eval().encode(bases.texts(100), kind="query"))
        >= bases.LEAST_COSINE
    )
