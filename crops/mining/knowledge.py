"""P3 knowledge: the LLM as pseudo-retriever. Prompt, answer check and row building; nothing is asked here.

Blocks and fields as in Figure 2 of arXiv 2511.15443: role, format, rules, one example, query; caption, tags,
cover, keywords, related queries. The wording is ours, in English and Chinese. The text itself is the
positive: it has no catalogue id.
"""

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from crops import perspectives
from crops.text import document_text, normalise_query, pieces, script


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The five blocks. In each, {query}, {exemplar} (the text of one relevant video), {descriptions} (how
    many are asked), {items} (the most of a list) and {fields} stand for what is asked; other braces are
    themselves.
    """

    role: str
    format: str
    rules: str
    example: str
    query: str
    headings: tuple[str, str, str, str, str] = ("Role", "Format", "Rules", "Example", "Query")

    def with_rule(self, rule: str) -> Self:
        """The same with one more rule."""
        return replace(self, rules=f"{self.rules}\n- {rule}")


ENGLISH = Prompt(
    role="You are an expert in planning short videos: you know what people want to watch when they search.",
    format='A JSON object {"videos": [...]} with {descriptions} objects of the fields {fields}; '
    "cover is the text on the cover; at most {items} entries in a list, none twice.",
    rules="- Describe videos that would satisfy the query, each a different one.\n"
    "- Use the words that makers of such videos use, which may differ from the query's.\n"
    "- Stay on what the query means; the example shows one video that fits a query, not a template to copy.\n"
    "- Answer with JSON only.",
    example="query: {query}\nvideo: {exemplar}",
    query="{query}",
)
CHINESE = Prompt(
    role="你是短视频策划专家，清楚人们搜索时想看什么。",
    format='一个 JSON 对象 {"videos": [...]}，包含 {descriptions} 个对象，字段为 {fields}；'
    "caption 是标题，tags 是标签，cover 是封面文字，keywords 是关键词，related_queries 是相关搜索；"
    "每个列表最多 {items} 项，不得重复。",
    rules="- 描述能满足该查询的视频，每个都不相同。\n"
    "- 使用这类视频的作者常用的词，可以与查询用词不同。\n"
    "- 紧扣查询的含义；示例只是一个符合查询的视频，不是要照抄的模板。\n"
    "- 所有内容用中文书写。\n"
    "- 只输出 JSON。",
    example="查询：{query}\n视频：{exemplar}",
    query="{query}",
    headings=("角色", "格式", "规则", "示例", "查询"),
)
OWN = {"en": ENGLISH, "zh": CHINESE}
AUTO = "auto"
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
# Words of a description beyond which it is no description of a short video, and its characters: 200 words of
# six letters and a half. In a script without spaces two characters are about a word.
MAX_WORDS = 200
MAX_CHARS = 1_500


def schema(descriptions: int) -> dict[str, Any]:
    """JSON schema of an answer: {"videos": [...]}."""
    videos = {"type": "array", "items": VIDEO, "minItems": 1, "maxItems": descriptions}
    return {"type": "object", "properties": {"videos": videos}, "required": ["videos"]}


def prompt_for(language: str, queries: Iterable[str], blocks: Mapping[str, str]) -> Prompt:
    """The prompt in a language: `en` or `zh`; another name is asked for in English; `auto` goes by the script
    of most of the queries. `blocks` replace those of the same name.
    """
    if language == AUTO:
        written = script(queries)
        language = {"han": "zh", "latin": "en", "": "en"}.get(written, "")
    prompt = OWN.get(language) or ENGLISH.with_rule(
        f"Write every text in {language or 'the language of the query'}."
    )
    changed: dict[str, Any] = dict(blocks)
    return replace(prompt, **changed)


def messages(
    query: str, exemplar: str | None, *, descriptions: int, prompt: Prompt = ENGLISH
) -> list[dict[str, str]]:
    """Chat messages for one query; `exemplar` is the text of one relevant video, None: zero-shot."""
    fills = {
        "query": query,
        "exemplar": exemplar or "",
        "descriptions": str(descriptions),
        "items": str(MAX_ITEMS),
        "fields": ", ".join(FIELDS),
    }
    # One pass, so that a query that reads {exemplar} stays what it is.
    slot = re.compile("{(" + "|".join(fills) + ")}")

    texts = prompt.role, prompt.format, prompt.rules, prompt.example, prompt.query
    filled = [slot.sub(lambda match: fills[match[1]], text) for text in texts]
    role, form, rules, example, asked = zip(prompt.headings, filled, strict=True)
    return chat(role, [form, rules, *([example] if exemplar else []), asked])


def chat(role: tuple[str, str], blocks: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Chat messages of blocks under their headings, the role as the system's."""

    def block(heading: str, text: str) -> str:
        return f"### {heading}\n{text}"

    asked = "\n\n".join(block(*each) for each in blocks)
    return [{"role": "system", "content": block(*role)}, {"role": "user", "content": asked}]


