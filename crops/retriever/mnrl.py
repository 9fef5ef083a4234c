"""Clicks as a team trains on them without CroPS: MultipleNegativesRankingLoss of sentence-transformers, with
its defaults.

A row is one clicked pair; every other row's text is wrong for its query, also where it is the same text or
the same query again (the library's default sampler does not look). The last step is kept.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crops.errors import ConfigError
from crops.retriever import train
from crops.retriever.batch import Batch, Batches, Pairs
from crops.retriever.encoder import Encoder
from crops.retriever.ranks import ALONE, Ranks
from crops.retriever.step import Plan

SCALE = 20.0  # of the cosine: a temperature of 0.05 that does not move
LEARNING_RATE = 5e-5  # of its training arguments, as are no warm-up, no weight decay and the next
CLIP = 1.0


class PairBatches(Batches):
    """Batches of `size` positive pairs. The texts of a batch are as many as its queries: a text that two rows
    share stands twice.
    """

    def __init__(self, samples: Pairs, *, size: int, seed: int) -> None:
        super().__init__(samples, anchor_min=samples.positive_min, size=size, positives=1, lower=0, seed=seed)
        self.pairs = np.flatnonzero(samples.label >= samples.positive_min)  # rows of `samples`

    @property
    def per_epoch(self) -> int:
        """Steps of one pass over the pairs, the smaller last one included."""
        return -(-len(self.pairs) // self.size)

    def at(self, step: int) -> Batch:
        """The batch of one step (0-based): labels are 1 on the diagonal and 0 beside it."""
        rows, _chance = self._turn(step, self.pairs)
        labels = np.eye(len(rows), dtype=np.int8)
        return Batch(queries=self.samples.query[rows], texts=self.samples.text[rows], labels=labels)


def plan_of(samples: Pairs, plan: Plan, *, size: int, epochs: int, learning_rate: float) -> Plan:
    """`plan` with this loss, rate and length; the rest is the library's."""
    pairs = int((samples.label >= samples.positive_min).sum())
    steps = epochs * max(1, -(-pairs // size))
    return replace(
        plan,
        loss="info_nce",
        anchor_min=1,
        steps=steps,
        horizon=steps,
        warmup=0.0,
        learning_rate=learning_rate,
        temperature_rate=0.0,
        weight_decay=0.0,
        clip=CLIP,
        widths=(),
    )


def fit(
    make: Callable[[], Encoder],
    samples: Pairs,
    valid: train.Validation,
    plan: Plan,
    *,
    size: int,
    checkpoints: Path,
    log: train.Log | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Encoder, dict[str, Any]]:
    """Trains by `plan_of`'s plan in our loop. Returns the encoder at its last step, and history as
    `train.fit` does.
    """
    encoder = _scaled(make())
    batches = PairBatches(samples, size=size, seed=plan.seed)
    unseen = replace(valid, queries=(), relevant=())  # nothing is chosen by validation
    history = train.fit(encoder, batches, unseen, plan, checkpoints=checkpoints, log=log, ranks=ranks)
    return encoder, _measured(encoder, history, valid, ranks)


def fit_by_library(
    make: Callable[[], Encoder], samples: Pairs, valid: train.Validation, plan: Plan, *, size: int
) -> tuple[Encoder, dict[str, Any]]:
    """The same by sentence-transformers: its loss, its loop, its optimizer and its order of the rows; one
    process.
    """
    try:
        from sentence_transformers import InputExample, SentenceTransformer
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    except ImportError as error:
        raise ConfigError("train.mnrl is library, which needs sentence-transformers (extra bench)") from error
    from torch.utils.data import DataLoader

    encoder = _scaled(make())
    encoder.train()
    model = SentenceTransformer(modules=[_module(encoder)], device=str(encoder.device))
    rows = np.flatnonzero(samples.label >= samples.positive_min)
    sides: Any = [
        [("query", samples.queries[samples.query[r]]), ("document", samples.texts[samples.text[r]])]
        for r in rows
    ]
    examples: Any = [InputExample(texts=pair) for pair in sides]
    order = torch.Generator().manual_seed(plan.seed)
    loader: Any = DataLoader(examples, batch_size=size, shuffle=True, generator=order)
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        model.old_fit(  # its loop without the packages that its Trainer asks for
            [(loader, MultipleNegativesRankingLoss(model, scale=SCALE))],
            epochs=plan.steps // len(loader),
            warmup_steps=0,
            optimizer_params={"lr": plan.learning_rate},
            weight_decay=plan.weight_decay,
            max_grad_norm=CLIP,
            show_progress_bar=False,
        )
    encoder.eval()
    check = {"step": plan.steps, "loss": None, "tau": 1 / SCALE, "lr": 0.0, "valid_recall_at_100": None}
    passes = plan.steps // len(loader)
    history = {
        "checks": [check],
        "best_step": plan.steps,
        "best_recall": None,
        "encodes": 2 * passes * len(rows),
    }
    return encoder, _measured(encoder, history, valid, ALONE)


def _scaled(encoder: Encoder) -> Encoder:
    with torch.no_grad():
        encoder.log_tau.fill_(-float(np.log(SCALE)))
    return encoder


def _measured(
    encoder: Encoder, history: dict[str, Any], valid: train.Validation, ranks: Ranks
) -> dict[str, Any]:
    """`history` with the recall of the last step, which nothing was chosen by."""
    history["best_recall"] = valid.recall(encoder, ranks=ranks)
    history["checks"][-1]["valid_recall_at_100"] = history["best_recall"]
    return history


def _module(encoder: Encoder) -> torch.nn.Module:
    """`encoder` as the one module of a SentenceTransformer: any base, pooling and prompt that we know."""
    from sentence_transformers.base.modules import InputModule

    class Tower(InputModule):
        """Texts to the encoder's own vectors."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.tokenizer = encoder, encoder.tokenizer

        def preprocess(self, inputs: Any, prompt: str | None = None, **_given: Any) -> dict[str, Any]:  # noqa: ARG002
            """int64 ids and mask [N, T] of (kind, text); all are of one kind, as a column of rows is."""
            kind = inputs[0][0]
            ids, mask = encoder.pad(encoder.tokenize([text for _kind, text in inputs], kind))
            return {"input_ids": ids, "attention_mask": mask, "kind": kind}

        def forward(self, features: dict[str, Any], **_given: Any) -> dict[str, Any]:
            """Adds the vectors [N, H]."""
            vectors = encoder(features["input_ids"], features["attention_mask"], features["kind"])
            return {**features, "sentence_embedding": vectors}

        def save(self, *_path: Any, **_given: Any) -> None:
            """Nothing: the encoder is saved by `Encoder.save`."""

    return Tower()
