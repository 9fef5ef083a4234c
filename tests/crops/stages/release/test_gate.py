"""The gate over planted evaluations: swapped systems flip the verdict, and the verb's exit code says it."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from crops.cli import release
from crops.config.gate import GateConfig
from crops.errors import InputError
from crops.stages.release import gate
from crops.tables import artifacts

CFG = GateConfig()


def planted(folder, *, at_20=0.0, **gains):
    """per_query.parquet of two systems: `a` has recall 0.5 ± noise, `b` as much plus the gain of the set. 40
    queries a set. The untouched `base` has 0.2 less than `a`.

    at_20: what `b` gains more among the first twenty.
    """
    folder.mkdir(parents=True)
    rows = []
    for name, gain in gains.items():
        noise = np.random.default_rng(len(name)).uniform(-0.1, 0.1, (2, 40))
        for n in range(40):
            for system, value in (("a", 0.5), ("b", 0.5 + gain), ("base", 0.3)):
                found = value + noise[0, n] + 0.1 * noise[1, n] * (system == "b")
                first = found + at_20 * (system == "b")
                rows.append(
                    {
                        "set": name,
                        "system": system,
                        "query": f"q{n}",
                        "recall_at_20": first,
                        "recall_at_100": found,
                    }
                )
    pq.write_table(pa.Table.from_pylist(rows), folder / "per_query.parquet")
    return folder


def facts(root, *, encode_ms=1.0, recall=1.0):
    for name, file, values in (
        ("export", "export.json", {"encode_ms": encode_ms}),
        ("index", "index.json", {"recall_against_exact": recall}),
    ):
        (root / name).mkdir(parents=True, exist_ok=True)
        artifacts.write_json(root / name / file, values)
    return {"export": root / "export", "index": root / "index"}


def verdict(root, metrics, *, challenger="b", champion="a", cfg=CFG, **numbers):
    gate.run(metrics, root / "out", cfg, **facts(root, **numbers), challenger=challenger, champion=champion)
    return artifacts.read_json(root / "out" / "verdict.json")


@pytest.mark.parametrize(("width", "asked", "says"), [(16, "b", "promote"), (8, "b@8", "reject")])
def test_what_is_asked_about_is_the_width_that_would_be_released(tmp_path, width, asked, says):
    """The whole vectors gain; their first 8 numbers lose."""
    metrics = planted(tmp_path / "m", qr_raw=0.1, qr=0.1, qr_tail=0.1, ct=0.0)
    rows = pq.read_table(metrics / "per_query.parquet").to_pylist()
    short = [
        {**row, "system": "b@8", "recall_at_100": 0.1, "recall_at_20": 0.1}
        for row in rows
        if row["system"] == "b"
    ]
    pq.write_table(pa.Table.from_pylist([*rows, *short]), metrics / "per_query.parquet")
    given = facts(tmp_path)
    artifacts.write_json(given["index"] / "index.json", {"recall_against_exact": 1.0, "width": width})
    gate.run(metrics, tmp_path / "out", CFG, **given, challenger="b", champion="a")
    found = artifacts.read_json(tmp_path / "out" / "verdict.json")
    assert (found["challenger"], found["verdict"]) == (asked, says)


def test_the_same_data_swapped_flips_the_verdict(tmp_path):
    metrics = planted(tmp_path / "m", qr_raw=0.1, qr=0.0, qr_tail=0.05, ct=0.0)
    there = verdict(tmp_path, metrics)
    back = verdict(tmp_path, metrics, challenger="a", champion="b")
    assert (there["verdict"], back["verdict"]) == ("promote", "reject")
    assert (there["champion"], back["champion"]) == ("a", "b")


@pytest.mark.parametrize(
    ("at_100", "at_20", "said"), [(0.0, 0.1, "promote"), (0.1, -0.2, "reject"), (0.0, 0.0, "reject")]
)
def test_the_gain_is_that_of_the_mean_of_20_and_100(tmp_path, at_100, at_20, said):
    """0 and +0.1: mean +0.05. +0.1 and -0.1: nothing."""
    metrics = planted(tmp_path / "m", at_20=at_20, qr_raw=at_100, qr=0.0, qr_tail=0.0, ct=0.0)
    assert verdict(tmp_path, metrics)["verdict"] == said


@pytest.mark.parametrize("guard", ["ct", "qr", "qr_tail"])
def test_a_loss_on_a_guardrail_rejects(tmp_path, guard):
    found = verdict(tmp_path, planted(tmp_path / "m", **{"qr_raw": 0.1, guard: -0.1}))
    assert found["verdict"] == "reject"
    assert found["reasons"][0].startswith(f"recall@100 on {guard}:")


def test_a_gain_on_ct_alone_promotes_nothing(tmp_path):
    assert verdict(tmp_path, planted(tmp_path / "m", qr_raw=0.0, ct=0.3))["verdict"] == "reject"


@pytest.mark.parametrize(
    ("numbers", "says"), [({"encode_ms": 51.0}, "median time"), ({"recall": 0.94}, "index recall")]
)
def test_index_recall_and_latency_are_bounds(tmp_path, numbers, says):
    found = verdict(tmp_path, planted(tmp_path / "m", qr_raw=0.1), **numbers)
    assert found["verdict"] == "reject"
    assert says in found["reasons"][0]


def test_unmeasured_latency_is_unknown_not_passed(tmp_path):
    assert verdict(tmp_path, planted(tmp_path / "m", qr_raw=0.1), encode_ms=None)["verdict"] == "unknown"


def test_recall_below_the_floor_rejects_however_much_better(tmp_path):
    found = verdict(tmp_path, planted(tmp_path / "m", qr_raw=0.1), cfg=GateConfig(min_recall=0.8))
    assert found["verdict"] == "reject"


def test_few_queries_are_unknown(tmp_path):
    found = verdict(tmp_path, planted(tmp_path / "m", qr_raw=0.1), cfg=GateConfig(min_queries=41))
    said = [f"qr_raw{against}: 40 queries, 41 are needed to tell" for against in ("", " against base")]
    assert (found["verdict"], found["reasons"]) == ("unknown", said)


def test_a_system_that_was_not_measured_is_named(tmp_path):
    metrics = planted(tmp_path / "m", qr_raw=0.1)
    with pytest.raises(InputError, match="holds no system 'crps'; systems: a, b, base"):
        verdict(tmp_path, metrics, challenger="crps")
    with pytest.raises(InputError, match="holds no system 'champion'"):
        verdict(tmp_path, metrics, champion="champion")
    with pytest.raises(InputError, match="no such file; expected a folder that `crops evaluate` wrote"):
        verdict(tmp_path, tmp_path)
    assert not (tmp_path / "out").exists()


def typed(root, metrics, *more):
    found = facts(root)
    command = [
        "--metrics",
        metrics,
        "--export",
        found["export"],
        "--index",
        found["index"],
        "--out",
        root / "out",
        *more,
    ]
    return CliRunner().invoke(release.gate, list(map(str, command)))


@pytest.mark.parametrize(
    ("gain", "queries", "code"),
    [(0.1, 30, 0), (-0.1, 30, 3), (0.1, 50, 4)],
    ids=["promote", "reject", "unknown"],
)
def test_exit_code_of_the_verb(tmp_path, gain, queries, code):
    config = tmp_path / "config.yaml"
    config.write_text(f"gate: {{min_queries: {queries}}}\n")
    sides = ["--challenger", "b", "--champion", "a", "--config", config]
    done = typed(tmp_path, planted(tmp_path / "m", qr_raw=gain), *sides)
    assert done.exit_code == code, done.output
    assert artifacts.read_json(tmp_path / "out" / "verdict.json")["verdict"] in done.output


def test_the_verb_holds_against_the_champion_where_it_was_measured(tmp_path):
    """Challenger `crops` beats `clicks` but not `champion`: the verb's default must not take the easier
    one.
    """
    folder = tmp_path / "m"
    folder.mkdir()
    rows = [
        {
            "set": "qr_raw",
            "system": system,
            "query": f"q{n}",
            "recall_at_20": value,
            "recall_at_100": value + n / 1000,
        }
        for n in range(40)
        for system, value in (("clicks", 0.4), ("crops", 0.5), ("champion", 0.6))
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "per_query.parquet")
    assert typed(tmp_path, folder).exit_code == 3
    assert artifacts.read_json(tmp_path / "out" / "verdict.json")["champion"] == "champion"


def several(folder, *, name="qr_raw", **means):
    """per_query.parquet of one set: each system's recall is its mean, a little apart from query to query."""
    folder.mkdir(parents=True)
    rows = [
        {
            "set": name,
            "system": system,
            "query": f"q{n}",
            "recall_at_20": mean + n / 1000,
            "recall_at_100": mean + n / 1000,
        }
        for n in range(40)
        for system, mean in means.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "per_query.parquet")
    return folder


