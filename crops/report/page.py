"""The report page: values in, one self-contained HTML text out."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crops.evaluation.sets import SETS as ALWAYS
from crops.report import charts, headline, made, queries, template
from crops.report.names import SET_NAMES, SETS, SYSTEM_COLOURS, SYSTEM_MEANS, SYSTEMS, plain
from crops.retriever.systems import ALTERNATIVES, SHOWN

Json = dict[str, Any]

# Of each kind, where the page's script may not run.
QUERIES_UNASKED = 10


def render(
    report: Json,
    parts: Json,
    *,
    title: str,
    examples: int,
    simulated: bool,
    compared: Sequence[Json] = (),
    side_by_side: Json | None = None,
    data_docs: str | None = None,
    registry: str | None = None,
) -> str:
    """`report` is report.json; `parts` the stages' own JSON by stage name (an absent one is {}).

    compared   queries won and lost, see `queries.compared`
    side_by_side  what the systems answer to them, see `beside.of`
    data_docs  where Data Docs lie, seen from the page
    registry   where the release is registered, as one types it
    """
    from markupsafe import Markup

    systems = [s for s in SHOWN if any(s in (row or {}) for row in report["recall_at_100"].values())]
    drawn = {
        "recall_chart": _recall(report, systems),
        "reliability": _reliability(parts["discriminate"]),
        "ladder_chart": _ladder(parts["label"]),
        "curves": _curves(parts["train"]),
    }
    sections = made.settings(parts["stages"])
    named = [{**one, "against_name": SYSTEMS[one["against"]]} for one in compared]
    return template.render(
        "page.html.j2",
        r=report,
        p=parts,
        title=title,
        examples=examples,
        simulated=simulated,
        systems=systems,
        sets={name: text for name, text in SETS.items() if name in {*ALWAYS, *report["recall_at_100"]}},
        set_names=SET_NAMES,
        names=SYSTEMS,
        means=SYSTEM_MEANS,
        colours=SYSTEM_COLOURS,
        plain=plain,
        headline=report.get("headline"),
        points=headline.points,
        vocabulary=_sides(report, parts["evaluate"], "vocabulary"),
        scripts=_sides(report, parts["evaluate"], "scripts"),
        alternatives=[SYSTEMS[system] for system in ALTERNATIVES if system in systems],
        perspectives=_perspectives(parts),
        total_s=sum(report["seconds"].values()),
        slowest_s=max(report["seconds"].values(), default=0),
        facts=made.facts(report, parts),
        changed=made.changed(sections),
        sections=sections,
        data_docs=data_docs,
        registry=registry,
        compared=named,
        ends=queries.ends(named[0]["rows"], each=QUERIES_UNASKED) if named else [],
        compared_json=_script_json(named),
        beside_json=_script_json(side_by_side or {"sets": {}}),
        beside_systems=[name for name, _ in (side_by_side or {}).get("systems", [])],
        # Our own SVG; the only text in it is what the charts were given, which matplotlib escapes.
        **{name: Markup(svg) for name, svg in drawn.items()},  # noqa: S704
    )


def _script_json(value: object) -> Any:
    """As JSON within a script element, which "<" cannot close."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return Markup(text)  # noqa: S704


def _sides(report: Json, metrics: Json, kind: str) -> list[Json]:
    """Queries by `vocabulary` (in words that the base hardly knows, or not) or by `scripts`: per set and side
    its recall, the number of its queries, and the challenger against the best alternative there.
    """
    rows = []
    for name, sides in (metrics.get(kind) or {}).items():
        for side, row in sides.items():
            own = f"{name}_{side}"
            comparison = headline.on(own, row, (report["intervals"] or {}).get(own) or {})
            queries = (report["counts"] or {}).get(own)
            rows.append({"set": name, "side": side, "row": row, "queries": queries, "headline": comparison})
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
                rows[SET_NAMES[name]] = (value, *(interval or (value, value)))
        series[SYSTEMS[system]] = rows
    return (
        charts.intervals(
            series,
            x="recall@100, 95 % interval",
            colours=_coloured(systems),
            title="Recall@100 of every system on every test set, with 95 % intervals, as in the table below",
        )
        if any(series.values())
        else ""
    )


def _coloured(systems: Iterable[str]) -> dict[str, str]:
    return {SYSTEMS[system]: SYSTEM_COLOURS[system] for system in systems}


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
    title = "Share of relevant pairs per label, with intervals"
    return charts.intervals(shown, x="share of relevant pairs", title=title) if shown else ""


def _reliability(discriminate: Json) -> str:
    points = [
        p
        for p in discriminate.get("reliability") or []
        if p.get("predicted") is not None and p.get("observed") is not None
    ]
    if not points:
        return ""
    curve = ([p["predicted"] for p in points], [p["observed"] for p in points])
    title = (
        "Share that was relevant against the predicted θ, on held-out queries; on the dotted line θ is right"
    )
    return charts.lines({"θ": curve}, x="predicted θ", y="observed share", diagonal=True, title=title)


def _curves(trains: Mapping[str, Json]) -> str:
    drawn = []
    for key, label in (("loss", "loss, nats"), ("valid_recall_at_100", "validation recall@100")):
        series = {}
        for system, train in trains.items():
            points = [(h["step"], h[key]) for h in train.get("checks") or [] if h.get(key) is not None]
            if points:
                series[SYSTEMS[system]] = ([p[0] for p in points], [p[1] for p in points])
        if series:
            title = f"{label} of every trained system by step"
            drawn.append(charts.lines(series, x="step", y=label, colours=_coloured(trains), title=title))
    return "".join(drawn)
