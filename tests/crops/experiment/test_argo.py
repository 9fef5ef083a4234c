"""The guardrails as AnalysisTemplates, worked by hand and against promtool."""

import re
import shutil
import subprocess

import pytest
import yaml

from crops.config.rollout import GUARDRAILS
from crops.experiment import argo


def test_every_guardrail_of_the_rollout_is_asked_of_the_new_pods_and_the_old():
    gateway, triton = argo.templates()
    assert [m["name"].replace("-", " ") for m in gateway["spec"]["metrics"]] == [
        rail.name for rail in GUARDRAILS
    ]
    for metric in gateway["spec"]["metrics"] + triton["spec"]["metrics"]:
        query = metric["provider"]["prometheus"]["query"]
        assert "$" not in query
        assert "args.canary-hash" in query
        assert "args.stable-hash" in query


def test_a_difference_a_ratio_and_a_rate_by_hand():
    by_name = {m["name"]: m for m in argo.templates()[0]["spec"]["metrics"]}
    assert by_name["errors"]["successCondition"] == "len(result) == 0 || result[0] <= 0.005"
    assert by_name["p99"]["successCondition"] == "len(result) == 0 || result[0] <= 1.25"
    assert by_name["ctr"]["successCondition"] == "len(result) == 0 || result[0] >= -0.1"
    assert by_name["rqr"]["successCondition"] == "len(result) == 0 || result[0] <= 0.1"
    assert ">= 2000" in by_name["ctr"]["provider"]["prometheus"]["query"]


@pytest.mark.prometheus
def test_prometheus_can_read_every_query(tmp_path):
    if shutil.which("promtool") is None:
        pytest.skip("no promtool on this machine")
    queries = [m["provider"]["prometheus"]["query"] for t in argo.templates() for m in t["spec"]["metrics"]]
    rules = [
        {"record": f"q:{n}", "expr": re.sub(r"{{args\.(\w+)-hash}}", r"\1", query)}
        for n, query in enumerate(queries)
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "q", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "rules.yaml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
