"""Fills the table `unfound`: asks an LLM for queries of documents that nobody found, and keeps those with
which an untrained encoder finds the document again.

After InPars (arXiv 2202.05144: queries from a few examples) and Promptagator (arXiv 2209.11755: examples of
the task at hand, round trip). Prompt and limits are ours, as is asking only for what nobody found.
"""

import datetime as dt
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np
import pyarrow as pa
from crops_unfound import NAME, UNFOUND

from crops import perspectives, progress
from crops.cli.mine import CANDIDATES, LOGS
from crops.cli.support import guarded, verb
from crops.config.all import Config
from crops.config.knowledge import KnowledgeConfig
from crops.discriminator import answers as proof
from crops.mining import knowledge
from crops.services import llm as edge
from crops.stages.base import StageReport
from crops.tables import artifacts, records
from crops.text import normalise_query, wording

# Beyond these it is no query: of the words that people type in a search box, few are more than 12 [ours]; a
# script without spaces says as much in fewer characters.
MAX_WORDS, MAX_CHARS = 12, 80
ROLE = "You know what people type into the search box of a short-video app."
RULES = """\
- Write what people would type who want this video and have not seen it, each query in other words.
- Write as the people in the examples do: their language, their length, their words.
- Use searchers' words where the video's differ; do not copy its caption.
- Answer with JSON only."""


class Encodes(Protocol):
    """What the round trip needs of an encoder; see crops.retriever.encoder."""

    def encode(self, texts: Sequence[str], *, kind: Any) -> np.ndarray:
        """float32 [N, H], rows of length 1."""


def schema(queries: int) -> dict[str, Any]:
    """JSON schema of an answer: {"queries": [...]}."""
    texts = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": queries}
    return {"type": "object", "properties": {"queries": texts}, "required": ["queries"]}


def messages(text: str, exemplars: Sequence[tuple[str, str]], *, queries: int) -> list[dict[str, str]]:
    """Chat messages for the document `text`. exemplars: (query, text of a video clicked for it)."""
    examples = "\n\n".join(f"video: {clicked}\nquery: {query}" for query, clicked in exemplars)
    blocks = {
        "Format": f'A JSON object {{"queries": [...]}} with {queries} queries of at most {MAX_WORDS} words.',
        "Rules": RULES,
        "Examples": examples,
        "Video": text,
    }
    return knowledge.chat(("Role", ROLE), ((heading, block) for heading, block in blocks.items() if block))


def parse(answer: str, *, text: str, queries: int) -> tuple[list[str], list[str]]:
    """The acceptable queries of one answer, normalised, and a reason for each rejected one (or for the
    whole).

    >>> parse('{"queries": ["Sour dough", "sour dough?", 7]}', text="day 1", queries=3)
    (['sour dough'], ['twice in one answer', 'no text'])
    """
    try:
        answered = json.loads(answer)["queries"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return [], ["not the JSON that was asked for"]
    if not isinstance(answered, list) or not answered:
        return [], ["no queries in the answer"]
    accepted: list[str] = []
    rejected: list[str] = []
    for each in answered[:queries]:
        query = normalise_query(each) if isinstance(each, str) else ""
        faults = {
            "no text": not query,
            "half a character": any("\ud800" <= char <= "\udfff" for char in query),
            "too long": len(query) > MAX_CHARS or len(query.split()) > MAX_WORDS,
            "copy of the document": query in (text, text.partition(" | ")[0]),
            "twice in one answer": wording(query) in map(wording, accepted),
        }
        reason = next((fault for fault, applies in faults.items() if applies), "")
        (rejected if reason else accepted).append(reason or query)
    return accepted, rejected


def nobody_found(logs: Path, candidates: Path, texts: Mapping[str, str], *, most: int) -> list[str]:
    """Ids of the documents that no positive perspective but this one paired with a query, the newest first;
    those without a time of upload last.
    """
    mined = artifacts.read(candidates, records.CANDIDATES, ["video_id", "perspective"])
    positive = [name for name in perspectives.names(positive=True) if name != NAME]
    touched = set(artifacts.among(mined, perspective=positive)["video_id"].to_pylist())
    videos = artifacts.read(logs, records.VIDEOS, ["video_id", "uploaded_at"])
    uploaded = dict(zip(*(videos[name].to_pylist() for name in videos.column_names), strict=True))
    ever = dt.datetime.min.replace(tzinfo=dt.UTC)
    left = sorted(texts.keys() - touched)
    return sorted(left, key=lambda video: uploaded.get(video) or ever, reverse=True)[:most]


def exemplars(
    candidates: Path, texts: Mapping[str, str], *, count: int, min_users: int
) -> list[tuple[str, str]]:
    """(query, text of the video most clicked for it), of queries that at least `min_users` users typed: rarer
    ones are private. Spread evenly from the most to the least searched, so that all manners are there; never
    a validation pair, or the answers would tell.
    """
    rows = artifacts.read(candidates, records.QUERIES).to_pylist()
    common = [r for r in rows if r["split"] == "train" and r["users"] >= min_users]
    columns = ["query", "video_id", "perspective", "support"]
    mined = artifacts.read(candidates, records.CANDIDATES, columns)
    clicks = artifacts.among(mined, perspective=[perspectives.CLICK.name], query=[r["query"] for r in common])
    apart = artifacts.held_out(candidates, texts)
    best: dict[str, tuple[int, str]] = {}
    for row in clicks.to_pylist():
        query, text = row["query"], texts.get(row["video_id"])
        if text and (query, text) not in apart:
            best[query] = max(best.get(query, (0, "")), (row["support"], text))
    ranked = sorted((r for r in common if r["query"] in best), key=lambda r: (-r["searches"], r["query"]))
    places = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int))
    names = [ranked[place]["query"] for place in places.tolist()]
    return [(query, best[query][1]) for query in names]


