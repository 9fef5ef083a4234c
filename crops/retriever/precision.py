"""An exported encoder in half the bytes, or a quarter: its ONNX file with float16 or int8 weights.

Both leave the numbers between the weights what they are for one text, whatever other texts lie in the batch:
serving puts batches together, and a release's vectors must not depend on whom a query met there. That is why
onnxruntime.quantization's dynamic quantisation, whose scale is one for the whole batch, is not used.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT32, FLOAT16, INT8 = "float32", "float16", "int8"
BLOCK = 32  # weights that share a scale, along a row or what a product sums over: what all kernels have
# What sums many numbers, which half precision cannot hold past 65,504, and what divides by their sum: a
# vector's length is then 1 to more than three digits.
KEPT = ("ReduceMean", "ReduceSum", "ReduceL2", "Pow", "Clip", "Expand", "Div")
INT8_KERNELS = 4  # MatMulNBits: the numbers that meet the weights become int8 too, block by block
APART = 6  # times the median column: static vectors have one that fills up their length
HALF = TensorProto.FLOAT16
MOST_BYTES = 2**31 - 1  # of a file that protobuf reads


def reduce(path: Path, precision: str) -> None:
    """Rewrites the ONNX file at `path`, float32 as it was exported, with weights of that precision; a
    ValueError where no weight of it can be int8.
    """
    before = _weights_beside(path)
    model = _float16(path) if precision == FLOAT16 else _int8(onnx.load(path))
    for name in before:
        (path.parent / name).unlink()
    outside = model.ByteSize() > MOST_BYTES
    onnx.save_model(model, path, save_as_external_data=outside, location=f"{path.name}.data")


def _weights_beside(path: Path) -> set[str]:
    """Names of the files that hold weights of a model too large for one file."""
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    return {entry.value for t in tensors for entry in t.external_data if entry.key == "location"}


def _float16(path: Path) -> onnx.ModelProto:
    from onnxruntime.transformers import float16

    kept = [*float16.DEFAULT_OP_BLOCK_LIST, *KEPT]
    model: onnx.ModelProto = float16.convert_float_to_float16(
        str(path), keep_io_types=True, op_block_list=kept
    )
    # What is kept is rounded behind every operator; between two of them, and at the end, it need not be.
    rounded = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Cast" and _to(n) == HALF}
    for node in model.graph.node:
        before = (
            rounded.get(node.input[0], "")
            if node.op_type == "Cast" and _to(node) == TensorProto.FLOAT
            else ""
        )
        if before.endswith("_cast_to_fp16"):  # so the converter names what was float32
            node.input[0] = before
    return model


def _to(cast: onnx.NodeProto) -> int:
    return next(int(a.i) for a in cast.attribute if a.name == "to")


def _int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Tables that are looked up in, and matrices of products, with a scale for each block of weights."""
    graph = model.graph
    matrices = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 2}
    uses = Counter(name for node in graph.node for name in node.input)
    nodes, reduced = [], set[str]()
    for node in graph.node:
        place = {"Gather": 0, "MatMul": 1}.get(node.op_type)
        name = node.input[place] if place is not None else ""
        rows_alone = not any(a.name == "axis" and a.i for a in node.attribute)
        if name not in matrices or uses[name] > 1 or not rows_alone:
            nodes.append(node)
            continue
        reduced.add(name)
        weights = numpy_helper.to_array(matrices[name])
        made, tensors = (_looked_up if node.op_type == "Gather" else _multiplied)(node, name, weights)
        nodes.extend(made)
        graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in tensors.items())
    if not reduced:
        raise ValueError("no table and no matrix of a product in it")
    left = [t for t in graph.initializer if t.name not in reduced]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(left)
    if all(opset.domain != "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def _looked_up(
    node: onnx.NodeProto, name: str, table: np.ndarray
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Rows of table float32 [V, H] by ids of any shape, in standard operators. Columns far larger than the
    others stay float32: their block would know nothing else.
    """
    rows, width = table.shape
    size = next(size for size in range(min(BLOCK, width), 0, -1) if width % size == 0)
    largest = np.abs(table).max(axis=0)
    apart = np.flatnonzero(largest > APART * np.median(largest))
    rest = table.copy()
    rest[:, apart] = 0
    values, scales = _quantised(rest.reshape(rows, -1, size))  # [V, blocks, size], [V, blocks, 1]
    ids, out = node.input[1], node.output[0]
    nodes = [
        helper.make_node("Gather", [f"{name}_int8", ids], [f"{out}_int8"]),
        helper.make_node("Cast", [f"{out}_int8"], [f"{out}_float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", [f"{name}_scales", ids], [f"{out}_scales"]),
        helper.make_node("Mul", [f"{out}_float", f"{out}_scales"], [f"{out}_blocks"]),
        helper.make_node("Shape", [ids], [f"{out}_ids"]),
        helper.make_node("Concat", [f"{out}_ids", f"{name}_width"], [f"{out}_shape"], axis=0),
        helper.make_node("Reshape", [f"{out}_blocks", f"{out}_shape"], [f"{out}_rest"]),
        helper.make_node("Gather", [f"{name}_apart", ids], [f"{out}_apart"]),
        helper.make_node("MatMul", [f"{out}_apart", f"{name}_places"], [f"{out}_placed"]),
        helper.make_node("Add", [f"{out}_rest", f"{out}_placed"], [out]),
    ]
    return nodes, {
        f"{name}_int8": values,
        f"{name}_scales": scales,
        f"{name}_width": np.array([width], dtype=np.int64),
        f"{name}_apart": table[:, apart],
        f"{name}_places": np.eye(width, dtype=np.float32)[apart],
    }


def _multiplied(
    node: onnx.NodeProto, name: str, matrix: np.ndarray
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """A product with matrix float32 [K, N] as ONNX Runtime's MatMulNBits: uint8 [N, blocks, BLOCK] around
    128, and float32 [N * blocks] scales.
    """
    inner, outer = matrix.shape
    blocks = -(-inner // BLOCK)
    parts = np.zeros((outer, blocks * BLOCK), dtype=np.float32)
    parts[:, :inner] = matrix.T
    values, scales = _quantised(parts.reshape(outer, blocks, BLOCK))
    product = helper.make_node(
        "MatMulNBits",
        [node.input[0], f"{name}_int8", f"{name}_scales"],
        [node.output[0]],
        domain="com.microsoft",
        K=inner,
        N=outer,
        bits=8,
        block_size=BLOCK,
        accuracy_level=INT8_KERNELS,
    )
    packed = (values.astype(np.int16) + 128).astype(np.uint8)
    return [product], {f"{name}_int8": packed, f"{name}_scales": scales.ravel()}


def _quantised(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 from -127 to 127 and the float32 scale of each block, which is the last axis."""
    scales = np.abs(blocks).max(axis=-1, keepdims=True) / 127 + np.finfo(np.float32).tiny
    return np.rint(blocks / scales).astype(np.int8), scales.astype(np.float32)
