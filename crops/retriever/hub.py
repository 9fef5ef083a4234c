"""The trained encoder as a folder that sentence-transformers, transformers, vLLM and
text-embeddings-inference open: weights, pooling, normalisation, prompts, and a tokenizer that normalises
texts itself as `crops.text.normalise_query` does.
"""

import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, normalizers, processors
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast, Qwen2Model

from crops.retriever.encoder import Encoder, Kind
from crops.text import normalise_query

# Our poolings in the words of sentence-transformers.
POOLING = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
MODULES = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
# Of a vector that is cut, the first numbers: a linear map is a module that every reader knows.
CUT = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Normalize": "Normalize"}


def write(encoder: Encoder, folder: Path, *, kind: Kind = "query") -> None:
    """Writes one tower with all that reading a text takes into the new `folder`: `encode` of the library puts
    the query's prompt before a text, `encode_document` the document's.
    """
    folder.mkdir(parents=True)
    tower = encoder.query if kind == "query" or encoder.document is None else encoder.document
    (_as_llama(tower) if isinstance(tower, Qwen2Model) else tower).save_pretrained(folder)
    _tokenizer(encoder).save_pretrained(folder)
    facts = folder / "tokenizer_config.json"
    # By the name that every version of transformers takes for "tokenizer.json as it is": the class of the
    # architecture would bring splitting rules of its own.
    _json(
        facts, json.loads(facts.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    )
    whole = int(encoder.query.config.hidden_size)
    parts = MODULES if encoder.width == whole else CUT
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{name}"}
        for n, (path, name) in enumerate(parts.items())
    ]
    _json(folder / "modules.json", modules)
    _json(
        folder / "sentence_bert_config.json", {"max_seq_length": encoder.max_tokens, "do_lower_case": False}
    )
    for path in parts:
        (folder / path).mkdir(exist_ok=True)
    modes = {f"pooling_mode_{words}": own == encoder.pooling for own, words in POOLING.items()}
    _json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": whole, **modes})
    if parts is CUT:
        _cut(folder / "2_Dense", whole, encoder.width)
    _json(folder / list(parts)[-1] / "config.json", {})
    named = dict(encoder.prompts)
    default = "query" if named["query"] else None
    _json(
        folder / "config_sentence_transformers.json",
        {"prompts": named, "default_prompt_name": default, "similarity_fn_name": "cosine"},
    )


def _cut(folder: Path, whole: int, width: int) -> None:
    """The map of a vector to its first `width` numbers."""
    facts = {"in_features": whole, "out_features": width, "bias": False}
    _json(folder / "config.json", facts | {"activation_function": "torch.nn.modules.linear.Identity"})
    save_file({"linear.weight": torch.eye(width, whole)}, folder / "model.safetensors")


def _as_llama(tower: Qwen2Model) -> LlamaModel:
    """The same function under another name: Qwen2 is Llama with a bias on queries, keys and values alone.

    transformers 5 reads no tokenizer.json beside a model that calls itself qwen2: it takes Qwen2's own
    splitting rules whatever the folder says, and every vector would be another.
    """
    own = tower.config
    llama = LlamaModel(
        LlamaConfig(
            vocab_size=own.vocab_size,
            hidden_size=own.hidden_size,
            intermediate_size=own.intermediate_size,
            num_hidden_layers=own.num_hidden_layers,
            num_attention_heads=own.num_attention_heads,
            num_key_value_heads=own.num_key_value_heads,
            hidden_act=own.hidden_act,
            max_position_embeddings=own.max_position_embeddings,
            rms_norm_eps=own.rms_norm_eps,
            rope_parameters=own.rope_parameters,
            pad_token_id=own.pad_token_id,
            bos_token_id=own.bos_token_id,
            eos_token_id=own.eos_token_id,
            head_dim=getattr(own, "head_dim", None),
            attention_bias=True,
        )
    )
    weights = tower.state_dict()
    zeros = {
        name: torch.zeros_like(w) for name, w in llama.state_dict().items() if name.endswith("o_proj.bias")
    }
    llama.load_state_dict({**weights, **zeros})
    return llama.eval()


def _tokenizer(encoder: Encoder) -> PreTrainedTokenizerFast:
    """The encoder's own, with our normalisation before its own, and the end token that last-token pooling
    reads.
    """
    own: Any = encoder.tokenizer
    backend = Tokenizer.from_str(own.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    steps = [*_normalise_query(), *([backend.normalizer] if backend.normalizer else [])]
    for prompt in filter(None, encoder.prompts.values()):
        # A prompt is read as it is written; only what follows is normalised.
        folded = normalise_query(f"{prompt}x")[:-1]
        steps.insert(len(_normalise_query()), normalizers.Replace(Regex(f"^{re.escape(folded)}"), prompt))
    backend.normalizer = normalizers.Sequence(steps)
    end, end_id = own.eos_token, own.eos_token_id
    if encoder.pooling == "last" and end_id is not None and backend.encode("a").ids[-1:] != [end_id]:
        close = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, end_id)])
        before = [backend.post_processor] if backend.post_processor else []
        backend.post_processor = processors.Sequence([*before, close])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=encoder.max_tokens,
        padding_side="right",
        truncation_side="right",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **{name: str(token) for name, token in own.special_tokens_map.items() if isinstance(token, str)},
    )


@cache
def _normalise_query() -> tuple[Any, ...]:
    """`crops.text.normalise_query` in steps of the library `tokenizers`: NFKC, lower case and what case
    folding does beyond it, NFKC again, white space collapsed and stripped.
    """
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    folded = {c: c.casefold() for c in characters if c == c.lower() != c.casefold()}
    white = "".join(c for c in characters if c.isspace())
    return (
        normalizers.NFKC(),
        normalizers.Lowercase(),
        *(normalizers.Replace(char, becomes) for char, becomes in folded.items()),
        normalizers.NFKC(),
        normalizers.Replace(Regex(f"[{white}]+"), " "),
        normalizers.Strip(),
    )


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
