"""The harness on a tiny world: one command from a log to the page; a second one trains nothing again."""

import json

import pytest

from crops.config.all import Config
from crops.errors import InputError
from crops.evaluation import claims
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


def test_where_nothing_is_registered_its_table_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="no installed package registers a perspective"):
        ablate.run(tmp_path / "logs", tmp_path / "out", CONFIG, tables=[claims.REGISTERED])
    assert not (tmp_path / "out").exists()


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
