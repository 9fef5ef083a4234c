"""Test collections as others keep them: folders in BEIR's form (corpus.jsonl, queries.jsonl,
qrels/SPLIT.tsv), and rankings as TREC run files, which trec_eval and its kin read.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crops.errors import InputError
from crops.tables.records import RELEVANT_GRADE
from crops.text import normalise_query

CORPUS, QUERIES, QRELS = "corpus.jsonl", "queries.jsonl", "qrels"
TREC = "trec"  # a folder: qrels.SPLIT.trec, run.SYSTEM.trec
# TREC's columns end at white space; where an id has any, it and the sign itself are written as in URLs.
_UNSAFE = re.compile(r"[\s%]")
_SCORE = re.compile(r"-?[0-9]+")


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents [D], the judged queries [Q] in the order of the file, and per query the grade of each judged
    row of the documents (above 0: relevant).
    """

    doc_ids: tuple[str, ...]
    texts: tuple[str, ...]
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    grades: tuple[dict[int, int], ...]


def read(folder: Path, split: str = "test") -> Collection:
    """What lies in `folder`; judgements of documents that the corpus lacks are left out, as are queries
    without a relevant one. An InputError names the file and line that is wrong.
    """
    documents = {str(d["_id"]): d for d in _lines(folder / CORPUS, ("_id", "text"))}
    row = {name: n for n, name in enumerate(documents)}
    asked = {str(q["_id"]): str(q["text"]) for q in _lines(folder / QUERIES, ("_id", "text"))}
    grades: dict[str, dict[int, int]] = {name: {} for name in asked}
    for query, doc, grade in _judgements(folder / QRELS / f"{split}.tsv"):
        if query in grades and doc in row:
            grades[query][row[doc]] = grade
    judged = [name for name, of in grades.items() if any(grade > 0 for grade in of.values())]
    if not judged:
        raise InputError(folder / QRELS / f"{split}.tsv", "no query with a relevant document of the corpus")
    return Collection(
        doc_ids=tuple(documents),
        texts=tuple(normalise_query(f"{d.get('title') or ''} {d['text']}") for d in documents.values()),
        query_ids=tuple(judged),
        queries=tuple(asked[name] for name in judged),
        grades=tuple(grades[name] for name in judged),
    )


def write(
    folder: Path,
    documents: Mapping[str, str],
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, Mapping[str, int]]],
) -> None:
    """A folder that `read` and others read: texts by id, queries by id, and per split and query the grades by
    document id.
    """
    (folder / QRELS).mkdir(parents=True)
    for name, texts in ((CORPUS, documents), (QUERIES, queries)):
        with (folder / name).open("w", encoding="utf-8") as file:
            for key, text in texts.items():
                more = {"title": ""} if name == CORPUS else {}
                file.write(json.dumps({"_id": key, **more, "text": text}, ensure_ascii=False) + "\n")
    for split, graded in qrels.items():
        rows = (f"{q}\t{d}\t{g}\n" for q, docs in graded.items() for d, g in docs.items())
        text = "query-id\tcorpus-id\tscore\n" + "".join(rows)
        (folder / QRELS / f"{split}.tsv").write_text(text, encoding="utf-8")


def names_of(ids: Sequence[str]) -> list[str]:
    """Ids without white space, as different from one another as before.

    >>> names_of(["a", "b c"]), names_of(["a%20"])
    (['a', 'b%20c'], ['a%20'])
    """
    if not any(re.search(r"\s", each) for each in ids):
        return list(ids)
    return [_UNSAFE.sub(lambda m: "".join(f"%{b:02X}" for b in m[0].encode()), each) for each in ids]


