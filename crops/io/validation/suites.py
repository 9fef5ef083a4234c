"""Great Expectations suites over what the split counted, one per table, and their Data Docs.

DuckDB looks at every row; Great Expectations sees the counts per day and per rule, so its memory does not grow with the log.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crops.config.validate import ValidateConfig
from crops.io.validation.rules import Rule
from crops.io.validation.split import Split

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")


def check(
    splits: dict[str, Split], rules: Mapping[str, Sequence[Rule]], cfg: ValidateConfig, docs: Path
) -> dict[str, list[dict]]:
    """Per table the outcome of every expectation: {"expectation", "column", "severity", "success", "observed"}."""
    import great_expectations as gx

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    context.add_data_docs_site("crops", _site(docs))
    source = context.data_sources.add_pandas("counts")
    outcomes = {name: _table(context, source, name, split, rules[name], cfg) for name, split in splits.items()}
    context.build_data_docs(site_names=["crops"])
    return outcomes


def _site(docs: Path) -> dict[str, Any]:
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs)}
    index = {"class_name": "DefaultSiteIndexBuilder"}
    return {"class_name": "SiteBuilder", "show_how_to_buttons": False, "store_backend": store, "site_index_builder": index}


def _table(context: Any, source: Any, name: str, split: Split, rules: Sequence[Rule], cfg: ValidateConfig) -> list[dict]:
    import great_expectations as gx
    import pandas as pd

    frame = pd.DataFrame([{**day, **{_column(r): split.reasons.get(r.reason, 0) / max(1, split.read) for r in rules}}
                          for day in split.days or [{"rows": 0, "against_day_before": 1.0, "click_rate": None}]])  # fmt: skip
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(gx.ExpectationSuite(name, expectations=_expectations(name, rules, cfg)))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    checkpoint = gx.Checkpoint(name=name, validation_definitions=[definition], result_format="SUMMARY")
    result = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": frame})
    return [_outcome(r) for found in result.run_results.values() for r in found.results]


def _column(rule: Rule) -> str:
    return f"share where {rule.reason}"


def _expectations(name: str, rules: Sequence[Rule], cfg: ValidateConfig) -> list[Any]:
    import great_expectations.expectations as gxe

    found: list[Any] = [gxe.ExpectColumnValuesToBeBetween(column="rows", min_value=1, severity="critical")]
    for rule in rules:
        column = _column(rule)
        found.append(gxe.ExpectColumnMaxToBeBetween(column=column, max_value=0.0, severity="warning"))
        found.append(gxe.ExpectColumnValuesToBeBetween(column=column, max_value=cfg.max_bad_share, severity="critical"))
    if name != "videos":
        found.append(
            gxe.ExpectColumnValuesToBeBetween(
                column="against_day_before", min_value=cfg.min_volume_ratio, max_value=cfg.max_volume_ratio, severity="warning"
            )
        )
    if name == "results":
        found.append(
            gxe.ExpectColumnValuesToBeBetween(
                column="click_rate", min_value=cfg.min_click_rate, max_value=cfg.max_click_rate, severity="warning"
            )
        )
    return found


def _outcome(result: Any) -> dict[str, Any]:
    kwargs = {k: v for k, v in result.expectation_config.kwargs.items() if k in ("column", "min_value", "max_value")}
    seen = result.result.get("observed_value", result.result.get("partial_unexpected_list"))
    return {
        "expectation": result.expectation_config.type, **kwargs, "success": bool(result.success),
        "severity": str(getattr(result.expectation_config.severity, "value", result.expectation_config.severity)),
        "observed": seen if isinstance(seen, int | float | str | None) else [float(x) for x in seen][:20],
    }  # fmt: skip