# What a second question about an answer is answered with; 1 or 0, as small models spell numbers more surely.
VERDICT = {
    "type": "object",
    "properties": {"fits": {"type": "integer", "minimum": 0, "maximum": 1}},
    "required": ["fits"],
}


def check_messages(query: str, text: str) -> list[dict[str, str]]:
    """Chat messages that ask whether a video of that text would satisfy the query (ours)."""
    blocks = {
        "Format": 'A JSON object {"fits": 1} or {"fits": 0}.',
        "Rules": "- 1: a person who searched for the query would be satisfied with a video of this text.\n"
        "- 0: it is about something else, or says nothing.\n- Answer with JSON only.",
        "Query": query,
        "Video": text,
    }
    return chat(("Role", "You judge search results of a short-video app strictly."), blocks.items())


def fits(answer: str | None) -> bool | None:
    """The verdict of one answer; None where it is unreadable or was not asked.

    >>> fits('{"fits": 1}'), fits('{"fits": 0}'), fits("yes")
    (True, False, None)
    """
    try:
        verdict = json.loads(answer or "")["fits"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return bool(verdict) if verdict in (0, 1) else None


def first(queries: Sequence[tuple[str, int]], most: int) -> list[str]:
    """Those with the highest numbers: (query, its searches, or how many of them count)."""
    return [query for query, _searches in sorted(queries, key=lambda q: (-q[1], q[0]))[:most]]


def choose(
    queries: Sequence[str],
    candidates: Sequence[tuple[str, str, str, int]],
    *,
    held_out: Collection[tuple[str, str]] = (),
) -> list[tuple[str, str | None]]:
    """(query, exemplar's video id or None), in the order of `queries`.

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
    return [(query, best[query][2] if query in best else None) for query in queries]


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
            "too long": not reason and _too_long(video, text),
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


def _too_long(video: dict[str, Any], text: str) -> bool:
    """By what was answered, too: a text is cut before it is a document's."""
    answered = sum(len("".join(value)) for value in video.values())
    spaced = sum(not unspaced for _piece, unspaced in pieces(text))
    unspaced = sum(len(piece) for piece, unspaced in pieces(text) if unspaced)
    return max(answered, len(text)) > MAX_CHARS or spaced + unspaced / 2 > MAX_WORDS


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
    for key in ("asked", "from_store", "not_asked_over_budget", "tokens", "accepted", "zero_shot"):
        total[key] = sum(one.get(key, 0) for one in shards)
    rejected: Counter[str] = Counter()
    for one in shards:
        rejected.update(one.get("rejected", {}))
    turns = itertools.zip_longest(*(one.get("examples", []) for one in shards))
    return total | {
        "rejected": dict(sorted(rejected.items())),
        "examples": [e for turn in turns for e in turn if e is not None][:5],
    }
