"""Who gets what: shares, stickiness, widening, testers, and everything that GrowthBook alone would let
pass.
"""

import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crops.errors import ConfigError
from crops.experiment import assign, features
from crops.experiment.features import Experiment

START = datetime(2026, 1, 5, tzinfo=UTC)
USERS = [f"user-{n}" for n in range(10_000)]
LATER = START.timestamp() + 60


def experiment(**changes) -> Experiment:
    base = {
        "name": "crops-1",
        "salt": "s1",
        "coverage": 0.2,
        "control": "crops/1",
        "treatment": "crops/2",
        "start": START,
    }
    return Experiment.parse(base | changes)


def assigner(*experiments, now=LATER, **more) -> assign.Assigner:
    return assign.Assigner(features.render(list(experiments)), clock=lambda: now, **more)


def arms(*experiments, users=USERS, now=LATER) -> dict[str, str | None]:
    found = assigner(*experiments, now=now)
    return {user: found.assign(user).arm for user in users}


@pytest.mark.parametrize("coverage", [0.01, 0.2, 1.0])
def test_coverage_c_puts_half_of_c_of_all_users_into_each_arm(coverage):
    """Binomial: 10,000 users, standard error of a share s is sqrt(s (1 - s) / 10,000); 4 of them are
    allowed.
    """
    found = list(arms(experiment(coverage=coverage)).values())
    for arm in features.ARMS:
        share = coverage / 2
        assert abs(found.count(arm) / len(USERS) - share) <= 4 * (share * (1 - share) / len(USERS)) ** 0.5


def test_widening_moves_nobody_of_10_000_users():
    before: dict[str, str] = {}
    for coverage in (0.01, 0.05, 0.25, 0.5, 1.0):
        now = arms(experiment(coverage=coverage))
        assert {user: now[user] for user in before} == before
        assert len(before) < sum(arm is not None for arm in now.values())
        before = {user: arm for user, arm in now.items() if arm is not None}
    assert len(before) == len(USERS)


@settings(max_examples=15, deadline=None)
@given(
    steps=st.lists(st.floats(0, 1), min_size=2, max_size=4).map(sorted),
    share=st.floats(0.05, 0.95),
    salt=st.text(min_size=1, max_size=8),
)
def test_widening_moves_nobody_whatever_the_weights_and_the_salt(steps, share, salt):
    users = USERS[:200]
    seen: dict[str, str] = {}
    for coverage in steps:
        now = arms(experiment(coverage=coverage, salt=salt, weights=(1 - share, share)), users=users)
        assert all(now[user] == arm for user, arm in seen.items())
        seen |= {user: arm for user, arm in now.items() if arm is not None}


def test_another_salt_is_another_draw():
    one, two = arms(experiment(coverage=1.0)), arms(experiment(coverage=1.0, salt="s2"))
    same = sum(one[user] == two[user] for user in USERS) / len(USERS)
    assert abs(same - 0.5) < 0.02  # 4 standard errors


def test_testers_see_their_arm_and_count_nowhere():
    found = assigner(experiment(coverage=0.0, overrides={"ann": "treatment", "bob": "control"})).assign("ann")
    assert (found.arm, found.release, found.counted_arm) == ("treatment", "crops/2", None)


def test_nobody_before_the_start_and_nobody_outside():
    assert set(arms(experiment(coverage=1.0), now=START.timestamp() - 1).values()) == {None}
    assert assigner(experiment(coverage=0.0)).assign("a") == assign.NOBODY
    assert assigner().assign("a") == assign.NOBODY


def test_two_experiments_in_their_namespaces_share_no_user():
    one = experiment(coverage=1.0, namespace=(0.0, 0.5))
    two = experiment(name="crops-2", salt="s2", coverage=1.0, namespace=(0.5, 1.0), treatment="crops/3")
    found = assigner(one, two)
    names = [found.assign(user).experiment for user in USERS[:2000]]
    assert abs(names.count("crops-1") - 1000) < 100
    assert names.count("crops-1") + names.count("crops-2") == 2000


def test_the_file_reads_back_as_what_was_written(tmp_path):
    written = [
        experiment(
            overrides={"ann": "treatment", "bob": "control"}, namespace=(0.0, 0.4), weights=(0.7, 0.3)
        ),
        experiment(name="crops-2", salt="s2", namespace=(0.4, 1.0)),
    ]
    path = tmp_path / "features.json"
    path.write_text(json.dumps(features.render(written)))
    assert assign.load(path).experiments == written
    assert assign.load(tmp_path / "absent.json").assign("a") == assign.NOBODY


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"weights": (0.5, 0.6)}, "add up to 1"),
        ({"weights": (1.0, 0.0)}, "add up to 1"),
        ({"treatment": "crops/1"}, "in both arms"),
        ({"control": ""}, "control"),
        ({"coverage": 1.5}, "coverage"),
        ({"start": "2026-01-05T00:00:00"}, "no time zone"),
        ({"overrides": {"ann": "champion"}}, "unknown arms"),
        ({"namespace": (0.6, 0.4)}, "expected 0 <= from < to <= 1"),
        ({"covrage": 0.1}, "knows no key 'covrage'"),
    ],
)
def test_an_experiment_that_cannot_be_is_refused(changes, expected):
    with pytest.raises(ConfigError, match=expected):
        experiment(**changes)


