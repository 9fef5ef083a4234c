"""Training on from a registered release, of a real registry: before the first step it has the vectors,
pooling and prompts of the release.
"""

import numpy as np
import pytest

from crops.config.export import ExportConfig
from crops.config.index import IndexConfig
from crops.config.register import RegisterConfig
from crops.errors import ConfigError, InputError
from crops.release import layout
from crops.release.encoder import OnnxEncoder
from crops.retriever import encoder as encoders
from crops.stages.learn import train
from crops.stages.release import export, index, register
from crops.tables import artifacts
from tests import shared
from tests.crops.stages import toy_release as toy
from tests.crops.stages.learn.test_train import CFG
from tests.crops.stages.learn.test_train import toy as samples_of

PROMPTS = {"query": "Instruct: Find\nQuery: ", "document": "Passage: "}
TEXTS = ["subject1", "part2 Subject3", "", "topic4 東京", "word " * 200]


@pytest.fixture(scope="module")
def champion(tmp_path_factory):
    """URI of the registry, and the release's folder: last-token pooling, two towers, prompts, vectors cut to
    16 of 256 numbers.
    """
    root = tmp_path_factory.mktemp("champion")
    toy.trained(root / "crops", pooling="last", shared=False)
    encoder = encoders.load(root / "crops")
    encoder.prompts, encoder.widths = PROMPTS, (16,)
    encoder.save(root / "crops/encoder", system="crops")
    export.run(root / "crops", root / "onnx", ExportConfig(width=16))
    mined = toy.mined(root / "mined")
    toy.write(root / "samples", ORIGINS=[{"query": "subject0", "doc_id": "d", "perspective": "click"}])
    index.run(root / "onnx", mined, root / "index", IndexConfig())
    uri = shared.new_registry(root / "registry")
    parts = (root / "onnx", root / "index", mined, root / "samples")
    register.run(*parts, root / "out", RegisterConfig(probes=4), registry=uri, alias="champion")
    return uri, root / "out/release"


@pytest.mark.parametrize("by", ["registry", "folder"])
def test_before_the_first_step_it_is_the_champion(champion, tmp_path, by):
    uri, release = champion
    cfg = CFG.model_copy(update={"base": "models:/crops/1" if by == "registry" else str(release)})
    data, expected = samples_of(tmp_path / "in"), OnnxEncoder(release)
    cfg = cfg.model_copy(update={"shared_towers": False, "steps": 3})
    train.run(data, data, tmp_path / "base", cfg, system="base", tracking=uri)
    untouched = encoders.load(tmp_path / "base")
    facts, before = (artifacts.read_json(f / layout.ENCODER) for f in (tmp_path / "base/encoder", release))
    assert {name: facts[name] for name in ("pooling", "prompts", "width", "shared")} == {
        name: before[name] for name in ("pooling", "prompts", "width", "shared")
    }
    assert facts["prompts"] == PROMPTS
    for kind in ("query", "document"):
        ours, theirs = untouched.encode(TEXTS, kind=kind), expected.encode(TEXTS, kind=kind)
        np.testing.assert_allclose((ours * theirs).sum(axis=1), 1.0, atol=1e-6)
    if by == "folder":
        train.run(data, data, tmp_path / "crops", cfg, system="crops")
        assert encoders.load(tmp_path / "crops").width == 16


def test_what_is_no_release_is_said(champion, tmp_path):
    uri, _release = champion
    data = samples_of(tmp_path / "in")
    with pytest.raises(ConfigError, match=r"^train.base is 'models:/crops', expected models:/NAME/VERSION$"):
        train.run(
            data, data, tmp_path / "out", CFG.model_copy(update={"base": "models:/crops"}), tracking=uri
        )
    bare = tmp_path / "bare"
    toy.trained(tmp_path / "crops")
    export.run(tmp_path / "crops", bare, ExportConfig(sentence_transformers=False))
    layout.seal(bare)
    with pytest.raises(InputError, match="has no weights to train on"):
        encoders.from_base(str(bare))
