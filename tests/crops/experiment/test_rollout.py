"""The verdict of every kind of look, worked by hand: what is not known never advances, a guardrail beats
everything.
"""

from dataclasses import replace

import numpy as np
import pytest

from crops.config.rollout import AB, Guardrail, RolloutConfig, Step
from crops.errors import ConfigError
from crops.experiment import rollout
from crops.experiment.rollout import ADVANCE, PROMOTE, ROLL_BACK, WAIT, Measurements, Readout, State

RAILS = (
    Guardrail(name="errors", kind="difference", limit=0.005, min_events=100, query="e", events="s"),
    Guardrail(name="p99", kind="ratio", limit=1.25, min_events=100, query="p", events="s"),
    Guardrail(
        name="ctr", kind="rate", limit=0.02, min_events=1000, higher_is_better=True, query="c", events="i"
    ),
)
PLAN = RolloutConfig(
    steps=(Step(coverage=0.01, dwell_s=60, min_users=10), Step(coverage=0.5, dwell_s=60, min_users=100)),
    guardrails=RAILS,
    ab=AB(min_s=600, max_s=6000, min_users=200),
    blind_limit_s=300,
    max_skew_s=30,
)
START = State(
    experiment="e", control="models:/crops/1", treatment="models:/crops/2", started_s=1000.0, entered_s=1000.0
)
FINE = Measurements(
    at_s=1100.0,
    values={
        "errors": {"control": 1, "treatment": 1},
        "p99": {"control": 0.1, "treatment": 0.11},
        "ctr": {"control": 1000, "treatment": 1010},
    },
    events={
        "errors": {"control": 1000, "treatment": 1000},
        "p99": {"control": 1000, "treatment": 1000},
        "ctr": {"control": 50_000, "treatment": 50_000},
    },
    served={"treatment": frozenset(["models:/crops/2"])},
    rejected=0,
    users=500,
)


def verdict(state=START, now_s=1100.0, **seen):
    found = replace(FINE, at_s=now_s, **seen)
    return rollout.decide(PLAN, state, found, now_s=now_s)


def changed(name, **sides):
    return {"values": {**FINE.values, name: {**FINE.values[name], **sides}}}


@pytest.mark.parametrize(
    "seen",
    [changed("ctr", treatment=0), {"rejected": 1}, {"served": {"treatment": frozenset(["models:/crops/9"])}}],
)
def test_what_prometheus_still_has_of_the_trial_before_ends_none_that_was_just_started(seen):
    """Ended and started anew under another name, as a runbook says: the arms have the same names."""
    assert verdict(now_s=1000.0 + rollout.LEAST_S - 1, **seen).kind == WAIT
    assert "of before the start" in verdict(now_s=1001.0, **seen).reason
    assert verdict(now_s=1000.0 + rollout.LEAST_S, **seen).kind == ROLL_BACK
    worse = Readout(verdict="worse", reason="CTR", users=500)
    assert verdict(now_s=1001.0, readout=worse, **seen).kind == ROLL_BACK, "a readout is of this rollout"


@pytest.mark.parametrize(
    ("seen", "kind", "words"),
    [
        ({}, ADVANCE, "next: step 2 at 50%"),
        (changed("errors", treatment=7), ROLL_BACK, "errors: 0.70% in treatment against 0.10%"),
        (changed("errors", treatment=5), ADVANCE, ""),
        (changed("p99", treatment=0.13), ROLL_BACK, "p99: 0.13 in treatment against 0.1"),
        (changed("p99", treatment=None), WAIT, "too little traffic to judge p99"),
        (changed("ctr", treatment=200), ROLL_BACK, "ctr: 0.40% in treatment against 2.00%"),
        (changed("ctr", treatment=0), ROLL_BACK, "ctr"),
        ({"rejected": 1}, ROLL_BACK, "1 release(s) refused"),
        (
            {"served": {"treatment": frozenset(["models:/crops/9"])}},
            ROLL_BACK,
            "treatment is served by models:/crops/9",
        ),
        ({"served": {}}, WAIT, "no gateway reports models:/crops/2"),
        ({"users": None}, WAIT, "number of users is not known"),
        ({"users": 9}, WAIT, "9 of 10 users"),
        ({"readout": Readout(verdict="worse", reason="CTR", users=500)}, ROLL_BACK, "readout: worse"),
        (
            {"readout": Readout(verdict="blocked", reason="SRM", users=500)},
            ROLL_BACK,
            "readout: blocked: SRM",
        ),
        ({"problem": "down"}, WAIT, "no measurements: down; waiting, rolled back in 300 s"),
    ],
)
def test_one_look_at_the_first_step(seen, kind, words):
    found = verdict(**seen)
    assert found.kind == kind, found
    assert words in found.reason