def test_a_challenger_that_does_not_beat_the_untouched_base_is_refused(tmp_path):
    """Better than the champion by 10 points, and 5 below what its training started from."""
    metrics = several(tmp_path / "m", crops=0.6, champion=0.5, base=0.65)
    found = verdict(tmp_path, metrics, challenger="crops", champion=None)
    assert (found["verdict"], found["champion"]) == ("reject", "champion")
    assert found["reasons"] == [
        "mean of recall@20 and recall@100 on qr_raw against base: -0.0500 [-0.0500, -0.0500] on 40 queries"
    ]
    swapped = several(tmp_path / "swapped", crops=0.65, champion=0.5, base=0.6)
    assert verdict(tmp_path, swapped, challenger="crops", champion=None)["verdict"] == "promote"


def test_a_base_that_was_not_measured_leaves_it_unknown(tmp_path):
    metrics = several(tmp_path / "m", crops=0.6, champion=0.5)
    found = verdict(tmp_path, metrics, challenger="crops", champion=None)
    assert found["verdict"] == "unknown"
    assert found["reasons"] == ["qr_raw against base: 0 queries, 30 are needed to tell"]


@pytest.mark.parametrize(
    ("base", "clicks", "first"), [(0.6, 0.5, "base"), (0.5, 0.6, "clicks"), (0.5, 0.5, "clicks")]
)
def test_without_a_champion_it_is_held_against_the_better_of_base_and_clicks(tmp_path, base, clicks, first):
    metrics = several(tmp_path / "m", crops=0.7, base=base, clicks=clicks)
    found = verdict(tmp_path, metrics, challenger="crops", champion=None)
    assert (found["verdict"], found["champion"]) == ("promote", first)
    names = [check["name"] for check in found["checks"]]
    assert ("better on qr_raw than base" in names) == (first != "base"), "asked once"