def judgements(
    sets: Mapping[str, Mapping[str, set[int]] | None], grades: Mapping[str, Mapping[int, int]] | None
) -> dict[str, dict[str, dict[int, int]]]:
    """Set -> query -> row of the catalogue -> score above 0 of what is relevant in this set, as every reader
    takes it: 1, and one more for each grade above the least that is relevant. What was graded lower is 0.
    Sets without a query are left out.
    """
    graded = grades or {}
    judgements: dict[str, dict[str, dict[int, int]]] = {}
    for name, relevant in sets.items():
        if relevant:
            judgements[name] = {
                query: {
                    **{d: 0 for d, grade in graded.get(query, {}).items() if grade < RELEVANT_GRADE},
                    **{d: max(1, graded.get(query, {}).get(d, 0) - RELEVANT_GRADE + 1) for d in sorted(rows)},
                }
                for query, rows in relevant.items()
            }
    return judgements


def write_trial(
    folder: Path,
    documents: Mapping[str, str],
    queries: Sequence[str],
    judged: Mapping[str, Mapping[str, Mapping[int, int]]],
    rankings: Mapping[str, np.ndarray],
) -> None:
    """An evaluation of ours for other programs: a folder in BEIR's form with a split per test set, and
    trec/ with the same judgements and a run per system.

    judged as of `judgements`; rankings int [Q, K] rows of the documents for each of `queries`, best first, -1
    is padding.
    """
    doc_ids = names_of(list(documents))
    ids = {query: f"q{n}" for n, query in enumerate(queries)}
    qrels = {
        name: {ids[q]: {doc_ids[d]: score for d, score in rows.items()} for q, rows in of.items()}
        for name, of in judged.items()
    }
    texts = dict(zip(doc_ids, documents.values(), strict=True))
    write(folder, texts, {name: query for query, name in ids.items()}, qrels)
    (folder / TREC).mkdir()
    for split, graded in qrels.items():
        lines = (f"{q} 0 {d} {score}\n" for q, rows in graded.items() for d, score in rows.items())
        (folder / TREC / f"qrels.{split}.trec").write_text("".join(lines), encoding="utf-8")
    for system, ranked in rankings.items():
        with (folder / TREC / f"run.{system}.trec").open("w", encoding="utf-8") as file:
            file.writelines(run_lines(list(ids.values()), doc_ids, ranked, system))


def run_lines(
    query_ids: Sequence[str], doc_ids: Sequence[str], ranked: np.ndarray, name: str
) -> Iterator[str]:
    """Lines of a TREC run file: ranked int [Q, K] rows of the documents, best first, -1 is padding. The score
    is the place from the end, so that every reader keeps the order.
    """
    for query, row in zip(query_ids, ranked.tolist(), strict=True):
        for place, doc in enumerate(d for d in row if d >= 0):
            yield f"{query} Q0 {doc_ids[doc]} {place + 1} {len(row) - place} {name}\n"


def qrel_lines(collection: Collection) -> Iterator[str]:
    """Lines of a TREC qrels file."""
    for query, graded in zip(collection.query_ids, collection.grades, strict=True):
        for doc, grade in graded.items():
            yield f"{query} 0 {collection.doc_ids[doc]} {grade}\n"


def _lines(path: Path, needed: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for number, line in _numbered(path, "a folder"):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise InputError(path, f"line {number} is no JSON") from error
        if not isinstance(entry, dict) or any(entry.get(name) is None for name in needed):
            raise InputError(path, f"line {number} lacks one of {', '.join(needed)}")
        yield entry


def _judgements(path: Path) -> Iterator[tuple[str, str, int]]:
    for number, line in _numbered(path, "qrels"):
        parts = line.split("\t")
        if len(parts) == 3 and _SCORE.fullmatch(parts[2]):
            yield parts[0], parts[1], int(parts[2])
        elif number > 1:  # the first is the header, where there is one
            raise InputError(path, f"line {number} is not `query-id<TAB>corpus-id<TAB>score`")


def _numbered(path: Path, expected: str) -> Iterator[tuple[int, str]]:
    """The lines that hold something, with their numbers; they end at line feeds alone, because ids and texts
    may hold all else that Unicode calls a line's end.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\n")
    except OSError as error:
        raise InputError(path, f"no such file; expected {expected} in BEIR's form") from error
    except UnicodeDecodeError as error:
        raise InputError(path, "not UTF-8 text") from error
