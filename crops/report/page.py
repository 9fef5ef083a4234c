"""The report page: values in, one self-contained HTML text out."""

from collections.abc import Mapping
from typing import Any

from crops.report import charts, headline, template
from crops.retriever.systems import ALTERNATIVES, SHOWN

Json = dict[str, Any]

# In the order in which they are read, with what each asks.
SETS = {
    "ct": "clicked on the held-out days; rewards imitation of the engine that wrote the log: a guardrail",
    "qr": "consumed after a reformulation, mapped to the first query, kept by θ (circular: θ "
    "gated training as well)",
    "qr_raw": "the same without θ",
    "qr_relevant": "the same, only what truth calls relevant",
    "truth": "all held-out queries, all relevant documents",
    "unseen": "held-out queries that the training days do not hold",
    "no_click": "held-out queries that nobody clicked for in the training days",
}


def render(report: Json, parts: Json, *, title: str, examples: int, simulated: bool) -> str:
    """`report` is report.json; `parts` the stages' own JSON by stage name (an absent one is {})."""
    from markupsafe import Markup

    systems = [s for s in SHOWN if any(s in (row or {}) for row in report["recall_at_100"].values())]
    drawn = {
        "recall_chart": _recall(report, systems),
        "reliability": _reliability(parts["discriminate"]),
        "ladder_chart": _ladder(parts["label"]),
        "curves": _curves(parts["train"]),
    }
    return template.render(
        "page.html.j2",
        r=report,
        p=parts,
        title=title,
        examples=examples,
        simulated=simulated,
        systems=systems,
        sets=SETS,
        headline=report.get("headline"),
        points=headline.points,
        vocabulary=_vocabulary(report, parts["evaluate"]),
        alternatives=[system for system in ALTERNATIVES if system in systems],
        perspectives=_perspectives(parts),
        total_s=sum(report["seconds"].values()),
        slowest_s=max(report["seconds"].values(), default=0),
        # Our own SVG; the only text in it is what the charts were given, which matplotlib escapes.
        **{name: Markup(svg) for name, svg in drawn.items()},  # noqa: S704
    )


def _vocabulary(report: Json, metrics: Json) -> list[Json]:
    """Queries in words that the base hardly knows against the rest: per set and side its recall, the number
    of its queries, and the challenger against the best alternative there.
    """
    rows = []
    for name, sides in (metrics.get("vocabulary") or {}).items():
        for side, row in sides.items():
            own = f"{name}_{side}"
            found = headline.on(own, row, (report["intervals"] or {}).get(own) or {})
            queries = (report["counts"] or {}).get(own)
            rows.append({"set": name, "side": side, "row": row, "queries": queries, "headline": found})
    return rows


def _perspectives(parts: Json) -> list[Json]:
    """Per perspective: mined, kept, share relevant by θ and by truth, examples."""
    mined: Json = {**parts["augment"].get("perspectives", {})}
    if parts["knowledge"].get("asked"):
        examples = parts["knowledge"].get("examples", [])
        mined["knowledge"] = {"candidates": parts["knowledge"]["accepted"], "examples": examples}
    numbers = {e["stage"]: e["numbers"] for e in parts["stages"]}.get("discriminate", {})
    rungs = parts["label"].get("rungs") or {}
    return [
        {
            "name": name,
            "candidates": entry["candidates"],
            "queries": entry.get("queries"),
            "kept": numbers.get(f"kept_{name}", entry["candidates"]),
            "theta": (rungs.get("theta_by_perspective") or {}).get(name),
            "truth": (rungs.get("truth_by_perspective") or {}).get(name),
            "examples": entry.get("examples", []),
        }
        for name, entry in mined.items()
    ]


def _recall(report: Json, systems: list[str]) -> str:
    """Recall@100 with its interval per set and system."""
    series: dict[str, dict[str, charts.Interval]] = {}
    for system in systems:
        rows = {}
        for name in SETS:
            value, interval = (
                (report["recall_at_100"].get(name) or {}).get(system),
                _interval(report, name, system),
            )
            if value is not None:
                rows[name] = (value, *(interval or (value, value)))
        series[system] = rows
    return charts.intervals(series, x="recall@100, 95 % interval") if any(series.values()) else ""


def _interval(report: Json, name: str, system: str) -> tuple[float, float] | None:
    interval = ((report["intervals"] or {}).get(name) or {}).get(system)
    return (interval[0], interval[1]) if interval else None


def _ladder(label: Json) -> str:
    """Share of relevant pairs per label: as θ estimates it, and by truth if the log has it."""
    rungs = label.get("rungs") or {}
    named = {"by θ (estimate)": rungs.get("theta"), "by truth": rungs.get("truth")}
    shown = {
        name: {
            f"label {k}": (v["share"], v["low"], v["high"]) for k, v in sorted(rungs_of.items(), reverse=True)
        }
        for name, rungs_of in named.items()
        if rungs_of
    }
    return charts.intervals(shown, x="share of relevant pairs") if shown else ""


def _reliability(discriminate: Json) -> str:
    points = [
        p
        for p in discriminate.get("reliability") or []
        if p.get("predicted") is not None and p.get("observed") is not None
    ]
    if not points:
        return ""
    curve = ([p["predicted"] for p in points], [p["observed"] for p in points])
    return charts.lines({"θ": curve}, x="predicted θ", y="observed share", diagonal=True)


def _curves(trains: Mapping[str, Json]) -> str:
    drawn = []
    for key, label in (("loss", "loss, nats"), ("valid_recall_at_100", "validation recall@100")):
        series = {}
        for system, train in trains.items():
            points = [(h["step"], h[key]) for h in train.get("checks") or [] if h.get(key) is not None]
            if points:
                series[system] = ([p[0] for p in points], [p[1] for p in points])
        if series:
            drawn.append(charts.lines(series, x="step", y=label))
    return "".join(drawn)
