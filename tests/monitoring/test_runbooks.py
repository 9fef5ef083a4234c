"""What a runbook says to run can be run: its commands have what they need, its queries are PromQL."""

import re
import shlex
import shutil
import subprocess

import click
import pytest
import yaml

from crops.cli.main import main
from serving.gateway.metrics import Metrics
from tests.monitoring.runbooks import OPERATIONS, ROOT, RUNBOOKS, commands_of, queries_of

RULES = sorted((ROOT / "monitoring/rules").glob("*.yaml"))
OF_PROMETHEUS = re.compile(r"\b(?:crops|slo)[_:][a-z0-9_:]+")


def lacking(command: str) -> list[str]:
    """The required options that a command does not give, and those that its verb does not have."""
    verb, words = main, shlex.split(command)[1:]
    while isinstance(verb, click.Group):
        verb = verb.commands.get(words[0]) or verb.get_command(click.Context(verb), words[0])
        assert verb is not None, command
        words = words[1:]
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    options = [one for one in verb.params if isinstance(one, click.Option)]
    required = [one for one in options if one.required and not one.envvar]
    return [one.opts[0] for one in required if not given & {*one.opts}] + sorted(
        given - {name for one in options for name in (*one.opts, *one.secondary_opts)}
    )


def test_every_command_of_a_runbook_has_what_its_verb_needs():
    pages = [*RUNBOOKS, OPERATIONS]
    commands = {(page.name, one) for page in pages for one in commands_of(page) if one.startswith("crops ")}
    assert len(commands) > 8
    assert not {(*one, *lacking(one[1])) for one in commands if lacking(one[1])}


def test_every_query_of_a_runbook_is_promql_of_series_that_there_are(tmp_path):
    if shutil.which("promtool") is None:
        pytest.skip("not run: promtool is not installed (tests/install_system_parts)")
    queries = [query for book in RUNBOOKS for query in queries_of(book)]
    assert len(queries) > 20
    rules = [{"record": f"q:{n}", "expr": query} for n, query in enumerate(queries)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "runbooks", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "rules.yaml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    families = list(Metrics().registry.collect())
    series = {sample.name for family in families for sample in family.samples}
    series |= {f"{one.name}{end}" for one in families for end in ("", "_total", "_bucket", "_count", "_sum")}
    recorded = re.findall(r"record: (\S+)", "".join(path.read_text() for path in RULES))
    assert {name for query in queries for name in OF_PROMETHEUS.findall(query)} <= series | {*recorded}
