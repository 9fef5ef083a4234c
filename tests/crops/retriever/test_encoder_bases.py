"""One door for bases: every family and precision trains in float32, is saved, exported and read back to equal
vectors, with its own pooling and prompts; what cannot is refused in one line before any work.
"""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from crops import base_model
from crops.base_model import SMALL, STATIC
from crops.config.export import ExportConfig
from crops.errors import InputError
from crops.release.encoder import OnnxEncoder
from crops.retriever import encoder as encoders
from crops.stages.release import export
from tests.crops.retriever import bases, bases_table
from tests.crops.retriever import toy_encoder as toy
from tests.crops.retriever.bases import FAMILIES, PRECISIONS, SIZE, checkpoint

TEXTS = [*toy.TEXTS[:6], "", "🍞 word3", "word5 " * 300]
# Precisions differ until a base is loaded, so in each family one of them goes all the way here, and all of
# them by `make test-slow`.
EACH_ONCE = [
    pytest.param(
        family, [*PRECISIONS][n % len(PRECISIONS)], id=f"{family}-{[*PRECISIONS][n % len(PRECISIONS)]}"
    )
    for n, family in enumerate(FAMILIES)
]


def sentence_transformers(folder, *, pooling="pooling_mode_cls_token", prompts=None):
    """The files that such a folder has beside the model."""
    (folder / "1_Pooling").mkdir()
    said = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False, pooling: True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(said))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts or {}}))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # of distilled vectors


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_and_precision_trains_in_float32(tmp_path, family, precision):
    encoder = bases.encoder_of(tmp_path / "base", family, PRECISIONS[precision])
    assert encoder.pooling == FAMILIES[family][2]
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert bases.moved(encoder) > bases.LEAST_MOVED, "a half-precision weight cannot take a step of 2e-5"


@pytest.mark.parametrize(("family", "precision"), EACH_ONCE)
def test_every_family_is_exported_and_others_give_its_vectors(tmp_path, family, precision):
    """ONNX Runtime, sentence-transformers, and the warm start of a next training."""
    encoder = bases.encoder_of(tmp_path / "base", family, PRECISIONS[precision])
    folder = bases.exported(encoder, tmp_path)
    expected = encoder.eval().encode(TEXTS, kind="query")
    again = encoders.from_base(str(tmp_path / "trained"), toy.TEXTS).eval()
    assert again.pooling == encoder.pooling
    np.testing.assert_allclose(again.encode(TEXTS, kind="query"), expected, atol=1e-6)
    np.testing.assert_allclose(OnnxEncoder(folder).encode(TEXTS), expected, atol=1e-4)
    pytest.importorskip("sentence_transformers")
    asked = bases.texts(30)  # none is empty: without a token of its own such a text is nothing to the library
    expected = encoder.encode(asked, kind="query")
    assert bases.least_cosine(bases.library(folder, asked), expected) >= bases.LEAST_COSINE


def test_a_base_is_remembered_by_a_name_that_means_it_elsewhere(tmp_path):
    """Through a warm start as well; a path of this machine is no such name."""
    folder = checkpoint(tmp_path / "base")
    assert encoders.from_base(str(folder)).base is None
    assert encoders.from_base(f"{STATIC}{folder}").base is None
    encoder = encoders.from_base(SMALL, toy.TEXTS)
    assert encoder.base == SMALL
    (tmp_path / "trained/encoder").mkdir(parents=True)
    encoder.save(tmp_path / "trained/encoder", system="crops")
    assert encoders.from_base(str(tmp_path / "trained")).base == SMALL


def test_the_page_has_a_line_for_every_family_and_precision():
    """And nothing on it failed: what is written there was measured by this table's own program."""
    said = bases_table.committed()
    assert set(said) == {(family, precision) for family in FAMILIES for precision in PRECISIONS}
    assert {answer for row in said.values() for answer in row} == {bases_table.YES}


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.triton
def test_the_page_is_what_is_measured_now():
    now = {(family, precision): tuple(answers) for family, precision, *answers in bases_table.made()}
    assert now == bases_table.committed()


