"""The simulated world's LLM behind an OpenAI-compatible API. It knows the lexicon and answers badly in 4.2 %
of cases.

What it adds to recall is an upper bound: it speaks the language of the videos without fault. It does not read
truth/.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from numpy.random import Generator, default_rng

from crops.text import normalise_query, words
from crops.world import simulate
from crops.world.catalogue import video_texts
from crops.world.language import wording
from crops.world.simulate import TONGUES

# What is asked for, by the property of the schema, and an answer to it that was cut off.
CUT_OFF = {"videos": '{"videos": [{"caption": "', "queries": '{"queries": ["', "fits": '{"fits": '}
# A share reported in a summary of the preprint of arXiv 2511.15443; the proceedings do not hold it.
BAD_SHARE = 0.042


class Model:
    """Answers to prompts; the same prompt has the same answer."""

    def __init__(self, world: simulate.World, *, bad_share: float, seed: int) -> None:
        self.world, self.bad_share, self.seed = world, bad_share, seed
        shares = world.queries.intent_share(world.popularity)
        self.meant = {world.queries.texts[text]: meant for text, meant in shares.items()}

    def answer(self, prompt: str, count: int, kind: str = "videos") -> str:
        """JSON text: {"videos": [...]} with `count` descriptions of videos that answer the query in the
        prompt's last block, {"queries": [...]} with `count` queries that ask for the video in it, or {"fits":
        0 or 1}, whether it answers the query in the block before.
        """
        # Whatever language its heading is in.
        asked = normalise_query(prompt.rpartition("### ")[2].partition("\n")[2])
        digest = hashlib.sha256(f"{self.seed}\n{prompt}".encode()).digest()
        rng = default_rng(list(digest[:16]))
        bad = rng.random() < self.bad_share
        if bad and rng.random() < 0.25:
            return CUT_OFF[kind]
        if kind == "fits":
            query = normalise_query(prompt.rpartition("### ")[0].rpartition("### ")[2].partition("\n")[2])
            meant = self.meant.get(query) or self._guess(query)
            return json.dumps({kind: int(bool(self._shown(asked).keys() & meant.keys()) != bad)})
        shares = self._shown(asked) if kind == "queries" else self.meant.get(asked) or self._guess(asked)
        intents = np.array(sorted(shares))
        weights = np.array([shares[i] for i in intents.tolist()])
        if bad:
            intents, weights = np.arange(len(self.world.popularity)), self.world.popularity
        chosen = rng.choice(intents, count, p=weights / weights.sum())
        one = self._query if kind == "queries" else self._video
        return json.dumps({kind: [one(int(i), rng) for i in chosen]})

    def _query(self, intent: int, rng: Generator) -> str:
        """A wording drawn anew from the language: it does not know which of them people type."""
        need = self.world.videos.intents[intent]
        return wording(need, self.world.settings, rng, TONGUES[self.world.language])[0]

    def _shown(self, text: str) -> dict[int, float]:
        """What a video's text may be the video of: the intents that share most words with it."""
        scores = self._guess(text)
        most = max(scores.values())
        return {i: 1.0 for i, score in scores.items() if score == most}

    def _video(self, intent: int, rng: Generator) -> dict[str, Any]:
        need = self.world.videos.intents[intent]
        caption, keywords, cover, related = video_texts(
            need, self.world.settings, rng, TONGUES[self.world.language]
        )
        return {
            "caption": caption,
            "tags": [need.facet],
            "cover": cover,
            "keywords": keywords or [need.subject],
            "related_queries": related,
        }

    def _guess(self, query: str) -> dict[int, float]:
        """For a query that nobody typed: intents by shared words, all of them where none is shared."""
        typed = set(words(query))
        scores: dict[int, float] = {}
        for i, x in enumerate(self.world.videos.intents):
            own = " ".join((x.subject, *x.subject_types, x.facet, *x.facet_types))
            if shared := len(typed & set(words(own))):
                scores[i] = float(shared**3)
        return scores or {i: float(p) for i, p in enumerate(self.world.popularity)}


def app(world_dir: Path, *, bad_share: float = BAD_SHARE, seed: int = 0) -> FastAPI:
    """The endpoint: /v1/chat/completions, /v1/models, /health."""
    model = Model(simulate.load(Path(world_dir) / "world.json"), bad_share=bad_share, seed=seed)
    api = FastAPI(title="The simulated world's LLM")

    @api.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "world", "object": "model"}]}

    @api.post("/v1/chat/completions")
    async def complete(request: Request) -> dict[str, Any]:
        body = await request.json()
        prompt = str(body["messages"][-1]["content"])
        try:
            properties = body["response_format"]["json_schema"]["schema"]["properties"]
            kind = next(name for name in CUT_OFF if name in properties)
            count = int(properties[kind].get("maxItems", 1))
        except (KeyError, TypeError, StopIteration):
            kind, count = "videos", 3
        text = model.answer(prompt, count, kind)
        used = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(text.split())}
        return {
            "id": "world",
            "object": "chat.completion",
            "model": "world",
            "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            ],
            "usage": {**used, "total_tokens": sum(used.values())},
        }

    return api
