"""One door for bases: every family and precision trains in float32, is saved, exported and read back to equal
vectors, with its own pooling and prompts; what cannot is refused in one line before any work.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from crops import base_model
from crops.config.export import ExportConfig
from crops.errors import InputError
from crops.release.encoder import OnnxEncoder
from crops.retriever import encoder as encoders
from crops.retriever import step
from crops.stages.release import export
from tests.crops.retriever import toy_encoder as toy

SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
DECODER = SIZE | {"num_key_value_heads": 1}
# Class of the checkpoint, its settings beside the vocabulary, and the pooling that its attention asks for.
FAMILIES = {
    "BERT": ("BertModel", SIZE, "mean"),
    "RoBERTa": ("RobertaModel", SIZE | {"max_position_embeddings": 140}, "mean"),
    "XLM-R": ("XLMRobertaForMaskedLM", SIZE | {"max_position_embeddings": 140}, "mean"),
    "DistilBERT": ("DistilBertModel", {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 2}, "mean"),
    "MPNet": ("MPNetModel", SIZE, "mean"),
    "ModernBERT": ("ModernBertModel", SIZE, "mean"),
    "Qwen2": ("Qwen2ForCausalLM", DECODER, "last"),
    "Qwen2 without a head": ("Qwen2Model", DECODER, "last"),
    "Qwen3": ("Qwen3Model", DECODER | {"head_dim": 16}, "last"),
    "Llama": ("LlamaForCausalLM", DECODER, "last"),
    "Mistral": ("MistralModel", DECODER, "last"),
    "Gemma": ("GemmaModel", DECODER | {"head_dim": 16}, "last"),
    "GPT-2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 2}, "last"),
    "T5 encoder": (
        "T5ForConditionalGeneration",
        {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
        "mean",
    ),
}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TABLES = ("embed", "wte", "wpe", "shared", "relative", "pooler")  # of which a batch uses some rows
TEXTS = [*toy.TEXTS[:6], "", "🍞 word3", "word5 " * 300]


def checkpoint(folder, family="BERT", dtype=torch.float32, **more):
    """A folder as published ones are: random weights, and a tokenizer that closes texts."""
    name, settings, _pooling = FAMILIES[family]
    tokenizer = base_model.train_tokenizer(toy.TEXTS)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 2)]
    )
    special = {"pad_token_id": 0, "eos_token_id": 2, "bos_token_id": None}
    if family == "ModernBERT":
        special |= {"cls_token_id": 2, "sep_token_id": 2, "bos_token_id": 2}
    cls = getattr(transformers, name)
    torch.manual_seed(0)
    model = cls(cls.config_class(vocab_size=len(tokenizer), **special, **settings, **more))
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sentence_transformers(folder, *, pooling="pooling_mode_cls_token", prompts=None):
    """The files that such a folder has beside the model."""
    (folder / "1_Pooling").mkdir()
    said = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False, pooling: True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(said))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts or {}}))
    return folder


@pytest.mark.parametrize("dtype", PRECISIONS.values(), ids=PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_and_precision_trains_and_is_exported(tmp_path, family, dtype):
    base = checkpoint(tmp_path / "base", family, dtype)
    encoder = encoders.from_base(str(base), toy.TEXTS)
    assert encoder.pooling == FAMILIES[family][2]
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    before = {name: p.detach().clone() for name, p in encoder.query.named_parameters()}
    plan = replace(toy.PLAN, learning_rate=2e-5)
    optimizer, (ids, labels) = step.optimizer_of(encoder, plan), toy.batch(encoder)
    for number in range(3):
        step.take(encoder, optimizer, ids, labels, plan, step=number)
    moved = {
        name: float((p != before[name]).float().mean())
        for name, p in encoder.query.named_parameters()
        if p.ndim == 2 and p.grad is not None and not any(table in name for table in TABLES)
    }
    assert moved
    assert min(moved.values()) > 0.5, "a half-precision weight cannot take a step of 2e-5"
    (tmp_path / "trained/encoder").mkdir(parents=True)
    encoder.save(tmp_path / "trained/encoder", system="crops")
    export.run(tmp_path / "trained", tmp_path / "onnx", ExportConfig())
    expected = encoder.eval().encode(TEXTS, kind="query")
    again = encoders.from_base(str(tmp_path / "trained"), toy.TEXTS).eval()
    assert again.pooling == encoder.pooling
    np.testing.assert_allclose(again.encode(TEXTS, kind="query"), expected, atol=1e-6)
    np.testing.assert_allclose(OnnxEncoder(tmp_path / "onnx").encode(TEXTS), expected, atol=1e-4)


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
