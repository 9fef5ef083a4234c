"""The small base model for the quick start: Qwen2 architecture, made here from the texts at hand, no
download.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2Model

from crops.base_model import train_tokenizer


def small(
    texts: Sequence[str], *, seed: int, width: int = 256, layers: int = 1
) -> tuple[Qwen2Model, PreTrainedTokenizerFast]:
    """A model that starts as a bag of words weighted by rarity (IDF), so that little data goes a long way.

    Attention and MLP start nearly silent. The final RMSNorm would give every token the same length, so one
    dead coordinate takes the share of frequent tokens: its norm weight is 0, and what is left is proportional
    to IDF.
    """
    tokenizer = train_tokenizer(texts)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width // 2,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2Model(config)
    counts = torch.ones(len(tokenizer))
    for ids in tokenizer(list(texts), truncation=True, max_length=128)["input_ids"]:
        counts[list(set(ids))] += 1
    idf = (((len(texts) + 2) / counts).log() / torch.tensor(float(len(texts) + 2)).log()).clamp(
        0.02, 1.0
    )  # [V]
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        vectors = torch.randn(len(tokenizer), width, generator=generator) * idf[:, None]
        vectors[:, 0] = ((1 - idf**2).clamp(min=0) * (width - 1)).sqrt()
        model.embed_tokens.weight.copy_(vectors)
        model.norm.weight[0] = 0.0
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.mul_(0.1)
    return model, tokenizer
