"""Trains θ on judged pairs with binary cross-entropy."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from crops.discriminator.model import CrossEncoder
from crops.discriminator.pairs import Judged


def fit(
    encoder: CrossEncoder,
    judged: Judged,
    *,
    epochs: int,
    batch: int,
    learning_rate: float,
    seed: int,
    progress: Callable[[int, int, float], None] = lambda _step, _steps, _loss: None,
) -> list[float]:
    """Trains in place on the pairs that are not held out; returns the mean loss (nats) of each tenth of the
    steps.
    """
    torch.manual_seed(seed)
    rows = np.flatnonzero(~judged.held_out)
    pairs = encoder.tokenize([judged.queries[i] for i in rows], [judged.texts[i] for i in rows])
    target = torch.from_numpy(judged.relevant[rows])
    lengths = np.array([len(ids) for ids, _ in pairs])
    plan = [
        b for epoch in range(epochs) for b in _batches(lengths, batch, np.random.default_rng([seed, epoch]))
    ]
    optimizer = torch.optim.AdamW(encoder.model.parameters(), lr=learning_rate, weight_decay=0.01)
    # Linear warm-up over a tenth, then linear decay: the usual schedule of Transformer fine-tuning.
    warm = max(1, len(plan) // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm, max(0.0, (len(plan) - s) / max(1, len(plan) - warm)))
    )
    losses = []
    encoder.model.train()
    for step, chosen in enumerate(plan):
        logits = encoder.logits([pairs[i] for i in chosen])
        loss = F.binary_cross_entropy_with_logits(logits, target[chosen].to(logits.device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        progress(step + 1, len(plan), losses[-1])
    encoder.model.eval()
    return [
        float(np.mean(part))
        for part in np.array_split(np.array(losses), min(10, max(1, len(losses))))
        if len(part)
    ]


def _batches(lengths: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Batches of like length (little padding) in random order: shuffled, sorted within stretches of 50
    batches.
    """
    order = rng.permutation(len(lengths))
    stretch = size * 50
    parts = [order[s : s + stretch] for s in range(0, len(order), stretch)]
    sorted_parts = [p[np.argsort(lengths[p], kind="stable")] for p in parts]
    batches = [p[s : s + size] for p in sorted_parts for s in range(0, len(p), size)]
    return [batches[i] for i in rng.permutation(len(batches))]
