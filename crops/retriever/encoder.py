"""The dual encoder: text to a vector of length 1. One tower for queries and documents, or two by setting.

encoder = load(folder)
vectors = encoder.encode(["sour dough bread"], kind="query")          # float32 [N, H]
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from crops import base_model
from crops.errors import ConfigError, InputError
from crops.release import layout
from crops.retriever import base as bases
from crops.retriever import static
from crops.text import normalise_query

Kind = Literal["query", "document"]
POOLINGS = ("last", "mean", "cls")
MAX_TOKENS = 128  # [paper]


class Encoder(nn.Module):
    """Tower(s), tokenizer, pooling, what stands before a query and a document, and the learnt temperature.
    `document` is None if both sides share one tower.
    """

    def __init__(
        self,
        query: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        pooling: str,
        max_tokens: int = MAX_TOKENS,
        document: PreTrainedModel | None = None,
        temperature: float = 0.05,
        prompts: Mapping[str, str] | None = None,
        widths: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise ValueError(f"pooling is {pooling!r}, expected one of {', '.join(POOLINGS)}")
        self.query, self.document, self.tokenizer = query, document, tokenizer
        self.pooling, self.max_tokens = pooling, max_tokens
        self.prompts = {"query": "", "document": ""} | dict(prompts or {})
        self.widths = tuple(widths)  # to which its vectors may be cut
        self._cut: int | None = None
        self.base: str | None = None  # what training started from, by a name that means it elsewhere too
        self.log_tau = nn.Parameter(torch.tensor(temperature, dtype=torch.float32).log())
        self.adapters: list[Any] = []  # of peft, one per tower; see crops.retriever.finetuning

    @property
    def width(self) -> int:
        """H, the length of a vector."""
        return self._cut or int(self.query.config.hidden_size)

    def cut(self, width: int) -> None:
        """Vectors are the first `width` numbers from now on, of length 1 as before. A ConfigError for a width
        that it was not trained for.
        """
        if width not in (*self.widths, self.width):
            names = ", ".join(map(str, (self.width, *self.widths)))
            raise ConfigError(f"width is {width}, but the encoder was trained for {names}")
        self._cut = None if width == self.query.config.hidden_size else width
        self.widths = tuple(w for w in self.widths if w < width)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.log_tau.device

    @property
    def towers(self) -> list[PreTrainedModel]:
        """The query's, and the documents' if they have one of their own."""
        return [tower for tower in (self.query, self.document) if tower is not None]

    def save_memory(self) -> None:
        """Gradient checkpointing in every tower: less memory for more time."""
        for tower in self.towers:
            # The other kind has no gradient behind frozen tables.
            tower.gradient_checkpointing_enable({"use_reentrant": False})

    def attend_by(self, attention: str) -> None:
        """Another attention kernel in every tower, by its Hugging Face name. ConfigError where this machine
        lacks it.
        """
        try:
            for tower in self.towers:
                tower.set_attn_implementation(attention)
        except (ImportError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"attn_implementation {attention!r} is not available on this machine: {reason}"
            ) from error

    def tokenize(self, texts: Sequence[str], kind: Kind = "query") -> list[list[int]]:
        """Token ids per text, normalised, after the prompt of its kind, at most max_tokens; closed by the end
        token if last-token pooling reads it.
        """
        prompt = self.prompts[kind]
        ids = self.tokenizer(
            [prompt + normalise_query(t) for t in texts], truncation=True, max_length=self.max_tokens
        )["input_ids"]
        eos = self.tokenizer.eos_token_id
        if self.pooling == "last" and eos is not None:
            ids = [x if x and x[-1] == eos else x[: self.max_tokens - 1] + [eos] for x in ids]
        pad = self.tokenizer.pad_token_id or 0
        return [x or [eos if eos is not None else pad] for x in ids]

    def pad(self, ids: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Right-padded ids and mask, int64 [N, T], on the encoder's device."""
        longest = max(map(len, ids))
        tokens = np.full((len(ids), longest), self.tokenizer.pad_token_id or 0, dtype=np.int64)
        mask = np.zeros((len(ids), longest), dtype=np.int64)
        for row, one in enumerate(ids):
            tokens[row, : len(one)] = one
            mask[row, : len(one)] = 1
        return torch.from_numpy(tokens).to(self.device), torch.from_numpy(mask).to(self.device)

    def forward(self, ids: Tensor, mask: Tensor, kind: Kind = "query") -> Tensor:
        """ids, mask int [N, T] (right-padded) -> float [N, H], each of length 1."""
        pooled = self.pooled(ids, mask, kind)
        pooled = pooled if self._cut is None else pooled[:, : self._cut]
        # Half precision is too coarse for a length of 1.
        return F.normalize(pooled.to(torch.promote_types(pooled.dtype, torch.float32)), dim=-1)

    def pooled(self, ids: Tensor, mask: Tensor, kind: Kind = "query") -> Tensor:
        """The same before it is cut and normalised, in the precision of the weights."""
        tower = self.query if kind == "query" or self.document is None else self.document
        hidden = tower(input_ids=ids, attention_mask=mask).last_hidden_state  # [N, T, H]
        if self.pooling == "mean":
            weight = mask[:, :, None].to(hidden.dtype)
            return (hidden * weight).sum(1) / weight.sum(1)
        if self.pooling == "cls":
            return hidden[:, 0]
        rows = torch.arange(hidden.shape[0], device=hidden.device)  # len() would fix the batch in ONNX
        return hidden[rows, mask.sum(1) - 1]

    def embed(self, ids: Sequence[Sequence[int]], kind: Kind, *, batch_tokens: int | None = None) -> Tensor:
        """Vectors of tokenized texts in their order, in groups of like length with at most batch_tokens
        padded tokens. [N, H]

        By default 16,384 tokens on a GPU or without layers, and 1,024 on a CPU, where small groups waste
        less padding and stay in its cache.
        """
        groups = self.groups(ids, batch_tokens)
        parts = [self(*self.pad([ids[i] for i in group]), kind) for group in groups]
        order = torch.tensor([i for group in groups for i in group])
        return torch.cat(parts)[order.argsort().to(self.device)]

    def groups(self, ids: Sequence[Sequence[int]], batch_tokens: int | None = None) -> list[list[int]]:
        """The rows of `ids` in groups of like length, each with at most batch_tokens padded tokens (or one
        text); see `embed`.
        """
        # Without layers padding costs nothing, while each group's gradient is as large as the whole table.
        wide = self.device.type == "cuda" or self.query.config.get_text_config().num_hidden_layers == 0
        batch_tokens = batch_tokens or (16_384 if wide else 1_024)
        groups, group = list[list[int]](), list[int]()
        for i in sorted(range(len(ids)), key=lambda i: len(ids[i])):
            if group and (len(group) + 1) * len(ids[i]) > batch_tokens:
                groups.append(group)
                group = []
            group.append(i)
        return [*groups, group] if group else groups

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, kind: Kind, batch_tokens: int | None = None) -> np.ndarray:
        """float32 [N, H], each row of length 1, in the order of `texts`; [0, H] for none."""
        if not texts:
            return np.empty((0, self.width), dtype=np.float32)
        training, _ = self.training, self.eval()
        vectors = self.embed(self.tokenize(texts, kind), kind, batch_tokens=batch_tokens).cpu().numpy()
        self.train(training)
        return np.asarray(vectors, dtype=np.float32)

    def merge(self) -> None:
        """Adds adapters to the weights that they stand beside: what is left is the base's architecture."""
        while self.adapters:
            self.adapters.pop().merge_and_unload()

    def save(self, folder: Path, *, system: str) -> None:
        """Hugging Face weights (safetensors), tokenizer files and encoder.json; adapters are merged first."""
        self.merge()
        self.query.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        if self.document is not None:
            self.document.save_pretrained(folder / "document")
        facts = {
            "pooling": self.pooling,
            "max_tokens": self.max_tokens,
            "width": self.width,
            "widths": self.widths,
            "prompts": self.prompts,
            "temperature": float(self.log_tau.detach().exp()),
            "system": system,
            "shared": self.document is None,
            "base": self.base,
        }
        (folder / layout.ENCODER).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> Encoder:
    """The encoder that training saved: `folder` is what train wrote, encoder/ in it, or a release, whose
    weights lie in the folder for other libraries. An InputError for anything else.
    """
    root = Path(folder)
    root = root / "encoder" if (root / "encoder" / layout.ENCODER).is_file() else root
    if not (root / layout.ENCODER).is_file():
        raise InputError(root, f"no {layout.ENCODER} here; expected a folder that `crops train` wrote")
    facts = json.loads((root / layout.ENCODER).read_text(encoding="utf-8"))
    query, document = root, root / "document"
    if layout.is_release(root):
        query, document = root / layout.HUB, root / layout.HUB_DOCUMENTS
        if not query.is_dir():
            raise InputError(root, f"a release without {layout.HUB}/ has no weights to train on")
    encoder = Encoder(
        base_model.load_encoder(query),
        _tokenizer(query, root),
        pooling=facts["pooling"],
        max_tokens=facts["max_tokens"],
        document=None if facts["shared"] else base_model.load_encoder(document),
        temperature=facts["temperature"],
        prompts=facts.get("prompts"),
        widths=(*facts.get("widths", ()), facts["width"]),
    )
    encoder.cut(facts["width"])
    encoder.base = facts.get("base")
    return encoder.eval()


