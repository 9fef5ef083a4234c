"""The exported re-ranker orders as evaluation does, and an export that is to have one says what it lacks."""

import numpy as np
import pytest

from crops.config.export import ExportConfig
from crops.discriminator import model, rerank
from crops.errors import InputError
from crops.release import layout
from crops.release.encoder import OnnxEncoder
from crops.release.reranker import OnnxReranker
from crops.stages.learn import theta as thetas
from crops.stages.release import export
from crops.tables import artifacts
from serving.gateway.releases import Reranker
from tests.crops.stages import toy_release as toy

FIRST = 20


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """θ whose dual encoder is the release's own, and the export of both."""
    root = tmp_path_factory.mktemp("reranker")
    toy.trained(root / "trained", seed=0)
    toy.theta(root / "theta", root / "trained")
    done = export.run(root / "trained", root / "onnx", ExportConfig(reranker=True), theta=root / "theta")
    assert done.notes == (export.WORSE,), "who asks for one hears what was measured of it"
    return root


def test_the_slot_orders_the_first_results_as_evaluation_does(made):
    queries = ["subject1", "part3 subject3", "keyword5 clip2", "東京", ""]
    encoder, reader = OnnxEncoder(made / "onnx", threads=1), OnnxReranker(made / "onnx")
    dense = encoder.encode(queries) @ encoder.encode(toy.TEXTS, kind="document").T
    ranked = np.argsort(-dense, axis=1, kind="stable")[:, :40]
    judge = thetas.load(made / "theta")
    cosines = np.take_along_axis(dense, ranked, axis=1)
    expected = rerank.by_theta(
        judge, queries, toy.TEXTS, ranked, cosines, FIRST, temperature=judge.temperature
    )
    weights = artifacts.read_json(made / "onnx" / layout.RERANKER)["weights"]
    slot = Reranker(tuple(toy.TEXTS), tuple(weights))
    for query, row, scores, wanted in zip(queries, ranked, dense, expected, strict=True):
        logits = reader.logits([query] * FIRST, [slot.texts[n] for n in row[:FIRST]])
        order = slot.order(logits, scores[row[:FIRST]])
        theta, _ = judge.read([query] * FIRST, [toy.TEXTS[n] for n in row[:FIRST]], {})
        # Equal but for rounding: texts that θ holds for the same may stand either way round.
        assert theta[order] == pytest.approx(np.sort(theta)[::-1], abs=1e-5)
        assert row[order].tolist() == wanted[:FIRST].tolist() or len(set(theta.round(5))) < FIRST
    assert (ranked[:, :FIRST] != expected[:, :FIRST]).any()


def test_triton_takes_it_and_vectors_do_not_hang_on_it(made):
    names = [path.name for path in (made / "onnx").iterdir()]
    assert set(layout.RERANKER_FILES) <= {name for name in names if layout.of_model(name)}
    assert not any(layout.of_tower(name) for name in layout.RERANKER_FILES)


def test_without_theta_the_export_says_what_it_lacks(made, tmp_path):
    with pytest.raises(InputError, match="say --theta"):
        export.run(made / "trained", tmp_path / "onnx", ExportConfig(reranker=True))
    assert not (tmp_path / "onnx").exists()


def test_a_query_longer_than_its_half_is_cut_as_in_training(made):
    cross = model.load(made / "theta")
    pairs = cross.tokenize(["subject1 " * 90], ["part2"])
    assert OnnxReranker(made / "onnx").tokenize(["subject1 " * 90], ["part2"]) == pairs
