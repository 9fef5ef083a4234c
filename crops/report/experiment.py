"""The experiment's page: readout.json in, one self-contained HTML text out."""

from typing import Any

from crops.report import charts, template

Json = dict[str, Any]

WORDS = {
    "better": "Treatment is better.",
    "worse": "Treatment is worse.",
    "no difference": "No difference that could not be chance.",
    "unknown": "Not known yet.",
    "blocked": "Blocked: these numbers must not be read.",
}
# The page's colours of a verdict are those of the gate's.
CLASSES = {
    "better": "promote",
    "worse": "reject",
    "blocked": "reject",
    "no difference": "unknown",
    "unknown": "unknown",
}


def render(readout: Json, *, simulated: bool, title: str = "Experiment readout") -> str:
    """`readout` as in readout.json; the text holds no address and no script."""
    from markupsafe import Markup

    metrics = readout["metrics"]
    return template.render(
        "experiment.html.j2",
        r=readout,
        title=title,
        simulated=simulated,
        words=WORDS,
        classes=CLASSES,
        # Our own SVG; the only text in it is what the charts were given, which matplotlib escapes.
        lifts=Markup(_lifts(metrics)),  # noqa: S704
        over_time={name: Markup(_over_time(m)) for name, m in metrics.items()},  # noqa: S704
        segments=Markup(_segments(metrics)),  # noqa: S704
    )


def _interval(measured: Json, low: str = "low", high: str = "high") -> charts.Interval:
    return 100 * measured["lift"], 100 * measured[low], 100 * measured[high]


def _lifts(metrics: Json) -> str:
    """Measured lifts with their always-valid and fixed-horizon intervals; the paper's beside them, as the
    paper's.
    """
    lifted = {name.upper(): m for name, m in metrics.items() if m["lift"] is not None}
    if not lifted:
        return ""
    paper = {name: 100 * m["paper_lift"] for name, m in lifted.items()}
    series = {
        "always-valid": {name: _interval(m) for name, m in lifted.items()},
        "one planned look": {name: _interval(m, "fixed_low", "fixed_high") for name, m in lifted.items()},
        "paper (its platform)": {name: (x, x, x) for name, x in paper.items()},
    }
    return charts.intervals(series, x="relative lift, %", zero=True)


def _over_time(metric: Json) -> str:
    points = [p for p in metric["by_day"] if p["lift"] is not None]
    if len(points) < 2:
        return ""
    band = [_interval(p) for p in points]
    return charts.over_time([p["date"][5:] for p in points], band, y="relative lift so far, %")


def _segments(metrics: Json) -> str:
    series = {
        name.upper(): {segment: _interval(c) for segment, c in m["segments"].items() if c["lift"] is not None}
        for name, m in metrics.items()
    }
    shown = {name: rows for name, rows in series.items() if rows}
    return charts.intervals(shown, x="relative lift, %, always-valid interval", zero=True) if shown else ""
