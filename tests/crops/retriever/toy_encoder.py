"""A small BERT with dropout in double precision, a batch of tokens, and labels: what the tests of a step
share.
"""

import numpy as np
import torch
from transformers import BertConfig, BertModel

from crops.base_model import train_tokenizer
from crops.retriever.encoder import Encoder
from crops.retriever.step import Plan

PLAN = Plan(
    loss="h_infonce",
    anchor_min=1,
    steps=10,
    horizon=10,
    warmup=0.0,
    check_every=5,
    patience=2,
    learning_rate=1e-2,
    temperature_rate=1e-2,
    weight_decay=0.0,
    seed=3,
)
TEXTS = [" ".join(f"word{(i * k) % 19}" for k in range(1, 2 + i % 12)) for i in range(24)]


def encoder(*, dropout: float = 0.0, width: int = 32) -> Encoder:
    tokenizer = train_tokenizer(TEXTS)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Encoder(BertModel(config), tokenizer, pooling="mean").double()


def batch(of: Encoder) -> tuple[tuple[list, list], np.ndarray]:
    """7 queries, 17 texts: neither divides by 2."""
    labels = np.random.default_rng(0).integers(-1, 6, (7, 17)).astype(np.int8)
    return (of.tokenize(TEXTS[:7]), of.tokenize(TEXTS[7:])), labels


def gradients(of: Encoder) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in of.named_parameters() if p.grad is not None}