def test_time_decides_where_nothing_else_does():
    assert verdict(now_s=1059.0).kind == WAIT
    assert verdict(now_s=999.0).reason.startswith("the clock says 1 s before this step began")
    skewed = rollout.decide(PLAN, START, replace(FINE, at_s=1200.0), now_s=1100.0)
    assert (skewed.kind, "100 s apart" in skewed.reason) == (WAIT, True)
    blind = replace(START, blind_since_s=1000.0)
    assert rollout.decide(PLAN, blind, Measurements(problem="down"), now_s=1299.0).kind == WAIT
    assert rollout.decide(PLAN, blind, Measurements(problem="down"), now_s=1300.0).kind == ROLL_BACK


def test_the_ab_promotes_on_better_waits_on_less_and_ends_in_time():
    ab = replace(START, phase="ab", step=1)
    better, none = (Readout(verdict=v, reason="r", users=500) for v in ("better", "no difference"))
    assert verdict(ab, now_s=1500.0, readout=better).kind == WAIT, "not before min_s"
    assert verdict(ab, now_s=1700.0, readout=better).kind == PROMOTE
    assert verdict(ab, now_s=1700.0, readout=none).kind == WAIT
    assert verdict(ab, now_s=7000.0, readout=none).kind == ROLL_BACK
    assert verdict(ab, now_s=1700.0).reason == "no readout yet"


def test_states_follow_verdicts_and_end():
    steps, state = len(PLAN.steps), START
    state = rollout.after(state, rollout.Verdict(ADVANCE, ""), FINE, steps=steps, now_s=2000.0)
    assert (state.phase, state.step, state.entered_s) == ("canary", 1, 2000.0)
    state = rollout.after(state, rollout.Verdict(ADVANCE, ""), FINE, steps=steps, now_s=3000.0)
    assert (state.phase, state.entered_s) == ("ab", 3000.0)
    for kind, phase in ((PROMOTE, "promoted"), (ROLL_BACK, "rolled back")):
        over = rollout.after(state, rollout.Verdict(kind, ""), FINE, steps=steps, now_s=4000.0)
        assert over.phase == phase
        assert rollout.coverage(PLAN, over) == 0.0
        assert verdict(over).kind == WAIT
    assert [rollout.coverage(PLAN, s) for s in (START, replace(START, step=1), state)] == [0.01, 0.5, 1.0]


def test_the_arms_can_be_swapped_and_the_answer_flips():
    worse = changed("ctr", treatment=200)
    values = {
        "values": {
            name: {"control": s["treatment"], "treatment": s["control"]}
            for name, s in worse["values"].items()
        }
    }
    assert verdict(**worse).kind == ROLL_BACK
    assert verdict(**values).kind == ADVANCE


@pytest.mark.parametrize("events", [200, 2000])
def test_chance_alone_does_not_break_a_quantile_and_a_slow_release_does(events):
    """1000 pairs of arms with the same latencies (log-normal): plain p99s are 25 % apart far too often."""
    plan = RolloutConfig()
    rail = next(rail for rail in plan.guardrails if rail.name == "p99")
    rng = np.random.default_rng(0)
    control, treatment = (rng.lognormal(-3, 0.6, (1000, events)) for _ in range(2))

    def broken(slower, low, high):
        ratio = np.quantile(slower * treatment, low, axis=1) / np.quantile(control, high, axis=1)
        return float((ratio > rail.limit).mean())

    low, high = (rollout.quantile(plan, rail, arm, events) for arm in ("treatment", "control"))
    assert low < 0.99 < high
    if events == 200:
        assert broken(1.0, 0.99, 0.99) > 0.1, "what it is for"
    assert broken(1.0, low, high) <= plan.alpha / 5
    assert broken(4.0, low, high) > 0.95


def test_a_quantile_that_is_asked_for_must_be_named():
    rail = {"name": "p", "kind": "ratio", "events": "e", "min_events": 1, "limit": 2}
    for more in ({"query": "histogram_quantile($quantile, x)"}, {"query": "x", "quantile": 0.9}):
        with pytest.raises(ConfigError, match="go together"):
            Guardrail.parse(rail | more)