def test_pooling_and_prompts_of_a_sentence_transformers_folder(tmp_path):
    """Its own library is the judge: the same vectors, then through encoder.json, ONNX and a warm start."""
    library = pytest.importorskip("sentence_transformers")
    prompts = {"query": "word1: ", "passage": "word2 "}
    base = sentence_transformers(checkpoint(tmp_path / "base"), prompts=prompts)
    kinds = ["Transformer", "Pooling"]
    (base / "modules.json").write_text(
        json.dumps(
            [
                {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
                for n, (kind, path) in enumerate(zip(kinds, ("", "1_Pooling"), strict=True))
            ]
        )
    )
    judge = library.SentenceTransformer(str(base), device="cpu")
    encoder = encoders.from_base(str(base)).eval()
    assert (encoder.pooling, encoder.prompts) == ("cls", {"query": "word1: ", "document": "word2 "})
    (tmp_path / "trained/encoder").mkdir(parents=True)
    encoder.save(tmp_path / "trained/encoder", system="crops")
    export.run(tmp_path / "trained", tmp_path / "onnx", ExportConfig())
    again, exported = (
        encoders.from_base(str(tmp_path / "trained/encoder")).eval(),
        OnnxEncoder(tmp_path / "onnx"),
    )
    for kind, name in (("query", "query"), ("document", "passage")):
        wanted = judge.encode(toy.TEXTS[:5], prompt_name=name, normalize_embeddings=True)
        for made in (encoder, again, exported):
            np.testing.assert_allclose(made.encode(toy.TEXTS[:5], kind=kind), wanted, atol=1e-4)
    plain = encoders.from_base(str(base), query_prompt="", pooling="mean")
    assert (plain.pooling, plain.prompts) == ("mean", {"query": "", "document": "word2 "})


def test_a_default_prompt_stands_before_both(tmp_path):
    (tmp_path / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"text": "say: "}, "default_prompt_name": "text"})
    )
    assert base_model.prompts_of(tmp_path) == {"query": "say: ", "document": "say: "}
    (tmp_path / "none").mkdir()
    assert base_model.prompts_of(tmp_path / "none") == {"query": "", "document": ""}


def refused(tmp_path):
    """name: (folder, what the line says)."""
    made = {}

    def case(name, problem, family="BERT", **more):
        made[name] = checkpoint(tmp_path / name, family, **more), problem
        return made[name][0]

    for file in case("absent tokenizer", "no tokenizer here").glob("token*"):
        file.unlink()
    folder = case("tokenizer of another", r"has a token \d+, but the model only 40 vectors")
    config = transformers.BertConfig(vocab_size=40, **SIZE)
    transformers.BertModel(config).save_pretrained(folder)
    case("short positions", r"no vector of a text of 128 tokens \(the model's positions: 64\)")
    transformers.BertModel(
        transformers.BertConfig(vocab_size=1_000, max_position_embeddings=64, **SIZE)
    ).save_pretrained(made["short positions"][0])
    folder = case("no safetensors", "no Hugging Face model with safetensors here")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    folder = case("cut safetensors", "no Hugging Face model with safetensors here")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    folder = case("half of the weights", r"safetensors hold no encoder.layer.1.*weights lack")
    kept = {k: v for k, v in load_file(folder / "model.safetensors").items() if "layer.1." not in k}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    folder = case("not numbers", "vectors that are not numbers")
    broken = {k: v * float("nan") for k, v in load_file(folder / "model.safetensors").items()}
    save_file(broken, folder / "model.safetensors", metadata={"format": "pt"})
    folder = case("its own code", "no Hugging Face model with safetensors here")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mystery", "auto_map": {"AutoConfig": "conf.C", "AutoModel": "mod.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("conf.py", "mod.py"):
        (folder / name).write_text("raise SystemExit('ran')")
    folder = case("a pooling of its own", "1_Pooling says pooling_mode_max_tokens")
    sentence_transformers(folder, pooling="pooling_mode_max_tokens")
    bart = transformers.BartConfig(
        vocab_size=999, d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8, decoder_ffn_dim=8
    )
    transformers.BartModel(bart).save_pretrained(case("BART", r"an encoder-decoder \(bart\)"))
    return made


def test_what_cannot_be_trained_is_refused_in_one_line(tmp_path):
    cases = refused(tmp_path)
    assert len(cases) == 10
    for name, (folder, problem) in cases.items():
        with pytest.raises(InputError, match=problem) as told:
            encoders.from_base(str(folder), toy.TEXTS)
        assert "\n" not in str(told.value), name


def test_a_tokenizer_for_other_texts_is_refused(tmp_path):
    """A vocabulary of Latin words against Chinese captions: more than half of what it reads is unknown."""
    words = {token: n for n, token in enumerate(["<pad>", "<unk>", "bread", "sour", "dough"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = checkpoint(tmp_path / "base")
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>").save_pretrained(
        folder
    )
    encoders.from_base(str(folder), ["sour dough bread"])
    with pytest.raises(InputError, match="does not know 100% of the texts' words"):
        encoders.from_base(str(folder), ["東京 タワー", "面包 做法"])


def test_without_a_pad_token_the_end_of_text_pads(tmp_path):
    folder = checkpoint(tmp_path / "base", "Qwen2")
    PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<eos>").save_pretrained(
        folder
    )
    encoder = encoders.from_base(str(folder))
    assert (encoder.tokenizer.pad_token, encoder.query.config.pad_token_id) == ("<eos>", 2)