def round_trip(
    encoder: Encodes, texts: Sequence[str], pairs: Sequence[tuple[str, int]], *, first: int
) -> list[bool]:
    """Whether each query finds its document among the `first` of all.

    texts [D]; pairs: (query, row of its document in texts)
    """
    if not pairs:
        return []
    documents = encoder.encode(texts, kind="document")
    queries = encoder.encode([query for query, _row in pairs], kind="query")
    relevant = [frozenset({row}) for _query, row in pairs]
    return proof.round_trip(queries, documents, relevant, depth=first).tolist()


def run(
    logs: Path,
    candidates: Path,
    out: Path,
    config: Config,
    *,
    llm: str,
    documents: int = 1_000,
    queries: int = 3,
    examples: int = 5,
    first: int = 100,
) -> StageReport:
    """Writes the table and unfound.json. How the LLM is asked: the section `knowledge` of the config; the
    encoder of the round trip: the base of its section `train`. ServiceError where the LLM answers rubbish.
    """
    from crops.stages.learn.train import encoder_of  # torch; `--help` needs none of it

    cfg = config.section("knowledge")
    texts = artifacts.texts(candidates)
    ids, corpus = list(texts), list(texts.values())
    row = {video: n for n, video in enumerate(ids)}
    chosen = nobody_found(logs, candidates, texts, most=documents)
    shown = exemplars(candidates, texts, count=examples, min_users=cfg.min_users)
    cache = out.parent / f".{out.name}.answers.sqlite"
    answers, read = _asked([texts[d] for d in chosen], shown, cfg, llm=llm, queries=queries, cache=cache)
    pairs = [(query, row[d]) for d, (accepted, _) in zip(chosen, read, strict=True) for query in accepted]
    reasons = Counter(reason for _accepted, rejected in read for reason in rejected)
    back = round_trip(encoder_of(config.section("train"), corpus), corpus, pairs, first=first)
    kept = sorted((query, ids[n]) for (query, n), there in zip(pairs, back, strict=True) if there)
    numbers: dict[str, float | int] = {
        "unfound": len(chosen),
        "asked": sum(a.text is not None for a in answers),
        "tokens": sum(a.tokens for a in answers),
        "written": len(pairs),
        "rejected": reasons.total(),
        "kept": len(kept),
        "documents_kept": len({video for _query, video in kept}),
    }
    summary = {
        **numbers,
        "rejected": dict(sorted(reasons.items())),
        "model": cfg.model,
        "exemplars": [query for query, _text in shown],
        "examples": [{"query": q, "text": texts[d]} for q, d in kept[:: max(1, len(kept) // 5)][:5]],
    }
    with artifacts.replacing(out, inputs=[logs, candidates]) as folder:
        artifacts.write(folder, UNFOUND, _rows(kept, cfg.model, candidates))
        artifacts.write_json(folder / "unfound.json", summary)
    notes = {
        "every document has a positive: there is nothing to ask for": not chosen,
        f"no query that {cfg.min_users} users typed was clicked for: the LLM saw no example": not shown,
    }
    return StageReport(numbers=numbers, notes=tuple(note for note, applies in notes.items() if applies))


def _asked(
    texts: Sequence[str],
    shown: Sequence[tuple[str, str]],
    cfg: KnowledgeConfig,
    *,
    llm: str,
    queries: int,
    cache: Path,
) -> tuple[list[edge.Answer], list[tuple[list[str], list[str]]]]:
    """The answers for the document texts, and what `parse` reads in each: nothing where it was not asked."""
    bodies = [
        edge.body(
            messages(text, shown, queries=queries),
            name="queries",
            schema=schema(queries),
            model=cfg.model,
            temperature=cfg.temperature,
            max_tokens=cfg.max_answer_tokens,
        )
        for text in texts
    ]
    with progress.bar(total=len(bodies), desc="asking") as bar:
        answers = edge.ask(
            llm,
            bodies,
            cache=cache,
            concurrency=cfg.concurrency,
            timeout_s=cfg.timeout_s,
            retries=cfg.retries,
            budget=cfg.token_budget,
            progress=bar.update,
        )
    read: list[tuple[list[str], list[str]]] = []
    faults: list[str | None] = []
    for text, answer in zip(texts, answers, strict=True):
        if answer.text is None:
            read.append(([], []))
            faults.append(None)
            continue
        accepted, rejected = parse(answer.text, text=text, queries=queries)
        read.append((accepted, rejected))
        faults.append("" if accepted else rejected[0])
    edge.refuse_rubbish(llm, bodies, faults, cache=cache, most=cfg.max_rejected_share)
    return answers, read


def _rows(kept: Sequence[tuple[str, str]], model: str, candidates: Path) -> pa.Table:
    day = artifacts.read_json(candidates / "augment.json")["days"]["train"][-1]
    midnight = dt.datetime.fromisoformat(f"{day}T00:00:00+00:00")
    rows = [
        {"query": query, "video_id": video, "ts": midnight, "model": model, "date": day}
        for query, video in kept
    ]
    return pa.Table.from_pylist(rows, schema=UNFOUND.schema.append(artifacts.DATE))


@verb
@LOGS
@CANDIDATES
@click.option(
    "--llm",
    required=True,
    metavar="URL",
    help="OpenAI-compatible endpoint, e.g. http://127.0.0.1:8900/v1 of `crops world-llm`.",
)
@click.option(
    "--documents", type=click.IntRange(1), default=1_000, show_default=True, help="Most documents asked for."
)
@click.option(
    "--queries", type=click.IntRange(1, 10), default=3, show_default=True, help="Queries per document."
)
@click.option(
    "--examples",
    type=click.IntRange(0, 20),
    default=5,
    show_default=True,
    help="Queries of the log, each with a text clicked for it, that every question shows.",
)
@click.option(
    "--first",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Round trip: a query is kept if its document is among so many first results.",
)
def unfound(logs: Path, candidates: Path, out: Path, config: Config, **given: Any) -> StageReport:
    """Ask an LLM for the queries of documents that nobody found, as a table of the log.

    Documents that no click, reformulation or feed view of the training days paired with a query, the newest
    first, each with queries as your users type them. What leaves for the LLM: texts of the catalogue, and
    queries that several users typed (knowledge.min_users). Answers are cached beside --out: started again, it
    asks nothing twice.

    \b
    python -m crops_unfound --logs valid --candidates mined --llm http://127.0.0.1:8900/v1 --out written
    cp -r written/unfound logs/      # beside the other tables; then crops run --logs logs
    """
    return run(logs, candidates, out, config, **given)


def program() -> None:
    """`python -m crops_unfound`: what the user caused is one line and exit code 2."""
    guarded(lambda: unfound.main(prog_name="python -m crops_unfound", standalone_mode=False))
