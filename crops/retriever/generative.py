"""A second kind of retriever: from a query's vector to the semantic ids of documents, digit by digit.

After DSI (Tay et al., arXiv 2202.06991), with two differences. The sequence that is read is one step, the
vector of the dense encoder: on the simulated world it learnt faster and more than from tokens. And what may
follow is limited to ids that exist in training as well (DSI: only when decoding), so that the probabilities
of all documents sum to 1.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

from crops import progress
from crops.errors import InputError
from crops.retriever import semantic_ids
from crops.retriever.batch import Batch, Batches
from crops.retriever.encoder import Encoder
from crops.retriever.errors import NothingToTrainOn

WIDTH, HEADS = 128, 4
PASSES = 50  # over the queries; with half as many it found less
LEAST_STEPS, MOST_STEPS = 200, 20_000  # as those of the dense encoder
NOISE = 1.0  # length that is added to vectors of length 1, in every direction
LEARNING_RATE, WARMUP, CLIP = 2e-3, 0.05, 1.0
QUERIES_AT_ONCE = 32  # times `depth` ids in the making
FOLDER = "generative"  # in the folder that train writes
IDS, WEIGHTS, FACTS = "ids.npy", "model.safetensors", "generative.json"


class Generative(nn.Module):
    """A T5 of one layer a side that writes the ids of `trie` from vectors of length 1 with H numbers."""

    after: Tensor
    nodes: Tensor
    ids: Tensor

    def __init__(self, trie: semantic_ids.Trie, width: int, *, seed: int = 0) -> None:
        """width: H. seed: chance of the weights."""
        super().__init__()
        self.levels, self.digits = trie.ids.shape[1], trie.children.shape[1]
        self.register_buffer("after", torch.from_numpy(trie.children), persistent=False)  # by far the largest
        self.register_buffer("nodes", torch.from_numpy(trie.nodes).long(), persistent=False)
        self.register_buffer("ids", torch.from_numpy(trie.ids).long(), persistent=False)
        # A digit means another thing at each level: each has tokens of its own, after the start's.
        config = T5Config(
            vocab_size=1 + self.levels * self.digits,
            d_model=WIDTH,
            d_kv=WIDTH // HEADS,
            d_ff=2 * WIDTH,
            num_layers=1,
            num_decoder_layers=1,
            num_heads=HEADS,
            pad_token_id=0,
            use_cache=False,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.reads = nn.Linear(width, WIDTH)
            self.t5 = T5ForConditionalGeneration(config)

    def memory(self, vectors: Tensor) -> Tensor:
        """float [N, H], each of length 1 -> what the decoder looks at, [N, 1, WIDTH]."""
        scaled = vectors * vectors.shape[1] ** 0.5  # numbers of about 1, as layers are made for
        states: Tensor = self.t5.encoder(inputs_embeds=self.reads(scaled)[:, None]).last_hidden_state
        return states

    def choices(self, memory: Tensor, begun: Tensor, nodes: Tensor) -> Tensor:
        """Log-probabilities of each digit, [N, T + 1, W], -inf where no id goes on so.

        memory [N, 1, WIDTH]; begun int [N, T], the first T digits; nodes int [N, T + 1], before each digit
        """
        tokens = F.pad(begun + 1 + self.digits * torch.arange(begun.shape[1], device=begun.device), (1, 0))
        states = self.t5.decoder(input_ids=tokens, encoder_hidden_states=memory).last_hidden_state
        logits = self.t5.lm_head(states * WIDTH**-0.5)[:, :, 1:].unflatten(2, (self.levels, self.digits))
        own = torch.arange(tokens.shape[1], device=tokens.device)
        return logits[:, own, own].masked_fill(self.after[nodes] < 0, -torch.inf).log_softmax(-1)

    def forward(self, memory: Tensor, rows: Tensor) -> Tensor:
        """log P(document) [N] in nats; memory [N, 1, WIDTH], rows int [N] of the catalogue."""
        ids = self.ids[rows]
        every = self.choices(memory, ids[:, :-1], self.nodes[rows])
        return every.gather(2, ids[:, :, None])[:, :, 0].sum(1)

    @torch.inference_mode()
    def rank(self, vectors: np.ndarray, depth: int) -> np.ndarray:
        """int64 [Q, min(depth, D)]: rows of the catalogue, most probable first, ties by the lower row.

        Beam search over existing ids with `depth` beams: no document twice, and none that does not exist.
        Exact where no level has more than `depth` beginnings. vectors float [Q, H], each of length 1
        """
        training, _ = self.training, self.eval()
        parts = [
            self._beams(torch.from_numpy(vectors[first : first + QUERIES_AT_ONCE]), depth)
            for first in range(0, len(vectors), QUERIES_AT_ONCE)
        ]
        self.train(training)
        return torch.cat(parts).cpu().numpy()

    def _beams(self, vectors: Tensor, depth: int) -> Tensor:
        """int [Q, min(depth, D)], see `rank`."""
        memory = self.memory(vectors.to(self.ids.device, torch.float32))
        count = len(memory)
        scores = memory.new_zeros(count, 1)  # [Q, B]
        path = self.ids.new_zeros(count, 1, 1)  # [Q, B, T + 1]: nodes so far
        begun = self.ids.new_zeros(count, 1, 0)  # [Q, B, T]: digits so far
        for level in range(self.levels):
            beams = scores.shape[1]
            looked = memory.repeat_interleave(beams, 0)
            digits = self.choices(looked, begun.flatten(0, 1), path.flatten(0, 1))[:, -1]  # [Q * B, W]
            grown = (scores[:, :, None] + digits.unflatten(0, (count, beams))).flatten(1)  # [Q, B * W]
            after = self.after[path[:, :, -1]].long().flatten(1)
            order = after.argsort(dim=1, stable=True)  # ties go to the lower node, at the end the lower row
            likely = grown.gather(1, order).argsort(dim=1, descending=True, stable=True)
            best = order.gather(1, likely)[:, :depth]
            scores, after = grown.gather(1, best), after.gather(1, best)
            kept = int((after >= 0).sum(1).max())
            best, scores, after = best[:, :kept], scores[:, :kept], after[:, :kept]
            parents = (best // self.digits)[:, :, None]
            begun = torch.cat(
                [begun.gather(1, parents.expand(-1, -1, level)), (best % self.digits)[:, :, None]], 2
            )
            path = torch.cat([path.gather(1, parents.expand(-1, -1, level + 1)), after[:, :, None]], 2)
        return after

    def save(self, folder: Path, texts: Sequence[str]) -> None:
        """ids.npy, model.safetensors and generative.json into a new folder; `texts`: the catalogue [D]."""
        folder.mkdir()
        np.save(folder / IDS, self.ids.cpu().numpy().astype(np.int32))
        save_model(self, str(folder / WEIGHTS))
        facts = {"width": self.reads.in_features, "catalogue": _digest(texts)}
        (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def load(folder: Path, texts: Sequence[str]) -> Generative:
    """What `save` wrote. An InputError if `texts` are not the catalogue that its ids are of, in its order."""
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    if facts["catalogue"] != _digest(texts):
        raise InputError(
            folder / FACTS, "its ids are of another catalogue: train with train.generative on this one"
        )
    model = Generative(semantic_ids.trie(np.load(folder / IDS)), facts["width"])
    load_model(model, str(folder / WEIGHTS))
    return model.eval()


def _digest(texts: Sequence[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(hashlib.blake2b(text.encode(), digest_size=16).digest())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training made, in how many steps, and the mean loss of the last tenth of them, in nats."""

    model: Generative
    steps: int
    loss: float