def test_the_better_one_is_chosen_on_clicks_where_nobody_reformulated(tmp_path):
    assert gate.first(several(tmp_path / "m", name="ct", base=0.6, clicks=0.5)) == "base"
    assert gate.first(several(tmp_path / "none", name="qr", base=0.6, clicks=0.5)) == "clicks"


def test_queries_of_one_chain_are_one_piece_of_evidence(tmp_path):
    """Eighty queries that gain 1 or lose 0.5 by turns; a chain of all that gain leaves no certainty."""
    verdicts = {}
    for name, chain in (("alone", lambda n: None), ("together", lambda n: n % 2 if n % 2 else None)):
        rows = [
            {"set": "qr_raw", "system": s, "query": f"q{n:02d}", "recall_at_20": x, "recall_at_100": x}
            | {"chain": chain(n)}
            for n in range(80)
            for s, x in (("a", 0.5), ("base", 0.1), ("b", 1.0 if n % 2 else 0.3))
        ]
        (tmp_path / name).mkdir()
        table = pa.Table.from_pylist(rows).set_column(
            5, "chain", pa.array([r["chain"] for r in rows], pa.int64())
        )
        pq.write_table(table, tmp_path / name / "per_query.parquet")
        verdicts[name] = verdict(tmp_path / f"{name}-gate", tmp_path / name)["verdict"]
    assert verdicts == {"alone": "promote", "together": "reject"}