def _tokenizer(weights: Path, root: Path) -> PreTrainedTokenizerBase:
    """tokenizer.json exactly as it was saved. AutoTokenizer would take the class of the model's architecture
    instead, with that class's own splitting rules, and training and serving would read texts differently.

    The one beside a release's `weights` also normalises texts; that of its `root` is what serving reads.
    """
    if not (path := weights / layout.TOKENIZER).is_file():
        raise InputError(path, "no such file; expected a folder that `crops train` wrote")
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(
        weights, trust_remote_code=False
    )
    if weights == root:
        return tokenizer
    return base_model.as_served(tokenizer, Tokenizer.from_file(str(root / layout.TOKENIZER)))


def source_of(base: str) -> str:
    """Where the weights of the setting `base` lie in Hugging Face's form."""
    source = base_model.weights(base)
    return str(Path(source) / layout.HUB) if layout.is_release(Path(source)) else source


def from_base(
    base: str,
    texts: Sequence[str] = (),
    *,
    pooling: str | None = None,
    max_tokens: int = MAX_TOKENS,
    shared: bool = True,
    seed: int = 0,
    temperature: float = 0.05,
    attention: str | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
) -> Encoder:
    """An untrained encoder from a Hugging Face path, from its token vectors alone where base is "static:"
    and a path, or from `texts` where base is "small". A tokenizer is tried on `texts`.

    pooling, prompts: None takes the base's own: of an encoder.json that we wrote, of a sentence-transformers
    folder, else no prompts, and the last token where attention is causal, the mean elsewhere. attention: a
    Hugging Face name such as sdpa or flash_attention_2; None lets the library choose. An InputError for a
    base that cannot be trained, before any work.
    """
    made = _parts(base, texts, seed=seed)
    own = made.prompts
    prompts = {"query": query_prompt, "document": document_prompt}
    encoder = Encoder(
        made.model,
        made.tokenizer,
        pooling=pooling or made.pooling,
        max_tokens=max_tokens,
        document=None if shared else made.document or copy.deepcopy(made.model),
        temperature=temperature,
        prompts={k: own.get(k, "") if text is None else text for k, text in prompts.items()},
        widths=() if made.width is None else (made.width,),
    )
    if made.width is not None:
        encoder.cut(made.width)
    # A path of this machine means nothing elsewhere.
    encoder.base = made.base if Path(base.removeprefix(base_model.STATIC)).exists() else base
    if attention is not None:
        encoder.attend_by(attention)
    if base != base_model.SMALL:
        _try(encoder, base)
    return encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What a base brings; `document` where it has a second tower, `base` where it started from another."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pooling: str
    prompts: Mapping[str, str] = field(default_factory=dict)
    document: PreTrainedModel | None = None
    width: int | None = None  # of vectors that are cut
    base: str | None = None


