"""The report page: values in, one self-contained HTML text out."""

from typing import Any

from crops.io.report import charts


def render(report: dict[str, Any], parts: dict[str, Any], *, title: str, examples: int, simulated: bool) -> str:
    """`report` is report.json; `parts` the stages' own JSON by stage name (an absent one is {})."""
    import jinja2
    from markupsafe import Markup

    drawn = {"reliability": _reliability(parts["discriminate"]), "curves": _curves(parts["train"])}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("crops.io.report", "."), autoescape=True, trim_blocks=True,
        undefined=jinja2.ChainableUndefined,
    )  # fmt: skip
    systems = sorted({s for row in report["recall_at_100"].values() if row for s in row})
    knowledge = {k: v for k, v in parts["knowledge"].items() if isinstance(v, str | int | float)}
    return environment.get_template("page.html.j2").render(
        r=report, title=title, examples=examples, simulated=simulated, systems=systems, knowledge=knowledge,
        perspectives=parts["augment"].get("perspectives", {}), notes=parts["notes"], slices=parts["evaluate"].get("slices") or {},
        # Our own SVG; the only text in it is what charts.lines was given, which matplotlib escapes.
        **{name: Markup(svg) for name, svg in drawn.items()},  # noqa: S704
        discriminate={k: v for k, v in parts["discriminate"].items() if not isinstance(v, list)},
    )  # fmt: skip


def _reliability(discriminate: dict[str, Any]) -> str:
    points = [
        p for p in discriminate.get("reliability") or [] if p.get("predicted") is not None and p.get("observed") is not None
    ]
    if not points:
        return ""
    curve = ([p["predicted"] for p in points], [p["observed"] for p in points])
    return charts.lines({"θ": curve}, x="predicted θ", y="observed share", diagonal=True)


def _curves(trains: dict[str, Any]) -> str:
    found = []
    for key, label in (("loss", "loss, nats"), ("valid_recall_at_100", "validation recall@100")):
        series = {}
        for system, train in trains.items():
            points = [(h["step"], h[key]) for h in train.get("checks") or [] if h.get(key) is not None]
            if points:
                series[system] = ([p[0] for p in points], [p[1] for p in points])
        if series:
            found.append(charts.lines(series, x="step", y=label))
    return "".join(found)
