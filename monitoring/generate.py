"""slo/ and alerts/ to Prometheus rules, and what the chart has of them: `make monitoring`. A test compares
what is committed.

Burn rates as in the SRE workbook, chapter 5, for a budget of 30 days: two windows each, so that an alert
comes and goes soon.
"""

from pathlib import Path
from typing import Any

import yaml

from crops.experiment import argo
from monitoring import dashboards

HERE = Path(__file__).parent
CHART = HERE.parent / "helm/crops/files"
RUNBOOKS = "monitoring/runbooks"  # a path in this repository; put your own address before it
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
# (short window, long window, burn rate, severity): 14.4 spends 2 % of the budget in an hour, 6 spends 5 % in
# six hours; 3 spends a tenth in a day, 1 spends a tenth in three days.
BURNS = (
    ("5m", "1h", 14.4, "page"),
    ("30m", "6h", 6.0, "page"),
    ("2h", "1d", 3.0, "ticket"),
    ("6h", "3d", 1.0, "ticket"),
)

Json = dict[str, Any]


def slo_rules(document: Json, _name: str = "") -> Json:
    """The rules of one sloth document: an error ratio per window, and a page and a ticket per SLO."""
    groups = []
    for slo in document["slos"]:
        name, labels = slo["name"], {"service": document["service"], "slo": slo["name"]}
        query = slo["sli"]["events"]
        recorded = [
            {
                "record": f"slo:error:ratio_rate{window}",
                "labels": labels,
                "expr": f"({query['error_query']}) / ({query['total_query']})".replace("{{.window}}", window),
            }
            for window in WINDOWS
        ]
        budget = round(1 - slo["objective"] / 100, 10)
        alerts = [
            _burn(slo["alerting"]["name"], severity, budget, labels, slo["description"])
            for severity in ("page", "ticket")
        ]
        groups.append({"name": f"slo-{document['service']}-{name}", "rules": [*recorded, *alerts]})
    return {"groups": groups}


def _burn(name: str, severity: str, budget: float, labels: Json, description: str) -> Json:
    chosen = ", ".join(f'{key}="{value}"' for key, value in labels.items())

    def burnt(window: str, burn: float) -> str:
        return f"slo:error:ratio_rate{window}{{{chosen}}} > {burn:g} * {budget:g}"

    parts = [
        f"({burnt(short, burn)} and {burnt(long, burn)})"
        for short, long, burn, kind in BURNS
        if kind == severity
    ]
    texts = {
        "summary": f"{name}: the error budget is spent too fast. {description}",
        "runbook_url": f"{RUNBOOKS}/{name}.md",
    }
    return {
        "alert": name,
        "expr": " or ".join(parts),
        "labels": {"severity": severity, **labels},
        "annotations": texts,
    }


def alert_rules(document: Json, name: str) -> Json:
    """The recorded shares and the alerts of one table."""
    alerts = [
        {
            "alert": one["name"],
            "expr": one["expr"],
            "for": one["for"],
            "labels": {"severity": one["severity"], **({"retrain": "true"} if one.get("retrain") else {})},
            "annotations": {"summary": one["summary"], "runbook_url": f"{RUNBOOKS}/{one['name']}.md"},
        }
        for one in document["alerts"]
    ]
    groups = {f"crops-{name}-recorded": document["recorded"], f"crops-{name}-alerts": alerts}
    return {"groups": [{"name": group, "rules": rules} for group, rules in groups.items()]}


def made() -> dict[Path, str]:
    """Every file that is generated, with its text."""
    files = {}
    for folder, rules in (("slo", slo_rules), ("alerts", alert_rules)):
        for source in sorted((HERE / folder).glob("*.yaml")):
            text = yaml.safe_dump(
                rules(yaml.safe_load(source.read_text(encoding="utf-8")), source.stem),
                sort_keys=False,
                width=130,
            )
            header = f"# Made by `make monitoring` from {folder}/{source.name}.\n"
            for target in (HERE / "rules", CHART / "rules"):  # Helm reads nothing outside a chart
                files[target / f"{folder}-{source.name}"] = header + text
    for name, text in dashboards.made().items():
        files[HERE / "dashboards" / name] = files[CHART / "dashboards" / name] = text
    templates = yaml.safe_dump_all(argo.templates(), sort_keys=False, width=130)
    files[CHART / "analysis-templates.yaml"] = (
        "# Made by `make monitoring` from the guardrails in crops/config/rollout.py.\n" + templates
    )
    return files


if __name__ == "__main__":
    for path, text in made().items():
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(HERE.parent))
