"""The harness on a tiny world: one command from a log to the page; a second one trains nothing again."""

import json

import pytest
from click.testing import CliRunner

from crops.cli.main import main
from crops.config.all import Config
from crops.errors import InputError
from crops.evaluation import claims
from crops.evaluation.claims import TABLES
from crops.retriever import ablations, generative
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


def test_asked_for_more_it_makes_only_what_is_missing(done, monkeypatch):
    """Weights need the evidence that ablate lets mining collect; another budget is another knowledge, of
    which the rest of the row follows.
    """
    root, _said, _report = done
    again = []
    rows = ("all perspectives", "θ rejects answers", "weighed by age", "300 queries asked, unanswered")
    some = claims.Table(title="some", rows=rows, claims=(claims.Claim(rows[1], rows[0], "θ"),))
    monkeypatch.setitem(TABLES, "some", some)
    say = lambda name, *_: again.append(name)  # noqa: E731
    ablate.run(root / "logs", root / "out", CONFIG, tables=["losses", "some"], say=say)
    assert again == [
        *("discriminate", "label", "train θ-rejects-answers"),
        "train weighed-by-age",
        *("knowledge", "discriminate", "label", "train 300-queries-asked--unanswered"),
        "evaluate",
    ]


def test_every_row_of_every_table_is_a_variant_and_valid_settings():
    """A row's changes are settings that their sections take; every variant stands in a table."""
    every = ablations.variants(None)
    listed = {row for table in claims.tables().values() for row in table.rows}
    assert listed == set(every)
    for name, variant in every.items():
        for section in variant.changes:
            changed = ablate._changed(Config().section(section), variant, section)
            assert changed != Config().section(section), name


def test_the_list_of_rows_needs_no_log():
    told = CliRunner().invoke(main, ["ablate", "--list"])
    assert told.exit_code == 0
    for name, table in claims.tables().items():
        assert f"{name}: {table.title}" in told.output
        assert all(f"  {row} " in told.output for row in table.rows)


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
        tables=["losses", "fusion", "rerank", "generative"],
        say=lambda name, *_: made.append(name),
    )
    assert made == ["train dense", "evaluate"]
    assert (report.numbers["rows"], report.numbers["trainings"]) == (8, 4)
    found = json.loads((root / "out" / "ablation.json").read_text())
    assert [c["row"] for c in found["claims"]["generative"]] == ["dense_generative", "dense_generative_fused"]
    for row in found["values"].values():
        assert row["dense"] == row["all perspectives"]
        assert row["dense"] not in (row["dense_generative"], row["all perspectives_bm25"])
        # Twenty documents in another order: recall at 20 and 100 stay.
        full, reranked = row["all perspectives"], row["all perspectives_reranked"]
        assert [n for n in full if n != "seeds" and full[n] != reranked[n]] in (["ndcg_at_4"], [])
    values = found["values"].values()
    assert any(row["all perspectives"] != row["all perspectives_reranked"] for row in values)
    assert "A generative retriever beside the dense one" in (root / "out" / "ablation.html").read_text()
