"""The systems that are compared: which samples each may see, its loss, and its lowest anchor label."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crops.perspectives import CLICK, FILTERED, KNOWLEDGE, STAGES

Pair = tuple[str, str]  # query, doc_id


@dataclass(frozen=True, slots=True)
class System:
    """What sets a system apart. `loss` None: the setting `train.loss`; `anchors_from`: the perspective whose
    label is anchor_min, None: the candidates that the ladder chose; `hides`: perspectives whose samples the
    system must not see. `trained` False: the encoder as it is before the first step. `generative`: whether
    the setting `train.generative` gives it a second retriever.
    """

    loss: str | None = None
    trained: bool = True
    anchors_from: str | None = None
    only: tuple[str, ...] = ()
    hides: tuple[str, ...] = ()
    generative: bool = False


BM25, CHAMPION, BASE, BASELINE, MNRL, CHALLENGER = (
    "bm25",
    "champion",
    "base",
    "clicks",
    "clicks_mnrl",
    "crops",
)
PAIRWISE = "mnrl"  # a loss with a training of its own: crops.retriever.mnrl
LOG_ONLY, PAPER = "crops_no_knowledge", "crops_paper"
SYSTEMS = {
    BASE: System(trained=False),
    BASELINE: System("info_nce", anchors_from=CLICK.name, only=(CLICK.name, *STAGES)),
    MNRL: System(PAIRWISE, anchors_from=CLICK.name, only=(CLICK.name,)),
    CHALLENGER: System(generative=True),
    PAPER: System("h_infonce", anchors_from=FILTERED.name),
    LOG_ONLY: System(hides=(KNOWLEDGE.name,)),
}
# What a search team has without CroPS: the headline is against the best of these.
ALTERNATIVES = (BM25, BASE, BASELINE, MNRL)
# Where there is no champion, the better of these becomes it.
FIRST = (BASE, BASELINE)


def fused_of(name: str) -> str:
    """The ranking of the system `name` and BM25's as one."""
    return f"{name}_bm25"


def reranked_of(name: str) -> str:
    """The ranking of the system `name`, its first documents in the order of θ."""
    return f"{name}_reranked"


def generative_of(name: str) -> str:
    """The second retriever that was trained beside the encoder of the system `name`."""
    return f"{name}_generative"


def generative_fused(name: str) -> str:
    """Both rankings of the system `name` as one."""
    return f"{name}_generative_fused"


# In the order of the report: what it is measured against, then the variants, then the challenger.
SHOWN = (
    BM25,
    CHAMPION,
    BASE,
    BASELINE,
    MNRL,
    *reversed([name for name in SYSTEMS if name not in ALTERNATIVES]),
    fused_of(CHALLENGER),
    reranked_of(CHALLENGER),
    generative_of(CHALLENGER),
    generative_fused(CHALLENGER),
)


def cut(name: str, width: object) -> str:
    """The system `name` with vectors of the first `width` numbers, where it was trained for them."""
    return f"{name}@{width}"


def sees(system: System, perspective: str) -> bool:
    """Whether the pairs of a perspective are shown to the system."""
    return perspective in system.only if system.only else perspective not in system.hides


def relevant_rows(pairs: Iterable[Pair], doc_ids: Sequence[str]) -> dict[str, frozenset[int]]:
    """query -> rows in `doc_ids` that are relevant to it, sorted by query; queries without any are left
    out.
    """
    row_of = {doc_id: row for row, doc_id in enumerate(doc_ids)}
    relevant: dict[str, set[int]] = {}
    for query, doc_id in pairs:
        if doc_id in row_of:
            relevant.setdefault(query, set()).add(row_of[doc_id])
    return {query: frozenset(relevant[query]) for query in sorted(relevant)}
