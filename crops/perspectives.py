"""The perspectives: one row each. Every list of them in the project derives from these rows.

A perspective says where a pair of query and video comes from. Positive ones are sources of positives; the
others are stages of the engine, which considered the video while the user did not choose it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from typing import Any

# An installed package names here, as `NAME = "module:function"`, a function that calls `register`.
GROUP = "crops.perspectives"


@dataclass(frozen=True, slots=True, kw_only=True)
class Perspective:
    """One row.

    number     in the paper: 0 for P0 and so on; None: not the paper's
    label      by default; only the order of the labels matters
    positive   a source of positives, not a stage of the engine
    gated      the discriminator decides which pairs are kept
    shifted    θ is shifted by what the log itself judges of this perspective's pairs
    synthetic  its documents are written, not in the catalogue
    table      the table of the log that it is mined from; a log without it has none of these pairs
    mine       of a registered one: the function that `register` was given
    log        of a registered one: the definition of a table of its own
    """

    name: str
    label: int
    number: int | None = None
    positive: bool = True
    gated: bool = False
    shifted: bool = False
    synthetic: bool = False
    table: str | None = None
    mine: Callable[..., Any] | None = None
    log: Any = None


# Labels and numbers: Table 1 of arXiv 2511.15443.
CLICK = Perspective(name="click", number=0, label=4, table="results")
REFORMULATION = Perspective(
    name="reformulation", number=1, label=5, gated=True, shifted=True, table="results"
)
FEED = Perspective(name="feed", number=2, label=4, gated=True, shifted=True, table="feed")
KNOWLEDGE = Perspective(name="knowledge", number=3, label=4, synthetic=True)
EXPOSED = Perspective(name="exposed", label=3, positive=False, table="results")
RANKED = Perspective(name="ranked", label=2, positive=False, table="results")
FILTERED = Perspective(name="filtered", label=1, positive=False, table="results")

ENGINE = (EXPOSED, RANKED, FILTERED)
PAPER = (CLICK, REFORMULATION, FEED, KNOWLEDGE)
STAGES = tuple(p.name for p in ENGINE)
# What a user saw in the results of a search.
SHOWN = (CLICK.name, EXPOSED.name)

_BUILT_IN = {p.name for p in (*PAPER, *ENGINE)}
_registered: dict[str, Perspective] = {}


def register(row: Perspective, *, mine: Callable[..., Any], log: Any = None) -> None:
    """Adds a perspective from outside.

    mine   from two Ibis tables to one: searches(search_id, user_id, ts, date, query) of the training days and
           the rows of the table, to (query, video_id, event_id, ts); event_id: what counts as one event
    log    the definition of the table (crops.tables.records.table), if it is not one of the project's
    """
    if row.name in _BUILT_IN or row.name in _registered:
        raise ValueError(f"perspective {row.name!r} is there already")
    if not row.positive or row.synthetic or not (log or row.table):
        raise ValueError(f"perspective {row.name!r}: expected a source of positives with a table to mine")
    _registered[row.name] = replace(row, mine=mine, log=log, table=log.name if log else row.table)


def every() -> tuple[Perspective, ...]:
    """All perspectives: the paper's, the registered ones, then the stages of the engine."""
    _load()
    return (*PAPER, *_registered.values(), *ENGINE)


def registered() -> tuple[Perspective, ...]:
    """Those from outside, in the order in which they were registered."""
    _load()
    return tuple(_registered.values())


def names(**fields: object) -> tuple[str, ...]:
    """Names of the perspectives whose fields have these values, e.g. names(gated=True).

    >>> names(synthetic=True)
    ('knowledge',)
    """
    return tuple(p.name for p in every() if all(getattr(p, field) == fields[field] for field in fields))


def labels() -> dict[str, int]:
    """The default label of each perspective, highest first."""
    return {p.name: p.label for p in sorted(every(), key=lambda p: -p.label)}


def positive_min(labels: Mapping[str, int] | None = None) -> int:
    """The lowest label of a positive; labels below it belong to the stages of the engine alone."""
    return min((labels or {}).get(p.name, p.label) for p in every() if p.positive)


@cache
def _load() -> None:
    for entry in metadata.entry_points(group=GROUP):
        entry.load()()
