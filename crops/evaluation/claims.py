"""The paper's Tables 3 and 4 and its open questions: rows, what the paper measured, and what each row is to
show.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from crops import perspectives

FULL, CHOSEN = "all perspectives", "chosen by the log"
OTHER_GATES = ("α 0.7", "α 0.8", "α per query", "α predicted", "θ as chance, α 0.4", "θ as chance, α 0.2")
WEIGHED = ("clicks of bots left out", *(f"weighed by {kind}" for kind in ("support", "rate", "dwell", "age")))
HARD = ("half of the turns by rank", "2 hard negatives", "2 hard negatives, refreshed")
TAUGHT = ("taught by θ", "taught by MiniLM")
PROVEN = ("θ rejects answers", "answers that find", "answers checked", "distinct answers")
ASKED, UNANSWERED = (f"300 queries asked, {first}" for first in ("searched", "unanswered"))
WITHOUT = f"without {perspectives.KNOWLEDGE.name}"  # what tokens a point are counted from
FUSED, RERANKED = f"{FULL}_bm25", f"{FULL}_reranked"
ADDED = [p.name for p in perspectives.PAPER[1:]]  # to clicks; the first of them alone is "+ reformulation"
FIXED = ("anchors >= 1", "anchors >= 3", "anchors >= 4", "binary labels")  # what the choice is compared with


@dataclass(frozen=True, slots=True)
class Claim:
    """`row` minus `against`, as the paper has it in points of recall@100 (CT, QR); None if the paper is
    silent.
    """

    row: str
    against: str
    says: str
    paper_ct: float | None = None
    paper_qr: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows in the order to read them, the paper's recall@100 (CT, QR) in % for the rows that it has, and what
    they are to show.
    """

    title: str
    rows: tuple[str, ...]
    claims: tuple[Claim, ...] = ()
    paper: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    hours: Mapping[str, float] = field(default_factory=dict)


def _beside_full(title: str, names: tuple[str, ...], *more: Claim, rows: tuple[str, ...] = ()) -> Table:
    """The full system and each of `names` against it; `more`: further claims, of further `rows`."""
    claims = (*(Claim(name, FULL, name) for name in names), *more)
    return Table(title=title, rows=(FULL, *names, *rows), claims=claims)


REGISTERED = "registered"  # the table of the perspectives that packages brought
TABLES = {
    "perspectives": Table(
        title="Perspectives and labels (the paper's Table 3)",
        rows=("clicks", "+ reformulation", "+ feed", FULL, "binary labels", "reformulation at 4"),
        paper={
            "clicks": (59.6, 33.0),
            "+ reformulation": (63.3, 36.1),
            "+ feed": (65.7, 37.4),
            FULL: (69.1, 40.1),
            "binary labels": (59.9, 32.1),
            "reformulation at 4": (67.1, 38.4),
        },
        claims=(
            Claim("+ reformulation", "clicks", "reformulations add", 3.7, 3.1),
            Claim("+ feed", "+ reformulation", "the feed adds", 2.4, 1.3),
            Claim(FULL, "+ feed", "knowledge adds", 3.4, 2.7),
            Claim("binary labels", FULL, "binary labels collapse", -9.2, -8.0),
            Claim("reformulation at 4", FULL, "reformulation belongs above click", -2.0, -1.7),
        ),
    ),
    "alone": Table(
        title="What each perspective is worth alone, and what is lost without it",
        rows=(
            "clicks",
            "+ reformulation",
            *(f"{p} alone" for p in ADDED[1:]),
            FULL,
            *(f"without {p}" for p in ADDED),
        ),
        claims=(
            Claim("+ reformulation", "clicks", "reformulations alone"),
            *(Claim(f"{p} alone", "clicks", f"{p} alone") for p in ADDED[1:]),
            *(Claim(FULL, f"without {p}", f"{p} beside the others") for p in ADDED),
        ),
    ),
    "losses": Table(
        title="Losses (the paper's Table 4)",
        rows=("one anchor a pass", "softmax-ce", FULL),
        paper={"one anchor a pass": (67.8, 38.9), "softmax-ce": (65.3, 37.8), FULL: (69.1, 40.1)},
        hours={"one anchor a pass": 178, "softmax-ce": 89, FULL: 88},
        claims=(
            Claim("one anchor a pass", FULL, "each anchor apart is worse", -1.3, -1.2),
            Claim("softmax-ce", FULL, "higher labels as rivals are worse", -3.8, -2.3),
        ),
    ),
    "hierarchy": Table(
        title="Which labels are anchors",
        rows=(*FIXED, CHOSEN),
        claims=tuple(Claim(CHOSEN, name, f"the choice against {name}") for name in FIXED),
    ),
    "window": Table(
        title="Windows of reformulations (the paper: 90 s) and of the feed",
        rows=("window 30 s", "window 60 s", FULL, "window 180 s", "learnt windows", "learnt feed windows"),
        claims=(
            *(Claim(f"window {n} s", FULL, f"{n} s against 90 s") for n in (30, 60, 180)),
            Claim("learnt windows", FULL, "windows from the log's gaps"),
            Claim("learnt feed windows", FULL, "windows from the log's views"),
        ),
    ),
    "alpha": Table(
        title="Threshold of θ (the paper: 0.6)",
        rows=("α 0.5", FULL, *OTHER_GATES),
        claims=tuple(Claim(name, FULL, f"{name} against 0.6") for name in ("α 0.5", *OTHER_GATES)),
    ),
    "weights": _beside_full("Weights that a log carries", WEIGHED),
    "hard": _beside_full(
        "Steps spent where the encoder is wrong",
        HARD,
        Claim(HARD[2], HARD[1], "hard negatives of the encoder in training"),
    ),
    "teachers": _beside_full("Distillation beside the labels", TAUGHT),
    "answers": _beside_full(
        "LLM answers with proof, and where the budget goes",
        PROVEN,
        Claim(UNANSWERED, ASKED, "asking where nobody clicked"),
        Claim(FULL, WITHOUT, "knowledge beside the log"),
        rows=(ASKED, UNANSWERED, WITHOUT),
    ),
    "fusion": Table(
        title="Dense and words as one ranking",
        rows=(FULL, FUSED),
        claims=(Claim(FUSED, FULL, "with BM25's ranking"),),
    ),
    "rerank": Table(
        title="The first results in the order of θ",
        rows=(FULL, RERANKED),
        claims=(Claim(RERANKED, FULL, "θ as a re-ranker"),),
    ),
    "generative": Table(
        title="A generative retriever beside the dense one",
        rows=("dense", "dense_generative", "dense_generative_fused"),
        claims=(
            Claim("dense_generative", "dense", "semantic ids in place of vectors"),
            Claim("dense_generative_fused", "dense", "semantic ids beside vectors"),
        ),
    ),
}


def tables() -> dict[str, Table]:
    """TABLES, and where a package has registered perspectives what each of them adds.

    >>> tables().keys() - TABLES.keys() <= {REGISTERED}
    True
    """
    names = [p.name for p in perspectives.registered()]
    if not names:
        return TABLES
    table = Table(
        title="Registered perspectives, each left out",
        rows=(FULL, *(f"without {name}" for name in names)),
        claims=tuple(Claim(FULL, f"without {name}", f"{name} adds") for name in names),
    )
    return {**TABLES, REGISTERED: table}
