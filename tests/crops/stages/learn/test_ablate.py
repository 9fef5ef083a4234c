"""The harness on a tiny world: one command from a log to the page; a second one trains nothing again."""

import json

import pytest

from crops.config.all import Config
from crops.retriever import generative
from crops.stages.learn import ablate
from crops.world import simulate

CONFIG = Config(
    raw={
        "train": {"base": "small", "steps": 4, "check_every": 2, "batch_queries": 16},
        "ablate": {"seeds": 1},
        "discriminate": {"base": "small", "epochs": 1, "max_pairs": 400, "dual_steps": 2, "ladder_pairs": 50},
    }
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    root = tmp_path_factory.mktemp("ablate")
    simulate.write(root / "logs", scale="tiny", seed=0)
    said = []
    report = ablate.run(
        root / "logs", root / "out", CONFIG, tables=["losses"], say=lambda name, *_: said.append(name)
    )
    return root, said, report


def test_rows_claims_and_page(done):
    root, said, report = done
    found = json.loads((root / "out" / "ablation.json").read_text())
    assert report.numbers["trainings"] == 3
    assert found["rows"]["one anchor a pass"]["encodes"] > 1.5 * found["rows"]["all perspectives"]["encodes"]
    assert [c["row"] for c in found["claims"]["losses"]] == ["one anchor a pass", "softmax-ce"]
    page = (root / "out" / "ablation.html").read_text()
    assert "Simulated data" in page
    assert "178" in page
    assert [name for name in said if name.startswith("train")] == [
        "train one-anchor-a-pass",
        "train softmax-ce",
        "train all-perspectives",
    ]


def test_asked_for_more_it_makes_only_what_is_missing(done):
    root, _said, _report = done
    again = []
    ablate.run(
        root / "logs",
        root / "out",
        CONFIG,
        tables=["losses", "answers"],
        say=lambda name, *_: again.append(name),
    )
    assert again == ["discriminate", "label", "train θ-rejects-answers", "evaluate"]


def test_rows_that_are_other_rankings_of_one_training_train_once(done, monkeypatch):
    """The dense row is the same training as all perspectives: the second retriever leaves it as it is."""
    monkeypatch.setattr(generative, "LEAST_STEPS", 3)
    monkeypatch.setattr(generative, "PASSES", 1)
    root, _said, _report = done
    made = []
    report = ablate.run(
        root / "logs",
        root / "out",
        CONFIG,
        tables=["losses", "generative"],
        say=lambda name, *_: made.append(name),
    )
    assert made == ["train dense", "evaluate"]
    assert (report.numbers["rows"], report.numbers["trainings"]) == (6, 4)
    found = json.loads((root / "out" / "ablation.json").read_text())
    assert [c["row"] for c in found["claims"]["generative"]] == ["dense_generative", "dense_generative_fused"]
    for row in found["values"].values():
        assert row["dense"] == row["all perspectives"]
        assert row["dense_generative"] != row["dense"]
    assert "A generative retriever beside the dense one" in (root / "out" / "ablation.html").read_text()
