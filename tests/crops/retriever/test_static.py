"""Static bases: token vectors as Model2Vec makes them; read, trained and exported as any base."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.decomposition import PCA
from tokenizers import Tokenizer, processors
from transformers import AutoModel, BertConfig, PreTrainedTokenizerFast

from crops import base_model
from crops.config.export import ExportConfig
from crops.errors import ConfigError
from crops.release.encoder import OnnxEncoder
from crops.retriever import encoder as encoders
from crops.retriever import static, step
from crops.stages.release import export
from tests.crops.retriever import toy_encoder as toy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BERT of width 32 whose tokenizer puts [CLS] and [SEP] around a text, as published ones do."""
    folder = tmp_path_factory.mktemp("teacher")
    teacher = toy.encoder().float()
    inner = teacher.tokenizer.backend_tokenizer
    inner.post_processor = processors.TemplateProcessing(
        single="<eos> $A <sep>", special_tokens=[("<eos>", 2), ("<sep>", 3)]
    )
    teacher.query.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>", sep_token="<sep>"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "crops" / "static"


def by_hand(folder):
    """Every token alone through transformers' own model, scikit-learn's PCA, SIF: float [V, 31]."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), base_model.load_tokenizer(folder)
    rows = [n for n in range(len(tokenizer)) if n not in tokenizer.all_special_ids]
    with torch.inference_mode():
        hidden = [model(torch.tensor([[2, n, 3]])).last_hidden_state[0].mean(0).numpy() for n in rows]
    turned = PCA(n_components=31, svd_solver="full").fit_transform(np.array(hidden))
    ranks = np.arange(2, len(rows) + 2)
    probability = (1 / ranks) / (1 / ranks).sum()
    return rows, turned * (1e-4 / (1e-4 + probability))[:, None]


def test_vectors_are_the_weighted_main_axes_of_tokens_encoded_alone(folder):
    encoder = encoders.from_base(f"static:{folder}")
    assert (encoder.pooling, encoder.width) == ("mean", 32)
    rows, expected = by_hand(folder)
    table = encoder.query(torch.tensor([rows])).last_hidden_state[0].detach().numpy()  # [V, 32]
    assert np.abs(table[:, 0]).max() == 0, "the coordinate that keeps the norm is not seen"
    likeness, wanted = table @ table.T, expected @ expected.T  # signs of axes fall out
    scale = np.trace(likeness) / np.trace(wanted)
    np.testing.assert_allclose(likeness, wanted * scale, atol=2e-4 * likeness.max())


def test_a_texts_vector_is_the_mean_of_its_tokens(folder):
    encoder = encoders.from_base(f"static:{folder}").eval()
    ids = encoder.tokenize(["word1 word2 word3"])
    assert not set(ids[0]) & set(encoder.tokenizer.all_special_ids)
    table = encoder.query(torch.tensor(ids)).last_hidden_state[0].detach().numpy().mean(0)
    np.testing.assert_allclose(
        encoder.encode(["word1 word2 word3"], kind="query")[0], table / np.linalg.norm(table), atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(["", "🍞"], kind="query"), axis=1), 1, atol=1e-5)


def test_it_is_made_once(folder, cache, monkeypatch):
    first = encoders.from_base(f"static:{folder}")
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(static, "made", None)
    again = encoders.from_base(f"static:{folder}", shared=False)
    texts = ["word1 word2", "word7"]
    for kind in ("query", "document"):
        np.testing.assert_array_equal(first.encode(texts, kind=kind), again.encode(texts, kind=kind))


def test_it_trains_is_saved_and_exported(folder, tmp_path):
    encoder = encoders.from_base(f"static:{folder}")
    plan = replace(toy.PLAN, learning_rate=base_model.learning_rate("static:anything"))
    optimizer, (ids, labels) = step.optimizer_of(encoder, plan), toy.batch(encoder)
    losses = [step.take(encoder, optimizer, ids, labels, plan, step=n) for n in range(10)]
    assert losses[-1] < losses[0]
    (tmp_path / "trained/encoder").mkdir(parents=True)
    encoder.save(tmp_path / "trained/encoder", system="crops")
    export.run(tmp_path / "trained", tmp_path / "onnx", ExportConfig())
    texts = ["word1 word2", "", "🍞 word3", "word5 " * 300]
    np.testing.assert_allclose(
        OnnxEncoder(tmp_path / "onnx").encode(texts), encoder.eval().encode(texts, kind="query"), atol=1e-5
    )


@pytest.mark.parametrize("base", ["static:small", "static:static:x"])
def test_what_has_no_vectors_to_distil_is_refused(base):
    with pytest.raises(ConfigError, match="distilled from a pre-trained encoder"):
        encoders.from_base(base)


def test_agreement_with_model2vec(folder):
    """Its own functions, where it is installed with what distilling needs."""
    theirs = pytest.importorskip("model2vec.distill.inference", reason="model2vec[distill] is not installed")
    teacher = encoders.from_base(str(folder))
    rows = [n for n in range(len(teacher.tokenizer)) if n not in teacher.tokenizer.all_special_ids]
    raw = theirs.create_embeddings(teacher.query, [[2, n, 3] for n in rows], "cpu", 0)
    np.testing.assert_allclose(static.token_vectors(teacher, len(teacher.tokenizer))[rows], raw, atol=1e-5)
    turned, own = theirs.apply_pca(raw, 31), static.pca(raw, 31)
    np.testing.assert_allclose(np.abs(own), np.abs(turned), atol=1e-4)
    np.testing.assert_allclose(static.sif(len(rows)), theirs.compute_weights(len(rows), 1e-4), rtol=1e-9)


def test_the_rate_follows_the_base(tmp_path):
    """MiniLM's width takes more than the paper's rate, one layer or none more still."""
    for name, layers, width, rate in (("mini", 6, 384, 1e-4), ("large", 2, 896, 2e-5), ("one", 1, 256, 3e-3)):
        BertConfig(num_hidden_layers=layers, hidden_size=width, num_attention_heads=1).save_pretrained(
            tmp_path / name
        )
        assert base_model.learning_rate(str(tmp_path / name)) == rate
    assert base_model.learning_rate("small") == base_model.learning_rate("static:/any/where") == 3e-3


def test_a_base_is_distilled_once_whatever_its_tokenizer_did_before(folder, cache, tmp_path):
    """Neither how a tokenizer last cut and padded, nor a pooler that the checkpoint lacks and that is drawn
    anew at each load, makes another base of it.
    """
    shutil.copytree(folder, tmp_path / "base")
    weights = tmp_path / "base/model.safetensors"
    kept = {name: w for name, w in load_file(weights).items() if not name.startswith("pooler.")}
    assert len(kept) < len(load_file(weights))
    save_file(kept, weights, metadata={"format": "pt"})
    tokenizer = Tokenizer.from_file(str(tmp_path / "base/tokenizer.json"))
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(tmp_path / "base/tokenizer.json"))
    for texts in ([], toy.TEXTS):
        encoders.from_base(f"static:{tmp_path / 'base'}", texts)
    assert len(list(cache.iterdir())) == 1