def _parts(base: str, texts: Sequence[str], *, seed: int) -> _Parts:
    if base == base_model.SMALL:  # nothing has taught its last token to sum up
        small, made = bases.small(texts, seed=seed)
        return _Parts(model=small, tokenizer=made, pooling="mean")
    if base.startswith(base_model.STATIC):
        teacher = base.removeprefix(base_model.STATIC)
        if base_model.shallow(teacher):
            raise ConfigError(
                f"base is {base!r}, but static vectors are distilled from a pre-trained encoder"
            )
        vectors, words = static.distilled(from_base(teacher, texts))
        return _Parts(model=vectors, tokenizer=words, pooling="mean")
    source = base_model.weights(base)
    if (Path(source) / layout.ENCODER).is_file():
        before = load(Path(source))
        return _Parts(
            model=before.query,
            tokenizer=before.tokenizer,
            pooling=before.pooling,
            prompts=before.prompts,
            document=before.document,
            width=before.width,
            base=before.base,
        )
    tokenizer, model = (
        base_model.as_served(base_model.load_tokenizer(source)),
        base_model.load_encoder(source),
    )
    base_model.check_tokenizer(model, tokenizer, source, texts)
    model.config.pad_token_id = tokenizer.pad_token_id
    pooling = base_model.pooling_of(source)
    return _Parts(
        model=model,
        tokenizer=tokenizer,
        pooling=pooling or ("last" if _causal(model, tokenizer) else "mean"),
        prompts=base_model.prompts_of(source),
    )


def _causal(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a token's hidden state is blind to what follows it: tried, as no name tells it for sure."""
    tokens = [n for n in range(64) if n not in tokenizer.all_special_ids][:3]
    if len(tokens) < 3:
        return False
    ids = torch.tensor([tokens[:2], [tokens[0], tokens[2]]])
    with torch.inference_mode():
        states = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0]
    return bool((states[0] - states[1]).abs().max() <= 1e-6 * states.abs().max())


def _try(encoder: Encoder, base: str) -> None:
    """An InputError where the longest text that training may meet does not become a vector."""
    tokens = [n for n in range(64) if n not in encoder.tokenizer.all_special_ids][:1] or [0]
    training, _ = encoder.training, encoder.eval()
    try:
        with torch.inference_mode():
            vector = encoder(*encoder.pad([tokens * encoder.max_tokens]))
    except (RuntimeError, IndexError, ValueError, AttributeError, TypeError) as error:
        limit = getattr(encoder.query.config, "max_position_embeddings", None)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            base,
            f"no vector of a text of {encoder.max_tokens} tokens (the model's positions: {limit}): {reason}",
        ) from error
    if not bool(vector.isfinite().all()):
        raise InputError(base, "its weights give vectors that are not numbers")
    encoder.train(training)
