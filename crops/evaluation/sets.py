"""The test sets: which rows of the catalogue are relevant to which held-out query."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

from crops.tables import records
from crops.text import script

SETS = ("ct", "qr", "qr_raw", "qr_relevant", "truth", "unseen", "no_click")
COLD_START = "cold_start"  # only where the setting asks for it
SLICES = ("head", "torso", "tail")
VOCABULARY = ("foreign", "familiar")  # to the base: words that its own training hardly held, and the rest
SLICED = ("qr_raw", "truth")  # by vocabulary and by script
LEAST_OF_SCRIPT = 30  # queries: fewer give no answer, as at the gate
Relevant = dict[str, set[int]]  # query -> rows of the catalogue
Grades = dict[str, dict[int, int]]  # query -> row of the catalogue -> grade


def grouped(pairs: Iterable[tuple[str, str]], row: Mapping[str, int]) -> Relevant:
    """query -> rows of its documents, from (query, doc_id); ids that the catalogue lacks are left out."""
    relevant: Relevant = {}
    for query, doc_id in pairs:
        if doc_id in row:
            relevant.setdefault(query, set()).add(row[doc_id])
    return relevant


def build(
    raw: Relevant,
    grades: Grades | None,
    queries: Sequence[Mapping[str, Any]],
    *,
    slice_of: Callable[[int], str],
    foreign: Callable[[str], bool] | None = None,
    **given: Relevant,
) -> dict[str, Relevant | None]:
    """Set -> query -> relevant rows; None if the set needs grades and there are none.

    raw       the ungated reformulations of the held-out days
    queries   rows of the table `queries`: query, split, searches, clicks
    slice_of  searches of a query in the training days -> its slice
    foreign   whether a query is in words that the base does not know; None: nobody can tell
    given     further sets as they are: ct, qr
    """
    train = {r["query"]: r for r in queries if r["split"] == "train"}
    test = [r["query"] for r in queries if r["split"] == "test"]
    sets: dict[str, Relevant | None] = {**given, "qr_raw": raw}
    if grades is None:
        sets |= dict.fromkeys(("qr_relevant", "truth", "unseen", "no_click"))
    else:
        right = {q: {d for d, g in of.items() if g >= records.RELEVANT_GRADE} for q, of in grades.items()}
        truth = {q: right[q] for q in test if right.get(q)}
        sets["qr_relevant"] = {q: both for q, docs in raw.items() if (both := docs & right.get(q, set()))}
        sets["truth"] = truth
        sets["unseen"] = {q: r for q, r in truth.items() if q not in train}
        sets["no_click"] = {q: r for q, r in truth.items() if q in train and train[q]["clicks"] == 0}
    searches = {q: train[q]["searches"] for q in test if q in train}
    for name in SLICES:
        sets[f"qr_{name}"] = {q: r for q, r in raw.items() if slice_of(searches.get(q, 0)) == name}
    if foreign is not None:
        strange = {q: foreign(q) for name in SLICED for q in sets[name] or {}}
        for name in SLICED:
            for side, wanted in zip(VOCABULARY, (True, False), strict=True):
                of = sets[name]
                sets[f"{name}_{side}"] = (
                    None if of is None else {q: r for q, r in of.items() if strange[q] is wanted}
                )
    for name in SLICED:
        sets |= {f"{name}_{written}": of for written, of in by_script(sets[name] or {}).items()}
    return sets


def named(sets: Collection[str]) -> tuple[str, ...]:
    """The sets that figures are given of: those of every log, then what a setting added."""
    return (*SETS, *(name for name in (COLD_START,) if name in sets))


def cold_start(had: AbstractSet[int], *wanted: Relevant | None) -> Relevant:
    """query -> what is relevant to it in one of `wanted` and had no positive of any query in training.

    had  rows of the catalogue. Queries of which nothing is left are left out.
    """
    cold: Relevant = {}
    for relevant in wanted:
        for query, rows in (relevant or {}).items():
            if left := rows - had:
                cold.setdefault(query, set()).update(left)
    return cold


def by_script(relevant: Relevant) -> dict[str, Relevant]:
    """Script (crops.text) -> its queries, most first, of those that have at least LEAST_OF_SCRIPT; nothing
    where fewer than two have: there is nothing to compare.
    """
    sets: dict[str, Relevant] = {}
    for query, rows in relevant.items():
        sets.setdefault(script([query]), {})[query] = rows
    large = {name: of for name, of in sets.items() if name and len(of) >= LEAST_OF_SCRIPT}
    return dict(sorted(large.items(), key=lambda item: (-len(item[1]), item[0]))) if len(large) > 1 else {}


def scripts_of(names: Iterable[str], of: str) -> list[str]:
    """The scripts by which the set `of` was cut, from the names of all sets."""
    ends = [name.removeprefix(f"{of}_") for name in names if name.startswith(f"{of}_")]
    return [end for end in ends if end not in VOCABULARY]


def chains(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """query -> number of its chain: queries that were reworded into the same query and led to the same video.

    rows  query, later_query, video_id of the ungated reformulations. One search for one thing, reworded
          twice, makes two test queries with one answer: evidence that counts once.
    """
    parent: dict[tuple[str, ...], tuple[str, ...]] = {}

    def root(name: tuple[str, ...]) -> tuple[str, ...]:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = parent[above]
            name = parent[name]
        return name

    queries = {}
    for row in rows:
        queries[row["query"]] = ("query", row["query"])
        parent[root(queries[row["query"]])] = root(("end", row["later_query"], row["video_id"]))
    numbers: dict[tuple[str, ...], int] = {}
    return {q: numbers.setdefault(root(queries[q]), len(numbers)) for q in sorted(queries)}


def capped(relevant: Relevant, most: int, *, seed: int) -> Relevant:
    """At most `most` of the queries, sorted; the same draw for the same seed."""
    names = sorted(relevant)
    if len(names) > most:
        drawn = np.random.default_rng(seed).choice(len(names), most, replace=False)
        names = [names[i] for i in sorted(drawn.tolist())]
    return {q: relevant[q] for q in names}
