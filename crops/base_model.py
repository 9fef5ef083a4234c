"""A tokenizer made from the corpus at hand, for the small models that are initialised here instead of downloaded."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<unk>", "<eos>", "<sep>")


def train_tokenizer(texts: Iterable[str], *, vocab_size: int = 16_000, max_tokens: int = 128) -> PreTrainedTokenizerFast:
    """Byte-level BPE over `texts`: every string can be encoded, and frequent words are one token.

    The same texts in the same order give the same vocabulary. `<eos>` closes every text (last-token pooling reads it).
    """
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL), min_frequency=2, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>", sep_token="<sep>",
        model_max_length=max_tokens, padding_side="right",
    )  # fmt: skip
