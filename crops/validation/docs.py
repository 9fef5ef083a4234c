"""Data Docs: a page a table with every expectation over all rows, and an index that says at a glance what is
wrong.

Great Expectations renders each expectation and its result; the pages around them are ours, because its own
need a network (styles, scripts and the index itself come from other hosts) and show one page a batch instead
of the whole.
"""

import html
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from crops.config.validate import ValidateConfig
from crops.validation.split import Split
from crops.validation.suite import Outcome

TEMPLATES = ("crops.validation", ".")


def build(
    splits: Mapping[str, Split],
    outcomes: Mapping[str, Sequence[Outcome]],
    shapes: Mapping[str, Mapping[str, Any]],
    folder: Path,
    *,
    cfg: ValidateConfig,
    at: datetime,
) -> None:
    """Writes index.html and TABLE.html under `folder`.

    shapes: see crops.validation.shape; at: when the run was
    """
    folder.mkdir(parents=True)
    view = _view()
    common = {
        "at": at.strftime("%Y-%m-%d %H:%M UTC"),
        "names": [*outcomes],
        "per_day": cfg.rows_per_day_looked_at,
        "critical": _failed(outcomes, "critical"),
        "warnings": _failed(outcomes, "warning"),
        "checks": {name: len(_once(listed)) for name, listed in outcomes.items()},
        "splits": splits,
    }
    page = view.env.get_template("docs.html.j2")
    (folder / "index.html").write_text(page.render(common, name=None), encoding="utf-8")
    for name, listed in outcomes.items():
        blocks = {part: _block([o for o in listed if o.part == part]) for part in ("rows", "days", "files")}
        (folder / f"{name}.html").write_text(
            page.render(common, name=name, blocks=blocks, shape=shapes[name]), encoding="utf-8"
        )


def _failed(outcomes: Mapping[str, Sequence[Outcome]], severity: str) -> dict[str, list[Outcome]]:
    return {n: [o for o in f if not o.success and o.severity == severity] for n, f in outcomes.items()}


def _view() -> Any:
    """Great Expectations' templates for what is inside a table of expectations, ours for the page."""
    import jinja2
    from great_expectations.render.view import DefaultJinjaPageView

    view = DefaultJinjaPageView()
    view.env.loader = jinja2.ChoiceLoader([jinja2.PackageLoader(*TEMPLATES), view.env.loader])
    return view


def _once(outcomes: Sequence[Outcome]) -> list[tuple[Outcome, str]]:
    """Every check once, with what of it is tolerated: a check of rows is two expectations, without a bad row
    (warning) and up to a share (critical). The worst that failed stands for both, else the stricter one.
    """
    by_check: dict[tuple[str, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        by_check.setdefault((outcome.part, outcome.column, outcome.reason), []).append(outcome)
    cards = []
    for both in by_check.values():
        failed = [o for o in both if not o.success]
        shown = max(failed, key=lambda o: o.severity == "critical") if failed else both[0]
        cards.append((shown, "; ".join(f"{o.expected}, else {o.severity}" for o in both)))
    return cards


def _block(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The table of these checks, failed ones first; what was asked as Great Expectations renders it."""
    from great_expectations.render.renderer.content_block import ValidationResultsTableContentBlockRenderer

    first = sorted(
        _once(outcomes),
        key=lambda one: (one[0].success, one[0].severity != "critical" and not one[0].success),
    )
    block = ValidationResultsTableContentBlockRenderer.render(
        [_shown(o.result) for o, _ in first], include_column_name=True
    )
    table: dict[str, Any] = block.to_json_dict()
    table["header_row"] = ["Holds", "What is refused", "Found", "Tolerated", "As Great Expectations asks it"]
    table["table"] = [
        [row[0], o.reason, o.observed, tolerated, row[1]]
        for row, (o, tolerated) in zip(table["table"], first, strict=True)
    ]
    return table


def _shown(result: Any) -> Any:
    """The result with the log's own text made harmless: the renderer writes values as they are."""
    from great_expectations.core import ExpectationValidationResult

    left_out = ("partial_unexpected_counts", "partial_unexpected_index_list")
    shown = {name: value for name, value in result.result.items() if name not in left_out}
    shown["partial_unexpected_list"] = _harmless(shown.get("partial_unexpected_list", []))
    same = {name: getattr(result, name) for name in ("success", "expectation_config", "exception_info")}
    return ExpectationValidationResult(result=shown, **same)


def _harmless(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_harmless(v) for v in value]
    return html.escape(value[:200]) if isinstance(value, str) else value
