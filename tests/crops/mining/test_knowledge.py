"""The prompt's blocks and fields, the exemplar, and what is accepted of an answer."""

import json
import re

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crops.config.knowledge import KnowledgeConfig
from crops.errors import ConfigError
from crops.mining import knowledge
from crops.text import document_text, normalise_query

VIDEO = {
    "caption": "Rye Bread",
    "tags": ["baking"],
    "cover": "Day 1",
    "keywords": ["bread"],
    "related_queries": ["how to bake"],
}


def answer(*videos):
    return json.dumps({"videos": videos})


def test_the_prompt_holds_the_blocks_in_order_and_every_field():
    system, user = knowledge.messages("rye", "a rye video", descriptions=4)
    assert (system["role"], user["role"]) == ("system", "user")
    text = system["content"] + "\n" + user["content"]
    places = [text.index(f"### {block}\n") for block in ("Role", "Format", "Rules", "Example", "Query")]
    assert places == sorted(places)
    assert all(field in user["content"] for field in knowledge.VIDEO["properties"])
    assert "4 objects" in user["content"]
    assert "query: rye\nvideo: a rye video" in user["content"]
    assert user["content"].endswith("### Query\nrye")


def test_a_chinese_log_is_asked_in_chinese_and_the_blocks_stay_in_their_order():
    prompt = knowledge.prompt_for("auto", ["红烧肉怎么做", "东京 vlog"], {})
    system, user = knowledge.messages("红烧肉", "家常红烧肉", descriptions=4, prompt=prompt)
    text = system["content"] + "\n" + user["content"]
    places = [text.index(f"### {block}\n") for block in ("角色", "格式", "规则", "示例", "查询")]
    assert places == sorted(places)
    assert all(field in text for field in knowledge.FIELDS)
    assert "包含 4 个对象" in text
    assert "查询：红烧肉\n视频：家常红烧肉" in text
    assert text.endswith("### 查询\n红烧肉")


def test_the_language_is_a_setting_or_the_queries_own():
    def rules(language, *queries):
        return knowledge.prompt_for(language, queries, {}).rules

    assert rules("auto", "rye bread") == rules("en", "红烧肉") == knowledge.ENGLISH.rules
    assert rules("zh", "rye bread") == rules("auto", "红烧肉") == knowledge.CHINESE.rules
    assert rules("German", "rye").endswith("- Write every text in German.")
    assert rules("auto", "東京の夜景").endswith("- Write every text in the language of the query.")


def test_an_unknown_block_is_refused():
    with pytest.raises(ConfigError, match="unknown blocks"):
        KnowledgeConfig.parse({"prompt": {"rolle": "x"}})


def test_own_blocks_replace_those_of_the_language_and_braces_of_queries_stay():
    prompt = knowledge.prompt_for("en", [], {"role": "You sell {items} shoes.", "query": "Shop: {query} {x}"})
    system, user = knowledge.messages("{exemplar} boots", "an example", descriptions=2, prompt=prompt)
    assert system["content"] == f"### Role\nYou sell {knowledge.MAX_ITEMS} shoes."
    assert user["content"].endswith("### Query\nShop: {exemplar} boots {x}")
    assert knowledge.ENGLISH.rules in user["content"]


@pytest.mark.parametrize(
    ("caption", "accepted"),
    [
        ("红" * 5_000, False),
        ("红烧肉，" * 40, True),  # 120 characters of a script without spaces: about 60 words
        ("红烧肉" * 140, False),  # 420: more than 200 words
        ("ข" * 5_000, False),
        ("x" * 5_000, False),  # one word, which the encoder would never read to its end
        ("rye bread " * 90, True),
        ("rye bread " * 110, False),
        ("!" * 5_000, False),
    ],
)
def test_an_answer_is_bounded_in_words_and_characters(caption, accepted):
    texts, reasons = knowledge.parse(answer({**VIDEO, "caption": caption}), exemplar=None)
    assert (len(texts), reasons) == ((1, []) if accepted else (0, ["too long"]))


def test_without_an_exemplar_there_is_no_example():
    assert "### Example" not in knowledge.messages("rye", None, descriptions=1)[1]["content"]


