"""P3 knowledge: the LLM as pseudo-retriever. Prompt, answer check and row building; nothing is asked here.

Blocks and fields as in Figure 2 of arXiv 2511.15443: role, format, rules, one example, query; caption, tags,
cover, keywords, related queries. The wording is ours. The text itself is the positive: it has no catalogue
id.
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from crops import perspectives
from crops.text import document_text, normalise_query

ROLE = "You are an expert in planning short videos: you know what people want to watch when they search."
RULES = (
    "Describe videos that would satisfy the query, each a different one.",
    "Use the words that makers of such videos use, which may differ from the query's.",
    "Stay on what the query means; the example shows one video that fits a query, not a template to copy.",
    "Answer with JSON only.",
)
# Without limits a small model repeats itself within a list until it is cut off, and nothing of its answer can
# be read. (No maxLength: llama.cpp turns it into a grammar that takes minutes per answer.)
MAX_ITEMS = 6
_TEXT: dict[str, Any] = {"type": "string"}
_TEXTS: dict[str, Any] = {"type": "array", "items": _TEXT, "maxItems": MAX_ITEMS}
FIELDS: dict[str, dict[str, Any]] = {
    "caption": _TEXT,
    "tags": _TEXTS,
    "cover": _TEXT,
    "keywords": _TEXTS,
    "related_queries": _TEXTS,
}
VIDEO = {"type": "object", "properties": FIELDS, "required": [*FIELDS]}
# Words of a description beyond which it is no description of a short video.
MAX_WORDS = 200


def schema(descriptions: int) -> dict[str, Any]:
    """JSON schema of an answer: {"videos": [...]}."""
    videos = {"type": "array", "items": VIDEO, "minItems": 1, "maxItems": descriptions}
    return {"type": "object", "properties": {"videos": videos}, "required": ["videos"]}


def messages(query: str, exemplar: str | None, *, descriptions: int) -> list[dict[str, str]]:
    """Chat messages for one query; `exemplar` is the text of one relevant video, None: zero-shot."""
    fields = "caption, tags, cover (text on the cover), keywords, related_queries"
    blocks = [
        f'### Format\nA JSON object {{"videos": [...]}} with {descriptions} objects of the fields {fields}; '
        f"at most {MAX_ITEMS} entries in a list, none twice.",
        "### Rules\n" + "\n".join(f"- {rule}" for rule in RULES),
    ]
    if exemplar:
        blocks.append(f"### Example\nquery: {query}\nvideo: {exemplar}")
    blocks.append(f"### Query\n{query}")
    return [
        {"role": "system", "content": f"### Role\n{ROLE}"},
        {"role": "user", "content": "\n\n".join(blocks)},
    ]


def choose(
    queries: Sequence[tuple[str, int]],
    candidates: Sequence[tuple[str, str, str, int]],
    *,
    max_queries: int,
    held_out: Collection[tuple[str, str]] = (),
) -> list[tuple[str, str | None]]:
    """(query, exemplar's video id or None), most searched first.

    queries     (query, searches) of the training days
    candidates  (query, video_id, perspective, support): the exemplar is the query's best positive, in the
                order of the perspectives (a click first), else what was exposed; most support first
    held_out    (query, video_id) that checkpoints are chosen by: never an exemplar, or the answers would tell
    """
    ordered = (*perspectives.names(positive=True, synthetic=False), perspectives.EXPOSED.name)
    order = {name: rank for rank, name in enumerate(ordered)}
    best: dict[str, tuple[int, int, str]] = {}
    for query, video, perspective, support in candidates:
        if perspective in order and (query, video) not in held_out:
            key = (order[perspective], -support, video)
            best[query] = min(best.get(query, key), key)
    ranked = sorted(queries, key=lambda q: (-q[1], q[0]))[:max_queries]
    return [(query, best[query][2] if query in best else None) for query, _searches in ranked]


def parse(answer: str, *, exemplar: str | None) -> tuple[list[str], list[str]]:
    """Texts of the acceptable descriptions in one answer, and a reason for each rejected one (or for the
    whole).
    """
    try:
        videos = json.loads(answer)["videos"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return [], ["not the JSON that was asked for"]
    if not isinstance(videos, list) or not videos:
        return [], ["no videos in the answer"]
    accepted: list[str] = []
    rejected: list[str] = []
    for video in videos:
        reason = _fault(video)
        text = "" if reason else _text(video)
        faults = {
            "empty description": not text,
            "too long": len(text.split()) > MAX_WORDS,
            "copy of the example": exemplar and text == normalise_query(exemplar),
            "twice in one answer": text in accepted,
        }
        reason = reason or next((fault for fault, applies in faults.items() if applies), "")
        if reason:
            rejected.append(reason)
        else:
            accepted.append(text)
    return accepted, rejected


def _fault(video: Any) -> str:
    if not isinstance(video, dict):
        return "a video that is no object"
    for name, kind in FIELDS.items():
        value = video.get(name)
        if kind is _TEXTS:
            if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
                return f"field {name} is no list of texts"
        elif not isinstance(value, str):
            return f"field {name} is no text"
        if any("\ud800" <= char <= "\udfff" for char in "".join(value)):
            # JSON can escape a lone surrogate; no UTF-8 file can hold it
            return f"field {name} holds half a character"
    return ""


def _text(video: dict[str, Any]) -> str:
    """An endpoint that does not hold the schema's limits is held to them here; a repeated word says nothing
    more.
    """
    keywords = dict.fromkeys([*video["keywords"][:MAX_ITEMS], *video["tags"][:MAX_ITEMS]])
    return document_text(
        video["caption"],
        list(keywords),
        video["cover"],
        list(dict.fromkeys(video["related_queries"][:MAX_ITEMS])),
    )


def doc_id(text: str) -> str:
    """knowledge:<16 hex digits of the text's sha256>."""
    return "knowledge:" + hashlib.sha256(text.encode()).hexdigest()[:16]


def merged(shards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """knowledge.json of all shards as of one: counts added, examples taken in turn."""
    if len(shards) <= 1:
        return shards[0] if shards else {}
    total: dict[str, Any] = {"model": shards[0].get("model")}
    for key in ("asked", "not_asked_over_budget", "tokens", "accepted", "zero_shot"):
        total[key] = sum(one.get(key, 0) for one in shards)
    rejected: Counter[str] = Counter()
    for one in shards:
        rejected.update(one.get("rejected", {}))
    turns = itertools.zip_longest(*(one.get("examples", []) for one in shards))
    return total | {
        "rejected": dict(sorted(rejected.items())),
        "examples": [e for turn in turns for e in turn if e is not None][:5],
    }
