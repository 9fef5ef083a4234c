"""Asks the LLM about the training queries and keeps what passes as the table `knowledge`."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from crops import progress
from crops.config.knowledge import KnowledgeConfig
from crops.mining import knowledge
from crops.services import answers as shelf
from crops.services import llm as edge
from crops.stages.base import WHOLE, Shard, StageReport
from crops.tables import artifacts, records


def run(
    candidates: Path,
    out: Path,
    cfg: KnowledgeConfig,
    *,
    llm: str | None = None,
    cache: Path | None = None,
    shard: Shard = WHOLE,
) -> StageReport:
    """Writes knowledge, knowledge.json and rejected.jsonl. `llm` None: an empty table, and the report says
    so.

    `cache`: the file of all answers so far, by default beside `out`; a restart that is given the same asks
    nothing twice, and what `cfg.store` holds costs nothing. `shard`: only its queries, within its share of
    the token budget.
    """
    if not llm:
        with artifacts.replacing(out) as folder:
            artifacts.write(folder, records.KNOWLEDGE, records.KNOWLEDGE.schema.empty_table())
            artifacts.write_json(folder / "knowledge.json", {"asked": 0, "accepted": 0})
        return StageReport(
            numbers={"asked": 0, "accepted": 0}, notes=("knowledge: no LLM was given, so there is none",)
        )
    texts = artifacts.texts(candidates)
    chosen = [pair for pair in _chosen(candidates, texts, cfg) if shard.holds(pair[0])]
    cache = cache or out.parent / f".{out.name}.answers.sqlite"
    bodies = _bodies(chosen, texts, cfg)
    stored = _recalled(cfg.store, cache, bodies) if cfg.store else frozenset[str]()
    with (
        _endpoint(llm, cfg.concurrency) as (url, concurrency),
        progress.bar(total=len(bodies), desc="asking") as bar,
    ):
        answers = edge.ask(
            url,
            bodies,
            cache=cache,
            concurrency=concurrency,
            timeout_s=cfg.timeout_s,
            retries=cfg.retries,
            budget=cfg.token_budget // shard.count,
            progress=bar.update,
        )
    rows, rejected = _rows(chosen, answers, texts, cfg)
    answered = sum(a.text is not None for a in answers)
    bad = {r["query"]: r["reason"] for r in rejected if r["whole"]}
    faults = [
        None if answer.text is None else bad.get(query, "")
        for (query, _exemplar), answer in zip(chosen, answers, strict=True)
    ]
    edge.refuse_rubbish(llm, bodies, faults, cache=cache, most=cfg.max_rejected_share)
    if cfg.store:
        # An answer that was of no use is worth another try, with another day's chance.
        useful = {
            edge.key_of(body): (answer.text, answer.tokens)
            for body, (query, _exemplar), answer in zip(bodies, chosen, answers, strict=True)
            if answer.text is not None and query not in bad
        }
        shelf.put(cfg.store, {key: answer for key, answer in useful.items() if key not in stored})
    summary: dict[str, Any] = {
        "asked": answered,
        "from_store": len(stored),
        "not_asked_over_budget": len(answers) - answered,
        "tokens": sum(a.tokens for a in answers),
        "accepted": len(rows),
        "rejected": dict(sorted(Counter(r["reason"] for r in rejected).items())),
        "zero_shot": sum(exemplar is None for _q, exemplar in chosen),
        "model": cfg.model,
        "examples": [{"query": r["query"], "text": r["text"]} for r in rows[:: max(1, len(rows) // 5)][:5]],
    }
    with artifacts.replacing(out) as folder:
        artifacts.write(
            folder, records.KNOWLEDGE, pa.Table.from_pylist(rows, schema=records.KNOWLEDGE.schema)
        )
        artifacts.write_json(folder / "knowledge.json", summary)
        lines = (json.dumps(r, ensure_ascii=False, sort_keys=True) + "\n" for r in rejected)
        (folder / "rejected.jsonl").write_text("".join(lines), encoding="utf-8")
    return StageReport(
        numbers={
            "asked": answered,
            "from_store": len(stored),
            "accepted": len(rows),
            "rejected": len(rejected),
            "tokens": summary["tokens"],
        }
    )


def _recalled(store: str, cache: Path, bodies: list[dict[str, Any]]) -> frozenset[str]:
    """Puts what the store holds of these questions into the cache; the keys of that."""
    stored = shelf.take(store, {edge.key_of(body) for body in bodies})
    edge.recall(cache, {key: text for key, (text, _tokens) in stored.items()})
    return frozenset(stored)


@contextmanager
def _endpoint(address: str, concurrency: int) -> Iterator[tuple[str, int]]:
    """The URL itself, or that of the small real LLM, which is started and stopped here; and how much it takes
    at once.
    """
    if address != "local":
        yield address, concurrency
        return
    from crops.services import local_llm

    with local_llm.served() as url:
        yield url, min(concurrency, local_llm.SLOTS)


def _chosen(candidates: Path, texts: dict[str, str], cfg: KnowledgeConfig) -> list[tuple[str, str | None]]:
    queries = [
        (r["query"], r["searches"] - r["clicks"] * (cfg.first == "unanswered"))
        for r in artifacts.read(candidates, records.QUERIES).to_pylist()
        if r["split"] == "train" and r["users"] >= cfg.min_users
    ]
    mined = artifacts.read(candidates, records.CANDIDATES, ["query", "video_id", "perspective", "support"])
    rows = zip(*(mined[c].to_pylist() for c in mined.column_names), strict=True)
    with_text = [r for r in rows if r[1] in texts]
    apart = artifacts.held_out(candidates, texts)
    held_out = {(query, video) for query, video, _p, _n in with_text if (query, texts[video]) in apart}
    return knowledge.choose(queries, with_text, max_queries=cfg.max_queries, held_out=held_out)


def _bodies(
    chosen: list[tuple[str, str | None]], texts: dict[str, str], cfg: KnowledgeConfig
) -> list[dict[str, Any]]:
    answer = {"name": "videos", "schema": knowledge.schema(cfg.descriptions), "strict": True}
    prompt = knowledge.prompt_for(cfg.language, [query for query, _exemplar in chosen], cfg.prompt)
    return [
        {
            "model": cfg.model,
            "temperature": cfg.temperature,
            "max_tokens": cfg.max_answer_tokens,
            "messages": knowledge.messages(
                query, texts.get(exemplar or ""), descriptions=cfg.descriptions, prompt=prompt
            ),
            "response_format": {"type": "json_schema", "json_schema": answer},
        }
        for query, exemplar in chosen
    ]


def _rows(
    chosen: list[tuple[str, str | None]],
    answers: list[edge.Answer],
    texts: dict[str, str],
    cfg: KnowledgeConfig,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    rejected: list[dict[str, Any]] = []
    for (query, exemplar), answer in zip(chosen, answers, strict=True):
        if answer.text is None:
            continue
        accepted, reasons = knowledge.parse(answer.text, exemplar=texts.get(exemplar or ""))
        rejected += [
            {"query": query, "reason": r, "answer": answer.text[:500], "whole": not accepted} for r in reasons
        ]
        for text in accepted:
            name = knowledge.doc_id(text)
            values = (query, name, text, exemplar or "", cfg.model)
            rows[query, name] = dict(zip(records.KNOWLEDGE.schema.names, values, strict=True))
    return [rows[key] for key in sorted(rows)], rejected