def test_the_exemplar_is_the_best_positive():
    """Clicks go before everything, more support before less, the lower id breaks ties; ranked videos are no
    exemplar.
    """
    mined = [
        ("a", "v9", "feed", 99),
        ("a", "v2", "click", 1),
        ("a", "v1", "click", 5),
        ("a", "v0", "click", 5),
        ("b", "v3", "exposed", 9),
        ("b", "v4", "feed", 1),
        ("c", "v5", "ranked", 9),
        ("d", "v6", "reformulation", 1),
        ("d", "v7", "feed", 9),
    ]
    queries = [("a", 1), ("b", 3), ("c", 2), ("d", 3), ("e", 1)]
    assert knowledge.choose(knowledge.first(queries, 9), mined) == [
        ("b", "v4"),
        ("d", "v6"),
        ("c", None),
        ("a", "v0"),
        ("e", None),
    ]
    assert knowledge.choose(knowledge.first(queries, 2), mined) == [("b", "v4"), ("d", "v6")]
    apart = {("b", "v4"), ("d", "v6"), ("a", "v0")}
    assert not apart & set(knowledge.choose(knowledge.first(queries, 9), mined, held_out=apart))


def test_an_accepted_description_is_a_document_text():
    accepted, rejected = knowledge.parse(answer(VIDEO), exemplar=None)
    assert (accepted, rejected) == (
        [document_text("Rye Bread", ["bread", "baking"], "Day 1", ["how to bake"])],
        [],
    )
    assert accepted == ["rye bread | bread baking | day 1 | how to bake"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not the JSON"),
        ("nonsense", "not the JSON"),
        ('{"videos": [{"caption": "', "not the JSON"),
        ("[]", "not the JSON"),
        ("3", "not the JSON"),
        ("[" * 100_000, "not the JSON"),
        ('{"videos": {}}', "no videos"),
        ('{"videos": []}', "no videos"),
        ('{"videos": ["x"]}', "no object"),
        (answer({**VIDEO, "tags": "baking"}), "field tags is no list"),
        (answer({**VIDEO, "keywords": [1]}), "field keywords"),
        (answer({**VIDEO, "caption": None}), "field caption is no text"),
        (answer({k: v for k, v in VIDEO.items() if k != "cover"}), "field cover is no text"),
        (answer({**VIDEO, "caption": "\ud83d"}), "half a character"),
        (answer({**VIDEO, "tags": ["\udc00"]}), "half a character"),
        (
            answer({"caption": " ", "tags": [], "cover": "", "keywords": [], "related_queries": []}),
            "empty description",
        ),
        (answer({**VIDEO, "caption": "word " * 201}), "too long"),
    ],
)
def test_what_is_rejected_has_a_reason(text, reason):
    accepted, rejected = knowledge.parse(text, exemplar=None)
    assert accepted == []
    assert len(rejected) == 1
    assert reason in rejected[0]


def test_lists_are_held_to_the_limits_and_repetitions_dropped():
    (text,), _ = knowledge.parse(
        answer({**VIDEO, "tags": ["a"] * 50, "keywords": [f"k{n}" for n in range(50)]}), exemplar=None
    )
    assert text == "rye bread | k0 k1 k2 k3 k4 k5 a | day 1 | how to bake"


def test_copies_and_repetitions_are_rejected_and_the_rest_kept():
    other = {**VIDEO, "caption": "Spelt"}
    accepted, rejected = knowledge.parse(
        answer(VIDEO, other, other), exemplar="Rye bread | bread  baking | day 1 | how to bake"
    )
    assert len(accepted) == 1
    assert accepted[0].startswith("spelt")
    assert rejected == ["copy of the example", "twice in one answer"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    max_leaves=8,
)
texts = st.lists(st.text(max_size=20), max_size=3)
video = st.fixed_dictionaries(
    {
        "caption": st.text(max_size=20),
        "tags": texts,
        "cover": st.text(max_size=20),
        "keywords": texts,
        "related_queries": texts,
    }
)


@settings(max_examples=50, deadline=None)
@given(st.lists(video | values, max_size=4))
def test_parse_agrees_with_the_schema_that_the_endpoint_is_sent(videos):
    """Whatever comes: nothing raises; a video that jsonschema refuses (limits aside, they are applied) is
    never accepted; accepted texts are distinct, normalised and can be written as UTF-8.
    """
    accepted, rejected = knowledge.parse(json.dumps({"videos": videos}), exemplar=None)
    loose = json.loads(re.sub(r', "maxItems": \d+', "", json.dumps(knowledge.VIDEO)))
    validator = jsonschema.Draft202012Validator(loose)
    assert len(accepted) + len(rejected) == max(1, len(videos))
    assert len(accepted) <= sum(validator.is_valid(v) for v in videos)
    assert len(set(accepted)) == len(accepted)
    for text in accepted:
        assert text == normalise_query(text) != ""
        text.encode()


@given(st.text())
def test_no_answer_raises(text):
    knowledge.parse(text, exemplar=None)


def test_ids_depend_on_the_text_alone():
    assert knowledge.doc_id("rye") == knowledge.doc_id("rye") != knowledge.doc_id("spelt")
    assert knowledge.doc_id("rye").startswith("knowledge:")
