"""Which weights of a base are there, which train, and at which rate: a small tower for queries, adapters
(LoRA), frozen layers, rates by layer, decay.
"""

import copy
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from crops.errors import ConfigError
from crops.retriever.encoder import Encoder

# Times the rate of whole weights where none is named; ours, of the order that LoRA is used at.
ADAPTERS_RATE = 10


def shorten(encoder: Encoder, *, layers: int) -> None:
    """Gives queries a tower of their own: the lowest `layers` layers of the one that they have, and what
    stands below and above them. Documents keep theirs.

    A ConfigError where there are fewer.
    """
    whole, count = encoder.query, _layers(encoder.query)
    if layers > count:
        raise ConfigError(f"train.query_layers is {layers}, but the base has {count} layers")
    query = copy.deepcopy(whole)
    stack = next(module for module in query.modules() if _is_stack(module, count))
    del cast(nn.ModuleList, stack)[layers:]
    config = query.config.get_text_config()
    config.num_hidden_layers = layers
    if kinds := getattr(config, "layer_types", None):
        config.layer_types = kinds[:layers]
    encoder.query, encoder.document = query, encoder.document or whole


def adapt(encoder: Encoder, *, rank: int, alpha: float, seed: int) -> None:
    """Low-rank adapters (LoRA, arXiv 2106.09685) beside every linear map of every tower, in place: they alone
    train, and begin as nothing. Their product counts alpha / rank times. `Encoder.merge` makes plain weights.

    A ConfigError without the package peft, or where the base has no linear map.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ConfigError("train.lora_rank needs peft (extra lora)") from error
    settings: Any = {"r": rank, "lora_alpha": alpha, "target_modules": "all-linear", "lora_dropout": 0.0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for tower in encoder.towers:
            if not any(isinstance(module, nn.Linear) for module in tower.modules()):
                raise ConfigError("train.lora_rank: the base has no linear map to stand beside")
            # It puts the adapters into `tower` itself; what it returns is kept to take them out again.
            encoder.adapters.append(get_peft_model(tower, LoraConfig(**settings)))


def freeze(encoder: Encoder, *, layers: int) -> None:
    """Keeps the tables of tokens and positions and the lowest `layers` layers of every tower as they are."""
    for tower in encoder.towers:
        if layers > (there := _layers(tower)):
            raise ConfigError(f"train.frozen_layers is {layers}, but the base has {there} layers")
        for name, parameter in tower.named_parameters():
            if depth(tower, name) <= layers:
                parameter.requires_grad_(False)


def groups(
    encoder: Encoder, *, learning_rate: float, layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups of AdamW over the towers' weights that train: matrices and tables; norms and biases, which decay
    does not pull to zero; both for each depth if rates differ by layer.

    The rate is `learning_rate` at the top and falls by the factor `layer_decay` with every layer below it.
    """
    made: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for tower in encoder.towers:
        for name, parameter in tower.named_parameters():
            if parameter.requires_grad:
                below = 0 if layer_decay == 1 else _layers(tower) - depth(tower, name)
                made.setdefault((below, parameter.ndim <= 1), []).append(parameter)
    return [
        {
            "params": made[below, spared],
            "weight_decay": 0.0 if spared else weight_decay,
            "lr": learning_rate * layer_decay**below,
        }
        for below, spared in sorted(made)
    ]


def depth(tower: PreTrainedModel, name: str) -> int:
    """Where a parameter stands: 0 for tables of tokens and positions with their norms, n for the n-th layer,
    and as deep as the last layer for what follows it.

    A ConfigError for a base whose layers are no list, as where all share their weights.
    """
    count, path = _layers(tower), name.split(".")
    here: nn.Module = tower
    for at, part in enumerate(path[:-1]):
        inner = getattr(here, part)
        if _is_stack(inner, count):
            return int(path[at + 1]) + 1
        if not any(_is_stack(module, count) for module in inner.modules()):
            return 0 if any(isinstance(module, nn.Embedding) for module in inner.modules()) else count
        here = inner
    return count


def _layers(tower: PreTrainedModel) -> int:
    count = int(tower.config.get_text_config().num_hidden_layers)
    if count and not any(_is_stack(module, count) for module in tower.modules()):
        kind = cast(Any, tower.config).model_type
        raise ConfigError(f"the layers of the base ({kind}) are no list: they have no rates of their own")
    return count


def _is_stack(module: nn.Module, count: int) -> bool:
    return count > 0 and isinstance(module, nn.ModuleList) and len(module) == count
