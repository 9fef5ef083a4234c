"""Tiny checkpoints of every family of bases, made here, and what is asked of each: three steps of training,
an export, and the same vectors from everything that opens it. No test in here.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tokenizers
import torch
import transformers

from crops import base_model
from crops.config.export import ExportConfig
from crops.release import layout
from crops.retriever import encoder as encoders
from crops.retriever import step
from crops.stages.release import export
from tests.crops.retriever import toy_encoder as toy

SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
DECODER = SIZE | {"num_key_value_heads": 1}
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
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
    "T5 encoder": ("T5ForConditionalGeneration", T5, "mean"),
    "static vectors of BERT": ("BertModel", SIZE, "mean"),
}
LEAST_MOVED, LEAST_COSINE = 0.5, 0.9999
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


# Letters whose case folding is more than lower case, forms that NFKC folds, spaces that only Python calls so,
# characters that cannot be seen, and scripts without spaces.
PARTS = [
    *("sourdough", "Bread", "STRASSE", "Straße", "ΟΔΟΣ", "ὀδός", "İstanbul", "ﬁne", "ǅ", "ᾳ", "ꮿ", "ẞ"),
    *("ＡＢＣ", "ｶﾞ", "①", "㎏", "\u0345α", "红烧肉", "東京の夜景", "ขนมปัง", "हिन्दी", "빵", "مرحبا", "хлеб"),
    *("🍞", "👩🏽‍🍳", "❤️", "#tag", "c++", "iPhone15", "don't", "3.5", "a\u200bb", "soft\u00adhyphen"),
    *("\x85", "\u3000", "\xa0", "\x1c", "\t\n", "…", "|", "?!", "part2", "subject3", "keyword7 clip0"),
]


def texts(count: int = 1_000) -> list[str]:
    """Nasty ones, the same at every call."""
    draw = random.Random(0)
    made = (draw.choice([" ", ""]).join(draw.choices(PARTS, k=draw.randint(1, 30))) for _ in range(count * 2))
    return [text for text in made if text.strip()][:count]


def checkpoint(folder: Path, family: str = "BERT", dtype: torch.dtype = torch.float32, **more: int) -> Path:
    """A folder as published ones are: random weights, and a tokenizer that closes texts."""
    name, settings, _pooling = FAMILIES[family]
    tokenizer = base_model.train_tokenizer(toy.TEXTS)
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
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


def encoder_of(folder: Path, family: str, dtype: torch.dtype) -> encoders.Encoder:
    """The untrained encoder of a new checkpoint in `folder`."""
    static = base_model.STATIC if family.startswith("static") else ""
    return encoders.from_base(f"{static}{checkpoint(folder, family, dtype)}", toy.TEXTS)


def moved(encoder: encoders.Encoder) -> float:
    """The least share of a matrix's weights with a gradient that three steps at the paper's rate change: near
    0 in bfloat16, whose weights cannot take a step of 2e-5.
    """
    before = {name: p.detach().clone() for name, p in encoder.query.named_parameters()}
    plan = replace(toy.PLAN, learning_rate=2e-5)
    optimizer, (ids, labels) = step.optimizer_of(encoder, plan), toy.batch(encoder)
    for number in range(3):
        step.take(encoder, optimizer, ids, labels, plan, step=number)
    shares = [
        float((p != before[name])[p.grad.abs() > 1e-9].float().mean())
        for name, p in encoder.query.named_parameters()
        if p.ndim == 2 and p.grad is not None and bool((p.grad.abs() > 1e-9).any())
    ]
    return min(shares)


def exported(encoder: encoders.Encoder, root: Path) -> Path:
    """What `crops export` writes of it, in `root`/onnx; `root`/trained is what training would have saved."""
    (root / "trained/encoder").mkdir(parents=True)
    encoder.save(root / "trained/encoder", system="crops")
    export.run(root / "trained", root / "onnx", ExportConfig())
    return root / "onnx"


def library(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """float32 [N, H] by sentence-transformers from the export `folder`."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder / layout.HUB), device="cpu")
    return np.asarray(model.encode_query(list(texts)))


def transformers_alone(folder: Path, texts: Sequence[str], *, batch: int = 64) -> np.ndarray:
    """The same by the Auto classes, which go by config.json; pooled by hand as 1_Pooling says."""
    root = folder / layout.HUB
    model, said = transformers.AutoModel.from_pretrained(root).eval(), _json(root / "1_Pooling/config.json")
    (pooling,) = (name for name, on in said.items() if name.startswith("pooling_mode_") and on)
    rows = []
    for tokens in _batches(root, texts, batch):
        with torch.inference_mode():
            hidden = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"]
        pooled = {
            "pooling_mode_mean_tokens": (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True),
            "pooling_mode_cls_token": hidden[:, 0],
            "pooling_mode_lasttoken": hidden[torch.arange(len(hidden)), mask.sum(1) - 1],
        }[pooling]
        rows.append(torch.nn.functional.normalize(pooled, dim=-1).numpy())
    return np.concatenate(rows)


def onnx_alone(folder: Path, texts: Sequence[str], *, batch: int = 64) -> np.ndarray:
    """The same by ONNX Runtime and the folder's tokenizer, with nothing of ours."""
    path = folder / layout.QUERY_ENCODER
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate(
        [
            session.run(None, {"ids": tokens["input_ids"].numpy(), "mask": tokens["attention_mask"].numpy()})[
                0
            ]
            for tokens in _batches(folder / layout.HUB, texts, batch)
        ]
    )


def _batches(root: Path, texts: Sequence[str], size: int) -> Iterator[transformers.BatchEncoding]:
    """Tokens of the texts behind the query's prompt, by the folder's own tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(root)
    prompt = _json(root / "config_sentence_transformers.json")["prompts"].get("query", "")
    for start in range(0, len(texts), size):
        yield tokenizer(
            [prompt + text for text in texts[start : start + size]],
            truncation=True,
            padding=True,
            return_tensors="pt",
        )


def _json(path: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return said


def least_cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Of unit vectors [N, H] row by row."""
    return float((np.asarray(one) * np.asarray(other)).sum(axis=1).min())
