"""The config file: strict, self-describing, and its printed form reads back as the defaults."""

import json
from pathlib import Path

import pytest
import yaml

from crops.config import all as configs
from crops.config.rollout import RolloutConfig
from crops.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]


def test_the_printed_config_is_the_defaults_and_every_key_is_explained():
    text = "\n".join(configs.commented())
    raw = yaml.safe_load(text)
    assert tuple(raw) == configs.SECTIONS
    for name in configs.SECTIONS:
        cls = configs.section_class(name)
        assert cls.parse(raw[name]) == cls()
        silent = [key for key, info in cls.model_fields.items() if len(info.description or "") < 15]
        assert not silent, f"{cls.__name__}: no description of {silent}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("augmnt: {}", "unknown section 'augmnt'"),
        ("augment: 3", "section 'augment' holds 3"),
        ("- 1", "expected a section per stage"),
        ("augment: {windw_s: 3}", "AugmentConfig knows no key 'windw_s'"),
        ("a: [", "not YAML"),
    ],
)
def test_a_mistake_names_the_file_and_the_key(tmp_path, text, expected):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        configs.load(path).section("augment")
    assert expected in str(error.value)
    assert str(path) in str(error.value)


def test_a_section_travels_as_json():
    config = configs.Config(raw={"augment": {}})
    assert configs.section_class("augment").from_json(config.section_json("augment")) == config.section(
        "augment"
    )
    assert list(json.loads(config.section_json("augment"))) == sorted(
        json.loads(config.section_json("augment"))
    )


def test_every_shipped_config_is_valid(request):
    shipped = sorted((request.config.rootpath / "configs").rglob("*.yaml"))
    assert shipped, "no config found"
    for path in shipped:
        for name in configs.SECTIONS:
            configs.load(path).section(name)


def test_the_example_of_a_rollout_is_the_defaults_written_out():
    found = configs.load(ROOT / "configs/rollout.yaml")
    assert found.section("rollout") == RolloutConfig()
    assert found.section("deploy").triton is None


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_config_that_we_give_can_be_read(path):
    found = configs.load(path)
    for name in found.raw:
        found.section(name)


def test_the_window_of_a_reformulation_is_set_once_and_a_section_may_override_it(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("reformulation: {window_s: 60}\nexperiment: {window_s: 30, primary: lpr}\n")
    config = configs.load(path)
    assert config.section("augment").window_s == 60
    assert json.loads(config.section_json("augment"))["window_s"] == 60
    assert config.section("experiment").window_s == 30
    assert configs.load(None).section("experiment").window_s == 90
    assert "\n".join(configs.commented()).count("\n  window_s: ") == 1, "a printed copy would override it"


def test_a_key_that_has_another_name_now_says_which():
    with pytest.raises(ConfigError, match=r"RolloutConfig\.window_s is called look_back_s now"):
        configs.Config(raw={"rollout": {"window_s": 600}}).section("rollout")


def test_a_proof_of_answers_needs_a_base_that_knows_language():
    with pytest.raises(ConfigError, match="ask a pre-trained base, and base is small"):
        configs.section_class("discriminate").parse({"base": "small", "round_trip": 10})
