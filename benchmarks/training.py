"""Training throughput against sentence-transformers, and a whole step with all positives at once against one
at a time.

    python benchmarks/training.py            prints Markdown tables in about a minute (needs the extra
                                             `bench`)
    python benchmarks/training.py --write    also stores them in benchmarks/results/training.md

One BERT (2 layers of 128, random weights), the same pairs in the same batches, AdamW at one rate, no dropout,
a fixed temperature. All ways train in turn, a step each, on one thread, so that load from elsewhere meets all
alike. Tokenizing is left out on both sides. Texts are made up: a query has words that its documents never
use; documents differ in length like captions.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import report
import torch
from sentence_transformers import SentenceTransformer, util
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import BertConfig, BertModel
from transformers.utils import logging

from crops.base_model import train_tokenizer
from crops.retriever import step
from crops.retriever.batch import Batch, Batches, pairs
from crops.retriever.encoder import Encoder

TOPICS, PER_TOPIC, ASKED, HELD_OUT = 96, 12, 6, 2  # documents and queries per topic; held-out queries
PAIRS, STEPS, RATE, TAU = 64, 10, 2e-3, 0.05
CACHE_TOKENS, MINI_BATCH = 1024, 32
PLAN = step.Plan(
    loss="h_infonce",
    anchor_min=4,
    steps=STEPS,
    horizon=10**9,
    warmup=0.0,
    check_every=STEPS,
    patience=1,
    learning_rate=RATE,
    temperature_rate=0.0,
    weight_decay=0.0,
    seed=0,
)


@dataclass
class World:
    """Documents with their topics, and queries with theirs: to train on, and held out."""

    chance: np.random.Generator
    documents: list[str] = field(default_factory=list)
    document_topics: list[int] = field(default_factory=list)
    asked: list[tuple[str, int]] = field(default_factory=list)
    held_out: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        draw = self.chance
        for topic in range(TOPICS):
            for number in range(PER_TOPIC):
                own = [f"d{topic}x{w}" for w in draw.choice(8, 3, replace=False)]
                length = int(np.clip(draw.lognormal(2.7, 0.8), 4, 100))
                self.documents.append(
                    " ".join([*own, *(f"w{w}" for w in draw.integers(0, 200, length)), f"n{number}"])
                )
                self.document_topics.append(topic)
            for number in range(ASKED + HELD_OUT):
                query = " ".join(
                    [f"q{topic}x{w}" for w in draw.choice(6, 2, replace=False)] + [f"a{draw.integers(50)}"]
                )
                (self.asked if number < ASKED else self.held_out).append((query, topic))

    def rows(self) -> list[tuple[str, str, int]]:
        """(query, text, label): the topic's documents are positives, three of the next topic's the labels 3,
        2, 1.
        """
        of = [
            [d for d, t in zip(self.documents, self.document_topics, strict=True) if t == topic]
            for topic in range(TOPICS)
        ]
        lower = [(q, of[(t + 1) % TOPICS][k], 3 - k) for q, t in self.asked for k in range(3)]
        return [(q, d, 4) for q, t in self.asked for d in of[t]] + lower

    def recall(self, encode: Callable[[list[str]], np.ndarray], k: int = 12) -> float:
        """Mean share of a held-out query's documents among its k nearest."""
        scores = encode([q for q, _ in self.held_out]) @ encode(self.documents).T
        top = np.array(self.document_topics)[np.argsort(-scores, axis=1)[:, :k]]
        return float(
            np.mean(
                [(row == topic).sum() / PER_TOPIC for row, (_, topic) in zip(top, self.held_out, strict=True)]
            )
        )


class Ours:
    """`cache_tokens` None: the plain step; labels below 4 are left out, so that the loss is InfoNCE without
    false negatives.
    """

    def __init__(self, world: World, cache_tokens: int | None, device: str) -> None:
        self.encoder = _encoder(world).to(device)
        self.plan = replace(PLAN, cache_tokens=cache_tokens)
        self.optimizer = step.optimizer_of(self.encoder, self.plan)

    def prepare(self, batch: Batch, data: Batches) -> tuple:
        samples = data.samples
        ids = [samples.queries[i] for i in batch.queries], [samples.texts[i] for i in batch.texts]
        return tuple(self.encoder.tokenize(x) for x in ids), batch.labels

    def step(self, prepared: tuple) -> None:
        step.take(self.encoder, self.optimizer, *prepared, self.plan, step=0)

    def encode(self, texts: list[str]) -> np.ndarray:
        return self.encoder.encode(texts, kind="query")


class Theirs:
    """A loss of sentence-transformers on the same pairs: one row per (query, positive)."""

    def __init__(self, world: World, loss: type, device: str, **settings: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            encoder = _encoder(world)
            encoder.query.save_pretrained(folder)
            encoder.tokenizer.save_pretrained(folder)
            words = Transformer(folder)
        modules = [words, Pooling(encoder.width, pooling_mode="mean"), Normalize()]
        self.model = SentenceTransformer(modules=modules, device=device)
        self.loss = loss(self.model, scale=1 / TAU, **settings)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, weight_decay=0.0, fused=True)

    def prepare(self, batch: Batch, data: Batches) -> list[dict[str, torch.Tensor]]:
        rows, cols = np.nonzero(batch.labels >= PLAN.anchor_min)
        samples = data.samples
        columns = (
            [samples.queries[i] for i in batch.queries[rows]],
            [samples.texts[i] for i in batch.texts[cols]],
        )
        return [util.batch_to_device(self.model.preprocess(column), self.model.device) for column in columns]

    def step(self, prepared: list[dict[str, torch.Tensor]]) -> None:
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss([dict(column) for column in prepared], torch.zeros(0)).backward()
        self.optimizer.step()

    def encode(self, texts: list[str]) -> np.ndarray:
        return self.model.encode(texts, show_progress_bar=False)


