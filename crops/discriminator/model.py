"""θ as a cross-encoder: one Transformer reads query and document text together and gives one logit."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from crops import accelerator, base_model
from crops.errors import InputError
from crops.text import normalise_query

# Segment ids of the small model: query; document token; document token that stands in the query as well. The
# third spares a model that starts from nothing to learn first what equality is. Pre-trained models keep their
# own segments.
QUERY, OTHER, MATCH = 0, 1, 2


@dataclass(frozen=True, slots=True)
class CrossEncoder:
    """Model, tokenizer and how pairs are written for them."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int
    small: bool

    def tokenize(self, queries: Sequence[str], texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Per pair: token ids and segment ids, at most max_tokens; texts normalised as for every encoder."""
        q, d = [normalise_query(x) for x in queries], [normalise_query(x) for x in texts]
        if not self.small:
            encoded = self.tokenizer(q, d, truncation="longest_first", max_length=self.max_tokens)
            segments = encoded.get("token_type_ids") or [[0] * len(ids) for ids in encoded["input_ids"]]
            return list(zip(encoded["input_ids"], segments, strict=True))
        sep = self.tokenizer.sep_token_id
        heads, bodies = self.tokenizer(q)["input_ids"], self.tokenizer(d)["input_ids"]
        pairs = []
        for head, body in zip(heads, bodies, strict=True):
            head = head[: self.max_tokens // 2 - 1]
            body = body[: self.max_tokens - len(head) - 1]
            own = set(head)
            pairs.append(
                (
                    [*head, sep, *body],
                    [QUERY] * (len(head) + 1) + [MATCH if t in own else OTHER for t in body],
                )
            )
        return pairs

    def logits(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Tensor:
        """float [N] for tokenized pairs, right-padded to the longest of them."""
        longest = max(len(ids) for ids, _ in pairs)
        pad = self.tokenizer.pad_token_id or 0
        ids = np.full((len(pairs), longest), pad, dtype=np.int64)
        segments, mask = np.zeros_like(ids), np.zeros_like(ids)
        for row, (tokens, kinds) in enumerate(pairs):
            ids[row, : len(tokens)], segments[row, : len(tokens)], mask[row, : len(tokens)] = tokens, kinds, 1
        fields = {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}
        if not hasattr(self.model.config, "type_vocab_size"):
            del fields["token_type_ids"]
        device = self.model.device
        out: Tensor = self.model(**{k: torch.from_numpy(v).to(device) for k, v in fields.items()}).logits[
            :, 0
        ]
        return out.float()

    def save(self, folder: Path) -> None:
        """Hugging Face folder with safetensors, and cross_encoder.json: what `load` needs beside it."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        facts = {"max_tokens": self.max_tokens, "small": self.small}
        (folder / "cross_encoder.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")


def load(folder: Path) -> CrossEncoder:
    """What `save` wrote; an InputError for anything else."""
    if not (folder / "cross_encoder.json").is_file():
        raise InputError(folder, "no cross_encoder.json here; expected a trained discriminator")
    facts = json.loads((folder / "cross_encoder.json").read_text(encoding="utf-8"))
    # tokenizer.json as it was saved: AutoTokenizer would take the class of the architecture, with other
    # splitting rules.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, trust_remote_code=False)
    model = base_model.load(AutoModelForSequenceClassification, folder)
    model.to(accelerator.device()).eval()
    return CrossEncoder(model, tokenizer, int(facts["max_tokens"]), small=bool(facts["small"]))


def learning_rate(base: str) -> float:
    """AdamW's rate where the settings name none."""
    return 1e-3 if base_model.shallow(base) else base_model.learning_rate(base)


def build(base: str, corpus: Sequence[str], *, max_tokens: int, seed: int) -> CrossEncoder:
    """The model by its Hugging Face path; for `small` and static bases one made here, 2 layers of width 128,
    with a tokenizer from `corpus`.
    """
    torch.manual_seed(seed)
    device = accelerator.device()
    if not base_model.shallow(base):  # token vectors alone read no pair
        source = base_model.weights(base)
        tokenizer = base_model.load_tokenizer(source)
        model = base_model.load(
            AutoModelForSequenceClassification, source, num_labels=1, ignore_mismatched_sizes=True
        )
        return CrossEncoder(model.to(device), tokenizer, max_tokens, small=False)
    tokenizer = base_model.train_tokenizer(corpus, vocab_size=8_000, max_tokens=max_tokens)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        type_vocab_size=3,
        max_position_embeddings=max_tokens,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
    )
    config.num_labels = 1
    small: PreTrainedModel = BertForSequenceClassification(config)
    small.to(device)  # type: ignore[arg-type]  # the published type of `to` lacks its device
    return CrossEncoder(small, tokenizer, max_tokens, small=True)
