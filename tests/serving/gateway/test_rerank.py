"""The gateway's re-ranker on a real Triton: its order, the dense one where it comes too late, and a release
without one.
"""

from pathlib import Path

import numpy as np
import pytest

from crops.config.export import ExportConfig
from crops.config.index import IndexConfig
from crops.config.register import RegisterConfig
from crops.errors import ConfigError
from crops.release import manifest
from crops.release.encoder import OnnxEncoder
from crops.release.manifest import Manifest
from crops.stages.learn import theta as thetas
from crops.stages.release import export, index, register
from serving.gateway.settings import Settings
from tests.crops.stages import toy_release as toy
from tests.serving import releases as toys
from tests.serving.gateway.test_gateway import Gateway, run, settings_for


@pytest.fixture(scope="module")
def reranked(tmp_path_factory, triton):
    """A release with a re-ranker, loaded by Triton, and the folder of its θ."""
    root = tmp_path_factory.mktemp("reranked")
    mined = toy.mined(root / "mined")
    pairs = [{"query": "subject1", "doc_id": toy.doc(1, 0), "perspective": "click"}]
    toy.write(root / "samples", ORIGINS=pairs)
    trained = toy.trained(root / "trained")
    theta = toy.theta(root / "theta", trained)
    export.run(trained, root / "onnx", ExportConfig(reranker=True), theta=theta)
    index.run(root / "onnx", mined, root / "index", IndexConfig())
    (root / "release").mkdir()
    parts = root / "onnx", root / "index", mined, root / "samples"
    register.assemble(root / "release", parts, RegisterConfig(probes=8))
    release = toys.named(root / "release", 7)
    models = triton.log.parent.parent / "models"
    toys.repository.write(Path(release.files), models, release.model, toys.INSTANCES)
    toys.control.load(triton.http, release.model, key=triton.key)
    return release, theta


def kept(gateway):
    """Searches that were answered in the dense order, of all arms."""
    (counter,) = gateway.service.metrics.rerank_kept.collect()
    return sum(sample.value for sample in counter.samples if sample.name.endswith("_total"))


def test_the_first_results_stand_as_theta_orders_them(tmp_path, triton, reranked):
    release, theta = reranked
    manifest.write(str(tmp_path / "manifest.json"), Manifest(generation=1, arms={"control": release}))
    settings = settings_for(tmp_path, triton, rerank=12, rerank_timeout_s=2.0)

    text = dict(zip((row["doc_id"] for row in toy.DOCUMENTS), toy.TEXTS, strict=True))
    encoder, judge = OnnxEncoder(Path(release.files)), thetas.load(theta)

    async def work():
        moved = []
        async with Gateway(settings) as gateway:
            served = gateway.service.holder.arms["control"]
            for query in ("part3 subject3", "subject1", "keyword5 clip2", "subject7 part1"):
                answer = (await gateway.search(query, k=15)).json()
                dense = served.index.search(encoder.encode([query]), 15)[1][0]
                ids = [served.index.ids[row] for row in dense]
                got = [row["video_id"] for row in answer["results"]]
                assert set(got[:12]) == set(ids[:12])
                assert got[12:] == ids[12:]
                judged, _ = judge.read([query] * 12, [text[i] for i in got[:12]], {})
                assert (np.diff(judged) <= 1e-4).all()
                moved.append(got != ids)
            assert kept(gateway) == 0
        assert any(moved)

    run(work())


def test_too_late_it_is_the_dense_order_and_counted(tmp_path, triton, reranked):
    release, _theta = reranked
    manifest.write(str(tmp_path / "manifest.json"), Manifest(generation=1, arms={"control": release}))

    async def work():
        async with Gateway(settings_for(tmp_path, triton, rerank=12, rerank_timeout_s=1e-6)) as gateway:
            answer = (await gateway.search("part3 subject3", k=15)).json()
            scores = [row["score"] for row in answer["results"]]
            assert scores == sorted(scores, reverse=True)
            assert kept(gateway) == 1

    run(work())


def test_a_release_without_one_is_refused_in_a_sentence(tmp_path, triton, releases):
    manifest.write(str(tmp_path / "manifest.json"), Manifest(generation=1, arms={"control": releases[0]}))

    async def work():
        async with Gateway(settings_for(tmp_path, triton, rerank=12)) as gateway:
            assert not gateway.service.holder.arms
            told = f"control: {releases[0].uri}: rerank is 12, but it was exported without a re-ranker"
            assert gateway.service.holder.problem == told

    run(work())


def test_fused_ranks_are_not_reranked():
    with pytest.raises(ConfigError, match="choose one"):
        Settings.parse({"manifest": "m", "rerank": 5, "fusion": True})
