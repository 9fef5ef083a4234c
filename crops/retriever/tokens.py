"""Texts as tokens, made once for all steps, probes and ranks."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from crops.retriever import columns
from crops.retriever.encoder import Encoder, Kind

PIECE = 8_192  # texts that are tokenized at once, by as many threads as there are cores


def tokenized(encoder: Encoder, texts: Sequence[str], kind: Kind, home: Path | None = None) -> columns.Lists:
    """int32 tokens of each text, as `encoder.tokenize` makes them.

    home: the folder of the texts, in which nothing but its name says what they are; the tokens lie in it,
    memory-mapped, by the tokenizer that made them. None: they stay in this process.
    """
    name = None if home is None else _key(encoder, kind)
    if home is None or name is None:
        parts = [*_pieces(encoder, texts, kind)]
        values = np.concatenate([np.zeros(0, dtype=np.int32), *(values for values, _lengths in parts)])
        lengths = np.concatenate([np.zeros(1, dtype=np.int64), *(lengths for _values, lengths in parts)])
        return columns.Lists(values, np.cumsum(lengths))

    def write(folder: Path) -> None:
        with columns.ListColumn(folder, kind, "i4") as column:
            for values, lengths in _pieces(encoder, texts, kind):
                column.add(values, lengths)

    return columns.lists(columns.made(home / name, write), kind)


def _pieces(encoder: Encoder, texts: Sequence[str], kind: Kind) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tokens in a row, and how many each text has."""
    for first in range(0, len(texts), PIECE):
        ids = encoder.tokenize(texts[first : first + PIECE], kind)
        lengths = np.array([len(one) for one in ids], dtype=np.int64)
        yield np.fromiter((n for one in ids for n in one), np.int32, int(lengths.sum())), lengths


def _key(encoder: Encoder, kind: Kind) -> str | None:
    """A name for all that tokens depend on beside the texts; None for a tokenizer that cannot be told from
    others.
    """
    backend = getattr(encoder.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    rules = json.loads(backend.to_str())
    # The last call's settings, which the next one gives again.
    rules |= {"truncation": None, "padding": None}
    settings = [kind, encoder.prompts[kind], encoder.pooling, encoder.max_tokens, rules]
    settings += [encoder.tokenizer.eos_token_id, encoder.tokenizer.pad_token_id]
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
    return f"tokens-{kind}-{digest}"