def _encoder(world: World) -> Encoder:
    tokenizer = train_tokenizer([*world.documents, *(q for q, _ in [*world.asked, *world.held_out])])
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    return Encoder(BertModel(config, add_pooling_layer=False), tokenizer, pooling="mean", temperature=TAU)


def clock(device: str) -> float:
    """CPU seconds of this process; on a GPU seconds of the wall, once it has finished."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def race(world: World, positives: int, device: str, steps: int = STEPS) -> list[list[str]]:
    """One row per way: pairs per second, ratio to each loss of sentence-transformers, recall before and
    after.
    """
    data = Batches(
        pairs([row for row in world.rows() if row[2] >= PLAN.anchor_min]),
        anchor_min=4,
        size=PAIRS // positives,
        positives=positives,
        lower=0,
        seed=0,
    )
    ways: dict[str, Ours | Theirs] = {
        "MultipleNegativesRankingLoss": Theirs(world, losses.MultipleNegativesRankingLoss, device),
        "CachedMultipleNegativesRankingLoss": Theirs(
            world, losses.CachedMultipleNegativesRankingLoss, device, mini_batch_size=MINI_BATCH
        ),
        "CroPS": Ours(world, None, device),
        f"CroPS, cache_tokens {CACHE_TOKENS}": Ours(world, CACHE_TOKENS, device),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(steps):
        batch = data.at(number)
        for name, way in ways.items():
            prepared = way.prepare(batch, data)
            start = clock(device)
            way.step(prepared)
            seconds[name].append(clock(device) - start)
    rows = []
    for name, way in ways.items():
        peers = list(ways)[:2]
        faster = [
            statistics.median(a / b for a, b in zip(seconds[p][1:], seconds[name][1:], strict=True))
            for p in peers
        ]
        speed = PAIRS / statistics.median(seconds[name][1:])
        rows.append([name, f"{speed:.0f}", *(f"{x:.2f}" for x in faster), f"{world.recall(way.encode):.3f}"])
    return rows


def whole_step(world: World, positives: int, queries: int, rounds: int = 4) -> list[str]:
    """CPU time of a step with all positives of a query and three lower samples, against a sample per
    positive.
    """
    data = Batches(pairs(world.rows()), anchor_min=4, size=queries, positives=positives, lower=1, seed=0)
    joint, apart = Ours(world, None, "cpu"), Ours(world, None, "cpu")
    joint.plan = replace(PLAN, anchor_min=1)
    taken: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        ids, labels = joint.prepare(data.at(number), data)
        samples = [(q, p) for q, p in zip(*np.nonzero(labels >= 4), strict=True)]
        columns = [
            [p, *np.flatnonzero((row > 0) & (row < 4))] for p, row in ((p, labels[q]) for q, p in samples)
        ]
        documents = [c for column in columns for c in column]
        single = np.zeros((len(samples), len(documents)), dtype=np.int8)
        for i, (q, p) in enumerate(samples):  # another copy of a known document is no negative either
            single[i, labels[q, documents] != 0] = -1
            at = i * len(columns[0])
            single[i, at : at + len(columns[i])] = [5 if c == p else 1 for c in columns[i]]
        start = clock("cpu")
        joint.step((ids, labels))
        middle = clock("cpu")
        apart.step((([ids[0][q] for q, _ in samples], [ids[1][c] for c in documents]), single))
        taken.append((middle - start, clock("cpu") - middle))
    share = statistics.median(a / b for a, b in taken[1:])
    counts = len(ids[0]) + len(ids[1]), len(samples) + len(documents)
    times = [f"{statistics.median(x) * 1e3:.0f}" for x in zip(*taken[1:], strict=True)]
    return [f"{positives} and 3", *map(str, counts), *times, f"{share:.2f}"]


def main() -> None:
    parser = report.arguments(__doc__ or "")
    write = parser.parse_args().write
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # the pooler that nobody reads
    world = World(np.random.default_rng(0))
    untrained = world.recall(Ours(world, None, "cpu").encode)
    parts = ["# Training: pairs per second and a whole step\n"]
    for device in ("cpu", "cuda"):
        if device == "cuda" and not torch.cuda.is_available():
            parts.append("On a GPU: not run, none here.\n")
            continue
        where = "CPU, one thread" if device == "cpu" else torch.cuda.get_device_name()
        for positives in (1, 4):
            header = (
                f"{where}; {PAIRS} pairs a batch, {positives} a query",
                "pairs/s",
                "x MNRL",
                "x Cached MNRL",
                "recall@12",
            )
            parts.append(report.table(header, race(world, positives, device)) + "\n")
    parts.append(
        f"Recall on held-out queries after {STEPS} steps; before the first: {untrained:.3f}. "
        "Goal: 1.5 x at no less recall.\n"
    )
    header = (
        "positives and lower per query",
        "encodes, jointly",
        "encodes, apart",
        "ms, jointly",
        "ms, apart",
        "ratio (goal 0.45)",
    )
    parts.append(
        "H-InfoNCE with all positives at once, against InfoNCE with one positive a sample and "
        "its own encodes:\n"
    )
    parts.append(report.table(header, [whole_step(world, 4, 16), whole_step(world, 8, 8)]) + "\n")
    parts.append(report.machine(["torch", "transformers", "sentence-transformers"]))
    report.out("training", "\n".join(parts), write=write)


if __name__ == "__main__":
    main()
