"""What several systems answer to the same query, side by side, each result with what it was learnt from."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crops.report import queries
from crops.report.names import SYSTEMS as NAMES
from crops.retriever.systems import BASE, BASELINE, BM25, CHALLENGER, SYSTEMS, sees

Json = dict[str, Any]
SIDES = (BM25, BASE, BASELINE, CHALLENGER)
PAIRS_EACH = 3  # as many as the console says of a result


def chosen(compared: Iterable[Json], *, most: int) -> dict[str, list[str]]:
    """Set -> at most `most` of its queries: those most won and those most lost, as many of each as there are
    up to the half, then whichever differ most.
    """
    picked = {}
    for one in compared:
        rows = [*queries.ends(one["rows"], each=most // 2), *one["rows"]]
        picked[one["set"]] = [*dict.fromkeys(row[0] for row in rows)][:most]
    return picked


def sides(compared: Iterable[Json]) -> tuple[str, ...]:
    """SIDES, and before the challenger whatever else it is measured against."""
    others = dict.fromkeys(one["against"] for one in compared)
    return (*SIDES[:-1], *(name for name in others if name not in SIDES), CHALLENGER)


def of(
    chosen: Mapping[str, Sequence[str]],
    sides: Sequence[str],
    tops: Iterable[Mapping[str, Any]],
    pairs: Iterable[Mapping[str, Any]],
    captions: Mapping[str, str],
) -> Json:
    """What the page's script reads: {"systems": [[name, learns]], "documents": [[doc_id, caption]], "pairs":
    [[query, perspective, label, support, later_query]], "sets": {set: {query: [each system's results]}}};
    a result is [document, whether it counts for the set, its first pairs, how many more there are], the
    document and the pairs by their places in the lists above.

    tops   rows of the table `tops`, by rank, of these queries and systems
    pairs  rows of crops.stages.release.pairs.of, of these documents
    """
    pairs_of, answers = _by_document(pairs), _answers(tops)
    documents, listed_pairs = _Listed(), _Listed()

    def result(system: str, query: str, name: str, row: Mapping[str, Any]) -> list[Any]:
        learnt = _learnt(system, query, pairs_of.get(row["doc_id"], []))
        doc = documents.place((row["doc_id"], captions.get(row["doc_id"], "")))
        first = [listed_pairs.place(pair) for pair in learnt[:PAIRS_EACH]]
        return [doc, int(name in row["sets"]), first, len(learnt) - len(first)]

    shown = {
        name: {
            query: [[result(s, query, name, row) for row in answers.get((s, query), [])] for s in sides]
            for query in asked
        }
        for name, asked in chosen.items()
    }
    return {
        "systems": [[NAMES[name], int(name in SYSTEMS and SYSTEMS[name].trained)] for name in sides],
        "documents": documents.rows(),
        "pairs": listed_pairs.rows(),
        "sets": shown,
    }


class _Listed:
    """Values, each once, by their place in a list."""

    def __init__(self) -> None:
        self._places: dict[tuple[Any, ...], int] = {}

    def place(self, value: tuple[Any, ...]) -> int:
        return self._places.setdefault(value, len(self._places))

    def rows(self) -> list[list[Any]]:
        return [list(value) for value in self._places]


def _by_document(pairs: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[Any, ...]]]:
    by_document: dict[str, list[tuple[Any, ...]]] = {}
    for p in pairs:
        pair = p["query"], p["perspective"], p["label"], p["support"], p["later_query"]
        by_document.setdefault(p["doc_id"], []).append(pair)
    return by_document


def _answers(tops: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    answers: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in tops:
        answers.setdefault((row["system"], row["query"]), []).append(row)
    return answers


def _learnt(system: str, query: str, pairs: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Those that the system was shown, of this very query first."""
    if system not in SYSTEMS or not SYSTEMS[system].trained:
        return []
    seen = [pair for pair in pairs if sees(SYSTEMS[system], pair[1])]
    return sorted(seen, key=lambda pair: pair[0] != query)
