"""A base for CPUs that knows language: one vector per token, distilled from any encoder in Model2Vec's way
(https://github.com/MinishLab/model2vec): every token of the vocabulary is encoded alone, the vectors are
turned by PCA, and frequent tokens are weighted down.

The result is a Qwen2 model without layers, as a text's pooled vector then is the mean of its tokens' vectors:
whatever reads Hugging Face folders reads it, and it trains, saves and exports as every other base does.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tokenizers import Tokenizer, processors
from transformers import AutoModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2Model

from crops import accelerator, base_model, progress

WIDTH = 256
SIF = 1e-4  # a of a / (a + p), arXiv 1703.04247 by way of Model2Vec
ROOM = 0.5  # the longest vector's share of what a final norm holds: training may double it
SILENT = 1e-3  # length of special tokens against the longest: nothing beside words, a direction alone
FORMAT = "1"  # of the cache: another one where the arithmetic here changes


def distilled(teacher: Any) -> tuple[Qwen2Model, PreTrainedTokenizerFast]:
    """Model and tokenizer from the encoder `teacher` (a crops.retriever.encoder.Encoder).

    Half a minute for 30,000 tokens of MiniLM on 2 cores, so the result is kept under the user's cache folder
    (XDG_CACHE_HOME/crops/static), named by the teacher's weights, tokenizer and pooling.
    """
    kept = _cache() / _name(teacher)
    if not kept.is_dir():
        model, tokenizer = made(teacher)
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=kept.parent, prefix=".partial-"))
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        try:
            partial.replace(kept)
        except OSError:  # another process was first, with the same content
            shutil.rmtree(partial)
    return base_model.load(AutoModel, kept), PreTrainedTokenizerFast.from_pretrained(kept)


def made(teacher: Any) -> tuple[Qwen2Model, PreTrainedTokenizerFast]:
    """The same without the cache."""
    tokenizer = bare(teacher.tokenizer)
    vectors = token_vectors(teacher, len(tokenizer))  # [V, H]
    tokens = [n for n in range(len(vectors)) if n not in tokenizer.all_special_ids]
    words = pca(vectors[tokens], min(WIDTH, vectors.shape[1], len(tokens)) - 1)
    words *= sif(len(words))[:, None]
    longest = float(np.linalg.norm(words, axis=1).max())
    rng = np.random.default_rng(0)
    table = rng.normal(size=(len(vectors), words.shape[1])) / words.shape[1] ** 0.5 * longest * SILENT
    table[tokens] = words
    return model_of(table.astype(np.float32), tokenizer), tokenizer


def model_of(table: np.ndarray, tokenizer: PreTrainedTokenizerFast) -> Qwen2Model:
    """A model whose hidden state of token n is table[n] (float32 [V, H - 1]) times one number, after a 0.

    The final RMSNorm gives every vector the same length. So a first coordinate takes what a vector lacks of
    it, and the norm's weight of that coordinate is 0.
    """
    width = table.shape[1] + 1
    full = float(width) ** 0.5
    vectors = torch.from_numpy(table) * (ROOM * full / float(np.linalg.norm(table, axis=1).max()))
    config = Qwen2Config(
        vocab_size=len(table),
        hidden_size=width,
        intermediate_size=1,
        num_hidden_layers=0,
        num_attention_heads=1,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        use_cache=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        model = Qwen2Model(config)
    with torch.no_grad():
        rest = (full**2 - vectors.square().sum(1)).clamp(min=0).sqrt()
        model.embed_tokens.weight.copy_(torch.cat([rest[:, None], vectors], dim=1))
        model.norm.weight.fill_(1.0)
        model.norm.weight[0] = 0.0
    return model


def bare(tokenizer: Any) -> PreTrainedTokenizerFast:
    """The same tokenizer, putting nothing around a text: a static vector of [CLS] is no part of it."""
    made = base_model.as_served(tokenizer)
    made.backend_tokenizer.post_processor = processors.Sequence([])
    return made


def token_vectors(teacher: Any, tokens: int, *, batch: int = 1024) -> np.ndarray:
    """float32 [tokens, H]: each token's pooled hidden state when it is all of the text, between what the
    teacher's tokenizer puts around a text; not normalised.
    """
    whole = teacher.tokenizer("a")["input_ids"]
    inner = teacher.tokenizer("a", add_special_tokens=False)["input_ids"]
    start = next((n for n in range(len(whole)) if whole[n : n + len(inner)] == inner), 0)
    before, after = whole[:start], whole[start + len(inner) :]
    parts = []
    teacher.eval().to(accelerator.device())
    with torch.inference_mode():
        for first in progress.bar(range(0, tokens, batch), desc="distil", unit="batch"):
            ids = [[*before, n, *after] for n in range(first, min(tokens, first + batch))]
            parts.append(teacher.pooled(*teacher.pad(ids), "document").float().cpu().numpy())
    return np.nan_to_num(np.concatenate(parts))


def pca(vectors: np.ndarray, width: int) -> np.ndarray:
    """float [N, width]: the vectors without their mean, on their axes of most variance."""
    centred = vectors - vectors.mean(axis=0)
    _values, axes = np.linalg.eigh(centred.T @ centred)  # ascending
    return np.asarray(centred @ axes[:, ::-1][:, :width])


def sif(tokens: int) -> np.ndarray:
    """float [N]: a / (a + p), p by Zipf's law from a token's rank in the vocabulary, which begins with the
    most frequent ones.
    """
    zipf = 1 / np.arange(2, tokens + 2)
    return np.asarray(SIF / (SIF + zipf / zipf.sum()))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crops" / "static"


def _name(teacher: Any) -> str:
    digest = hashlib.sha256(f"{FORMAT} {WIDTH} {SIF} {ROOM} {SILENT} {teacher.pooling}".encode())
    tokenizer = Tokenizer.from_str(teacher.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_truncation()  # both are as the last call left them
    tokenizer.no_padding()
    digest.update(tokenizer.to_str().encode())
    for name, weight in cast(torch.nn.Module, teacher.query).state_dict().items():
        if name.startswith("pooler."):  # is not asked here, and drawn anew where a checkpoint has none
            continue
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weight.cpu().numpy()).data)
    return digest.hexdigest()[:32]