def fit(encoder: Encoder, batches: Batches, texts: Sequence[str], *, seed: int = 0) -> Trained:
    """Trains on the batches of the dense encoder: a positive there is a sample here, from the query's vector
    to the document's id, as often as it would be an anchor of H-InfoNCE. The grades weigh: a sample of the
    lowest positive label counts once, one a label higher twice, and so on. As many documents, drawn anew in
    each step, teach that a document's own vector means its id (DSI's indexing).

    texts: the catalogue [D]. A positive that is not in it, as an LLM writes them, has no id and is left out;
    of equal texts the first is meant. NothingToTrainOn where no positive is in it.
    """
    samples = batches.samples
    row_of = {text: row for row, text in reversed(list(enumerate(texts)))}
    rows = np.array([row_of.get(text, -1) for text in samples.texts])  # [texts of the samples]
    if not ((samples.label >= samples.positive_min) & (rows[samples.text] >= 0)).any():
        raise NothingToTrainOn("no positive is a document of the catalogue: nothing to train on")
    vectors = encoder.encode(texts, kind="document"), encoder.encode(samples.queries, kind="query")
    model = Generative(semantic_ids.trie(semantic_ids.made(vectors[0], seed=seed)), encoder.width, seed=seed)
    model.to(encoder.device).train()
    documents, queries = (torch.from_numpy(each).to(encoder.device) for each in vectors)
    steps = min(max(PASSES * batches.per_epoch, LEAST_STEPS), MOST_STEPS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps, pct_start=WARMUP, anneal_strategy="linear"
    )
    losses = []
    with torch.random.fork_rng(devices=[encoder.device] if encoder.device.type == "cuda" else []):
        torch.manual_seed(seed)  # of dropout
        for step in progress.bar(range(steps), desc="generative", unit="step"):
            asked = _asked(batches.at(step), rows, samples.positive_min)
            own = np.random.default_rng((seed, 2, step)).permutation(len(texts))[: max(1, len(asked.rows))]
            loss = -model(model.memory(_near(documents[own])), _tensor(own, model)).mean()
            if len(asked.rows):
                likely = model(model.memory(_near(queries[asked.queries])), _tensor(asked.rows, model))
                loss = loss - (likely * _tensor(asked.weights, model)).sum()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            rates.step()
            losses.append(float(loss.detach()))
    return Trained(model.eval(), steps, float(np.mean(losses[-max(1, steps // 10) :])))


@dataclass(frozen=True, slots=True)
class _Asked:
    """Samples of one step, all [N]: numbers of the queries, rows of the catalogue, weights that sum to 1."""

    queries: np.ndarray
    rows: np.ndarray
    weights: np.ndarray


def _asked(batch: Batch, rows: np.ndarray, positive_min: int) -> _Asked:
    """The positives of a batch that are in the catalogue, as `rows` [texts] has them."""
    query, text = np.nonzero((batch.labels >= positive_min) & (rows[batch.texts] >= 0))
    weights = (batch.labels[query, text] - positive_min + 1).astype(np.float32)
    return _Asked(batch.queries[query], rows[batch.texts[text]], weights / max(1.0, weights.sum()))


def _near(vectors: Tensor) -> Tensor:
    """Other vectors beside these, NOISE away: what a query that training never saw may look like."""
    return vectors + NOISE * vectors.shape[1] ** -0.5 * torch.randn_like(vectors)


def _tensor(values: np.ndarray, model: Generative) -> Tensor:
    return torch.from_numpy(values).to(model.ids.device)