def test_without_control_there_is_no_experiment():
    payload = features.render([experiment()])
    payload["features"]["release"]["rules"][0]["meta"] = [{"key": "treatment"}, {"key": "other"}]
    with pytest.raises(ConfigError, match="has no control"):
        assign.Assigner(payload)


def test_weights_that_growthbook_would_repair_in_silence_are_refused():
    payload = features.render([experiment()])
    payload["features"]["release"]["rules"][0]["weights"] = [0.5, 0.6]
    with pytest.raises(ConfigError, match="add up to 1"):
        assign.Assigner(payload)


def test_experiments_that_cannot_run_side_by_side_are_refused():
    for other, expected in [
        (experiment(name="b", salt="s2"), "overlap"),
        (experiment(name="b", namespace=(0.5, 1.0)), "share the salt"),
        (experiment(salt="s2"), "two experiments are called"),
    ]:
        with pytest.raises(ConfigError, match=expected):
            features.render([experiment(), other])


def test_an_unknown_release_is_named_with_its_arm():
    with pytest.raises(ConfigError, match=r"unknown release 'crops/2' for treatment; known: crops/1"):
        assign.Assigner(features.render([experiment()]), releases={"crops/1"})


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"features": {"release": {"rules": [{"key": "x"}]}}}'])
def test_a_file_that_is_no_features_file_is_named(tmp_path, text):
    path = tmp_path / "features.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"features\.json"):
        assign.load(path)


def test_a_running_experiment_may_only_widen():
    running = experiment()
    assert features.check_change(running, experiment(coverage=0.5)).coverage == 0.5
    for changes in (
        {"coverage": 0.1},
        {"salt": "x"},
        {"weights": (0.6, 0.4)},
        {"start": START + timedelta(hours=1)},
    ):
        with pytest.raises(ConfigError, match=f"{next(iter(changes))}"):
            features.check_change(running, experiment(**({"coverage": 0.2} | changes)))


def test_aborted_and_begun_anew_between_two_looks_it_is_another_trial():
    """Under one name, with a salt of its own, later; each of them alone is a change of what runs."""
    running, later = experiment(), START + timedelta(hours=1)
    anew = {"salt": "s2", "start": later, "coverage": 0.01, "treatment": "crops/3"}
    features.check_changes([running], [experiment(**anew)])
    for kept in ({"salt": "s1"}, {"start": START}, {"start": START - timedelta(hours=1)}):
        with pytest.raises(ConfigError, match="fixed while the experiment runs"):
            features.check_changes([running], [experiment(**(anew | kept))])


SWAPPED = [
    {"experiment": "crops-1", "arm": arm, "release": release}
    for arm, release in (("treatment", "crops/2"), ("control", "crops/1"))
]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("variations", SWAPPED),
        ("variations", [*SWAPPED[::-1], SWAPPED[0]]),
        ("ranges", [[0, 0.9], [0.9, 1]]),
        ("filters", [{"seed": "q", "ranges": [[0, 0.1]], "attribute": "id"}]),
        ("parentConditions", [{"id": "f", "condition": {"value": 1}}]),
        ("condition", {"now_s": {"$gte": START.timestamp()}, "id": {"$regex": "^user-1"}}),
        ("coverage", "0.2"),
        ("namespace", ["another", 0.0, 0.5]),
    ],
)
def test_a_rule_that_growthbook_reads_otherwise_than_this_module_is_refused(key, value):
    """Arms swapped, for one, moves every user while weights, salt and coverage are what they were."""
    payload = features.render([experiment()])
    payload["features"]["release"]["rules"][0][key] = value
    with pytest.raises(ConfigError, match=f"'crops-1': {key} is"):
        assign.Assigner(payload)


@pytest.mark.parametrize(
    "rule",
    [
        {"condition": {"id": {"$in": ["a"]}}, "force": SWAPPED[0]},  # would be counted
        {"condition": {"id": {"$nin": ["a"]}}, "force": SWAPPED[0] | {"tester": True}},
        {"condition": {"id": {"$in": ["a"]}}, "force": SWAPPED[0] | {"experiment": "x", "tester": True}},
        {"force": SWAPPED[0] | {"tester": True}},
    ],
)
def test_an_arm_is_forced_on_testers_by_name_alone(rule):
    payload = features.render([experiment()])
    payload["features"]["release"]["rules"].insert(0, rule)
    with pytest.raises(ConfigError, match="features: "):
        assign.Assigner(payload)


def test_a_default_that_puts_everybody_into_an_arm_is_refused():
    payload = features.render([experiment()])
    payload["features"]["release"]["defaultValue"] = SWAPPED[0]
    with pytest.raises(ConfigError, match="default value"):
        assign.Assigner(payload)


@pytest.mark.parametrize("start", [1e300, -1e300, math.nan, math.inf, "1"])
def test_a_start_that_is_no_moment_is_refused(start):
    payload = features.render([experiment()])
    payload["features"]["release"]["rules"][0]["condition"] = {"now_s": {"$gte": start}}
    with pytest.raises(ConfigError, match="our rules"):
        assign.Assigner(payload)


def test_what_was_rendered_is_read_again():
    for start in (1_700_000_000.123456789, 1_800_000_000.9999996, 1_750_000_000):
        one = experiment(start=datetime.fromtimestamp(start, UTC), overrides={"b": "control", "a": "control"})
        assert features.parse(json.loads(json.dumps(features.render([one])))) == [one]
