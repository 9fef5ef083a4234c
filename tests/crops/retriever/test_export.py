"""ONNX against torch on nasty texts, for every pooling, batch size and number of towers."""

import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crops.config.export import ExportConfig
from crops.errors import ConfigError, InputError
from crops.release import layout
from crops.release.encoder import OnnxEncoder
from crops.retriever import encoder as encoders
from crops.stages.release import export
from crops.tables import artifacts
from tests.crops.stages import toy_release as toy

FORMS = {"mean": ("mean", True), "last": ("last", True), "cls": ("cls", True), "two towers": ("last", False)}
NASTY = [
    "",
    " \t\n",
    "a",
    "word " * 300,
    "a" * 5_000,
    "東京 タワー",
    "İstanbul ﬁne Straße",
    "\u0345α",
    "👩‍👩‍👧 cat",
    "\x00\x01 null",
    "a\u200bb",
    "<eos>",
    "<pad> subject1",
    "<unk>",
    "subject1 <sep> part2",
    "ﷺ",
    "é" * 200,
    "subject1",
    "part2 subject3",
]


@pytest.fixture(scope="module", params=FORMS)
def both(request, tmp_path_factory):
    """The trained encoder, its exported folder, and the encoder read from there, in one form."""
    pooling, shared = FORMS[request.param]
    root = tmp_path_factory.mktemp("export")
    toy.trained(root / "encoder", pooling=pooling, shared=shared)
    export.run(root / "encoder", root / "out", ExportConfig())
    return encoders.load(root / "encoder"), root / "out", OnnxEncoder(root / "out")


@pytest.mark.parametrize("kind", ["query", "document"])
def test_onnx_agrees_with_torch(both, kind):
    trained, _folder, exported = both
    for count in (1, 2, 3, len(NASTY)):
        texts = NASTY[-count:]
        vectors = exported.encode(texts, kind=kind)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, trained.encode(texts, kind=kind), atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert exported.encode([], kind=kind).shape == (0, trained.width)


def test_vectors_do_not_depend_on_the_batch(both):
    exported = both[2]
    together = exported.encode(NASTY)
    alone = np.concatenate([exported.encode([text]) for text in NASTY])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, exported.encode(NASTY, batch=2), atol=1e-5)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=60) | st.sampled_from(NASTY), min_size=1, max_size=5))
def test_texts_become_the_same_tokens_as_in_training(both, texts):
    trained, _folder, exported = both
    assert exported.tokenize(texts) == trained.tokenize(texts)


def test_two_towers_are_two_files(both):
    trained, folder, _exported = both
    assert (folder / "document_encoder.onnx").exists() == (trained.document is not None)


@pytest.mark.parametrize("tower", ["query", "document"])
def test_an_export_that_differs_is_refused(tmp_path, monkeypatch, tower):
    """Planted: the ONNX file of one tower comes from another model."""
    toy.trained(tmp_path / "encoder", shared=False)
    toy.trained(tmp_path / "other", shared=False, seed=5)
    export.run(tmp_path / "other", tmp_path / "wrong", ExportConfig())
    write = export.export.write

    def planted(encoder, source, folder, *, opset):
        write(encoder, source, folder, opset=opset)
        name = f"{tower}_encoder.onnx"
        (folder / name).write_bytes((tmp_path / "wrong" / name).read_bytes())

    monkeypatch.setattr(export.export, "write", planted)
    with pytest.raises(InputError, match="ONNX differs from torch by"):
        export.run(tmp_path / "encoder", tmp_path / "out", ExportConfig())
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith((".", "out"))] == []


def test_a_folder_that_is_no_export_is_named(tmp_path):
    with pytest.raises(InputError, match=r"encoder.json: no such file"):
        OnnxEncoder(tmp_path)
    with pytest.raises(InputError, match="no encoder"):
        export.run(tmp_path, tmp_path / "out", ExportConfig())


def test_a_file_that_was_cut_is_named(both, tmp_path):
    whole = both[1]
    for name in ("encoder.json", "tokenizer.json", "query_encoder.onnx"):
        cut = shutil.copytree(whole, tmp_path / name)
        (cut / name).write_bytes((whole / name).read_bytes()[:100])
        with pytest.raises(InputError, match=f"{name}: not readable"):
            OnnxEncoder(cut)


def test_a_trained_encoder_without_its_tokenizer_is_named(tmp_path):
    (toy.trained(tmp_path) / "encoder" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer.json: no such file"):
        encoders.load(tmp_path)


def test_cut_vectors_are_those_of_the_whole_cut_by_hand(tmp_path):
    """ONNX, the folder for sentence-transformers and what is read back hold the first 8 numbers, of length 1;
    a width that was not trained for is refused, and an encoder that was trained for none stays whole.
    """
    library = pytest.importorskip("sentence_transformers")
    source = toy.trained(tmp_path / "trained")
    whole = encoders.load(source).encode(NASTY[15:], kind="query")
    export.run(source, tmp_path / "whole", ExportConfig(width=8))
    assert OnnxEncoder(tmp_path / "whole").width == whole.shape[1]
    facts = artifacts.read_json(source / "encoder/encoder.json")
    artifacts.write_json(source / "encoder/encoder.json", {**facts, "widths": [8, 4]})
    with pytest.raises(ConfigError, match=r"^width is 7, but the encoder was trained for 256, 8, 4$"):
        export.run(source, tmp_path / "none", ExportConfig(width=7))
    export.run(source, tmp_path / "cut", ExportConfig(width=8))
    cut = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(OnnxEncoder(tmp_path / "cut").encode(NASTY[15:]), cut, atol=1e-5)
    model = library.SentenceTransformer(str(tmp_path / "cut" / layout.HUB), device="cpu")
    np.testing.assert_allclose(model.encode(NASTY[15:]), cut, atol=1e-5)
    facts = artifacts.read_json(tmp_path / "cut/encoder.json")
    assert (facts["width"], facts["widths"]) == (8, [4])
