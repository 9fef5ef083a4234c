"""Distillation: what a teacher says of a batch, and how far the encoder in training is from it."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crops.retriever.batch import Batch, Pairs, placed
from crops.retriever.encoder import Encoder

# float32 [Q, D]: score / temperature of each candidate; NaN where the teacher does not say.
Teacher = Callable[[Batch], np.ndarray]
THETA = "theta"  # the discriminator, by the θ that the samples bring
SURE = 1e-4  # θ is kept this far from 0 and 1, whose odds are no numbers


def of_theta(samples: Pairs) -> Teacher:
    """The odds of θ, of the candidates that are samples of their query and were asked. ValueError for samples
    without θ.
    """
    if samples.theta is None:
        raise ValueError("samples without θ have no teacher")
    theta = samples.theta
    starts = samples.starts()

    def targets(batch: Batch) -> np.ndarray:
        odds = np.full(batch.labels.shape, np.nan, dtype=np.float32)
        for row, query in enumerate(batch.queries):
            own = slice(starts[query], starts[query + 1])
            at, here = placed(batch.texts, samples.text[own])
            chance = theta[own][here].clip(SURE, 1 - SURE)
            odds[row, at[here]] = np.log(chance / (1 - chance))
        return odds

    return targets


def of_encoder(encoder: Encoder, samples: Pairs) -> Teacher:
    """The cosines of another encoder, by its own temperature: of every candidate. All texts of the samples
    are encoded once, now.
    """
    queries = encoder.encode(samples.queries, kind="query")
    texts = encoder.encode(samples.texts, kind="document")
    tau = float(encoder.log_tau.detach().exp())
    return lambda batch: queries[batch.queries] @ texts[batch.texts].T / tau


def divergence(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean over the queries of KL(teacher || student), nats, each a softmax over the candidates of which the
    teacher says something; a query with fewer than two such says nothing and is left out. 0 without any.

    scores   float [Q, D]  similarity / temperature of the encoder in training
    targets  float [Q, D]  the teacher's; NaN where it does not say
    """
    told = ~targets.isnan()
    rows = told.sum(1) > 1
    if not bool(rows.any()):
        return scores.sum() * 0.0
    told, lowest = told[rows], torch.finfo(scores.dtype).min
    teacher = F.log_softmax(targets[rows].to(scores.dtype).masked_fill(~told, lowest), dim=1)
    student = F.log_softmax(scores[rows].masked_fill(~told, lowest), dim=1)
    return (teacher.exp() * (teacher - student)).masked_fill(~told, 0.0).sum(1).mean()
