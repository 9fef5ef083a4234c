"""What KFP's own pages show of a stage: Markdown of its numbers, one HTML file of its pages, both of what the
stage wrote.
"""

import re
from pathlib import Path

from crops.report.names import SET_NAMES, SETS, SYSTEMS, plain
from crops.tables import artifacts

DOCS = "data_docs"
BODY = re.compile(r"<main>(.*)</main>", re.DOTALL)


def recall(out: str, to: str) -> None:
    """Evaluate's recall@100 in % by set and system, as a table."""
    metrics = artifacts.read_json(Path(out) / "metrics.json")
    rows = {name: row for name in SETS if (row := metrics["recall_at_100"].get(name))}
    systems = list(dict.fromkeys(system for row in rows.values() for system in row))
    lines = ["# Recall@100, %", "", f"| Test set | queries | {' | '.join(SYSTEMS[s] for s in systems)} |"]
    lines.append("|---|" + "---:|" * (len(systems) + 1))
    counts = metrics.get("counts") or {}
    for name, row in rows.items():
        values = ("–" if row.get(s) is None else f"{100 * row[s]:.1f}" for s in systems)
        lines.append(f"| {SET_NAMES[name]} (`{name}`) | {counts.get(name, '–')} | {' | '.join(values)} |")
    lines += ["", *(f"- {SET_NAMES[name]}: {SETS[name]}" for name in rows)]
    Path(to).write_text("\n".join(lines) + "\n", encoding="utf-8")


def verdict(out: str, to: str) -> None:
    """The gate's verdict with its checks, or the reasons where there are none."""
    verdict = artifacts.read_json(Path(out) / "verdict.json")
    lines = [f"# {verdict['verdict'].capitalize()}", ""]
    words = {True: "yes", False: "**no**", None: "unknown"}
    if verdict.get("checks"):
        lines += ["| Holds | Check | Measured |", "|---|---|---|"]
        lines += [
            f"| {words[c['passed']]} | {plain(c['name'])} | {plain(c['reason'])} |" for c in verdict["checks"]
        ]
    else:
        lines += [f"- {plain(reason)}" for reason in verdict["reasons"]]
    Path(to).write_text("\n".join(lines) + "\n", encoding="utf-8")


def docs(out: str, to: str) -> None:
    """Validate's Data Docs as one file, the overview first: KFP shows one file of an artifact."""
    folder = Path(out) / DOCS
    index = (folder / "index.html").read_text(encoding="utf-8")
    tables = [path for path in sorted(folder.glob("*.html")) if path.name != "index.html"]
    parts = [f'<div id="index">{_body(index)}</div>']
    # What hides the checks that hold works on the whole page: one switch would do for all tables or for none.
    switch = re.compile(r"<p[^>]*><label><input type=\"checkbox\" id=\"failed\">.*?</p>", re.DOTALL)
    for path in tables:
        body = switch.sub("", _body(path.read_text(encoding="utf-8")))
        body = re.sub(r"\bid=\"", f'id="{path.stem}-', body).replace("<h1>", "<h2>").replace("</h1>", "</h2>")
        parts.append(f'<div id="{path.stem}"><hr>{body}</div>')
    whole = BODY.sub(lambda _: f"<main>{''.join(parts)}</main>", index)
    for path in (folder / "index.html", *tables):
        whole = whole.replace(f'href="{path.name}"', f'href="#{path.stem}"')
    Path(to).write_text(whole, encoding="utf-8")


def page(out: str, to: str) -> None:
    """The report; Data Docs are an artifact of their own there, so the links to them lead nowhere and go."""
    html = (Path(out) / "report.html").read_text(encoding="utf-8")
    Path(to).write_text(re.sub(rf'<a href="{DOCS}/[^"]*">(.*?)</a>', r"\1", html), encoding="utf-8")


def _body(html: str) -> str:
    body = BODY.search(html)
    assert body, "our own page has a <main>"
    return body[1]
