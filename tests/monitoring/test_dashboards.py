"""Every panel has a question it can answer: known metrics, sound PromQL, data from a real Prometheus."""

import json
import re
import shutil
import time

import httpx
import pytest

from monitoring import dashboards
from serving.gateway.metrics import Metrics
from tests.monitoring import look
from tests.monitoring import test_monitoring as monitoring

# Panels that compare with what is not there in a test of seconds.
NEEDS_A_WEEK = re.compile(r"offset 1w")


def known() -> set[str]:
    families = list(Metrics().registry.collect())
    exported = {
        f"{m.name}{suffix}" for m in families for suffix in ("", "_total", "_bucket", "_count", "_sum")
    }
    recorded = {rule["record"] for rule in monitoring.rules() if "record" in rule}
    return exported | recorded | set(look.TRITON) | {"up"}


def test_every_panel_asks_for_what_is_exported_or_recorded():
    names = known()
    for board, (_, panels) in dashboards.DASHBOARDS.items():
        for panel in panels:
            for query in panel.queries.values():
                bare = re.sub(r'"[^"]*"', "", query)
                used = set(re.findall(r"\b(?:(?:crops|slo)[_:][A-Za-z0-9_:]+|nv_[a-z_]+|up)\b", bare))
                assert used, (board, panel.title)
                assert used <= names, (board, panel.title, used - names)


def test_every_panel_shows_the_chosen_namespaces_alone():
    for path in sorted((monitoring.MONITORING / "dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        assert "namespace" in [variable["name"] for variable in board["templating"]["list"]]
        for panel in board["panels"]:
            for target in panel["targets"]:
                bare = re.sub(r"\{[^}]*\}", "{}", target["expr"])
                series = re.findall(r"\b(?:(?:crops|slo)[_:][A-Za-z0-9_:]+|nv_[a-z_]+|up)\b", bare)
                assert target["expr"].count('namespace=~"$namespace"') == len(series) > 0, panel["title"]


def test_every_runbook_that_a_panel_names_is_there():
    books = {path.stem for path in (monitoring.MONITORING / "runbooks").glob("*.md")}
    for _, panels in dashboards.DASHBOARDS.values():
        for panel in panels:
            named = set(re.findall(r"[Rr]unbook (\w+)", panel.about))
            assert named <= books, (panel.title, named - books)


@pytest.mark.prometheus
def test_every_panel_has_data_from_a_real_prometheus(tmp_path):
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus on this machine")
    prometheus = look.Prometheus(look.Traffic(), tmp_path / "prometheus")
    try:
        waiting = {
            (board, panel["title"], target["expr"])
            for board, panel in look.panels()
            for target in panel["targets"]
            if not NEEDS_A_WEEK.search(target["expr"])
        }
        end = time.monotonic() + 60
        while waiting and time.monotonic() < end:
            time.sleep(2)
            try:
                waiting = {one for one in waiting if not prometheus.ask(one[2], 10)}
            except httpx.TransportError:  # it is starting
                continue
        assert not waiting
    finally:
        prometheus.stop()
