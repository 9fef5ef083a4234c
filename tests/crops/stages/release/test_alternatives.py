"""What was trained beside the challenger, made ready to be searched, with what it has learnt and no more."""

import pyarrow.parquet as pq

from crops.release import layout
from crops.release.encoder import OnnxEncoder
from crops.retriever.systems import BASE, BASELINE
from crops.stages.release import alternatives
from tests.crops.stages import toy_release as toy


def test_each_is_a_release_with_the_pairs_that_it_saw_and_is_made_once(tmp_path):
    trained = {
        name: toy.trained(tmp_path / name, seed=seed, system=name)
        for seed, name in enumerate((BASE, BASELINE, "crops"))
    }
    mined = toy.mined(tmp_path / "mined")
    pair = {"query": "subject0", "doc_id": toy.doc(0, 0)}
    samples = toy.write(
        tmp_path / "samples",
        ORIGINS=[{**pair, "perspective": name} for name in ("click", "feed", "exposed")],
        SAMPLES=[{**pair, "perspective": "click", "label": 4}],
    )
    made = alternatives.run(trained, mined, samples, tmp_path / "out")
    assert made.keys() == {BASE, BASELINE}
    for folder in made.values():
        layout.check(folder)
        assert OnnxEncoder(folder).encode(["subject0"]).shape[0] == 1
    pairs = {name: pq.read_table(path / layout.TRAINING_PAIRS).to_pylist() for name, path in made.items()}
    assert pairs[BASE] == [], "it is untouched"
    assert [(p["perspective"], p["label"], p["support"]) for p in pairs[BASELINE]] == [("click", 4, 1)]
    sealed = {name: (path / layout.CHECKSUMS).stat().st_mtime_ns for name, path in made.items()}
    assert alternatives.run(trained, mined, samples, tmp_path / "out") == made
    assert {n: (p / layout.CHECKSUMS).stat().st_mtime_ns for n, p in made.items()} == sealed
