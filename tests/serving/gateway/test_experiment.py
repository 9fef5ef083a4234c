"""The experiment's page goes by files that others write, at any moment."""

import json

import pytest

from serving.gateway import experiment

STATE = {"experiment": "winter", "phase": "canary", "step": 0, "started_s": 1_800_000_000.0}
READOUT = {"verdict": "better", "primary": "ctr", "reasons": ["r"], "metrics": {}}


@pytest.mark.parametrize(
    ("period", "shown"),
    [
        ({"since": "2027-01-15T08:00:00Z"}, True),  # the second at which it was started
        ({"since": "2027-01-15T07:59:00Z"}, False),
        ({"since": None}, True),
        ("half", True),
        (None, True),
    ],
)
def test_the_readout_of_the_trial_before_does_not_stand_beside_this_ones_arms(tmp_path, period, shown):
    (tmp_path / "rollout").mkdir()
    (tmp_path / "rollout/rollout.json").write_text(json.dumps(STATE))
    (tmp_path / "readout.json").write_text(json.dumps(READOUT | {"period": period}))
    page = experiment.status(str(tmp_path / "rollout"), None, tmp_path)
    assert page["rollout"]["experiment"] == "winter"
    assert (page["readout"] is not None) == shown


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, '{"metrics": [1]}', '{"metrics": {"ctr": 3}}'])
def test_a_readout_that_says_something_else_is_not_there_yet(tmp_path, text):
    (tmp_path / "readout.json").write_text(text)
    page = experiment.status(None, None, tmp_path)
    assert not (page["readout"] or {}).get("metrics")


def test_what_is_not_a_number_is_null_on_the_page(tmp_path):
    metrics = {"ctr": {"lift": float("nan"), "low": float("-inf")}}
    (tmp_path / "readout.json").write_text(json.dumps(READOUT | {"metrics": metrics}))
    page = experiment.status(None, None, tmp_path)
    json.dumps(page, allow_nan=False)
    assert page["readout"]["metrics"]["ctr"]["lift"] is None
