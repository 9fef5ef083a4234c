"""Asks the LLM about the training queries and keeps what passes as the table `knowledge`."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
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

VERDICT_TOKENS = 20  # {"fits": 1} and white space
DOUBTED = "does not fit its query, when asked again"
Asked = tuple[list[edge.Answer], frozenset[str]]


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
    bodies, budget = _bodies(chosen, texts, cfg), cfg.token_budget // shard.count
    with _endpoint(llm, cfg.concurrency) as (url, concurrency):
        ask = partial(_asked, cfg=cfg, url=url, concurrency=concurrency, cache=cache)
        answers, stored = ask(bodies, budget=budget, desc="asking")
        rows, rejected = _rows(chosen, answers, texts, cfg)
        bad = {r["query"]: r["reason"] for r in rejected if r["whole"]}
        faults = [
            None if answer.text is None else bad.get(query, "")
            for (query, _exemplar), answer in zip(chosen, answers, strict=True)
        ]
        edge.refuse_rubbish(llm, bodies, faults, cache=cache, most=cfg.max_rejected_share)
        if cfg.store:
            # An answer that was of no use is worth another try, with another day's chance.
            useful = [not fault for fault in faults]
            _keep(cfg.store, bodies, answers, useful, stored)
        verdicts: list[edge.Answer] = []
        if cfg.check:
            left = max(0, budget - sum(answer.tokens for answer in answers))
            rows, doubted, verdicts = _checked(rows, cfg, partial(ask, budget=left, desc="checking"))
            rejected += doubted
    answered = sum(answer.text is not None for answer in answers)
    summary: dict[str, Any] = {
        "asked": answered,
        "from_store": len(stored),
        "not_asked_over_budget": len(answers) - answered,
        "tokens": sum(a.tokens for a in (*answers, *verdicts)),
        **({"checked": sum(v.text is not None for v in verdicts)} if cfg.check else {}),
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


def _asked(
    bodies: list[dict[str, Any]],
    *,
    cfg: KnowledgeConfig,
    url: str,
    concurrency: int,
    cache: Path,
    budget: int,
    desc: str,
) -> Asked:
    """An answer for each question, and the keys of those that the store had."""
    stored = _recalled(cfg.store, cache, bodies) if cfg.store else frozenset[str]()
    with progress.bar(total=len(bodies), desc=desc) as bar:
        answers = edge.ask(
            url,
            bodies,
            cache=cache,
            concurrency=concurrency,
            timeout_s=cfg.timeout_s,
            retries=cfg.retries,
            budget=budget,
            progress=bar.update,
        )
    return answers, stored


def _keep(
    store: str,
    bodies: list[dict[str, Any]],
    answers: list[edge.Answer],
    useful: list[bool],
    stored: frozenset[str],
) -> None:
    """Puts the useful answers into the store that it does not have yet."""
    keys = [edge.key_of(body) for body in bodies]
    shelf.put(
        store,
        {
            key: (answer.text, answer.tokens)
            for key, answer, use in zip(keys, answers, useful, strict=True)
            if use and answer.text is not None and key not in stored
        },
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
    asked = knowledge.first(queries, cfg.max_queries)
    columns = ["query", "video_id", "perspective", "support"]
    mined = artifacts.read(candidates, records.CANDIDATES, columns, query=asked)
    rows = zip(*(mined[c].to_pylist() for c in mined.column_names), strict=True)
    with_text = [r for r in rows if r[1] in texts]
    apart = artifacts.held_out(candidates, texts)
    held_out = {(query, video) for query, video, _p, _n in with_text if (query, texts[video]) in apart}
    return knowledge.choose(asked, with_text, held_out=held_out)


def _bodies(
    chosen: list[tuple[str, str | None]], texts: dict[str, str], cfg: KnowledgeConfig
) -> list[dict[str, Any]]:
    prompt = knowledge.prompt_for(cfg.language, [query for query, _exemplar in chosen], cfg.prompt)
    return [
        edge.body(
            knowledge.messages(
                query, texts.get(exemplar or ""), descriptions=cfg.descriptions, prompt=prompt
            ),
            name="videos",
            schema=knowledge.schema(cfg.descriptions),
            model=cfg.model,
            temperature=cfg.temperature,
            max_tokens=cfg.max_answer_tokens,
        )
        for query, exemplar in chosen
    ]


def _checked(
    rows: list[dict[str, Any]], cfg: KnowledgeConfig, ask: Callable[[list[dict[str, Any]]], Asked]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[edge.Answer]]:
    """The rows that the LLM does not deny to fit their query, the others as rejected, and its answers."""
    bodies = _questions(rows, cfg)
    verdicts, stored = ask(bodies)
    told = [knowledge.fits(verdict.text) for verdict in verdicts]
    if cfg.store:
        _keep(cfg.store, bodies, verdicts, [one is not None for one in told], stored)
    doubted = [
        {"query": row["query"], "reason": DOUBTED, "answer": row["text"][:500], "whole": False}
        for row, one in zip(rows, told, strict=True)
        if one is False
    ]
    return [row for row, one in zip(rows, told, strict=True) if one is not False], doubted, verdicts


def _questions(rows: list[dict[str, Any]], cfg: KnowledgeConfig) -> list[dict[str, Any]]:
    """Whether each description fits its query; without chance: a verdict is no matter of temperature."""
    return [
        edge.body(
            knowledge.check_messages(row["query"], row["text"]),
            name="verdict",
            schema=knowledge.VERDICT,
            model=cfg.model,
            temperature=0.0,
            max_tokens=VERDICT_TOKENS,
        )
        for row in rows
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
