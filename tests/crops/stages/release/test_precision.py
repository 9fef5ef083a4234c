"""An export in fewer bits is measured on the log's queries, and refused in one sentence where it costs too
much.
"""

import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from crops.config.export import ExportConfig
from crops.config.index import IndexConfig
from crops.config.register import RegisterConfig
from crops.errors import InputError
from crops.release import layout
from crops.release.encoder import OnnxEncoder
from crops.stages.release import export, index, precision, register
from crops.tables import artifacts
from tests.crops.retriever import bases
from tests.crops.stages import toy_release as toy


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """trained/, float32/ and mined/ of the toy catalogue."""
    root = tmp_path_factory.mktemp("precision")
    toy.mined(root / "mined")
    toy.trained(root / "trained")
    export.run(root / "trained", root / "float32", ExportConfig())
    return root


@pytest.mark.parametrize(("kind", "least"), [("float16", 0.9999), ("int8", 0.99)])
def test_what_is_near_enough_is_kept_and_says_what_it_is(root, tmp_path, kind, least):
    cfg = ExportConfig(precision=kind)
    report = export.run(root / "trained", tmp_path / "out", cfg, documents=root / "mined")
    facts = artifacts.read_json(tmp_path / "out/export.json")
    assert (facts["precision"], facts["judged"], facts["queries"]) == (kind, True, 2 * toy.TOPICS)
    assert facts["float32"] - facts["found"] <= cfg.max_recall_loss
    assert facts["bytes"][1] < 0.6 * facts["bytes"][0]
    assert report.notes[0].startswith(f"{kind}: recall@100 ")
    assert artifacts.read_json(tmp_path / "out/encoder.json")["precision"] == kind
    one, other = (OnnxEncoder(folder).encode(toy.TEXTS) for folder in (root / "float32", tmp_path / "out"))
    assert bases.least_cosine(one, other) >= least
    index.run(tmp_path / "out", root / "mined", tmp_path / "index", IndexConfig())
    toy.write(tmp_path / "samples", ORIGINS=[])
    parts = (tmp_path / "out", tmp_path / "index", root / "mined", tmp_path / "samples")
    (tmp_path / "release").mkdir()
    register.assemble(tmp_path / "release", parts, RegisterConfig(probes=8))
    assert f"has {kind} weights; the folder float32" in (tmp_path / "release" / layout.CARD).read_text()


def test_two_towers_are_both_in_fewer_bits(root, tmp_path):
    toy.trained(tmp_path / "trained", shared=False)
    out, cfg = tmp_path / "out", ExportConfig(precision="int8")
    export.run(tmp_path / "trained", out, ExportConfig())
    whole = (out / layout.DOCUMENT_ENCODER).stat().st_size
    export.run(tmp_path / "trained", out, cfg, documents=root / "mined")
    assert (out / layout.DOCUMENT_ENCODER).stat().st_size < 0.5 * whole


def blurred(path, _kind):
    """The ONNX file at `path` with the rows of its largest tensor all alike."""
    model = onnx.load(path)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    rows = numpy_helper.to_array(largest)
    largest.CopyFrom(numpy_helper.from_array(np.broadcast_to(rows[9], rows.shape).copy(), largest.name))
    onnx.save(model, path)


@pytest.mark.parametrize("judged", [True, False])
def test_what_finds_less_is_refused_and_leaves_nothing(root, tmp_path, monkeypatch, judged):
    """Planted: int8 weights that have lost what tells words apart."""
    mined = tmp_path / "mined"
    shutil.copytree(root / "mined", mined)
    if not judged:
        for name in ("test_ct", "test_qr"):
            shutil.rmtree(mined / name)
    monkeypatch.setattr(precision.precision, "reduce", blurred)
    told = r"recall@100" if judged else r"the share of float32's first 100"
    with pytest.raises(
        InputError, match=rf"int8 is refused: {told} is 0\.\d+ on \d+ queries, in float32 "
    ) as error:
        export.run(root / "trained", tmp_path / "out", ExportConfig(precision="int8"), documents=mined)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_without_queries_there_is_no_answer(root, tmp_path):
    cfg = ExportConfig(precision="float16")
    with pytest.raises(InputError, match="float16 is tried on the log's queries: say --documents"):
        export.run(root / "trained", tmp_path / "out", cfg)
    mined = toy.write(tmp_path / "mined", DOCUMENTS=toy.DOCUMENTS, QUERIES=[])
    with pytest.raises(InputError, match="neither query nor document to try float16 with"):
        export.run(root / "trained", tmp_path / "out", cfg, documents=mined)
