"""What was trained, as the stages said it."""

from crops.config.all import Config
from crops.report import made


def stage(name, **config):
    section = {**Config().section(name.split()[0]).model_dump(mode="json"), **config}
    return {"stage": name, "config": section, "versions": {"python": "3.11.7", "torch": "2.13.0"}}


def parts(stages):
    days = {"train": ["2026-01-01", "2026-01-02"], "valid": ["2026-01-02"], "test": ["2026-01-03"]}
    tables = {"searches": {"accepted": 1200, "shape": {"users": 30}}, "videos": {"accepted": 5}}
    return {
        "augment": {"days": days},
        "validate": {"tables": tables},
        "knowledge": {"asked": 2, "tokens": 1234, "model": "m"},
        "train": {"base": {"encodes": 0}, "crops": {"encodes": 2000}},
        "stages": stages,
    }


def test_days_log_base_seed_cost_and_versions_are_said():
    told = dict(made.facts({"seconds": {"a": 1.0, "b": 2.4}}, parts([stage("train crops", seed=7)])))
    assert told["Training days"] == "2026-01-01 to 2026-01-02 (2 days)"
    assert told["Held-out days"] == "2026-01-03"
    assert told["Log"] == "1,200 searches, 30 users, 5 videos"
    assert told["Seed"] == "7"
    wanted = "3 s in all stages together, 2,000 texts encoded in training, 1,234 tokens of the LLM"
    assert told["Cost"] == wanted
    assert told["Versions"] == "python 3.11.7, torch 2.13.0"


def test_what_is_not_known_is_left_out():
    nothing = {"augment": {}, "knowledge": {}, "train": {}, "stages": []}
    assert made.facts({"seconds": {"a": 1.0}}, nothing) == [("Cost", "1 s in all stages together")]


def test_settings_that_are_not_the_defaults_stand_beside_them():
    sections = made.settings([stage("train clicks", steps=9), stage("train crops", steps=9), stage("label")])
    assert list(sections) == ["label", "train"], "in the pipeline's order, each once"
    default = Config().section("train").steps
    assert made.changed(sections) == [("train.steps", 9, default)]


def test_two_versions_of_one_package_are_both_named():
    other = {"stage": "x", "versions": {"python": "3.12.1"}}
    assert made.versions([stage("label"), other])["python"] == "3.11.7 and 3.12.1"
