"""The samples and the ladder that the label stage makes of what discriminate scored."""

import pytest

from crops.config.label import LabelConfig
from crops.errors import InputError
from crops.stages.learn import label
from crops.tables import artifacts, records
from tests.crops.stages import toy_release as toy


def test_labels_of_it(chain, tmp_path):
    report = label.run(chain / "out", tmp_path / "out", LabelConfig(hierarchy="paper"), truth=chain / "truth")
    found = artifacts.read_json(tmp_path / "out" / "label.json")
    assert found["hierarchy"]["anchor_min_candidates"] == [1]
    samples = artifacts.read(tmp_path / "out", records.SAMPLES).to_pandas()
    assert len(samples) == len(samples.drop_duplicates(["query", "doc_id"])) == report.numbers["samples"]
    assert set(samples.loc[samples["perspective"] == "knowledge", "label"]) == {4}
    # Exposed: n = 1, 4 of each topic, both relevant; ranked: n = 2 and 5, both relevant too.
    assert found["rungs"]["truth"]["3"] == found["rungs"]["truth"]["2"]
    assert found["rungs"]["truth"]["3"]["share"] == 1.0


def test_a_pair_counts_in_the_ladder_under_its_final_label_only(chain, tmp_path):
    """One pair clicked and exposed, one exposed only: label 3 has one pair, not two."""
    one = {"query": "q", "later_query": None, "first_ts": 0, "support": 1, "kept": True}
    rows = [
        {**one, "doc_id": "a", "perspective": "click", "theta": 0.9},
        {**one, "doc_id": "a", "perspective": "exposed", "theta": 0.9},
        {**one, "doc_id": "b", "perspective": "exposed", "theta": 0.2},
    ]
    toy.write(tmp_path / "scored", SCORED=rows, KNOWLEDGE=[])
    label.run(tmp_path / "scored", tmp_path / "out", LabelConfig())
    found = artifacts.read_json(tmp_path / "out" / "label.json")
    assert {k: v["pairs"] for k, v in found["rungs"]["theta"].items()} == {"4": 1, "3": 1}
    assert found["ladder"]["3"] == pytest.approx(0.2)
    toy.write(tmp_path / "none", SCORED=[rows[2]], KNOWLEDGE=[])
    with pytest.raises(InputError, match="no positive pair is kept"):
        label.run(tmp_path / "none", tmp_path / "never", LabelConfig())
    toy.write(tmp_path / "other", SCORED=[*rows, {**rows[2], "perspective": "wish"}], KNOWLEDGE=[])
    with pytest.raises(InputError, match="no label for perspective 'wish'"):
        label.run(tmp_path / "other", tmp_path / "never", LabelConfig())
    assert not (tmp_path / "never").exists()
