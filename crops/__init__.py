"""CroPS from Python: your logs to graded samples, a dual encoder and its numbers.

    import crops

    mined = crops.mine("logs")                     # candidates, documents, test sets
    graded = crops.label(mined)                    # the discriminator, labels 0..5, the ladder
    model = crops.train(graded, mined, steps=100)  # a dual encoder
    crops.evaluate({"bm25": "bm25", "crops": model}, mined, graded.tests)

Importing `crops` loads nothing else: `mine` needs the extra `mine`, the rest needs `train` as well, and
nothing here needs Kubeflow or MLflow.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crops.api import discriminate, evaluate, knowledge, label, mine, train
    from crops.retriever.loss import h_infonce, info_nce, loss_of, softmax_ce

__all__ = [
    "discriminate",
    "evaluate",
    "h_infonce",
    "info_nce",
    "knowledge",
    "label",
    "loss_of",
    "mine",
    "softmax_ce",
    "train",
]
_LOSSES = ("h_infonce", "info_nce", "loss_of", "softmax_ce")


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used, so that mining works where torch is not installed."""
    import importlib

    if name not in __all__:
        raise AttributeError(f"module 'crops' has no attribute {name!r}")
    importlib.import_module("crops.cores").hold()
    module = "crops.retriever.loss" if name in _LOSSES else "crops.api"
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return __all__
