"""The ablation page: values in, one self-contained HTML text out."""

from typing import Any

from crops.evaluation.claims import tables
from crops.report import charts, template

Json = dict[str, Any]
# Where truth is known, reformulations are judged by it; otherwise as they came.
SHOWN = ("ct", "qr_relevant", "truth", "unseen", "no_click", "cold_start"), ("ct", "qr_raw", "cold_start")
DRAWN = ("ct", "qr_relevant", "qr_raw", "truth")


def render(report: Json) -> str:
    """`report` is ablation.json."""
    from markupsafe import Markup

    every = tables()
    chosen = {name: every[name] for name in report["claims"]}
    drawn = {name: Markup(_claims(report["claims"][name])) for name in chosen}  # noqa: S704  our own SVG
    judged, raw = SHOWN
    sets = [
        name for name in (judged if "qr_relevant" in report["values"] else raw) if name in report["values"]
    ]
    return template.render("ablation.html.j2", r=report, tables=chosen, charts=drawn, sets=sets)


def _claims(claims: list[Json]) -> str:
    """Points gained or lost per claim and set with their interval, beside the paper's."""
    series: dict[str, dict[str, charts.Interval]] = {}
    for claim in claims:
        for name in DRAWN:
            if name in claim["sets"] and (name != "qr_raw" or "qr_relevant" not in claim["sets"]):
                gap = claim["sets"][name]
                interval = (100 * gap["difference"], 100 * gap["low"], 100 * gap["high"])
                series.setdefault(f"{name}, here", {})[claim["says"]] = interval
        for name in ("ct", "qr"):
            if (paper := claim[f"paper_{name}"]) is not None:
                series.setdefault(f"{name}, the paper", {})[claim["says"]] = (paper, paper, paper)
    return charts.intervals(series, x="points of recall@100, 95 % interval") if series else ""
